"""The command line: the entry point, and how errors are shown.

Nothing heavy is imported before a command needs it, so that help and listings answer at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from alignzoo.errors import AlignzooError, BadInput, cut_middle, one_line

# Set before any library reads them. A user's own value wins.
ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code: 0, 1, 2, 129, 130 or 143."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from alignzoo.cli.quiet import Output

    # A service may start us with these closed; opened in this order they get their own numbers.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    # A reader that leaves early, as `head` does, ends no command.
    sys.stdout, sys.stderr = (
        Output(stream.fileno(), stream.encoding, closefd=False)
        for stream in (sys.stdout, sys.stderr)
    )
    sys.exit(status(list(sys.argv[1:] if argv is None else argv)))


def status(argv: list[str]) -> int:
    """Run one command, print any error as one message on stderr, and return the exit code."""
    import typer

    from alignzoo.cli.app import build_app
    from alignzoo.discovery import blocking, find_origin

    try:
        with blocking(blocked_in(argv)):
            code = build_app()(args=argv or ["--help"], prog_name="alignzoo", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except AlignzooError as error:
        complain(error.message, error)
        return error.exit_code
    except typer.TyperException as error:
        complain(usage(error), error)
        return error.exit_code
    except typer.Abort:
        return 130
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            return int(getattr(error, "exit_code", 130))
        origin = find_origin(error)
        where = f"{origin}: " if origin else ""
        complain(f"{where}{one_line(error)}\n  {write_traceback()}", error)
        return 1


def blocked_in(argv: Sequence[str]) -> list[str]:
    """Return the NAMEs of `-p no:NAME` before the command; raise `BadInput` for another value."""
    found = []
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            break
        if word.startswith("-p"):
            value = word.removeprefix("-p") or next(words, "")
            if not value.startswith("no:") or value == "no:":
                raise BadInput(
                    f"option -p: {value!r} is not allowed",
                    hint="write -p no:NAME, the name of a plugin or of a package",
                )
            found.append(value.removeprefix("no:"))
    return found


def complain(message: str, error: BaseException) -> None:
    """Print an error on stderr, with its traceback if `ALIGNZOO_DEBUG=1`."""
    from alignzoo.cli.render import clean

    if os.environ.get("ALIGNZOO_DEBUG") == "1":
        traceback.print_exception(error)
    with suppress(OSError):
        sys.stdout.flush()
    print(f"alignzoo: {clean(message)}", file=sys.stderr)


def usage(error: Exception) -> str:
    """Return the message of a usage error, with the nearest option if one was unknown.

    typer's classes for these errors are private, so that their attributes have to do.
    """
    context = getattr(error, "ctx", None)
    hint = f"\n  see {context.command_path} --help" if context else ""
    if hasattr(error, "possibilities"):
        name, near = getattr(error, "option_name", "?"), error.possibilities
        meant = f": did you mean {near[0]}?" if near else ""
        return f"unknown option {cut_middle(name, 600)}{meant}{hint}"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = cut_middle(message, 600)
    return message[:1].lower() + message[1:] + hint


def write_traceback() -> str:
    """Write the current traceback to a temporary file and return a hint with its path."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="alignzoo-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"the traceback cannot be written: {one_line(error)}"
    return f"the traceback is in {file.name}"
