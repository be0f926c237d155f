"""The page of a board: one HTML file that works offline, from a mail attachment too.

Whatever a model, a file or a plugin has written is text: Jinja escapes it, data for the plots is
JSON that no one runs, and the page's content-security policy lets a browser run the scripts of
this file alone, by their hashes, and load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import itables
import jinja2
import plotly.offline
from markupsafe import Markup

from alignzoo.cli.render import clean
from alignzoo.errors import count
from alignzoo_compare.board import Board, Row
from alignzoo_compare.grid import BASE, Grid
from alignzoo_compare.report.choices import (
    Choice,
    choose_by_kind,
    overall_candidates,
    task_candidates,
)
from alignzoo_compare.report.kinds import MEANINGS
from alignzoo_compare.report.plots import (
    Figure,
    finals,
    plot_against_flops,
    plot_against_kl,
    plot_profile,
    plot_scores,
    plot_training,
)
from alignzoo_compare.report.summary import EntryResult, OverallResult, Summary, TaskResult
from alignzoo_compare.report.tables import (
    controlled,
    describe_fixed_kl,
    describe_task,
    entry_cells,
    estimate,
    overall_cells,
)
from alignzoo_compare.statistics.intervals import Interval

LONGEST = 4000  # characters of a completion that are shown
# The columns of a task's table, and what each is.
COLUMNS = {
    "entry": "an algorithm with its settings",
    "needs": "the kind of feedback that it learned from",
    "score": "mean score on unseen test prompts, with a 95% interval over seeds and prompts",
    "rank": "interval of its rank: 1 + the entries told to be better, to the last but those told "
    "to be worse",
    "group": "two entries that share a letter are not told apart",
    "over base": "paired difference to the base on the same prompts; * if told from 0",
    "over sft": "paired difference to supervised fine-tuning; * if told from 0",
    "at equal length": "difference to the base that completions of equal length would have",
    "at KL": "score at the KL from the base that is named above the table, by its evaluations",
    "at KL, over sft": "difference to supervised fine-tuning at that KL, paired by seed",
    "KL": "KL divergence from the base, in nats per completion",
    "length": "mean length of a completion in tokens",
    "ended": "fraction of completions that end by themselves",
    "forgotten": "rise of the loss on held-out text that the base knew, in nats per token",
    "proxy - gold": "how much more a learned reward rose than the score, each in deviations of the "
    "base: above 0 the reward model is exploited",
    "FLOPs": "compute of a run by the ledger: generation, judges and reward models included",
    "tuning": "compute of its trials on dev prompts, in all",
    "feedback": "demonstrations, pairs, labels, verifier calls and judge calls of a run",
    "seconds": "wall-clock time of a run",
    "MiB": "peak memory of a run",
    "failed": "seeds that failed, which count with the scores of the base",
    "chosen on dev": "settings that won its trials",
    "dev": "score of that trial on dev prompts, with one seed",
    "dev - test": "how much that is above the score on test. The prompts differ, so look at the "
    "gaps of the others: one far above them was a lucky trial of settings that differ by seed",
}  # fmt: skip
ALSO = "a measure on another task, with a 95% interval over seeds"
OVERALL_COLUMNS = {
    "entry": COLUMNS["entry"],
    "needs": COLUMNS["needs"],
    "mean": "mean score over tasks, each scaled from 0, its worst, to 1, its best",
    "rank": COLUMNS["rank"],
    "group": COLUMNS["group"],
    "over base": "mean over tasks of the paired difference to the base; * if told from 0",
    "IQM": "interquartile mean: the mean of the middle half of all runs",
    "P(better than base)": "probability that a run beats one of the base on a task drawn at random",
    "P(better than sft)": "the same for supervised fine-tuning",
}


@dataclass(frozen=True)
class Section:
    """A board with its summary; `title` tells several boards of one page apart."""

    title: str
    board: Board
    summary: Summary


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number or text that it is sorted by."""

    text: str
    order: float | str


