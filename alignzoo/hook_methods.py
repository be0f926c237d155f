"""Refuse hook methods that pluggy would ignore, or would not call as their author thinks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pluggy import HookCaller

from alignzoo.discovery import PROJECT, hook_methods
from alignzoo.errors import BadInput, nearest


def check_methods(owner: str, plugin: Any, specs: Mapping[str, Callable[..., Any]]) -> None:
    """Raise `BadInput` for a method of a plugin that is not a hook as its specification says."""
    marked = hook_methods(plugin)
    for name in marked:
        if name not in specs:
            raise BadInput(
                f"plugin {owner!r}: there is no hook {name!r}", hint=nearest(name, specs)
            )
        spec = inspect.signature(specs[name])
        _, *arguments = inspect.signature(getattr(type(plugin), name)).parameters.values()
        for parameter in arguments:
            if (
                parameter.default is not parameter.empty
                or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
            ):
                raise BadInput(
                    f"plugin {owner!r}: argument {parameter.name!r} of {name} has a default or is "
                    "keyword-only, so pluggy would never fill it",
                    hint=f"write it as {name}(self, {', '.join(spec.parameters)})",
                )
            if parameter.name not in spec.parameters:
                raise BadInput(
                    f"plugin {owner!r}: {name} has no argument {parameter.name!r}",
                    hint=f"its arguments are: {', '.join(spec.parameters)}",
                )
        check_wrapper(owner, name, getattr(type(plugin), name))
    for name in specs:
        if name not in marked and callable(inspect.getattr_static(type(plugin), name, None)):
            raise BadInput(
                f"plugin {owner!r}: {name} is not marked", hint=f"write @hookimpl above {name}"
            )


def check_wrapper(owner: str, name: str, function: Any) -> None:
    """Raise `BadInput` unless a method yields if it wraps its hook, and only then."""
    options = getattr(function, f"{PROJECT}_impl")
    if options["hookwrapper"]:
        problem = f"{name} is a wrapper of the old style, hookwrapper=True"
    elif options["wrapper"] and not inspect.isgeneratorfunction(function):
        problem = f"{name} wraps its hook and has no yield"
    elif not options["wrapper"] and inspect.isgeneratorfunction(function):
        problem = f"{name} has a yield and does not wrap its hook"
    else:
        return
    raise BadInput(
        f"plugin {owner!r}: {problem}",
        hint="a wrapper is marked @hookimpl(wrapper=True); `result = yield` gives it what it wraps,"
        " and it returns that or something else",
    )


def check_loss_providers(hook: HookCaller, wanted: int) -> None:
    """Raise `BadInput` unless so many plugins give the loss: one, or none in a run without."""
    providers = [impl.plugin_name for impl in hook.get_hookimpls() if not impl.wrapper]
    if len(providers) != wanted:
        raise BadInput(
            f"exactly {'one plugin' if wanted else 'none'} of a run gives alignzoo_loss; found "
            + (", ".join(providers) or "none"),
            hint="an add-on that changes the loss wraps it: @hookimpl(wrapper=True)",
        )
