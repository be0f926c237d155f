"""The plots of a board's page, as figures of Plotly: `{"data": [...], "layout": {...}}`.

Plotly reads its texts as a small HTML. `label` escapes the names that come from a board; no other
text of a board is in a figure.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from alignzoo.cli.render import clean, to_plain
from alignzoo_compare.board import Board, Row
from alignzoo_compare.grid import BASE
from alignzoo_compare.report.kinds import CONTROL, KINDS, NOTHING
from alignzoo_compare.report.summary import THRESHOLDS, EntryResult, Summary, TaskResult

Figure = dict[str, Any]
Point = dict[str, float]
LONGEST = 28  # characters of a name
# Okabe and Ito's colours, which people who are blind to a colour can tell apart.
COLOURS = dict(
    zip(
        (*reversed(KINDS.values()), NOTHING, CONTROL),
        ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2", "#8a8a8a"),
        strict=True,
    )
)
MOST_NAMED = 20  # lines of a plot; names of more would cover each other
DIGITS = 4  # of a number in a figure
SEEDS_SHOWN = 5  # training curves of an entry
POINTS_SHOWN = 50  # of a training curve


def label(name: str) -> str:
    """Return a name as Plotly shows it: shortened, and with nothing that it reads as HTML."""
    text = clean(name)
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return html.escape(short, quote=False)


def plot_scores(task: TaskResult) -> Figure:
    """Return the scores of a task's entries with their intervals, best on top."""
    entries = task.entries[::-1]
    by_kind: dict[str, list[int]] = {}
    for place, entry in enumerate(entries):
        by_kind.setdefault(entry.kind, []).append(place)
    data = []
    for kind, places in by_kind.items():
        scores = [entries[place].score for place in places]
        data.append(
            {
                **style_of(kind),
                "mode": "markers",
                "name": label(kind),
                "x": [score.mean for score in scores],
                "y": places,
                "text": [label(entries[place].entry) for place in places],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [score.high - score.mean for score in scores],
                    "arrayminus": [score.mean - score.low for score in scores],
                    "thickness": 1.5,
                },
                "hovertemplate": "%{text}: %{x:.3f}<extra></extra>",
            }
        )
    base = next((entry.score.mean for entry in entries if entry.entry == BASE), None)
    layout = {
        "height": 130 + 22 * len(entries),
        "xaxis": {"title": {"text": "score, with its 95% interval"}},
        "yaxis": {
            "tickvals": list(range(len(entries))),
            "ticktext": [label(entry.entry) for entry in entries],
            "range": [-0.7, len(entries) - 0.3],
            "automargin": True,
        },
        "shapes": [] if base is None else [dashed_line("x", base)],
    }
    return finish(data, layout)


def plot_against_kl(board: Board, task: TaskResult) -> Figure:
    """Return the score of each entry against its KL to the base, at every evaluation.

    A line stands at the KL at which the table compares scores.
    """
    base = next((entry.score.mean for entry in task.entries if entry.entry == BASE), None)
    start = [] if base is None else [{"kl": 0.0, "score": base}]
    curves = [
        (entry, [*start, *mean_curve(finals(board, entry.entry, task.task), "kl")])
        for entry in task.entries
        if entry.entry != BASE and entry.kl is not None
    ]
    layout = {
        "height": 420,
        "xaxis": {"title": {"text": "KL to the base, nats per completion"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "score"}},
        "shapes": [
            *([] if base is None else [dashed_line("y", base)]),
            *([] if task.fixed_kl is None else [dashed_line("x", task.fixed_kl)]),
        ],
    }
    named = len(curves) <= MOST_NAMED
    data = [line_of(entry, "kl", points, named=named) for entry, points in curves]
    return finish(data, layout)


def plot_against_flops(board: Board, task: TaskResult) -> Figure:
    """Return the score of each entry against the FLOPs spent, at every evaluation."""
    data = []
    named = len(task.entries) <= MOST_NAMED
    for entry in task.entries:
        if entry.entry == BASE or not entry.flops:
            continue
        points = mean_curve(finals(board, entry.entry, task.task), "flops")[:-1]
        last = {"flops": entry.flops, "score": entry.score.mean}
        points = [point for point in points if 0 < point["flops"] < entry.flops]
        data.append(line_of(entry, "flops", [*points, last], named=named))
    base = next((entry.score.mean for entry in task.entries if entry.entry == BASE), None)
    layout = {
        "height": 420,
        "xaxis": {
            "title": {"text": "FLOPs of a run, tuning left out"},
            "type": "log",
            "tickformat": ".1~e",
            "dtick": "D2",
        },
        "yaxis": {"title": {"text": "score"}},
        "shapes": [] if base is None else [dashed_line("y", base)],
    }
    return finish(data, layout)


