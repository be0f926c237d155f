"""Check every seeded mistake, and write which law finds it.

    python -m mutants.measure            writes benchmarks/results/mutants/ and docs/mistakes.md

Each plugin, right or wrong, is a file in a temporary folder, as a third party's would be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignzoo.files import write_text
from alignzoo.testing import check
from mutants.mistakes import MISTAKES, RIGHT, Mistake

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mutants"
PAGE = ROOT / "docs" / "mistakes.md"
ALLOWED_MISSES = 2


def broken_laws(source: str, name: str) -> list[str]:
    """Return the names of the laws that a plugin with this source breaks."""
    with tempfile.TemporaryDirectory(prefix="alignzoo-mutant-") as folder:
        path = Path(folder) / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        return [f.law.name for f in check("algorithms", str(path)) if f.status == "broken"]


def measure(mistakes: Sequence[Mistake]) -> list[dict[str, Any]]:
    """Return a row for each right plugin and for each mistake, and print it."""
    rows: list[dict[str, Any]] = []
    for path in sorted(RIGHT.glob("*.py")):
        found = broken_laws(path.read_text(encoding="utf-8"), path.stem)
        rows.append({"plugin": path.stem, "mistake": None, "report": "", "laws": found})
        print(json.dumps(rows[-1]), flush=True)
    for number, mistake in enumerate(mistakes):
        found = broken_laws(mistake.source, f"{mistake.plugin}_{number}")
        row = {"plugin": mistake.plugin, "mistake": mistake.name, "report": mistake.report}
        rows.append({**row, "laws": found})
        print(json.dumps(rows[-1]), flush=True)
    return rows


PLUGINS = {
    "imitate": "supervised fine-tuning",
    "prefer": "preferences with a reference",
    "odds": "preferences without a reference",
    "saturate": "good and bad labels",
    "group": "groups of completions",
    "critic": "a critic",
    "moving": "state from round to round",
    "duel": "pairs of own completions",
}


def write_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page that lists the mistakes and the laws that find them."""
    wrong = [row for row in rows if row["mistake"] is not None]
    found = sum(bool(row["laws"]) for row in wrong)
    lines = [
        "# Mistakes that the laws find",
        "",
        f"`alignzoo check` finds {found} of these {len(wrong)} seeded mistakes, each in a plugin "
        "that is otherwise right, and passes the right ones (`benchmarks/mutants`). The reports "
        "are those that a mistake is modelled on. `make check` measures it again.",
    ]
    for plugin, subject in PLUGINS.items():
        lines += ["", f"## {subject.capitalize()}", "", "| mistake | found by | report |"]
        lines += ["|---|---|---|"]
        for row in wrong:
            if row["plugin"] == plugin:
                laws = ", ".join(row["laws"]) or "**not found**"
                lines.append(f"| {row['mistake']} | {laws} | {link(row['report'])} |")
    return "\n".join(lines) + "\n"


def link(report: str) -> str:
    """Return a link to a report, `OWNER/NAME#NUMBER`."""
    if not report:
        return ""
    name, _, number = report.partition("#")
    return f"[{report}](https://github.com/{name}/issues/{number})"


def main() -> None:
    """Measure, write the rows, and fail if a right plugin is flagged or too many escape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mistakes of this plugin")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = measure([m for m in MISTAKES if m.plugin.startswith(options.only)])
    wrong = [row for row in rows if row["mistake"] is None and row["laws"]]
    missed = [row for row in rows if row["mistake"] is not None and not row["laws"]]
    found = sum(row["mistake"] is not None for row in rows) - len(missed)
    print(f"{found} of {found + len(missed)} mistakes found; {len(wrong)} right plugins flagged")
    if not options.only:
        options.out.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(options.out / "rows.jsonl", lines)
        write_text(PAGE, write_page(rows))
    if wrong or len(missed) > ALLOWED_MISSES:
        sys.exit(1)


if __name__ == "__main__":
    main()
