"""`alignzoo doctor`: check this machine, and show the findings as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import clean
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import count, one_line
from alignzoo_doctor.finding import Finding

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
Check = Callable[[], Iterator[Finding]]


@dataclass
class DoctorCommand:
    """Check what this machine has and can do, and say what to do about what it cannot.

    The exit code is 1 if there is a problem.
    """

    hub: Annotated[bool, "ask the Hub too; nothing else uses the network"] = False
    json: Annotated[bool, "print machine-readable JSON"] = False

    def main(self) -> None:
        """Check, print, and exit with 1 if there is a problem."""
        with quiet() as log:
            ui = Terminal(log.err if self.json else log.out, log)
            with ui.phase("checking this machine"):
                findings = find_all(checks(with_hub=self.hub))
        if self.json:
            print(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            show(findings, console_for(sys.stdout))
        if any(finding.level == "problem" for finding in findings):
            raise typer.Exit(1)


def checks(*, with_hub: bool) -> list[Check]:
    """Return the checks in the order in which they are shown."""
    from alignzoo_doctor import hub, machine, packages

    found: list[Check] = [
        machine.check_devices,
        machine.check_precision,
        machine.check_four_bit,
        machine.check_threads,
        machine.check_memory,
        machine.check_disk,
        packages.check_versions,
        packages.check_extras,
        packages.check_plugins,
    ]
    return [*found, hub.check_hub] if with_hub else found


def find_all(checks: Sequence[Check]) -> list[Finding]:
    """Return the findings of all checks; one that fails is a problem, and the others go on."""
    findings = []
    for check in checks:
        try:
            findings += list(check())
        except Exception as error:  # a machine may be broken in any way
            subject = check.__name__.removeprefix("check_").replace("_", " ")
            findings.append(Finding("problem", subject, f"cannot be checked: {one_line(error)}"))
    return findings


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print a row per finding, what to do below it, and the number of notes and problems."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    for finding in findings:
        text = Text(clean(finding.text))
        if finding.advice:
            text.append(f"\n{clean(finding.advice)}", style="dim")
        table.add_row(Text(finding.level, STYLES[finding.level]), finding.subject, text)
    console.print(table)
    levels = [finding.level for finding in findings]
    found = (count(levels.count(level), level) for level in ("problem", "note"))
    console.print(", ".join(found))
