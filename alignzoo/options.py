"""Options from a dataclass: one description serves the command line, recipes and Python.

A field is an option, and its annotation describes it: `Annotated[float, "help", Gt(0)]`. Bounds
come from `annotated_types`, choices from a `Literal`, and `Alias("old_name")` keeps a former name
working. Pydantic checks the values, so the string `1e-4` of a YAML file becomes a number.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from alignzoo.errors import BadInput, cut_middle, nearest

MISSING = dataclasses.MISSING
HUGE = 1e19  # of numbers: above all counts and seeds, and its square is a float32


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
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        try:
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
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = hints[field.name]
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
    return cls(**{name: known[name].check(value, where) for name, value in values.items()})


def split_options(text: str, flag: str) -> tuple[str, dict[str, str]]:
    """Split `NAME,OPTION=VALUE,...` into the name and the options; a value may hold commas.

    Raise `BadInput`, which names `flag`, for a part that is not an option.
    """
    name, *parts = text.split(",")
    options: dict[str, str] = {}
    last = ""
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            options[key], last = value, key
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
    return ",".join([name, *(f"{key}={value}" for key, value in changed.items())])


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


def _extras(annotation: Any) -> tuple[Any, ...]:
    """Return what `Annotated` adds to the type: help, bounds, aliases."""
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
