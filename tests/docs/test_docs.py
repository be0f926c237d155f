"""Documents that cannot rot: what they show is what is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from alignzoo import discovery, hooks
from alignzoo.algorithm import Traits
from alignzoo.options import options_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs/design.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
HOOKS = [name for name in vars(hooks) if name.startswith("alignzoo_")]
ALGORITHMS = list(discovery.discover("algorithms"))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_design_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hooks, hook)).parameters)
    assert f"`{hook}({arguments})" in DESIGN


def test_the_readme_shows_the_example_as_it_is():
    code = (ROOT / "examples/ipo.py").read_text(encoding="utf-8")
    assert code[code.index("from dataclasses") :].strip() in README


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_a_page_that_knows_its_options(name):
    found = discovery.find("algorithms", name)
    assert found.source is not None
    path = found.source.parent / "README.md"
    page = path.read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert f"]({path.relative_to(ROOT)})" in README
    algorithm = found.load()
    for option in options_of(algorithm):
        assert f"`{option.flag}`" in page
    metric = Traits.of(algorithm).progress_metric
    assert metric is None or f"`{metric}`" in METRICS


@pytest.mark.parametrize("page", [ROOT / "README.md", *ROOT.glob("plugins/**/*.md")])
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_page_of_judges_knows_the_options_of_a_server():
    from alignzoo_judges import ServerOptions

    page = (ROOT / "docs/judges.md").read_text(encoding="utf-8")
    rewards = (ROOT / "plugins/alignzoo_rewards/README.md").read_text(encoding="utf-8")
    for option in options_of(ServerOptions):
        assert f"`{option.name}`" in page
        assert f"`{option.name}`" in rewards
