"""Results as tables and columns. Text of a model goes through `clean` and is never markup."""

from __future__ import annotations

import dataclasses
import math
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

LABELS = {
    "score": "score",
    "kl": "KL to the base",
    "length": "mean length",
    "ended": "finished (EOS)",
    "reward": "reward",
    "reward/drawn": "  mean of all samples",
    "answer/flops": "FLOPs per answer",
    "held-out/loss": "held-out loss",
    "held-out/rewards/accuracies": "held-out accuracy",
    "held-out/steps/accuracy": "held-out step accuracy",
    "held-out/steps/majority": "  majority baseline",
    "held-out/solutions/accuracy": "held-out solution accuracy",
    "held-out/solutions/majority": "  majority baseline",
    "judge/pairs": "pairs",
    "judge/rows": "rows",
    "judge/unusable": "  unusable answers",
    "judge/agreement": "agreement with the labels",
    "judge/flips": "position flips",
    "judge/first": "mean P(first)",
    "judge/length": "correlation with length",
    "judge/calls": "judge calls",
    "judge/cached": "  cached",
    "judge/retries": "  retried",
    "judge/tokens": "tokens",
    "judge/tokens/saved": "  saved by the cache",
    "judge/money": "cost",
    "judge/money/saved": "  saved by the cache",
    "calibration/ece": "calibration error",
    "calibration/brier": "Brier score",
}
HELD_OUT = "held-out/"
# The rest is in run.json.
HELD_OUT_SHOWN = tuple(name for name in LABELS if name.startswith(HELD_OUT))
PART = "held-out/loss/"  # and the name of one source of several
OF = "judge/agreement/"  # and a label
COUNTS = ("pairs", "rows", "unusable", "calls", "cached", "retries", "tokens", "tokens/saved")
PRICES = ("judge/money", "judge/money/saved")
NARROW = 100
CHANGE_WIDTH = 95  # columns that a table of changes takes with all its intervals


def summary_table(columns: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Return a table with a row per metric and a column per model or task; a dash if missing."""
    table = start_table(columns)
    for name in list_shown(columns.values()):
        cells = [estimate(name, (summary or {}).get(name)) for summary in columns.values()]
        table.add_row(Text(label(name)), *map(Text, cells))
    return table


def change_table(
    before: Mapping[str, Any], after: Mapping[str, Any], changes: Mapping[str, Any], width: int
) -> Table:
    """Return a table of two summaries and of the changes from one to the other.

    On a console of fewer than 95 columns, a metric with a change has the interval of that alone.
    """
    table = start_table(["before", "after", "change"])
    for name in list_shown([before, after]):
        full = width >= CHANGE_WIDTH or name not in changes
        cells = [estimate(name, summary.get(name), interval=full) for summary in (before, after)]
        cells.append(estimate(name, changes.get(name), sign="+"))
        table.add_row(Text(label(name)), *map(Text, cells))
    return table


def start_table(headings: Iterable[str]) -> Table:
    """Return an empty table with a column for labels and one for each heading."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in headings:
        table.add_column(Text(clean(heading)), justify="right")
    return table


def list_shown(summaries: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Return the names of the metrics that a table shows, in the order of the summaries."""
    return [
        name
        for name in dict.fromkeys(name for summary in summaries for name in summary or ())
        if not name.startswith(HELD_OUT) or name in HELD_OUT_SHOWN or name.startswith(PART)
    ]


def label(name: str) -> str:
    """Return the label of a metric; `held-out loss: gsm8k` for one source of several."""
    if name.startswith(PART):
        return f"{LABELS['held-out/loss']}: {clean(name.removeprefix(PART))}"
    if name.startswith(OF):
        return f"  on {clean(name.removeprefix(OF))}"
    return LABELS.get(name, clean(name))


def estimate(name: str, value: Any, *, sign: str = "", interval: bool = True) -> str:
    """Return the mean and its 95% interval, `0.512 [0.480, 0.544]`; `sign` "+" is for changes."""

    def number(x: float) -> str:
        formats = {"ended": ".0%", "length": ".1f", "answer/flops": ".2g"}
        formats |= {f"judge/{count}": ",.0f" for count in COUNTS} | dict.fromkeys(PRICES, ".4g")
        return format(x, sign + formats.get(name, ".3f"))

    if value is None or not math.isfinite(value.mean):
        return "-"
    ends = (value.low, value.high)
    if not interval or any(end is None or not math.isfinite(end) for end in ends):
        return number(value.mean)
    return f"{number(value.mean)} [{', '.join(map(number, ends))}]"


def samples(console: Console, before: Any, after: Any, count: int = 2) -> None:
    """Print completions of the first prompts, before and after training, side by side."""
    # Without a seed the model did not write it: its task measures it by texts of its own.
    earlier = {item["item"]: item for item in before.items if item["seed"] is not None}
    for new in [item for item in after.items if item["item"] in earlier][:count]:
        old = earlier[new["item"]]
        console.print(Text(f"prompt: {clean(shorten(new['prompt']))}", style="bold"))
        columns = {"before": shorten(old["completion"]), "after": shorten(new["completion"])}
        console.print(beside(columns, console.width, narrow=0))
        console.print()


def beside(texts: Mapping[str, str], width: int, *, narrow: int = NARROW) -> RenderableType:
    """Return texts in columns under their names, or one after the other in a narrow terminal."""
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
    """Print lines to copy, such as paths and commands, without wrapping them."""
    for row in rows:
        console.print(Text(clean(row)), soft_wrap=True)


# Control and format characters (bidirectional overrides among them), surrogates, and separators
# that some terminals take for line ends.
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Line ends and tabs are layout; the joiners hold emoji and some scripts together.
SAFE = frozenset("\n\t\u200c\u200d")


def clean(text: str) -> str:
    r"""Return the text with characters that could control a terminal escaped, as in `\x1b[31m`.

    They are not dropped, so that a reader sees what the model really wrote.
    """
    return "".join(
        char if char in SAFE or unicodedata.category(char) not in UNSAFE else _escape(char)
        for char in text
    )


def shell_command(words: Sequence[str]) -> str:
    """Return words as a command to copy: a shell reads them as they are, and no terminal obeys."""
    return " ".join(map(_quote, words))


def _quote(word: str) -> str:
    """Quote a word for a shell; with control characters in the form `$'\\x1b'`."""
    if not any(unicodedata.category(char) in UNSAFE for char in word):
        return shlex.quote(word)
    return f"$'{''.join(map(_shell_escape, word))}'"


def _shell_escape(char: str) -> str:
    code = ord(char)
    if char in "'\\":
        return f"\\{char}"
    if unicodedata.category(char) not in UNSAFE:
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python reads the command line
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def shorten(text: str, limit: int = 600) -> str:
    """Return the beginning of a long text, with an ellipsis if it was cut."""
    return text if len(text) <= limit else text[:limit].rstrip() + " …"


def to_plain(value: Any) -> Any:
    """Return a value as JSON can hold it: dataclasses as objects, NaN and infinity as null."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
