"""Options from a dataclass: one description serves the command line, recipes and Python.

A field is an option, and its annotation describes it: `Annotated[float, "help", Gt(0)]`. Bounds
come from `annotated_types`, choices from a `Literal` or an enum, and `Alias("old_name")` keeps a
former name working. Pydantic checks the values, so the string `1e-4` of a YAML file becomes a
number.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from alignzoo.errors import BadInput, cut_middle, nearest

MISSING = dataclasses.MISSING
HUGE = 1e19  # of numbers: above all counts and seeds, and its square is a float32
QUOTED = r'"(?:[^"\\]|\\.)*"'
KEY = r"[^\W\d]\w*="
BETWEEN_COMMAS = re.compile(rf"{KEY}{QUOTED}(?=,|$)|[^,]*", re.DOTALL)  # between two commas


@dataclass(frozen=True)
class Alias:
    """A former name of an option, still accepted with a `DeprecationWarning`.

    Put it into the annotation of the renamed field: `Annotated[str, "help", Alias("old_name")]`.
    """

    name: str


@dataclass(frozen=True)
class Option:
    """One option: its name as a field (`max_length`) and as a flag (`--max-length`).

    `aliases` are its former names as fields.
    """

    name: str
    annotation: Any
    default: Any
    help: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The flag of the command line, `--max-length`."""
        return flag_of(self.name)

    @property
    def bare_type(self) -> Any:
        """The annotation without its help, bounds and aliases."""
        return get_args(self.annotation)[0] if _extras(self.annotation) else self.annotation

    @property
    def core_type(self) -> Any:
        """The type of a value that is given at all: `int` for `int | None`."""
        kind = self.bare_type
        if get_origin(kind) in (Union, types.UnionType):
            given = [part for part in get_args(kind) if part is not type(None)]
            return given[0] if len(given) == 1 else str
        return kind

    @property
    def choices(self) -> dict[str, Any]:
        """The values of a `Literal` or an enum by the texts that stand for them; else nothing.

        A member of an enum has its name and its value.
        """
        kind = self.core_type
        if get_origin(kind) is Literal:
            return {str(value): value for value in get_args(kind)}
        if isinstance(kind, type) and issubclass(kind, Enum):
            names = {member.name: member for member in kind}
            return names | {str(member.value): member for member in kind}
        return {}

    @property
    def bounds(self) -> str:
        """The bounds in words, `> 0, <= 1`, or an empty string."""
        signs = {"Gt": ("gt", ">"), "Ge": ("ge", ">="), "Lt": ("lt", "<"), "Le": ("le", "<=")}
        found = []
        for extra in _extras(self.annotation):
            attribute, sign = signs.get(type(extra).__name__, ("", ""))
            if sign:
                found.append(f"{sign} {getattr(extra, attribute):g}")
        return ", ".join(found)

    def check(self, value: Any, where: str = "") -> Any:
        """Convert a value to the option's type; raise `BadInput` if it is not allowed."""
        from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

        try:
            if isinstance(value, str):
                value = self._choose(value)
            if isinstance(value, bool) and not self._allows(bool) and self._allows(int, float):
                raise ValueError("it should be a number")
            config = ConfigDict(allow_inf_nan=False)
            found = TypeAdapter(self.annotation, config=config).validate_python(value)
            if type(found) in (int, float) and found and not 1 / HUGE < abs(found) < HUGE:
                raise ValueError("it is beyond what can be computed with")
            return found
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise BadInput(
                f"option {self.flag}: {_shown(value)} is not allowed: "
                f"{reason[0].lower()}{reason[1:]}",
                where=where or None,
                hint=self.help and f"{self.flag}: {self.help}",
            ) from None
        except PydanticUserError:
            raise BadInput(
                f"option {self.flag}: {self.core_type!r} is not a type of values that can be typed",
                where=where or None,
                hint="if the field is not an option, write it as field(default=..., init=False)",
            ) from None

    def _choose(self, text: str) -> Any:
        """Return the choice that a text stands for; the text itself if it is none of them.

        Raise `ValueError` for a text that is no member of an enum.
        """
        names = [str(to_json_value(x)) for x in self.choices.values() if isinstance(x, Enum)]
        if names and text not in self.choices:
            raise ValueError(f"it should be {' or '.join(dict.fromkeys(names))}")
        return self.choices.get(text, text)

    def _allows(self, *types: type) -> bool:
        """Return True if a value of one of these types is meant."""
        return not {self.bare_type, *get_args(self.bare_type)}.isdisjoint(types)


