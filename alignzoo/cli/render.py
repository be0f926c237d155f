"""Results as tables and columns. Whatever a model wrote goes through `clean`, never as markup."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

LABELS = {
    "score": "score",
    "kl": "KL to the base",
    "length": "mean length",
    "ended": "share ended",
    "reward": "reward",
    "reward/drawn": "  of all drawn",
    "answer/flops": "FLOPs per answer",
    "held-out/loss": "held-out loss",
    "held-out/rewards/accuracies": "held-out accuracy",
    "held-out/steps/accuracy": "held-out steps",
    "held-out/steps/majority": "  the commoner label",
    "held-out/solutions/accuracy": "held-out solutions",
    "held-out/solutions/majority": "  the commoner verdict",
    "judge/pairs": "pairs",
    "judge/rows": "rows",
    "judge/unusable": "  without a usable answer",
    "judge/agreement": "agreement with the labels",
    "judge/flips": "orders that disagree",
    "judge/first": "mean P(first)",
    "judge/length": "correlation with length",
    "judge/calls": "answers asked for",
    "judge/cached": "  known already",
    "judge/retries": "  asked again after a failure",
    "judge/tokens": "tokens",
    "judge/money": "price",
    "calibration/ece": "calibration error",
    "calibration/brier": "Brier score",
}
HELD_OUT = "held-out/"
# The rest is in run.json.
HELD_OUT_SHOWN = tuple(name for name in LABELS if name.startswith(HELD_OUT))
PART = "held-out/loss/"  # and the name of one source of several
OF = "judge/agreement/"  # and a label
COUNTS = ("pairs", "rows", "unusable", "calls", "cached", "retries", "tokens")
NARROW = 100


def summary_table(columns: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """One row per measure, one column per model or task; a measure that is missing is a dash."""
    names = [
        name
        for name in dict.fromkeys(name for summary in columns.values() for name in summary or ())
        if not name.startswith(HELD_OUT) or name in HELD_OUT_SHOWN or name.startswith(PART)
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in columns:
        table.add_column(Text(clean(heading)), justify="right")
    for name in names:
        cells = [Text(estimate(name, (summary or {}).get(name))) for summary in columns.values()]
        table.add_row(Text(label(name)), *cells)
    return table


def label(name: str) -> str:
    """A measure in words; `held-out loss: gsm8k` for one source of several."""
    if name.startswith(PART):
        return f"{LABELS['held-out/loss']}: {clean(name.removeprefix(PART))}"
    if name.startswith(OF):
        return f"  on {clean(name.removeprefix(OF))}"
    return LABELS.get(name, clean(name))


def estimate(name: str, value: Any) -> str:
    """`0.512 [0.480, 0.544]`: the mean and its 95% interval."""

    def number(x: float) -> str:
        formats = {"ended": ".0%", "length": ".1f", "answer/flops": ".2g"}
        formats |= {f"judge/{count}": ",.0f" for count in COUNTS} | {"judge/money": ".4g"}
        return format(x, formats.get(name, ".3f"))

    if value is None or not math.isfinite(value.mean):
        return "-"
    ends = (value.low, value.high)
    if any(end is None or not math.isfinite(end) for end in ends):
        return number(value.mean)
    return f"{number(value.mean)} [{', '.join(map(number, ends))}]"


def samples(console: Console, before: Any, after: Any, count: int = 2) -> None:
    """What the model said to the first prompts before, beside what it says after."""
    earlier = {item["item"]: item for item in before.items}
    for new in [item for item in after.items if item["item"] in earlier][:count]:
        old = earlier[new["item"]]
        console.print(Text(f"prompt: {clean(shorten(new['prompt']))}", style="bold"))
        columns = {"before": shorten(old["completion"]), "after": shorten(new["completion"])}
        console.print(beside(columns, console.width, narrow=0))
        console.print()


def beside(texts: Mapping[str, str], width: int, *, narrow: int = NARROW) -> RenderableType:
    """Texts in columns under their names, or one after the other where the terminal is narrow."""
    bodies = {name: Text(clean(text) or "(empty)") for name, text in texts.items()}
    if width < narrow:
        parts: list[RenderableType] = []
        for name, body in bodies.items():
            parts += [Text(name, style="dim"), body]
        return Group(*parts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in bodies:
        table.add_column(Text(name), ratio=1, overflow="fold")
    table.add_row(*bodies.values())
    return table


def lines(console: Console, rows: Sequence[str]) -> None:
    """Lines to copy, such as paths and commands: never broken to fit the terminal."""
    for row in rows:
        console.print(Text(clean(row)), soft_wrap=True)


# Control, format (bidirectional overrides among them), surrogates, and the separators that some
# terminals take for line ends.
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Line ends and tabs are layout; the joiners hold emoji and some scripts together.
SAFE = frozenset("\n\t\u200c\u200d")


def clean(text: str) -> str:
    r"""The text with everything that could steer a terminal spelled out, as in `\x1b[31m`.

    Spelled out and not dropped, so that a reader sees what the model really wrote.
    """
    return "".join(
        char if char in SAFE or unicodedata.category(char) not in UNSAFE else _spelled(char)
        for char in text
    )


def _spelled(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def shorten(text: str, limit: int = 600) -> str:
    """The beginning of a long text, with a mark that there was more."""
    return text if len(text) <= limit else text[:limit].rstrip() + " …"
