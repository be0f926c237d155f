"""The wheel: what anybody installs holds the core, the plugins and the suite, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_what_is_in_it(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    tops = {name.split("/")[0] for name in sizes if ".dist-info" not in name}
    assert tops == {
        "alignzoo",
        "alignzoo_check",
        "alignzoo_compare",
        "alignzoo_doctor",
        "alignzoo_environments",
        "alignzoo_export",
        "alignzoo_judges",
        "alignzoo_label",
        "alignzoo_lm_eval",
        "alignzoo_new",
        "alignzoo_optimizers",
        "alignzoo_rewards",
        "alignzoo_sandbox",
        "alignzoo_suite",
        "alignzoo_tasks",
        "alignzoo_view",
        "alignzoo_vllm",
        "alignzoo_zoo",
    }
    for model in ("zoo_tiny", "zoo_critic", "zoo_scout", "zoo_abacus"):
        assert 1_000_000 < sizes[f"alignzoo_suite/{model}/model.safetensors"] <= 6_000_000
        assert f"alignzoo_suite/{model}/tokenizer.json" in sizes
    assert {"alignzoo/py.typed", "alignzoo_judges/principles.yaml"} <= sizes.keys()
    assert "alignzoo_suite/acts.yaml" in sizes
    assert "alignzoo_new/templates/pyproject.toml.j2" in sizes
    page = {f"alignzoo_compare/report/page.{end}" for end in ("html.j2", "css", "js")}
    assert page <= sizes.keys()
    pages = {f"alignzoo_label/templates/page.{end}" for end in ("html", "css", "js")}
    assert pages | {"alignzoo_export/templates/card.md.j2"} <= sizes.keys()


def test_it_lists_its_plugins_when_unpacked_anywhere(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys"
        f"; sys.path.insert(0, {str(tmp_path)!r})"
        "; import alignzoo; assert alignzoo.__file__.startswith(sys.path[0]), alignzoo.__file__"
        "; from alignzoo.cli import main; main(['plugins', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    names = {entry["name"] for entry in json.loads(done.stdout)}
    assert {"kto", "bco", "orpo", "simpo", "cpo", "slic", "grpo", "rloo", "spin"} <= names
    assert {"online-dpo", "xpo", "nash-md", "sppo", "self-rewarding"} <= names
    assert "vllm" in names
    assert {"dpo", "sft", "pretrain", "reward", "style", "sums"} <= names
