"""Laws that hold for all kinds but algorithms, which have stricter ones of their own."""

from __future__ import annotations

from alignzoo.options import options_of
from alignzoo.testing.laws import STARTS, Broken, law
from alignzoo.testing.option_laws import (
    CHECK_WITH,
    DEAD_CAUSE,
    UNDESCRIBED_CAUSE,
    recorded_reads,
    require_described,
)
from alignzoo.testing.subject import Subject, draw_globally, global_generators, require_same

KINDS = ("rewards", "tasks", "environments", "judges", "samplers", "optimizers", "addons")
FUNCTIONS = (
    "rewards",
    "tasks",
    "environments",
    "judges",
    "samplers",
)  # kinds that give something for an input


@law(
    KINDS,
    STARTS,
    says="the plugin can be built, and a usual run can begin with it",
    cause="a column, an option or a setting that the check does not have: state `check_options`, "
    "and a reward `check_rows`",
    hook="alignzoo_check",
)
def check_start(subject: Subject) -> None:
    """Start the plugin."""
    subject.start()


@law(
    KINDS,
    "described options",
    says="each option has a help text, and each number has bounds",
    cause=UNDESCRIBED_CAUSE,
    hook="__init__",
)
def check_described_options(subject: Subject) -> None:
    """Check the help and the bounds of each option."""
    require_described(subject.cls)


@law(
    KINDS,
    "options that do something",
    says="the plugin reads each of its options",
    cause=DEAD_CAUSE,
    hook="__init__",
)
def check_read_options(subject: Subject) -> None:
    """Look at which attributes are read while the plugin is built and works."""
    unread = {option.name: option.flag for option in options_of(subject.cls)}
    for base in ({}, *getattr(subject.plugin, CHECK_WITH, ())):
        with recorded_reads(subject.cls) as reads:
            other = type(subject)(subject.name, {**subject.options, **base})
            other.start()
            if unread.keys() - reads:
                other.observe()
        unread = {name: flag for name, flag in unread.items() if name not in reads}
    if unread:
        raise Broken(f"nothing reads {', '.join(unread.values())}")


@law(
    FUNCTIONS,
    "global generators",
    says="the generators of Python, numpy and torch have no effect, and are left as they were",
    cause="random.random(), numpy.random or torch.rand without a generator: use "
    "random.Random(seed) or torch.Generator(), with `run.seed_for(name)` in a run",
    hook="__init__",
)
def check_generators(subject: Subject) -> None:
    """Compare results from other states of the generators."""
    found = []
    for seed in (1, 2):
        other = subject.fresh()
        other.start()
        with global_generators(seed):
            found.append(other.observe())
            after = draw_globally()
        with global_generators(seed):
            if after != draw_globally():
                raise Broken("it moves a global generator, so that all else that uses it changes")
    require_same(found[0], found[1], "another state of the generators")
