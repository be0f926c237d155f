"""Commands of the terminal, with parameters built from the options of a dataclass.

A parameter hands over text and switches as they were typed, and nothing if it was not typed.
`Option.check` converts them, so that a flag, a recipe file and Python give the same message for the
same mistake, and only what was really typed outranks a recipe file.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from rich.markup import escape
from typer import models
from typer._coercion import resolve_type_descriptor
from typer.core import TyperArgument, TyperCommand, TyperOption

from alignzoo.errors import BadInput
from alignzoo.options import (
    MISSING,
    Option,
    build,
    flag_of,
    options_of,
    rename_options,
    to_json_value,
)

SETTINGS = {"help_option_names": ["-h", "--help"]}
# Settings of a command that parses its words itself, when it is called.
RAW_WORDS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
}
LONG = 36  # characters of choices that fit behind a flag; the help text lists longer ones
TYPE_NAMES = {str: "text", int: "int", float: "float", bool: "bool"}
Parameter = TyperOption | TyperArgument


@dataclass(kw_only=True)
class Generation:
    """Options of commands that generate; the defaults are those of a run's own evaluation."""

    seed: Annotated[int, "random seed of the sampling", Ge(0), Le(2**63 - 1)] = 0
    temperature: Annotated[float, "sampling temperature (0: greedy)", Ge(0), Le(100)] = 1.0
    max_new_tokens: Annotated[int, "maximum length of a completion in tokens", Gt(0), Le(10**6)] = (
        64
    )


class Switch(TyperOption):
    """A flag with an opposite, `--no-x`, that the help shows only if the flag is on by default.

    With the flag off, `--no-x` is only good for overruling a recipe file, and in a narrow terminal
    two long names side by side leave no room to read either.
    """

    def add_to_parser(self, parser: Any, ctx: Any) -> None:
        """Accept the flag and its opposite; the value is a list of what was typed."""
        super().add_to_parser(parser, ctx)
        if not self.secondary_opts:
            parser.add_option(
                obj=self,
                opts=[opposite(self.opts[0])],
                dest=self.name,
                action="append_const",
                const=False,
            )


class DeferredCommand(TyperCommand):
    """A command that is imported, and its words parsed, when it is called."""

    def __init__(self, name: str, summary: str, action: Callable[[list[str]], Any]):
        super().__init__(
            name,
            help=escape(summary),
            add_help_option=False,
            context_settings=RAW_WORDS,
            rich_markup_mode="rich",
        )
        self.action = action

    def invoke(self, ctx: Any) -> Any:
        """Hand the words over as they were typed."""
        return self.action(ctx.args)


def run_words(
    words: list[str],
    program: str,
    help: str,
    parameters: Sequence[Parameter],
    callback: Callable[..., Any],
) -> Any:
    """Parse the words of a command and call it with the values, by the parameters' names."""
    command = TyperCommand(
        program.rpartition(" ")[2],
        help=escape(help),
        params=list(parameters),
        callback=callback,
        context_settings=SETTINGS,
        rich_markup_mode="rich",
    )
    return command(args=words, prog_name=program, standalone_mode=False)


def run_class(cls: type, words: list[str], program: str, argument: str | Sequence[str] = "") -> Any:
    """Run a command that is a dataclass: its docstring is the help, its fields are the options.

    The fields named by `argument`, one or several, are positional arguments, in the order of the
    fields. The words become an object of the class, and its `main()` does the work.
    """
    arguments = [argument] if isinstance(argument, str) else argument
    options = options_of(cls)
    found: list[Parameter] = []
    for option in options:
        if option.name in arguments:
            found.append(positional(option))
        else:
            found += parameters(option)

    def call(**values: Any) -> None:
        build(cls, typed_values(options, values), program).main()

    return run_words(words, program, doc_of(cls), found, call)


def is_switch(option: Option) -> bool:
    """Return whether an option is on or off, a flag without a value."""
    return option.core_type is bool


