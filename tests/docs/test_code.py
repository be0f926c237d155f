"""Plugins that pages show in full work as they are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignzoo import discovery
from alignzoo.hooks import make_manager
from alignzoo.training.loop import train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/**/*.md")]
BLOCK = re.compile(r'^```python(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


def whole_plugins(page: Path) -> list[tuple[str, str]]:
    """The title and the code of each block that is a module with a plugin."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(title, code) for title, code in blocks if "import" in code and "@hookimpl" in code]


SHOWN = [
    pytest.param(code, id=f"{page.relative_to(ROOT)} {title}")
    for page in sorted(PAGES)
    for title, code in whole_plugins(page)
]
TUTORIAL = dict(whole_plugins(ROOT / "docs/tutorial.md"))


def write(tmp_path: Path, code: str) -> Path:
    path = tmp_path / "shown.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.mark.parametrize("code", SHOWN)
def test_a_plugin_on_a_page_loads_and_its_hooks_exist(tmp_path, code):
    plugin = discovery.load_plugin("algorithms", str(write(tmp_path, code)))
    make_manager({"shown": plugin()}, loss="alignzoo_loss" in discovery.hook_methods(plugin))


@pytest.mark.parametrize("name", TUTORIAL)
def test_an_algorithm_of_the_tutorial_takes_a_step(tmp_path, make_run, name):
    path = write(tmp_path, TUTORIAL[name])
    settings = {"task": "sums", "steps": 1, "batch_size": 2, "eval_size": 0, "max_new_tokens": 8}
    run = make_run(str(path), **settings)
    train(run)
    assert run.step == 1


def test_the_tutorial_has_three_plugins_and_a_package():
    assert list(TUTORIAL) == ["margin.py", "margin2.py", "mean.py"]
    assert "alignzoo new" in (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
