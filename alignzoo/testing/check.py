"""Check a plugin against the laws of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from alignzoo import discovery
from alignzoo.environments import Environment
from alignzoo.errors import BadInput, NotAvailable, first_line, nearest
from alignzoo.options import split_options
from alignzoo.rollout import Sampler
from alignzoo.testing import (  # noqa: F401 - they register their laws
    common,
    costs,
    extremes,
    gradients,
    masks,
    neutral,
    option_laws,
    preference,
    purity,
    runs,
    sums,
)
from alignzoo.testing.addons import AddonSubject
from alignzoo.testing.environments import EnvironmentSubject
from alignzoo.testing.laws import LAWS, STARTS, VERSION, Finding, check_law, exceptions_of
from alignzoo.testing.optimizers import OptimizerSubject
from alignzoo.testing.rewards import RewardSubject
from alignzoo.testing.samplers import SamplerSubject
from alignzoo.testing.stage import Stage
from alignzoo.testing.tasks import TaskSubject


@dataclass(frozen=True)
class CheckReport:
    """What checking a plugin has found.

    Args:
        kind: of the plugin, as in `alignzoo.discovery.GROUPS`.
        name: of the plugin, with its options.
        findings: one for each law, in order.
        version: of the laws.
    """

    kind: str
    name: str
    findings: list[Finding] = field(default_factory=list)
    version: int = VERSION

    @property
    def broken(self) -> list[Finding]:
        """Return the laws that do not hold, and for which the plugin states no exception."""
        return [finding for finding in self.findings if finding.status == "broken"]

    @property
    def passed(self) -> bool:
        """Return whether no law is broken, and at least one holds."""
        return not self.broken and any(each.status == "held" for each in self.findings)

    @property
    def skipped(self) -> str:
        """Return why no law could be checked, "" if any was."""
        reasons = {finding.status: finding.text for finding in self.findings}
        return reasons["skipped"] if reasons.keys() == {"skipped"} else ""


# A class for each kind: an object of a plugin's name and options is what its laws are checked on.
# Its `plugin` is the plugin.
SUBJECTS: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "algorithms": Stage,
    "rewards": RewardSubject,
    "tasks": TaskSubject,
    "environments": EnvironmentSubject,
    "samplers": SamplerSubject,
    "optimizers": OptimizerSubject,
    "addons": AddonSubject,
}


def add_kind(kind: str, subject: Callable[[str, Mapping[str, Any]], Any]) -> None:
    """Let `check` check plugins of a kind, whose laws the caller has registered by `law`.

    `subject` makes what the laws are checked on, from a plugin's name and options.
    """
    SUBJECTS[kind] = subject


def check(kind: str, text: str) -> Iterator[Finding]:
    """Yield what checking each law on the plugin `NAME[,OPTION=VALUE...]` of a kind finds.

    If the plugin does not start, or needs what is not there, no other law is checked. Raise
    `BadInput` if there is no such plugin, or no law for its kind.
    """
    if kind not in SUBJECTS:
        raise BadInput(f"there are no laws for {kind}", hint=f"kinds: {', '.join(SUBJECTS)}")
    subject = SUBJECTS[kind](*split_options(text, "alignzoo check"))
    try:
        plugin = subject.plugin
    except NotAvailable as missing:
        yield from (Finding(each, "skipped", first_line(missing)) for each in LAWS[kind])
        return
    check_exceptions(plugin)
    first, *others = LAWS[kind]
    started = check_law(first, subject, plugin)
    yield started
    if first.name == STARTS and started.status != "held":
        reason = started.text if started.status == "skipped" else "the plugin does not start"
        yield from (Finding(each, "skipped", reason) for each in others)
        return
    for each in others:
        yield check_law(each, subject, plugin)


def check_exceptions(plugin: Any) -> None:
    """Raise `BadInput` if a plugin states an exception to a law that there is not."""
    known = {each.name for laws in LAWS.values() for each in laws}
    for name in exceptions_of(plugin):
        if name not in known:
            raise BadInput(f"known_exceptions: there is no law {name!r}", hint=", ".join(known))


def kinds_of(text: str) -> list[str]:
    """Return the kinds that a plugin has, by its name or the path of its file.

    Raise `BadInput` if there is no such plugin.
    """
    name = split_options(text, "alignzoo check")[0]
    if name.endswith(".py"):
        return [guess_kind(name)]
    checked = [kind for kind in discovery.GROUPS if kind != "commands"]
    kinds = [kind for kind in checked if discovery.is_plugin(kind, name)]
    if not kinds:
        known = [each for kind in checked for each in discovery.discover(kind)]
        raise BadInput(f"there is no plugin {name!r}", hint=nearest(name, known))
    return kinds


def guess_kind(path: str) -> str:
    """Return the kind of the plugin in a Python file, by its methods."""
    try:
        cls = discovery.load_plugin("algorithms", path)
    except BadInput:  # no hooks
        for kind in ("tasks", "environments"):
            with suppress(BadInput):
                discovery.load_plugin(kind, path)
                return kind
        discovery.load_plugin("judges", path)
        return "judges"
    hooks = set(discovery.hook_methods(cls))
    for base, kind in ((Sampler, "samplers"), (Environment, "environments")):
        if issubclass(cls, base):
            return kind
    if hooks & {"alignzoo_loss", "alignzoo_answer"} and hasattr(cls, "data"):
        return "algorithms"
    if hasattr(cls, "rows") and hasattr(cls, "views"):
        return "tasks"
    usual = {"alignzoo_check", "alignzoo_start"}
    for hook, kind in (("alignzoo_reward", "rewards"), ("alignzoo_optimizer", "optimizers")):
        if hook in hooks <= {*usual, hook} and not getattr(cls, hook).alignzoo_impl["wrapper"]:
            return kind
    return "addons"