def flags(option: Option, flag: str | None = None) -> list[str]:
    """Return what can be typed for it, former names last: `["--verbose", "--no-verbose"]`."""
    names = [flag or option.flag, *map(flag_of, option.aliases)]
    return [n for name in names for n in ([name, opposite(name)] if is_switch(option) else [name])]


def opposite(flag: str) -> str:
    """Return the flag that turns a switch off: `--no-verbose` of `--verbose`."""
    return f"--no-{flag[2:]}"


def parameters(
    option: Option, *, panel: str | None = None, default: Any = MISSING, flag: str | None = None
) -> list[Parameter]:
    """Return the parameter of an option, and a hidden one for each former name.

    The help shows `default`, or the option's own.
    """
    kind, shown = option.core_type, option.default if default is MISSING else default
    multiple = get_origin(kind) in (list, tuple, set) or kind in (list, tuple, set)
    found: list[Parameter] = []
    for name in (option.name, *option.aliases):
        text = (flag or option.flag) if name == option.name else flag_of(name)
        common: dict[str, Any] = {
            "help": help_text(option, default),
            "rich_help_panel": panel,
            "hidden": name != option.name,
        }
        if kind is bool:
            names = [name, text if shown is False else f"{text}/{opposite(text)}"]
            common |= {"is_flag": True, "multiple": True, "metavar": "", **descriptor(list[bool])}
            found.append(Switch(param_decls=names, **common))
        else:
            common |= {"multiple": multiple, "metavar": _metavar(kind) + " ..." * multiple}
            common |= descriptor(list[str] if multiple else str)
            found.append(TyperOption(param_decls=[name, text], **common))
    return found


def switch(name: str, help: str, panel: str | None = None) -> TyperOption:
    """Return a flag of a command itself, such as `--resume`, that is no option of a dataclass."""
    return TyperOption(
        param_decls=[name, flag_of(name)],
        help=escape(help),
        is_flag=True,
        metavar="",
        rich_help_panel=panel,
        **descriptor(bool),
    )


def positional(option: Option) -> TyperArgument:
    """Return the positional argument of an option, shown in capitals; a list takes any number."""
    multiple = get_origin(option.core_type) is list
    return TyperArgument(
        param_decls=[option.name],
        help=escape(option.help),
        metavar=option.name.upper() + " ..." * multiple,
        required=option.default is MISSING,
        nargs=-1 if multiple else 1,
        show_default=False,
        **descriptor(list[str] if multiple else str),
    )


def descriptor(kind: Any) -> dict[str, Any]:
    """Return typer's description of a parameter's type, as a keyword argument."""
    return {"type_descriptor": resolve_type_descriptor(kind, models.OptionInfo())}


def typed_values(options: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were typed, under their current names, as values of their types."""
    options = list(options)
    given = {name: value for name, value in values.items() if value not in (None, ())}
    with show_deprecations():
        given = rename_options(options, given)
    found = {}
    for option in options:
        if option.name in given:
            value = given[option.name]
            if is_switch(option) and isinstance(value, list | tuple):
                if len(set(value)) > 1:
                    raise BadInput(
                        f"{option.flag} and {opposite(option.flag)} contradict each other"
                    )
                value = value[0]
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


def doc_of(cls: type) -> str:
    """Return the docstring of a dataclass, unless it is the signature that `dataclass` puts in."""
    doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def help_text(option: Option, default: Any = MISSING) -> str:
    """Return the help of an option with its bounds, and its default unless the text states it."""
    text = option.help
    label = _label(option.core_type)
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


def _metavar(kind: Any) -> str:
    """Return what is shown behind a flag: its choices, unless they would crowd the flags out."""
    label = _label(kind)
    return "<choice>" if len(label) > LONG else f"<{label}>"


def _label(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(to_json_value(member)) for member in kind)
    if get_origin(kind) in (list, tuple, set):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        return _label(inner[0]) if inner else "text"
    return TYPE_NAMES.get(kind) or getattr(kind, "__name__", "text").lower()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    value = to_json_value(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
