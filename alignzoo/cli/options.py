"""Options of a dataclass as parameters of a typer command.

typer is given strings and switches only, and None for what was not typed. The values are checked
by `Option.check`, so that a flag, a recipe file and Python give the same message for the same
mistake, and only what was really typed outranks a recipe file.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from rich.markup import escape

from alignzoo.errors import BadInput
from alignzoo.options import MISSING, Option, flag_of, rename_options

F = TypeVar("F", bound=Callable[..., Any])
list_of_text = list[str]
LONG = 36  # characters of choices that stand behind a flag; of more, the help text tells them
NAMES = {str: "text", int: "int", float: "float", bool: "bool"}


def core_type(option: Option) -> Any:
    """The type that a value has when it is given at all: `int` for `int | None`."""
    kind = option.bare_type
    if get_origin(kind) in (Union, types.UnionType):
        given = [part for part in get_args(kind) if part is not type(None)]
        return given[0] if len(given) == 1 else str
    return kind


def is_switch(option: Option) -> bool:
    return core_type(option) is bool


def flags(option: Option, flag: str | None = None) -> list[str]:
    """Return what can be typed for it, former names last: `["--verbose", "--no-verbose"]`."""
    names = [flag or option.flag, *map(flag_of, option.aliases)]
    return [n for name in names for n in with_opposite(option, name)]


def with_opposite(option: Option, name: str) -> list[str]:
    """Return a flag, and its opposite if the option is a switch."""
    return [name, f"--no-{name[2:]}"] if is_switch(option) else [name]


def parameters(
    option: Option, *, panel: str | None = None, default: Any = MISSING, flag: str | None = None
) -> list[inspect.Parameter]:
    """typer options for it. `default` is what the help shows where it is not the option's own.

    A switch that is off takes `--no-x` without showing it: its only use is to overrule a recipe
    file, and in a narrow terminal the two names side by side leave no room to read either.
    """
    kind, shown = core_type(option), option.default if default is MISSING else default
    if is_switch(option):
        typed: Any = bool
    elif get_origin(kind) in (list, tuple, set) or kind in (list, tuple, set):
        typed = list_of_text
    else:
        typed = str
    names = with_opposite(option, flag or option.flag)
    hidden = names[1:] if shown is False else []
    info = typer.Option(
        "/".join(names[: len(names) - len(hidden)]),
        help=help_text(option, default),
        metavar="" if typed is bool else _metavar(kind) + " ..." * (typed is list_of_text),
        show_default=False,
        rich_help_panel=panel,
    )
    found = [_parameter(option.name, typed, info)]
    found += [_parameter(f"no_{option.name}", bool, typer.Option(n, hidden=True)) for n in hidden]
    for alias in option.aliases:
        former = typer.Option("/".join(with_opposite(option, flag_of(alias))), hidden=True)
        found.append(_parameter(alias, typed, former))
    return found


def extra(
    name: str,
    kind: Any,
    flag: str,
    help: str,
    *,
    metavar: str | None = None,
    panel: str | None = None,
) -> inspect.Parameter:
    """A parameter of the command itself, such as `--resume`, that is no option of a dataclass."""
    info = typer.Option(
        flag,
        help=escape(help),
        metavar="" if kind is bool else metavar,
        show_default=False,
        rich_help_panel=panel,
    )
    return _parameter(name, kind, info)


def argument(name: str, help: str) -> inspect.Parameter:
    """A required positional argument, shown in capitals."""
    info = typer.Argument(help=escape(help), metavar=name.upper(), show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[str, info])


def with_parameters(function: F, parameters: Iterable[inspect.Parameter]) -> F:
    """The function, which takes `**values`, with a signature that typer reads."""
    signature = inspect.Signature(list(parameters))
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return function


def checked(options: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were typed, as values of their types, under their current names."""
    found = {}
    options = list(options)
    with show_deprecations():
        values = rename_options(options, {k: v for k, v in values.items() if v is not None})
    for option in options:
        value = values.get(option.name)
        if values.get(f"no_{option.name}"):
            if value:
                raise BadInput(
                    f"{' and '.join(with_opposite(option, option.flag))} contradict each other"
                )
            value = False
        if value is not None:
            found[option.name] = option.check(value)
    return found


@contextmanager
def show_deprecations() -> Iterator[None]:
    """Print each `DeprecationWarning` of the block as one line on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        yield
    for warning in caught:
        print(f"alignzoo: {warning.message}", file=sys.stderr)


def help_text(option: Option, default: Any = MISSING) -> str:
    """The option's help, its bounds, and its default unless the text itself already tells it."""
    text = option.help
    label = _label(core_type(option))
    if len(label) > LONG:
        text = f"{text} ({label.replace('|', ', ')})"
    if default is not MISSING and default != option.default:
        text = re.sub(r"\s*\[default: [^\]]*\]$", "", text)
    shown = option.default if default is MISSING else default
    if shown is MISSING:
        note = "required"
    elif shown is None or shown == [] or shown == ():
        note = ""
    else:
        note = f"default: {_shown(shown)}"
    # Brackets in a help text are words; without escaping, rich takes them for styles.
    notes = [f"[dim]{escape(f'[{part}]')}[/dim]" for part in (option.bounds, note) if part]
    return " ".join([*filter(None, [escape(text)]), *notes])


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _metavar(kind: Any) -> str:
    """What stands behind a flag: its choices, where they do not crowd the flags out."""
    label = _label(kind)
    return "<choice>" if len(label) > LONG else f"<{label}>"


def _label(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(member.value) for member in kind)
    if get_origin(kind) in (list, tuple, set):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        return _label(inner[0]) if inner else "text"
    return NAMES.get(kind) or getattr(kind, "__name__", "text").lower()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, enum.Enum):
        return str(value.value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set) else str(value)
