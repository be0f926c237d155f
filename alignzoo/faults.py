"""A plugin's fault as one message: which plugin and method, and in which line of its file."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from alignzoo.errors import AlignzooError, RunFailed, describe_os_error, one_line

CORE_MODULES = "alignzoo."  # begins their names


@dataclass(frozen=True)
class PluginMethod:
    """A method of a plugin that the core calls, such as a hook.

    Args:
        owner: the plugin as messages name it: `plugin 'dpo'`, `task 'sums'`.
        method: the name of the method.
        file, line: where it is defined; of a method that is inherited from another file, the first
            method of the plugin's own class.
        files: the file of the plugin's class, and that of the method.
        in_core: True for an object of the core, which may give the core's own numbers.
    """

    owner: str
    method: str
    file: str
    line: int
    files: tuple[str, ...] = ()
    in_core: bool = False

    @classmethod
    def of(cls, owner: str, plugin: Any, function: Callable[..., Any]) -> PluginMethod:
        """Return the place of a plugin's method, or of a plain function that stands for one."""
        module = type(plugin).__module__
        own = getattr(sys.modules.get(module), "__file__", None)
        place = definition(function)
        files = tuple(dict.fromkeys(file for file in (own, place and place[0]) if file))
        if place is None or place[0] != own:
            members = filter(None, map(definition, vars(type(plugin)).values()))
            place = min((found for found in members if found[0] == own), default=place)
        file, line = place or ("a file that is not known", 0)
        name = getattr(function, "__name__", type(plugin).__name__)
        return cls(owner, name, file, line, files, module.startswith(CORE_MODULES))

    def __str__(self) -> str:
        return f"{self.owner}: {self.method}" if self.method else self.owner

    def fail(self, problem: str, hint: str | None = None) -> RunFailed:
        """Return the error for a method that gave something wrong."""
        return RunFailed(f"{self} {problem}", where=f"{self.file}, line {self.line}", hint=hint)

    def failed(self, error: BaseException) -> RunFailed:
        """Return the error for a method that raised an exception.

        It names the deepest line in the plugin's own file.
        """
        file, line = self.find_line(error)
        problem, hint = f"failed: {one_line(error)}", None
        if isinstance(error, SystemExit):
            problem = f"tried to end the program: SystemExit({error.code!r})"
        elif isinstance(error, OSError) and error.filename is not None:
            described = describe_os_error(error)
            problem = f"failed: {described['where']}: {described['problem']}"
            hint = described["hint"]
        return RunFailed(f"{self} {problem}", where=f"{file}, line {line}", hint=hint)

    def find_line(self, error: BaseException) -> tuple[str, int]:
        """Return file and line of the deepest call in the plugin's own file, or in the method's."""
        frames = traceback.extract_tb(error.__traceback__)
        for file in self.files:
            lines = [frame.lineno for frame in frames if frame.filename == file]
            if lines:
                return file, lines[-1] or self.line
        return self.file, self.line


def definition(function: Any) -> tuple[str, int] | None:
    """Return file and line of a function written in Python, None for anything else."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else None


THE_CORE = PluginMethod("the core", "", "", 0, in_core=True)
_called: ContextVar[PluginMethod | None] = ContextVar("_called", default=None)


def called_plugin() -> PluginMethod | None:
    """Return the plugin's method that runs now, None outside of plugins and in the core's own."""
    place = _called.get()
    return None if place is None or place.in_core else place


class Blame:
    """A block of `with` whose exceptions become a `RunFailed` that names the plugin's method.

    The two errors that are messages already pass unchanged, and so does an interruption.
    """

    # Not a generator with `contextmanager`, which takes three times as long for each hook.
    def __init__(self, place: PluginMethod):
        self.place = place

    def __enter__(self) -> None:
        self.token = _called.set(self.place)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _called.reset(self.token)
        if isinstance(error, Exception | SystemExit) and not isinstance(error, AlignzooError):
            raise self.place.failed(error) from error


def describe_example(row: Mapping[str, Any], text: str) -> str:
    """Return a row and a completion as the hint of an error, shortened."""
    return f"for the {describe_row(row)}; the completion was {_short(text)}"


def describe_row(row: Mapping[str, Any]) -> str:
    """Return a row of data for a message, shortened."""
    columns = ", ".join(f"{key}={_short(value)}" for key, value in row.items())
    return f"row with {_short_text(columns, 900)}"


def _short(value: Any, most: int = 200) -> str:
    return _short_text(repr(value), most)


def _short_text(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
