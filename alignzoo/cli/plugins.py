"""`alignzoo plugins`: what is installed, read from metadata and source; nothing is imported."""

from __future__ import annotations

import json
import sys

from rich import box
from rich.table import Table
from rich.text import Text

from alignzoo import discovery
from alignzoo.cli.render import clean
from alignzoo.cli.terminal import console_for
from alignzoo.errors import AlignzooError

FIELDS = ("kind", "name", "package", "version", "summary")


def plugins_command(*, as_json: bool) -> None:
    """One broken package is reported on stderr and hides no other."""
    rows: list[dict[str, str]] = []
    for kind in discovery.KINDS:
        try:
            rows += [describe(found) for found in discovery.discover(kind).values()]
        except AlignzooError as error:
            print(f"alignzoo: {clean(error.message)}", file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("kind", "name", "package", "summary"):
        table.add_column(heading)
    before = ""
    for row in rows:
        kind, before = row["kind"] if row["kind"] != before else "", row["kind"]
        cells = (kind, row["name"], f"{row['package']} {row['version']}", row["summary"])
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console_for(sys.stdout).print(table if rows else "no plugins are installed")


def describe(found: discovery.Found) -> dict[str, str]:
    described = {"summary": summary(found)}
    return {field: described.get(field) or getattr(found, field) for field in FIELDS}


def summary(found: discovery.Found) -> str:
    """The first line of its docstring; a package that cannot even be looked into has none."""
    try:
        return found.summary
    except Exception:
        return ""
