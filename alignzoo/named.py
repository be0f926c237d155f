"""Plugins by name and options: `NAME[,OPTION=VALUE...]`, the same for every kind.

`split_options` in `alignzoo.options` reads such a text, and says how a value is quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo import discovery
from alignzoo.errors import AlignzooError, BadInput, one_line
from alignzoo.options import build, split_options


def build_named(kind: str, text: str, flag: str) -> Any:
    """Build the plugin that `NAME[,OPTION=VALUE...]` names.

    Args:
        kind: one of `alignzoo.discovery.GROUPS`.
        flag: the option that `text` was given to, for messages.

    Raises:
        BadInput: there is no such plugin, or it has no such option.
    """
    name, options = split_options(text, flag)
    return build_plugin(kind, name, options)


def build_plugin(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """Build a plugin with these options; raise `BadInput` if it has no such option, or fails."""
    where = f"{kind[:-1]} {name!r}"
    cls = discovery.load_plugin(kind, name)
    try:
        return build(cls, options, where)
    except AlignzooError:
        raise
    except Exception as error:
        raise BadInput(
            f"it cannot be made: {one_line(error)}",
            where=where,
            hint="options are the fields of a dataclass, and each has a default or is given",
        ) from error


def label_of(text: str) -> str:
    """Return the name of a plugin for names of files: without package, path and options."""
    name = split_options(text, "")[0].rpartition(":")[2]  # PACKAGE:NAME
    return Path(name).name.removesuffix(".py")


def load_task(text: str, flag: str = "--task") -> Any:
    """Build the task that `NAME[:ARGUMENT][,OPTION=VALUE...]` names.

    Raise `BadInput` if there is no such task, or if it lacks a part of a task or names an unknown
    view.
    """
    from alignzoo.data.views import check_views  # it imports torch, which no help text needs

    name, options = split_options(text, flag)
    task = build_plugin("tasks", *split_argument(name, options))
    owner = f"task {name!r}"
    score = ["measure" if hasattr(task, "measure") else "score"]
    if getattr(task, "environment", None) is not None:
        score = []  # its environment gives the rewards
    for part in ("views", "rows", *score):
        if not hasattr(task, part):
            raise BadInput(
                f"it has no {part!r}",
                where=owner,
                hint="a task has `views`, `rows(view, split)` and `score(row, completion)`",
            )
    check_views(task.views, owner)
    return task


def split_argument(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a task and its options, of `NAME:ARGUMENT` with the one it stands for.

    That is the option which the class attribute `positional` names, if the task has one.
    """
    head, colon, argument = name.partition(":")
    if not colon or discovery.is_plugin("tasks", name) or not discovery.is_plugin("tasks", head):
        return name, dict(options)
    option = getattr(discovery.load_plugin("tasks", head), "positional", None)
    return (head, {**options, option: argument}) if option else (name, dict(options))
