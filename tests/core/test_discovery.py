"""Plugins of installed packages and of plain files: which one is meant, and who is at fault."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alignzoo import discovery, record
from alignzoo.discovery import api
from alignzoo.errors import BadInput
from alignzoo.options import options_of
from alignzoo.signals import catch_signals

ADDON = (
    "from alignzoo.discovery import hookimpl\n"
    "class Anneal:\n"
    '    """Cool down"""\n'
    "    @hookimpl\n"
    "    def alignzoo_round_end(self): ...\n"
)
MARK = "import sys\nsys.loaded_by_test = True\n"


@pytest.fixture
def clash(install) -> None:
    """Two packages that claim the add-on `anneal`, the second one with another as well."""
    install("first", "addons", {"anneal": "first_mod:Anneal"}, {"first_mod.py": ADDON})
    plugins = {"anneal": "second_mod:Anneal", "other": "second_mod:Anneal"}
    install("Second_Package", "addons", plugins, {"second_mod.py": ADDON})


@pytest.mark.usefixtures("clash")
def test_a_name_that_two_packages_claim_is_an_error_only_if_it_is_asked_for():
    assert list(discovery.discover("addons")) == [
        "Second_Package:anneal",
        "first:anneal",
        "other",
        "retention",
        "safe-rlhf",
    ]
    assert discovery.load_plugin("addons", "other").__module__ == "second_mod"
    with pytest.raises(BadInput) as error:
        discovery.load_plugin("addons", "anneal")
    for part in ("first (first_mod:Anneal)", "Second_Package (", "first:anneal", "no:PACKAGE"):
        assert part in error.value.message
    assert any("is claimed by" in problem for problem in discovery.find_problems())


@pytest.mark.usefixtures("clash")
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("first:anneal", "first_mod"),
        ("second-package:anneal", "second_mod"),
        ("Second_Package:anneal", "second_mod"),
    ],
)
def test_package_and_name_choose(name, module):
    assert discovery.is_plugin("addons", name)
    assert discovery.load_plugin("addons", name).__module__ == module


def test_the_packages_of_alignzoo_have_a_name_too():
    assert discovery.find_plugin("algorithms", "alignzoo:dpo").name == "dpo"
    assert not discovery.is_plugin("algorithms", "torch:dpo")


@pytest.mark.usefixtures("clash")
def test_a_blocked_plugin_or_package_is_left_out():
    with discovery.blocking(["second-package"]):
        assert discovery.load_plugin("addons", "anneal").__module__ == "first_mod"
        with discovery.blocking(["first:anneal"]), pytest.raises(BadInput, match="left out"):
            discovery.load_plugin("addons", "anneal")
        assert discovery.list_blocked() == ["second-package"]
    assert discovery.list_blocked() == []
    with (
        pytest.raises(BadInput, match="no plugin or package 'anneel'"),
        discovery.blocking(["anneel"]),
    ):
        pass


def test_a_blocked_plugin_is_not_imported(install):
    install("loud", "addons", {"loud": "loud:Anneal"}, {"loud.py": MARK + ADDON})
    with discovery.blocking(["loud"]), pytest.raises(BadInput, match="-p no:NAME"):
        discovery.load_plugin("addons", "loud")
    assert not hasattr(sys, "loaded_by_test")


@pytest.mark.usefixtures("clash")
def test_a_list_of_packages_leaves_out_the_others_but_not_alignzoo(monkeypatch):
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "second-package, absent")
    assert list(discovery.discover("addons")) == ["anneal", "other", "retention", "safe-rlhf"]
    assert any("'absent'" in problem for problem in discovery.find_problems())
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "")
    assert list(discovery.discover("addons")) == ["retention", "safe-rlhf"]
    with pytest.raises(BadInput, match="by ALIGNZOO_PLUGINS"):
        discovery.find_plugin("addons", "other")


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("addon", "bad:Anneal", "did you mean 'addons'"),
        ("addons", "bad", "write NAME = module:Class"),
        ("addons", "bad:Anneal\nno equals sign", "cannot be read"),
        ("addons", "absent:Anneal", "there is no module absent"),
        ("addons", "broken:Anneal", "broken.py, line 2: SyntaxError"),
        ("addons", "needy:Anneal", "needy.py, line 1: imports no_such_package, which is not"),
        ("addons", "bad:Aneal", "there is no Aneal"),
    ],
)
def test_a_broken_neighbour_is_named_and_stops_nobody(install, kind, value, problem):
    files = {
        "bad.py": ADDON,
        "broken.py": "x = 1\ndef f(:\n",
        "needy.py": f"import no_such_package\n{ADDON}",
    }
    install("bad", kind, {"bad": value}, files)
    install("good", "addons", {"good": "good_mod:Anneal"}, {"good_mod.py": ADDON})
    assert discovery.load_plugin("addons", "good").__name__ == "Anneal"
    (found,) = [line for line in discovery.find_problems() if "package bad" in line]
    assert problem in found


def test_nothing_is_wrong_with_what_alignzoo_installs():
    assert discovery.find_problems() == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("\n\nraise SystemExit\n", 3, "SystemExit"),
        ("class Stop(BaseException): ...\nraise Stop('no')\n", 2, "Stop: no"),
        ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        ("def f():\n    return 1 / 0\nf()\n", 2, "ZeroDivisionError"),
        ("x = 1\nimport no_such_package\n", 2, "no_such_package"),
        ("x = 1\nfrom alignzoo.loss import Los\n", 2, "Los"),
        ("def broken(:\n", 1, "SyntaxError"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_an_import_that_fails_names_the_plugin_and_its_line(install, text, line, words, is_file):
    folder = install("bad", "addons", {"bad": "bad_mod.addon:Anneal"}, {"bad_mod/addon.py": text})
    path = folder / "bad_mod/addon.py"
    with catch_signals(), pytest.raises(BadInput) as error:
        discovery.load_plugin("addons", str(path) if is_file else "bad")
    assert f"{path}, line {line}: " in error.value.message
    assert words in error.value.message
    assert is_file or "package bad" in error.value.message


def test_ctrl_c_while_a_plugin_is_imported_is_no_fault_of_it(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        discovery.load_plugin("addons", str(path))


def test_a_plain_file_imports_its_siblings_and_is_made_of_them(tmp_path):
    path, sibling = tmp_path / "with_sibling.py", tmp_path / "helper_of_test.py"
    path.write_text(f"import helper_of_test\n{ADDON}    rate = helper_of_test.RATE\n")
    sibling.write_text("RATE = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    with discovery.recording() as loaded:
        first = discovery.load_plugin("addons", str(path))
    assert first is discovery.load_plugin("addons", str(path))
    (one,) = loaded.values()
    assert (one.kind, one.name, one.package, one.version) == (
        "addons", str(path), "with_sibling", "file",
    )  # fmt: skip

    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert discovery.hash_plugin("addons", str(path)) == one.sha256
    sibling.write_text("RATE = 2  # another one\n")
    assert discovery.hash_plugin("addons", str(path)) != one.sha256
    assert discovery.load_plugin("addons", str(path)).rate == 2


def test_two_plain_files_of_one_name_keep_their_own_types(tmp_path):
    addon = ADDON.replace("class Anneal", "@dataclass\nclass Anneal")
    head = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from typing import Annotated\nfrom annotated_types import Ge\n"
    )
    paths = [tmp_path / str(bound) / "same.py" for bound in (1, 2)]
    for path in paths:
        path.parent.mkdir()
        number = f"Number = Annotated[int, Ge({path.parent.name})]\n"
        path.write_text(f"{head}{number}{addon}    number: Number = 5\n")
        discovery.load_plugin("addons", str(path))
    for path in paths:
        (option,) = options_of(discovery.load_plugin("addons", str(path)))
        assert option.bounds == f">= {path.parent.name}"


def test_a_plain_file_never_gets_another_module_for_its_sibling(tmp_path):
    (tmp_path / "random.py").write_text("")
    path = tmp_path / "mine.py"
    path.write_text(f"import random\n{ADDON}")
    with pytest.raises(BadInput, match=r"mine\.py: it imports 'random', and got .*python"):
        discovery.load_plugin("addons", str(path))


def test_a_plugin_is_made_of_what_it_imports_from_its_package(install):
    files = {
        "pack/__init__.py": "",
        "pack/addon.py": f"from . import maths\n{ADDON}",
        "pack/maths.py": "def f():\n    from pack.deep.er import x\n",
        "pack/deep/__init__.py": "",
        "pack/deep/er.py": "x = 1\n",
        "pack/other.py": "",
    }
    folder = install("pack", "addons", {"anneal": "pack.addon:Anneal"}, files)
    before = discovery.hash_plugin("addons", "anneal")
    (folder / "pack/other.py").write_text("x = 1\n")
    assert discovery.hash_plugin("addons", "anneal") == before
    (folder / "pack/deep/er.py").write_text("x = 2\n")
    assert discovery.hash_plugin("addons", "anneal") != before


def test_a_function_as_a_reward_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "reward_of_test.py").write_text("def long(): ...\n")
    with discovery.recording() as loaded, discovery.recording() as inner:
        discovery.load_function("reward_of_test.long")
    (one,) = inner.values()
    assert loaded == {}
    assert (one.kind, one.name) == ("rewards", "python:reward_of_test.long")
    (tmp_path / "reward_of_test.py").write_text("def long(): return 1\n")
    assert discovery.hash_plugin(one.kind, one.name) not in (None, one.sha256)


def test_every_built_in_plugin_has_a_source_to_hash():
    hashes = {
        (kind, name): discovery.hash_plugin(kind, name)
        for kind in ("algorithms", "tasks", "rewards", "samplers", "addons")
        for name in discovery.discover(kind)
    }
    assert all(hashes.values())
    assert hashes["algorithms", "online-dpo"] != hashes["algorithms", "xpo"]


def write_versions(tmp_path: Path, stated: object) -> str:
    path = tmp_path / "versioned.py"
    path.write_text(f"{ADDON}    api_version = {stated!r}\n")
    return str(path)


def test_a_plugin_of_a_newer_api_is_refused(tmp_path):
    newer = write_versions(tmp_path, api.API_VERSION + 1)
    with pytest.raises(BadInput, match=r"versioned\.py was written for version .*\n.*upgrade"):
        discovery.load_plugin("addons", newer)
    with pytest.raises(BadInput, match="no version of the plugin API"):
        discovery.load_plugin("addons", write_versions(tmp_path, "1.0"))


def test_a_plugin_of_an_older_api_is_told_what_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "API_VERSION", 3)
    monkeypatch.setattr(api, "API_CHANGES", {2: "rows have ids", 3: "losses are sums"})
    with pytest.warns(discovery.OldPlugin) as caught:
        discovery.load_plugin("addons", write_versions(tmp_path, 2))
    (warning,) = caught
    assert "version 2 of the plugin API; this is version 3" in str(warning.message)
    assert "losses are sums" in str(warning.message)
    assert "rows have ids" not in str(warning.message)


def plugin(**facts: str) -> dict[str, str]:
    return {"kind": "addons", "name": "a", "package": "p", "version": "1", "sha256": "x"} | facts


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ({"sha256": "y"}, "the code of addon a has changed"),
        ({"sha256": "y", "version": "2"}, "has changed: it was p 1 and is p 2"),
        ({"package": "q"}, "it was p 1 and is q 1"),
    ],
)
def test_a_run_with_changed_plugins_is_resumed_only_if_told(tmp_path, now, change):
    facts = {"recipe": {"algorithm": "dpo"}, "fingerprints": {}, "results": {}}
    begun = {**facts, "plugins": [plugin(), plugin(kind="judges")]}
    record.create_record(tmp_path / "one", begun).close()
    present = {**facts, "plugins": [plugin(**now)]}
    with pytest.raises(BadInput, match=change):
        record.reopen_record(tmp_path / "one", present)
    resumed = record.reopen_record(tmp_path / "one", present, allow_changes=True)
    assert change in resumed.notes[0]

    # What is loaded when the run starts, as judges are, is compared then.
    changed = [plugin(kind="judges", sha256="z")]
    with pytest.raises(BadInput, match="the code of judge a has changed"):
        resumed.add_plugins(changed, allow_changes=False)
    resumed.add_plugins(changed, allow_changes=True)
    resumed.set_status("running")
    resumed.close()
    stored = record.read_run(tmp_path / "one")
    assert stored["plugins"] == [plugin(**now), *changed]
    assert len(stored["changes"]) == 2


def test_a_run_of_an_older_version_is_resumed_and_told_that_nothing_is_known(tmp_path):
    facts = {"recipe": {"algorithm": "dpo"}, "fingerprints": {}, "results": {}}
    old = {**facts, "plugin": {"package": "p", "version": "1", "sha256": "x"}, "sources": {"a": ""}}
    record.create_record(tmp_path / "one", old).close()
    resumed = record.reopen_record(tmp_path / "one", {**facts, "plugins": [plugin()]})
    resumed.close()
    assert record.algorithm_hash(old) == "x"
    assert record.algorithm_hash(resumed.facts) == "x"
    assert "their code may have changed" in resumed.notes[0]
    assert resumed.facts["plugins"] == [plugin()]