def plot_profile(summary: Summary) -> Figure:
    """Return the fraction of runs on all tasks above each score, for each entry."""
    data = [
        {
            **style_of(entry.kind),
            "mode": "lines",
            "name": label(entry.kind),
            "x": THRESHOLDS,
            "y": [point.value for point in entry.profile],
            "text": [f"{point.low:.2f} to {point.high:.2f}" for point in entry.profile],
            "meta": label(entry.entry),
            "hovertemplate": "%{meta}: %{y:.2f} (%{text}) of runs above %{x:.2f}<extra></extra>",
        }
        for entry in summary.overall
    ]
    layout = {
        "height": 420,
        "xaxis": {"title": {"text": "score, from 0, the worst, to 1, the best"}},
        "yaxis": {"title": {"text": "fraction of runs above it"}, "range": [-0.02, 1.02]},
    }
    return finish(data, layout)


def plot_training(board: Board, entry: EntryResult, task: TaskResult) -> Figure | None:
    """Return the loss and the reward of an entry's runs at each step; None without training."""
    data = []
    for row in finals(board, entry.entry, task.task)[:SEEDS_SHOWN]:
        training = row["training"]
        stride = -(-len(training["step"]) // POINTS_SHOWN) or 1
        for name, axis, colour in (("loss", "y", "#56b4e9"), ("reward", "y2", "#d55e00")):
            pairs = list(zip(training["step"], training.get(name) or [], strict=False))[::stride]
            known = [(x, y) for x, y in pairs if y is not None]
            if known:
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines" if len(known) > 1 else "markers",
                        "name": name,
                        "legendgroup": name,
                        "yaxis": axis,
                        "line": {"color": colour, "width": 1.3},
                        "marker": {"color": colour},
                        "x": [x for x, _ in known],
                        "y": [y for _, y in known],
                        "hovertemplate": f"seed {int(row['number'])}: %{{y:.4g}} at step %{{x}}"
                        "<extra></extra>",
                    }
                )
    if not data:
        return None
    layout = {
        "height": 340,
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "loss"}},
        "yaxis2": {
            "title": {"text": "reward"},
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "automargin": True,
        },
    }
    return finish(data, layout)


def finals(board: Board, entry: str, task: str) -> list[Row]:
    """Return the finished final rows of an entry on a task."""
    return [row for row in board.find("final", entry, task) if row["status"] == "finished"]


def mean_curve(rows: Sequence[Row], x: str) -> list[Point]:
    """Return the evaluations of runs that have `x`, averaged over runs place by place.

    Runs of one budget may end at different steps. If they were evaluated a different number of
    times, only their last evaluations are averaged.
    """
    curves = [[point for point in row["curve"] if x in point] for row in rows]
    if not curves or not all(curves):
        return []
    if len({len(curve) for curve in curves}) > 1:
        curves = [curve[-1:] for curve in curves]
    return [
        {name: fmean(point[name] for point in points) for name in (x, "score")}
        for points in zip(*curves, strict=True)
    ]


def line_of(entry: EntryResult, x: str, points: Sequence[Point], *, named: bool) -> dict[str, Any]:
    """Return the trace of an entry through the points, its last one the largest and `named`."""
    sizes = [5] * (len(points) - 1) + [10]
    style = style_of(entry.kind)
    name = label(entry.entry)
    return {
        **style,
        "mode": "lines+markers+text" if named else "lines+markers",
        "name": label(entry.kind),
        "marker": {**style["marker"], "size": sizes},
        "x": [point[x] for point in points],
        "y": [point["score"] for point in points],
        "text": [""] * (len(points) - 1) + [name],
        "textposition": "top center",
        "textfont": {"size": 10},
        "cliponaxis": False,
        "meta": name,
        "hovertemplate": "%{meta}: %{y:.3f} at %{x:.3g}<extra></extra>",
    }


def style_of(kind: str) -> dict[str, Any]:
    """Return what traces of one kind of feedback share: a colour and a place in the legend."""
    colour = COLOURS[kind]
    return {
        "type": "scatter",
        "legendgroup": kind,
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 8},
    }


def dashed_line(axis: str, value: float) -> dict[str, Any]:
    """Return a dashed line at a value of an axis, the score of the base for example."""
    across = "y" if axis == "x" else "x"
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{across}ref": "paper",
        "line": {"color": COLOURS[CONTROL], "width": 1, "dash": "dash"},
    }


def finish(data: list[dict[str, Any]], layout: dict[str, Any]) -> Figure:
    """Return a figure whose legend has each group once, and whose numbers are short."""
    named: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["legendgroup"] not in named
        named.add(trace["legendgroup"])
    return shorten(to_plain({"data": data, "layout": layout}))


def shorten(value: Any) -> Any:
    """Return a structure with its numbers rounded to `DIGITS` significant digits."""
    if isinstance(value, dict):
        return {name: shorten(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shorten(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
