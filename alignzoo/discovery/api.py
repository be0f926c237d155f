"""The plugin API: the marker of hooks, its version, and what changed from one to the next."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import pluggy

from alignzoo.errors import BadInput

PROJECT = "alignzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# Raised by one when a plugin that was right before is no longer, with a line in `API_CHANGES`.
API_VERSION = 1
API_CHANGES: Mapping[int, str] = {}  # what plugins have to change, by the version that asks for it


class OldPlugin(FutureWarning):
    """A plugin was written for an older version of the API."""


def check_api_version(plugin: Any, owner: str) -> None:
    """Compare the API version that a plugin's class attribute `api_version` states with this one.

    A plugin without it is taken to be up to date. Warn of an older version with what has changed
    since. Raise `BadInput` for a newer one.
    """
    stated = getattr(plugin, "api_version", API_VERSION)
    if type(stated) is not int or stated < 1:
        raise BadInput(
            f"{owner} states api_version = {stated!r}, which is no version of the plugin API",
            hint=f"this is version {API_VERSION}",
        )
    if stated > API_VERSION:
        raise BadInput(
            f"{owner} was written for version {stated} of the plugin API; this alignzoo has "
            f"version {API_VERSION}",
            hint="upgrade alignzoo: pip install --upgrade alignzoo",
        )
    if stated < API_VERSION:
        changes = [text for version, text in API_CHANGES.items() if version > stated]
        warnings.warn(
            f"{owner} was written for version {stated} of the plugin API; this is version "
            f"{API_VERSION}. Changed since: {'; '.join(changes)}",
            OldPlugin,
            stacklevel=2,
        )


def hook_methods(plugin: Any) -> list[str]:
    """Return the names of the methods marked `@hookimpl`, without evaluating any property."""
    owner = plugin if isinstance(plugin, type) else type(plugin)
    names = [name for cls in owner.__mro__ for name in vars(cls)]
    return [
        name
        for name in dict.fromkeys(names)
        if hasattr(inspect.getattr_static(owner, name), f"{PROJECT}_impl")
    ]
