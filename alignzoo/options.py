"""Options from a dataclass: one description serves the command line, recipes and Python.

A field is an option. Its annotation says everything: `Annotated[float, "help", Gt(0)]`, where the
bounds are those of `annotated_types` and a `Literal` gives the choices. Values are checked by
pydantic, so that the string `1e-4` of a YAML file is the number that was meant.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from alignzoo.errors import BadInput, nearest

MISSING = dataclasses.MISSING


@dataclass(frozen=True)
class Option:
    """One option: its name as a field (`max_length`) and as a flag (`--max-length`)."""

    name: str
    annotation: Any
    default: Any
    help: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def bare_type(self) -> Any:
        """The annotation without its help and bounds."""
        return (
            get_args(self.annotation)[0]
            if get_origin(self.annotation) is Annotated
            else self.annotation
        )

    @property
    def bounds(self) -> str:
        """The bounds in words, `> 0, <= 1`, or an empty string."""
        signs = {"Gt": ("gt", ">"), "Ge": ("ge", ">="), "Lt": ("lt", "<"), "Le": ("le", "<=")}
        found = []
        for extra in (
            get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()
        ):
            attribute, sign = signs.get(type(extra).__name__, ("", ""))
            if sign:
                found.append(f"{sign} {getattr(extra, attribute):g}")
        return ", ".join(found)

    def check(self, value: Any, where: str = "") -> Any:
        """The value in its right type, or `BadInput` that names the option and its bounds."""
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        try:
            config = ConfigDict(allow_inf_nan=False)
            return TypeAdapter(self.annotation, config=config).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise BadInput(
                f"option {self.flag}: {value!r} is not allowed: {reason[0].lower()}{reason[1:]}",
                where=where or None,
                hint=self.help and f"{self.flag}: {self.help}",
            ) from None


def options_of(cls: type) -> list[Option]:
    """The options of a dataclass, in the order in which its fields are written."""
    if not dataclasses.is_dataclass(cls):
        return []
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = hints[field.name]
        extras = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        help_text = next((e for e in extras if isinstance(e, str)), "")
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        found.append(Option(field.name, annotation, default, help_text))
    return found


def build(cls: type, values: dict[str, Any], where: str = "") -> Any:
    """`cls(**values)` after checking names, types and bounds; `BadInput` says which is wrong."""
    known = {option.name: option for option in options_of(cls)}
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
    """The name and the options in `NAME,OPTION=VALUE,...`; a value may hold commas.

    `flag` is what `text` was given to, for the message of what is no option.
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
                f"option {flag}: {part!r} in {text!r} is no option",
                hint="write NAME,OPTION=VALUE,OPTION=VALUE",
            )
    return name, options
