"""A plugin under check, of any kind but algorithms: how it is built, and in what run it works."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch

from alignzoo import discovery
from alignzoo.errors import NotAvailable
from alignzoo.options import MISSING, build, options_of, quote, to_json_value
from alignzoo.run import Run
from alignzoo.testing.laws import Broken
from alignzoo.testing.stage import prepare_run, usual_settings

CHECK_OPTIONS = "check_options"  # the attribute of a plugin: the options to check it with


@dataclass
class Subject:
    """A plugin under check. A subclass for each kind says how it works.

    Args:
        name: of the plugin, or the path of its file.
        options: of the plugin. They win over those that it states in `check_options`.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str]

    @cached_property
    def cls(self) -> type:
        """Return the class of the plugin."""
        return discovery.load_plugin(self.kind, self.name)

    @property
    def all_options(self) -> dict[str, Any]:
        """Return the options to check with. Raise `NotAvailable` if a required one is missing."""
        found = {**getattr(self.cls, CHECK_OPTIONS, {}), **self.options}
        for option in options_of(self.cls):
            if option.default is MISSING and option.name not in found:
                raise NotAvailable(
                    f"option {option.flag} is required",
                    hint=f"give it as {self.name},{option.name}=VALUE, or in {CHECK_OPTIONS}",
                )
        return found

    @property
    def text(self) -> str:
        """Return `NAME,OPTION=VALUE...` with the options to check with."""
        values = {name: quote(str(to_json_value(x))) for name, x in self.all_options.items()}
        return ",".join([self.name, *(f"{name}={value}" for name, value in values.items())])

    @cached_property
    def plugin(self) -> Any:
        """Return the plugin with its options."""
        return build(self.cls, self.all_options, self.name)

    def fresh(self) -> Subject:
        """Return a subject of its own for the same plugin, which nothing has used."""
        return replace(self)

    def start(self) -> None:
        """Let the plugin do all that it does before its work begins."""

    def observe(self) -> Any:
        """Return what the plugin gives for the usual input, as something to compare."""
        raise NotImplementedError

    @cached_property
    def folder(self) -> Path:
        """Return a folder for as long as the subject lives."""
        self._made = tempfile.TemporaryDirectory(prefix="alignzoo-check-")
        return Path(self._made.name)

    def prepare_run(self, algorithm: str, **settings: Any) -> Run:
        """Prepare a run with the embedded model, and start its plugins."""
        view = discovery.load_plugin("algorithms", algorithm).data  # type: ignore[attr-defined]
        usual = {**usual_settings(view, self.folder), "batch_size": 4}
        run = prepare_run(algorithm, {**usual, **settings})
        run.hook.alignzoo_start(run=run)
        return run


def require_same(one: Any, other: Any, what: str) -> None:
    """Raise `Broken` if two results that can be compared by their text differ."""
    if repr(one) != repr(other):
        raise Broken(f"{what} gives another result")


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch inside the block, and restore them."""
    kept = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        numpy.random.set_state(kept[1])
        torch.set_rng_state(kept[2])


def draw_globally() -> tuple[float, ...]:
    """Return the next number of each global generator, which moves them."""
    return random.random(), float(numpy.random.random()), float(torch.rand(()))
