"""`alignzoo plugins` lists what is installed, and plugins of the kind `commands` are run here.

The list is read from metadata and source; nothing is imported for it. A command is a dataclass
under the entry point `alignzoo.commands`: its docstring is the help, its fields are the options,
and `main` does the work. The field that its class attribute `positional` names is typed without a
flag; a tuple names several.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from rich import box
from rich.table import Table
from rich.text import Text

from alignzoo import discovery
from alignzoo.cli.options import run_class
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import clean
from alignzoo.cli.terminal import console_for
from alignzoo.signals import catch_signals

FIELDS = ("kind", "name", "package", "version", "summary")


def plugin_command(name: str, words: list[str]) -> Any:
    """Import the command of a plugin, parse the words by its options, and call its `main`."""
    with catch_signals(), quiet():
        cls = discovery.load_plugin("commands", name)
    argument = getattr(cls, "positional", "")
    return run_class(cls, words, f"alignzoo {name}", argument=argument)


@dataclass
class Plugins:
    """List what is installed: algorithms, tasks, environments, rewards, judges, samplers,
    optimizers, add-ons and commands.

    A Python file works in place of a name wherever one of these is named. A name that several
    packages claim is chosen by PACKAGE:NAME.
    """

    json: Annotated[bool, "print machine-readable JSON"] = False

    def main(self) -> None:
        """Print the list, and on stderr whatever is wrong with what is installed."""
        rows = [
            describe(name, found)
            for kind in discovery.GROUPS
            for name, found in discovery.discover(kind).items()
        ]
        for problem in discovery.find_problems():
            print(f"alignzoo: {clean(problem)}", file=sys.stderr)
        if self.json:
            print(json.dumps(rows, indent=2))
        else:
            console_for(sys.stdout).print(table_of(rows) if rows else "no plugins are installed")


def table_of(rows: list[dict[str, str]]) -> Table:
    """Return a table of plugins, which names a kind at its first plugin only."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("kind", "name", "package", "summary"):
        table.add_column(heading)
    before = ""
    for row in rows:
        kind, before = row["kind"] if row["kind"] != before else "", row["kind"]
        cells = (kind, row["name"], f"{row['package']} {row['version']}", row["summary"])
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table


def describe(name: str, found: discovery.Found) -> dict[str, str]:
    """Return the fields of a plugin as text, with the name that chooses it."""
    return {field: name if field == "name" else getattr(found, field) for field in FIELDS}