def flag_of(name: str) -> str:
    """Return the flag of a field name: `max_length` is `--max-length`."""
    return "--" + name.replace("_", "-")


def options_of(cls: type) -> list[Option]:
    """Return the options of a dataclass in the order of its fields."""
    if not dataclasses.is_dataclass(cls):
        return []
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = _annotation(cls, field.name)
        extras = _extras(annotation)
        help_text = next((e for e in extras if isinstance(e, str)), "")
        aliases = tuple(e.name for e in extras if isinstance(e, Alias))
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        found.append(Option(field.name, annotation, default, help_text, aliases))
    return found


def current_names(options: Iterable[Option]) -> dict[str, str]:
    """Return the current name of each former one."""
    return {alias: option.name for option in options for alias in option.aliases}


def rename_options(
    options: Iterable[Option], values: Mapping[str, Any], where: str = ""
) -> dict[str, Any]:
    """Return `values` with former option names replaced by the current ones.

    Warn with a `DeprecationWarning` for each former name. Raise `BadInput` if an option is given
    under two names. Keys that are no option's name stay as they are.
    """
    current = current_names(options)
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        new = current.get(name, name)
        if name in current:
            message = f"option {flag_of(name)} is deprecated: use {flag_of(new)}"
            warnings.warn(
                f"{where}: {message}" if where else message, DeprecationWarning, stacklevel=3
            )
        if new in renamed:
            raise BadInput(
                f"option {flag_of(new)} is given twice, once under an old name",
                where=where or None,
            )
        renamed[new] = value
    return renamed


def build(cls: type, values: Mapping[str, Any], where: str = "") -> Any:
    """Return `cls(**values)`; raise `BadInput` for a wrong name, type or bound."""
    return cls(**check_values(cls, values, where))