@dataclass(frozen=True)
class Table:
    """A table: its headings with their meanings, and its rows. The first cell is an entry."""

    headings: dict[str, str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Sample:
    """What the base and an entry answer to a prompt, each with its score."""

    prompt: str
    before: str | None
    before_score: float | None
    after: str
    after_score: float


@dataclass(frozen=True)
class Details:
    """What belongs to an entry on a task besides its numbers."""

    entry: str
    settings: dict[str, Any]
    commands: list[str]
    samples: list[Sample]
    training: Figure | None


@dataclass(frozen=True)
class TaskView:
    """What the page shows of a task."""

    task: str
    caption: str
    fixed_kl: str
    choices: list[Choice]
    table: Table
    plots: dict[str, Figure]
    details: list[Details]
    absent: dict[str, str]


@dataclass(frozen=True)
class SectionView:
    """What the page shows of a board."""

    title: str
    facts: dict[str, str]
    choices: list[Choice]
    overall: Table | None
    profile: Figure | None
    tasks: list[TaskView]
    warnings: list[str]


def render_page(sections: Sequence[Section]) -> str:
    """Return the page of one board, or of several that are shown apart."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alignzoo_compare.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [safe_script(plotly.offline.get_plotlyjs()), module_script()]
    template = environment.get_template("page.html.j2")
    return template.render(
        policy=content_policy(scripts),
        styles=[Markup(bundle("dt_bundle.css")), Markup(read_asset("page.css"))],
        plotly=Markup(scripts[0]),
        module=Markup(scripts[1]),
        sections=[view_section(section) for section in sections],
        kind_meanings=MEANINGS,
        columns=COLUMNS,
        overall_columns=OVERALL_COLUMNS,
    )


def show(value: Any) -> Any:
    """Return a value as the template writes it, with control characters made visible."""
    return clean(value) if type(value) is str else value


# --- scripts


def content_policy(scripts: Sequence[str]) -> str:
    """Return the policy that allows these scripts, and nothing from elsewhere."""
    hashes = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def module_script() -> str:
    """Return the module with DataTables and the few lines of the page itself."""
    tables = bundle("dt_bundle.js")
    exported = re.search(r"export\s*\{[^}]*?([\w$]+) as default\b", tables)
    if exported is None:
        raise RuntimeError("the bundle of itables exports no DataTable")
    return safe_script(f"{tables}\nconst DataTable = {exported[1]};\n{read_asset('page.js')}")


def safe_script(source: str) -> str:
    """Return a script that no HTML parser ends early: such words are only in its strings."""
    return re.sub(r"<(?=!--|/?script)", r"\\x3C", source, flags=re.IGNORECASE)


def bundle(name: str) -> str:
    """Return a file of DataTables, as itables brings it."""
    return (importlib.resources.files(itables) / "html" / name).read_text(encoding="utf-8")


def read_asset(name: str) -> str:
    """Return a file beside this one."""
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")


# --- views


def view_section(section: Section) -> SectionView:
    """Return what the page shows of a board."""
    board, summary = section.board, section.summary
    return SectionView(
        title=section.title,
        facts=describe_grid(board),
        choices=choose_by_kind(overall_candidates(summary)),
        overall=overall_table(summary.overall) if summary.overall else None,
        profile=plot_profile(summary) if summary.overall else None,
        tasks=[view_task(board, summary, place) for place in range(len(summary.tasks))],
        warnings=summary.warnings,
    )


def describe_grid(board: Board) -> dict[str, str]:
    """Return what was compared, by heading."""
    grid = board.grid
    done = [row for row in board.rows if row["status"] == "finished"]
    return {
        "Compared": f"{count(len(grid.entries), 'entry', 'entries')} on {', '.join(grid.tasks)}",
        "Base": grid.model or "the embedded model of each task",
        "Budget": f"{grid.budget} for each run, tuning not included",
        "Track": "equal compute" if grid.track == "flops" else "equal feedback",
        "Runs": f"{count(grid.seeds, 'seed')}; {count(grid.eval_size, 'test prompt')}",
        "Tuning": describe_tuning(grid),
        "Code": ", ".join(sorted({row["fingerprints"]["code"][:12] for row in done})),
    }


def describe_tuning(grid: Grid) -> str:
    """Return how settings were chosen."""
    if grid.trials == 1:
        return "none: every entry has its defaults"
    return f"{grid.trials} trials for each entry and task, on dev prompts"


def view_task(board: Board, summary: Summary, place: int) -> TaskView:
    """Return what the page shows of a task."""
    task = summary.tasks[place]
    return TaskView(
        task=task.task,
        caption=describe_task(task),
        fixed_kl=describe_fixed_kl(task),
        choices=choose_by_kind(task_candidates(summary, place)),
        table=task_table(task),
        plots={
            "Scores": plot_scores(task),
            "Score against KL to the base": plot_against_kl(board, task),
            "Score against compute": plot_against_flops(board, task),
        },
        details=[view_details(board, entry, task) for entry in task.entries],
        absent=task.absent,
    )


def view_details(board: Board, entry: EntryResult, task: TaskResult) -> Details:
    """Return an entry's settings, commands and samples."""
    rows = finals(board, entry.entry, task.task)
    settings = board.grid.entries[entry.entry]
    return Details(
        entry=entry.entry,
        settings={**settings, **entry.trial},
        commands=entry.commands,
        samples=pair_samples(rows[:1], finals(board, BASE, task.task)[:1]),
        training=plot_training(board, entry, task),
    )


def pair_samples(rows: Sequence[Row], base: Sequence[Row]) -> list[Sample]:
    """Return the samples of a run beside those of the base on the same items."""
    before = {sample["item"]: sample for row in base for sample in row["samples"]}
    samples = []
    for sample in (sample for row in rows for sample in row["samples"]):
        first = before.get(sample["item"], {})
        samples.append(
            Sample(
                prompt=cut(str(sample["prompt"])),
                before=cut(str(first["completion"])) if first else None,
                before_score=first.get("score"),
                after=cut(str(sample["completion"])),
                after_score=sample["score"],
            )
        )
    return samples


def cut(text: str) -> str:
    """Return the beginning of a long text, with the number of characters that are left out."""
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]}… ({rest:,} more characters)"


