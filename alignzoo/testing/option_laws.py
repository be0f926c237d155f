"""Laws on options: each is described, has bounds, and does something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.errors import AlignzooError
from alignzoo.options import Option, options_of
from alignzoo.testing.laws import Broken, law
from alignzoo.testing.stage import Stage

UNDESCRIBED_CAUSE = (
    'a field without Annotated[float, "help", Gt(0)]; unbounded numbers give NaN far from the '
    "place that asked for them"
)
DEAD_CAUSE = "a number written into the code in place of the option"
CHECK_WITH = "check_with"  # attribute of a plugin: options that make others have an effect
STRIDE = 0.6  # nats that a token moves, so that clipped ratios are among them


@law(
    "algorithms",
    "described options",
    says="each option has a help text, and each number has bounds",
    cause=UNDESCRIBED_CAUSE,
    hook="__init__",
)
def check_described(stage: Stage) -> None:
    """Check the help and the bounds of each option."""
    require_described(discovery.load_plugin("algorithms", stage.name))


def require_described(cls: type) -> None:
    """Raise `Broken` if an option of a plugin has no help, or a number no bounds."""
    for option in options_of(cls):
        if not option.help.strip():
            raise Broken(f"option {option.flag} has no help text")
        if types_of(option) & {int, float} and not option.bounds:
            raise Broken(f"option {option.flag} is a number without bounds")


@law(
    "algorithms",
    "options that do something",
    says="each option changes something, or is read where another option needs it",
    cause=DEAD_CAUSE,
    hook="__init__",
)
def check_alive(stage: Stage) -> None:
    """Change each option, and look at what comes out and at which options the hooks have read."""
    options = options_of(discovery.load_plugin("algorithms", stage.name))
    read: set[str] = set()
    alive: set[str] = set()
    first = ""
    for base in ({}, *getattr(stage.plugin, CHECK_WITH, ())):
        try:
            usual, also = observe(stage.vary(options=base))
        except AlignzooError:  # not allowed with the options that the algorithm is checked with
            continue
        read |= also
        first = first or usual
        if usual != first:
            alive |= base.keys()
        for option in options:
            for value in other_values(option) if option.name not in alive else ():
                try:
                    found, also = observe(stage.vary(options={**base, option.name: value}))
                except AlignzooError:  # not allowed here, or not with the others
                    continue
                read |= also
                if found != usual:
                    alive.add(option.name)
                    break
    dead = [
        option.flag
        for option in options
        if option.name not in alive | read and other_values(option)
    ]
    if dead:
        raise Broken(f"{', '.join(dead)}: no value changes anything, and no hook reads it")


def observe(stage: Stage) -> tuple[str, set[str]]:
    """Return a text of all that comes out of a first round, and the attributes that it has read."""
    run = stage.run
    with recorded_reads(discovery.load_plugin("algorithms", stage.name)) as reads:
        measured = stage.measure(table=replace(stage.table, moved=STRIDE))
        run.schedule.step = 1
        metrics = measured.totals.means()
        run.hook.alignzoo_step(run=run, step=1, metrics=metrics)
        run.hook.alignzoo_round_end(run=run, index=0)
        traits = Traits.of(run.algorithm)
    columns = {name: column.tolist() for name, column in sorted(stage.batch.columns.items())}
    seen = (
        stage.batch.tokens.tolist(), columns, measured, metrics, run.round_metrics.numbers,
        traits, run.schedule.rounds, run.model.reference_moved,
        sorted(stage.forwards.temperatures),
    )  # fmt: skip
    return repr(seen), reads


@contextmanager
def recorded_reads(cls: Any) -> Iterator[set[str]]:
    """Collect the names of attributes that are read of objects of a class inside the block."""
    reads: set[str] = set()
    own, usual = "__getattribute__" in vars(cls), cls.__getattribute__

    def read(self: Any, name: str) -> Any:
        reads.add(name)
        return usual(self, name)

    cls.__getattribute__ = read
    try:
        yield reads
    finally:
        if own:
            cls.__getattribute__ = usual
        else:
            del cls.__getattribute__


def types_of(option: Option) -> set[Any]:
    """Return the types of an option's values."""
    bare = option.bare_type
    return {bare, *get_args(bare)} if get_origin(bare) is not Literal else {Literal}


def other_values(option: Option) -> list[Any]:
    """Return values of an option other than its default, for numbers and choices."""
    kinds, default = types_of(option), option.default
    choices = [c for t in (option.bare_type, *get_args(option.bare_type)) for c in literals(t)]
    values: Sequence[Any] = choices
    if not choices and bool in kinds:
        values = [not default]
    elif not choices and float in kinds:
        values = [3 * (default or 0.0), (default or 0.0) / 3, 0.5, 2.0]
    elif not choices and int in kinds:
        values = [(default or 0) + 1, 2 * (default or 0), 1, 2]
    return [value for value in values if value != default]


def literals(annotation: Any) -> tuple[Any, ...]:
    """Return the choices of a `Literal`, none of any other annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()
