"""Discovery by name, and the traps of pluggy turned into messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignzoo import Loss, discovery, hooks
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput


class Provider:
    @hookimpl
    def alignzoo_loss(self, run, batch):
        return Loss(torch.tensor(3.0, requires_grad=True), torch.tensor(1))


def test_a_misspelt_name_gets_the_near_one():
    with pytest.raises(BadInput, match="did you mean 'dpo'"):
        discovery.find_plugin("algorithms", "dpoo")


def test_listing_imports_no_plugin_and_no_torch():
    code = (
        "import sys; from alignzoo.discovery import GROUPS, discover\n"
        "found = [f.summary for k in GROUPS for f in discover(k).values()]\n"
        "assert all(found) and len(found) >= 5, found\n"
        "bad = {'torch', 'alignzoo_zoo', 'alignzoo_suite'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plain_file_is_a_plugin(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from alignzoo import hookimpl\n"
        "@dataclass(eq=False)\nclass Mine:\n    beta: float = 2.0\n"
        "    @hookimpl\n    def alignzoo_loss(self, run, batch):\n        return self.beta\n"
    )
    cls = discovery.load_plugin("algorithms", str(path))
    assert cls().beta == 2.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", ["exactly one class", "none"]),
        ("def broken(:\n", ["line 1", "SyntaxError"]),
        ("import no_such_thing\n", ["no_such_thing"]),
    ],
)
def test_a_plain_file_that_is_no_plugin_is_named(tmp_path: Path, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        discovery.load_plugin("algorithms", str(path))
    assert all(word in error.value.message for word in [*words, "mine.py"])


class Misspelt(Provider):
    @hookimpl
    def alignzoo_los(self, run, batch): ...


class WithDefault:
    @hookimpl
    def alignzoo_loss(self, run, batch=None): ...


class KeywordOnly:
    @hookimpl
    def alignzoo_loss(self, run, *, batch): ...


class WrongArgument:
    @hookimpl
    def alignzoo_loss(self, run, minibatch): ...


class OldWrapper(Provider):
    @hookimpl(hookwrapper=True)
    def alignzoo_step(self):
        yield


class WithoutYield(Provider):
    @hookimpl(wrapper=True)
    def alignzoo_step(self):
        return None


class WithYield(Provider):
    @hookimpl
    def alignzoo_step(self):
        yield


class Unmarked(Provider):
    def alignzoo_step(self, run, step, metrics): ...


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Misspelt(), ["alignzoo_los", "did you mean 'alignzoo_loss'"]),
        (WithDefault(), ["'batch'", "alignzoo_loss(self, run, batch)"]),
        (KeywordOnly(), ["'batch'", "keyword-only"]),
        (WrongArgument(), ["'minibatch'", "run, batch"]),
        (Unmarked(), ["alignzoo_step", "@hookimpl"]),
        (OldWrapper(), ["old style", "@hookimpl(wrapper=True)"]),
        (WithoutYield(), ["alignzoo_step wraps its hook and has no yield"]),
        (WithYield(), ["alignzoo_step has a yield", "@hookimpl(wrapper=True)"]),
    ],
)
def test_each_trap_has_its_message(plugin, words):
    with pytest.raises(BadInput) as error:
        hooks.make_manager({"mine": plugin})
    assert all(word in error.value.message for word in [*words, "mine"]), error.value.message


def test_two_losses_are_refused_and_none_as_well():
    with pytest.raises(BadInput, match="found .*two.*one|found .*one.*two"):
        hooks.make_manager({"one": Provider(), "two": Provider()})
    with pytest.raises(BadInput, match="found none"):
        hooks.make_manager({})


def test_a_wrapper_is_no_second_loss():
    class Doubles:
        @hookimpl(wrapper=True)
        def alignzoo_loss(self, run, batch):
            loss = yield
            return Loss(2 * loss.sum, loss.count)

    pm = hooks.make_manager({"one": Provider(), "two": Doubles()})
    assert pm.hook.alignzoo_loss(run=None, batch=None).mean == 6.0


def test_properties_of_a_plugin_are_never_touched():
    class Touchy(Provider):
        @property
        def explode(self):
            raise RuntimeError("touched")

    hooks.make_manager({"one": Touchy()})