def task_table(task: TaskResult) -> Table:
    """Return the table of a task, without columns that are empty for all entries."""
    base = next((entry.retention for entry in task.entries if entry.entry == BASE), None)
    rows = [{**task_cells(entry, base), **measure_cells(entry)} for entry in task.entries]
    names = dict.fromkeys(name for row in rows for name in row)
    used = [name for name in names if any(row[name].text for row in rows if name in row)]
    also = {name for entry in task.entries for name in entry.also}
    rest = {name: ALSO if name in also else "a measure of the task" for name in used}
    meanings = {name: COLUMNS.get(name, rest[name]) for name in used}
    empty = Cell("", "")
    return Table(meanings, [[row.get(name, empty) for name in used] for row in rows])


def task_cells(entry: EntryResult, base_retention: float | None) -> dict[str, Cell]:
    """Return the cells of an entry by the headings of `COLUMNS`."""
    forgotten = subtract(entry.retention, base_retention)
    gap = subtract(entry.dev, entry.score.mean)
    texts = {
        **entry_cells(entry),
        "needs": entry.kind,
        "ended": f"{entry.ended:.2f}",
        "forgotten": number(forgotten, "+.3f"),
        "proxy - gold": number(entry.proxy_gap, "+.2f"),
        "chosen on dev": ", ".join(f"{k} {v:g}" for k, v in entry.trial.items()),
        "dev": number(entry.dev, ".3f"),
        "dev - test": number(gap, "+.3f"),
    }
    orders: dict[str, float | None] = {
        "score": entry.score.mean,
        "rank": entry.rank_low + entry.rank_high / 1000,
        "over base": mean_of_interval(entry.over_base),
        "over sft": mean_of_interval(entry.over_sft),
        "at equal length": mean_of_interval(controlled(entry)),
        "at KL": mean_of_interval(entry.at_kl),
        "at KL, over sft": mean_of_interval(entry.at_kl_over_sft),
        "KL": entry.kl,
        "length": entry.length,
        "ended": entry.ended,
        "forgotten": forgotten,
        "proxy - gold": entry.proxy_gap,
        "FLOPs": entry.flops,
        "tuning": entry.tuning_flops,
        "feedback": entry.feedback,
        "seconds": entry.seconds,
        "MiB": entry.peak_memory_bytes,
        "failed": entry.failed,
        "dev": entry.dev,
        "dev - test": gap,
    }
    return make_cells(COLUMNS, texts, orders)


def measure_cells(entry: EntryResult) -> dict[str, Cell]:
    """Return the cells of what a task measures besides the score, and of other tasks."""
    own = {name: Cell(f"{value:.3f}", value) for name, value in entry.measures.items()}
    also = {name: Cell(estimate(value), value.mean) for name, value in entry.also.items()}
    return {name: cell for name, cell in {**own, **also}.items() if name not in COLUMNS}


def overall_table(entries: Sequence[OverallResult]) -> Table:
    """Return the table over all tasks."""
    rows = []
    for entry in entries:
        texts = {**overall_cells(entry), "needs": entry.kind}
        orders: dict[str, float | None] = {
            "mean": entry.mean,
            "rank": entry.rank_low + entry.rank_high / 1000,
            "over base": mean_of_interval(entry.over_base),
            "IQM": entry.interquartile_mean.value,
            "P(better than base)": entry.beats_base.value,
            "P(better than sft)": None if entry.beats_sft is None else entry.beats_sft.value,
        }
        rows.append([*make_cells(OVERALL_COLUMNS, texts, orders).values()])
    return Table(OVERALL_COLUMNS, rows)


def make_cells(
    columns: dict[str, str], texts: dict[str, str], orders: dict[str, float | None]
) -> dict[str, Cell]:
    """Return a cell for each column. Text is sorted as it is, and a missing number is empty."""
    cells = {}
    for name in columns:
        order: float | str | None = orders[name] if name in orders else texts[name]
        cells[name] = Cell(texts[name], "" if order is None else order)
    return cells


def mean_of_interval(value: Interval | None) -> float | None:
    """Return the mean of an interval, if there is one."""
    return None if value is None else value.mean


def number(value: float | None, form: str) -> str:
    """Return a number in a format, or nothing."""
    return "" if value is None else format(value, form)


def subtract(value: float | None, other: float | None) -> float | None:
    """Return a difference, or None if a part is missing."""
    return None if value is None or other is None else value - other
