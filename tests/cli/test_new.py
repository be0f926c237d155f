"""`alignzoo new`: what it writes, and what it refuses. `.ci/packages` runs the packages' tests."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from alignzoo import BadInput, discovery
from alignzoo.cli.options import run_class
from alignzoo_new.command import NewCommand, check_name
from alignzoo_new.write import KINDS, Package


def new(*words: str) -> None:
    assert not run_class(NewCommand, list(words), "alignzoo new", argument="name")


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with a package of every kind."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        new(f"my-{kind}", "--kind", kind, "--out", str(folder))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_leads_to_a_plugin(packages, kind, monkeypatch):
    folder = packages / f"my-{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    group = f"alignzoo.{kind}s"
    assert group.removeprefix("alignzoo.") in discovery.GROUPS
    assert list(project["entry-points"]) == [group]
    monkeypatch.syspath_prepend(folder)
    [(name, value)] = project["entry-points"][group].items()
    plugin = EntryPoint(name, value, group).load()
    assert name == f"my-{kind}"
    assert plugin.__doc__ and "\n" not in plugin.__doc__


def test_what_is_written_is_clean(packages):
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    style = ["--isolated", "--line-length", "100"]
    rules = ["--select", "E,F,W,I,B,UP,C4,SIM,PT,PIE,RET"]
    for folder in packages.iterdir():
        for words in (["check", *rules], ["format", "--check"]):
            done = subprocess.run(
                [*ruff, *words, *style, "."], cwd=folder, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout


def test_it_says_what_to_do_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new("soft-margin")
    assert capsys.readouterr().out.splitlines() == [
        "edit:     soft-margin/alignzoo_soft_margin.py",
        "check:    alignzoo check soft-margin/alignzoo_soft_margin.py",
        "install:  pip install -e soft-margin && alignzoo run soft-margin",
    ]


@pytest.mark.parametrize(
    "name", ["", "Soft", "9lives", "a b", "a/b", "../a", "-a", "a-", "a--b", "é", "x" * 61]
)
def test_a_name_that_no_module_can_have_is_refused(name):
    with pytest.raises(BadInput, match="cannot be the name of a plugin"):
        check_name(Package(name, "algorithm"))


@pytest.mark.parametrize("name", ["dpo", "style", "vllm", "table", "compare"])
def test_the_name_of_an_installed_plugin_is_refused(name):
    with pytest.raises(BadInput, match=f"'{name}' already names one of the .* of package alignzoo"):
        check_name(Package(name, "reward"))


def test_the_name_of_an_installed_module_is_refused():
    with pytest.raises(BadInput, match="module 'alignzoo_judges' is installed already"):
        check_name(Package("judges", "judge"))


@pytest.mark.parametrize("name", ["random", "for", "json", "my_loss2"])
def test_names_of_other_modules_and_words_of_python_are_free(name, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "discover", lambda kind: {})
    check_name(Package(name, "reward"))
    package = Package(name, "reward")
    for file, text in package.render().items():
        if file.endswith(".py"):
            ast.parse(text)


def test_a_folder_that_exists_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soft-margin").mkdir()
    with pytest.raises(BadInput, match="nothing was written"):
        NewCommand("soft-margin").main()
    assert not list((tmp_path / "soft-margin").iterdir())


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        NewCommand("soft-margin", out=str(tmp_path / "file")).main()
