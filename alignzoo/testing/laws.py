"""Laws: what the loop relies on, each checked by a function, and what a check has found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignzoo.errors import AlignzooError, BadInput, NotAvailable, first_line

VERSION = 1  # of the laws: a plugin that has passed has passed these
EXCEPTIONS = "known_exceptions"  # the attribute of a plugin: law -> why it does not hold there
STARTS = "starts"  # the first law of a kind: without it, no other can be checked


class Broken(Exception):
    """A law that does not hold: what is different, and by how much."""


class NotApplicable(Exception):
    """A law that says nothing about this plugin, and why."""


@dataclass(frozen=True)
class Law:
    """A law for plugins of one kind.

    Args:
        name: what a plugin writes into `known_exceptions`, and what reports show.
        kind: of the plugins, as in `alignzoo.discovery.GROUPS`.
        says: the law in a sentence.
        cause: the usual reason if it does not hold.
        hook: the method to look at.
        check: raises `Broken` or `NotApplicable`.
    """

    name: str
    kind: str
    says: str
    cause: str
    hook: str
    check: Callable[[Any], None]


@dataclass(frozen=True)
class Finding:
    """What checking a law has found.

    Args:
        text: what broke and by how much, or why the law was not checked.
        where: file and line of the method to look at.
    """

    law: Law
    status: Literal["held", "broken", "excepted", "skipped"]
    text: str = ""
    where: str = ""

    def lines(self) -> list[str]:
        """Return what was found, the usual cause, and where to look."""
        if self.status != "broken":
            return [self.text] if self.text else []
        look = [f"look at {self.law.hook}, {self.where}"] if self.where else []
        return [self.text, f"the law: {self.law.says}", f"usual cause: {self.law.cause}", *look]


LAWS: dict[str, list[Law]] = {}  # by kind


def law(kind: str | Sequence[str], name: str, *, says: str, cause: str, hook: str) -> Any:
    """Register the decorated function as the check of a law of a kind, or of several."""
    kinds = [kind] if isinstance(kind, str) else kind

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        for each in kinds:
            LAWS.setdefault(each, []).append(Law(name, each, says, cause, hook, check))
        return check

    return register


def check_law(each: Law, subject: Any, plugin: Any) -> Finding:
    """Check one law on what its function takes, and return what was found.

    An exception of the plugin itself breaks the law as well, but for `NotAvailable`: then it cannot
    be checked here.
    """
    reason = exceptions_of(plugin).get(each.name)
    try:
        each.check(subject)
    except NotApplicable as skipped:
        return Finding(each, "skipped", str(skipped))
    except NotAvailable as missing:
        return Finding(each, "skipped", first_line(missing))
    except Broken as broken:
        text = str(broken)
    except AlignzooError as error:
        text = first_line(error)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        return Finding(each, "held")
    if reason is not None:
        return Finding(each, "excepted", reason)
    return Finding(each, "broken", text, locate(plugin, each.hook))


def exceptions_of(plugin: Any) -> Mapping[str, str]:
    """Return the exceptions that a plugin states, with their reasons.

    Raise `BadInput` if one has no reason.
    """
    stated: Mapping[str, str] = getattr(plugin, EXCEPTIONS, {})
    for name, reason in stated.items():
        if not isinstance(reason, str) or len(reason.split()) < 3:
            raise BadInput(f"{EXCEPTIONS}[{name!r}] needs a reason in words, not {reason!r}")
    return stated


def locate(plugin: Any, hook: str) -> str:
    """Return `file:line` of a method of a plugin, or of its class."""
    cls = plugin if isinstance(plugin, type) else type(plugin)
    for target in (getattr(cls, hook, None), cls):
        try:
            return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"  # type: ignore[arg-type]
        except (TypeError, OSError):
            continue
    return ""


def worst_difference(one: Mapping[Any, float], other: Mapping[Any, float]) -> tuple[float, Any]:
    """Return the largest |a - b| as a fraction of the largest |a|, and its key.

    A missing number is 0.
    """
    keys: Sequence[Any] = list({**one, **other})
    scale = max((abs(x) for x in one.values()), default=0.0) or 1.0
    if not keys:
        return 0.0, None
    worst = max(keys, key=lambda key: abs(one.get(key, 0.0) - other.get(key, 0.0)))
    return abs(one.get(worst, 0.0) - other.get(worst, 0.0)) / scale, worst
