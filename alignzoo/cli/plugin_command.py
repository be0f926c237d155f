"""Commands that plugins bring, under the entry point `alignzoo.commands`.

A command is a dataclass: its docstring is the help, its fields are the options, and `main` does it.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from alignzoo.cli.options import checked, parameters, with_parameters
from alignzoo.cli.quiet import quiet
from alignzoo.cli.run import doc_of
from alignzoo.discovery import Found
from alignzoo.options import build, options_of

SETTINGS = {"help_option_names": ["-h", "--help"]}


def plugin_command(found: Found, words: list[str]) -> Any:
    """Import the command, parse the words by its options, and call its `main`."""
    with quiet():
        cls = found.load()
    options = options_of(cls)

    def command(**values: Any) -> None:
        build(cls, checked(options, values), f"alignzoo {found.name}").main()

    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=SETTINGS,
    )
    own = [parameter for option in options for parameter in parameters(option)]
    app.command(help=escape(doc_of(cls)))(with_parameters(command, own))
    return app(args=words, prog_name=f"alignzoo {found.name}", standalone_mode=False)
