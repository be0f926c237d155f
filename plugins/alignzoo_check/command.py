"""`alignzoo check`: check plugins against the laws of their kind, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from alignzoo import discovery
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import clean
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.testing import CheckReport, Finding, check, kinds_of
from alignzoo_judges import testing as _judges  # noqa: F401 - it registers the laws for judges

SIGNS = {"held": "ok", "broken": "BROKEN", "excepted": "exception", "skipped": "-"}


@dataclass
class CheckCommand:
    """Check that plugins do what the loop relies on, on a CPU and without a network.

    Each is a name, with options as NAME,OPTION=VALUE, a Python file, or an installed package, whose
    plugins are all checked.
    """

    plugins: Annotated[list[str], "plugins, Python files or packages"] = field(default_factory=list)
    kind: Annotated[
        str | None, "kind of the plugin, if several have its name: algorithms, rewards, ..."
    ] = None
    json: Annotated[bool, "print machine-readable JSON"] = False

    positional = "plugins"

    def main(self) -> None:
        """Check the plugins, and exit with 1 if a law is broken."""
        if not self.plugins:
            raise BadInput("nothing to check", hint="name a plugin: alignzoo check dpo")
        reports = []
        with quiet() as log:
            ui = Terminal(log.err if self.json else log.out)
            for kind, name in self.subjects():
                with ui.phase(f"checking {name}"):
                    reports.append(CheckReport(kind, name, list(check(kind, name))))
                remember(reports[-1])
        if self.json:
            print(json.dumps([to_json(report) for report in reports], indent=2))
        else:
            for report in reports:
                show(report)
        if any(report.broken for report in reports):
            raise typer.Exit(1)

    def subjects(self) -> list[tuple[str, str]]:
        """Return kind and name of each plugin to check."""
        found = []
        for text in self.plugins:
            package = plugins_of(text)
            kinds = [self.kind] if self.kind else []
            found += package or [(kind, text) for kind in kinds or kinds_of(text)]
        return found


def plugins_of(package: str) -> list[tuple[str, str]]:
    """Return kind and name of each plugin of a package that can be checked."""
    return [
        (kind, name)
        for kind in discovery.GROUPS
        if kind != "commands"
        for name, found in discovery.discover(kind).items()
        if found.package == package
    ]


def remember(report: CheckReport) -> None:
    """Let `run.json` say that the plugin has passed, if it was checked with its default options."""
    if "," in report.name or not discovery.is_plugin(report.kind, report.name):
        return
    sha256 = discovery.hash_plugin(report.kind, report.name)
    if report.passed and sha256 is not None:
        discovery.record_check(sha256, report.name, report.version)


def show(report: CheckReport) -> None:
    """Print the table of a report, and what to do about each law that is broken."""
    console = console_for(sys.stdout)
    if report.skipped:
        console.print(
            Text(f"{report.kind[:-1]} {report.name} was not checked: {clean(report.skipped)}")
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{report.kind[:-1]} {report.name}")
    for heading in ("law", "", ""):
        table.add_column(heading)
    for finding in report.findings:
        text = finding.text if finding.status != "held" else ""
        table.add_row(finding.law.name, SIGNS[finding.status], Text(clean(text)))
    console.print(table)
    for finding in report.broken:
        console.print(Text(f"{finding.law.name}: {clean(finding.text)}", style="bold"))
        for line in finding.lines()[1:]:
            console.print(Text("  " + clean(line)))
    held = sum(finding.status == "held" for finding in report.findings)
    console.print(f"{report.name}: {held} laws hold, {len(report.broken)} broken")


def to_json(report: CheckReport) -> dict[str, object]:
    """Return a report for JSON."""
    return {
        "kind": report.kind,
        "name": report.name,
        "passed": report.passed,
        "skipped": report.skipped,
        "version": report.version,
        "findings": [finding_to_json(finding) for finding in report.findings],
    }


def finding_to_json(finding: Finding) -> dict[str, str]:
    """Return a finding for JSON."""
    return {
        "law": finding.law.name,
        "status": finding.status,
        "text": finding.text,
        "cause": finding.law.cause if finding.status == "broken" else "",
        "where": finding.where,
    }