def check_values(cls: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the values that `cls` is built with, converted to the types of its options.

    Raise `BadInput` for a wrong name, type or bound, and for a default that is itself not allowed.
    """
    check_defaults(cls, where)
    known = {option.name: option for option in options_of(cls)}
    values = rename_options(known.values(), values, where)
    for name in values:
        if name not in known:
            raise BadInput(
                f"unknown option {name!r}", where=where or None, hint=nearest(name, known)
            )
    for name, option in known.items():
        if option.default is MISSING and name not in values:
            raise BadInput(f"option {option.flag} is required", where=where or None)
    return {name: known[name].check(value, where) for name, value in values.items()}


@cache
def check_defaults(cls: type, where: str = "") -> None:
    """Raise `BadInput` if a default of a class is not allowed by its own annotation.

    None is always allowed: the option is then not given.
    """
    for option in options_of(cls):
        if option.default is MISSING or option.default is None:
            continue
        try:
            option.check(option.default)
        except BadInput as error:
            raise BadInput(
                f"its own default is refused: {error.problem}",
                where=where or f"{cls.__module__}.{cls.__qualname__}",
                hint=f"correct the default or the annotation of {option.name!r}",
            ) from None


def split_options(text: str, flag: str) -> tuple[str, dict[str, str]]:
    """Split `NAME,OPTION=VALUE,...` into the name and the options.

    A value may hold commas, unless what follows one reads as another option. In double quotes,
    `OPTION="VALUE"`, it may hold anything; a quote or a backslash in it is written after a
    backslash. Raise `BadInput`, which names `flag`, for a part that is not an option, and for an
    option that is given twice.
    """
    name, *parts = split_parts(text)
    options: dict[str, str] = {}
    last = ""
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            if key in options:
                raise BadInput(f"option {flag}: {key!r} is given twice in {text!r}")
            options[key], last = unquote(value), key
        elif last:
            options[last] += f",{part}"
        else:
            raise BadInput(
                f"option {flag}: {part!r} in {text!r} is not an option",
                hint="write NAME,OPTION=VALUE,OPTION=VALUE",
            )
    return name, options


def join_options(name: str, options: Any) -> str:
    """Return `NAME,OPTION=VALUE,...` with the options that differ from their defaults.

    `split_options` reads it. `options` is an algorithm or another dataclass of options.
    """
    changed = {
        option.name: getattr(options, option.name)
        for option in options_of(type(options))
        if getattr(options, option.name) != option.default
    }
    values = {key: quote(str(to_json_value(value))) for key, value in changed.items()}
    return ",".join([name, *(f"{key}={value}" for key, value in values.items())])


def split_names(text: str, flag: str) -> list[str]:
    """Split `NAME,OPTION=VALUE,NAME,...` into the names, each once and with its options.

    A value with a comma is quoted; see `split_options`. Raise `BadInput` for an empty name.
    """
    names: list[str] = []
    for part in map(str.strip, split_parts(text)):
        if names and re.match(KEY, part):
            names[-1] += f",{part}"
        else:
            names.append(part)
    if not all(names):
        raise BadInput(f"option {flag}: {text!r} has an empty name in it")
    return list(dict.fromkeys(names))


def split_parts(text: str) -> list[str]:
    """Split a text at its commas, those in a quoted value left out."""
    parts, at = [], 0
    while at <= len(text):
        part = BETWEEN_COMMAS.match(text, at)[0]  # type: ignore[index]  # it matches anything
        parts.append(part)
        at += len(part) + 1
    return parts


def quote(value: str) -> str:
    """Return a value as `split_options` reads it: in quotes if it could be read otherwise."""
    if not (value.startswith('"') or re.search(f",{KEY}", value)):
        return value
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'"{escaped}"'


def unquote(value: str) -> str:
    """Return the value that a text stands for: without the quotes around it, if there are any."""
    if not re.fullmatch(QUOTED, value, re.DOTALL):
        return value
    return re.sub(r'\\(["\\])', r"\1", value[1:-1])


def to_json_value(value: Any) -> Any:
    """Return the value of an option as JSON has it, from which `Option.check` makes it again.

    A path becomes its text, a member of an enum its value if that is text, and else its name.
    """
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(one) for one in value]
    return value


def options_read(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options that a function reads: the names of its keyword-only arguments.

    `def robust(pairs, *, beta, label_smoothing)` reads `("beta", "label_smoothing")`.
    """
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def refuse_unread(
    options: Any,
    selector: str,
    reads: Mapping[str, Collection[str]],
    chosen: Collection[str] | None = None,
) -> None:
    """Raise `BadInput` for an option with a value of its own that no chosen variant reads.

    Args:
        options: an algorithm or another dataclass of options.
        selector: the option that chooses the variant, such as `"loss_type"`.
        reads: the options that each variant reads, by the variant's name. An option that is in
            no entry is read whatever the variant.
        chosen: the chosen variants; by default the value of `selector` alone.
    """
    value = getattr(options, selector)
    used = set().union(*(reads[name] for name in (chosen or (value,))))
    conditional = set().union(*reads.values())
    for option in options_of(type(options)):
        unread = option.name in conditional - used
        if unread and getattr(options, option.name) != option.default:
            readers = sorted(name for name, names in reads.items() if option.name in names)
            raise BadInput(
                f"option {option.flag}: {flag_of(selector)} {value} does not read it",
                hint=f"it is for {flag_of(selector)} {', '.join(readers)}",
            )


def _shown(value: Any) -> str:
    """Return a value as a message shows it."""
    try:
        return cut_middle(repr(value), 200)
    except ValueError:  # an integer of more than 4,300 digits
        return "a number of thousands of digits"


def _annotation(cls: type, name: str) -> Any:
    """Return the annotation of a field, read where it was written.

    Other annotations of the class and of its bases may name what only a type checker imports.
    """
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
    lone = types.SimpleNamespace(__annotations__={name: vars(owner)["__annotations__"][name]})
    names = vars(sys.modules[owner.__module__])
    try:
        return get_type_hints(lone, names, dict(vars(owner)), include_extras=True)[name]
    except NameError as error:
        raise BadInput(
            f"the type of option {flag_of(name)} cannot be read: {error}",
            where=f"{owner.__module__}.{owner.__qualname__}",
            hint="import what the annotation names, outside of `if TYPE_CHECKING`",
        ) from None


def _extras(annotation: Any) -> tuple[Any, ...]:
    """Return what `Annotated` adds to the type: help, bounds, aliases."""
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
