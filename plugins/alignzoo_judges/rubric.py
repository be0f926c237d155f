"""Rubrics: weighted criteria for each prompt, all asked about a completion in one judge call.

    reward = clip(sum_i w_i m_i / sum_i max(w_i, 0), 0, 1),  m_i = 1 if criterion i is met, else 0

The weighted share is the explicit aggregation of Rubrics as Rewards (Gunjal et al. 2025,
https://arxiv.org/abs/2507.17746). A negative weight is a pitfall: as in HealthBench (Arora et al.
2025, https://arxiv.org/abs/2505.08775) it subtracts if it is met, and the total is that of the
positive weights. HealthBench clips the mean over all examples; here each reward is clipped.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from alignzoo.data import Message
from alignzoo.errors import BadInput
from alignzoo_judges.comparison import format_content
from alignzoo_judges.judge import Judge

MOST_CRITERIA = 64  # of a prompt
MOST_NAMES = 16  # criteria of a run that are logged
LONGEST_NAME = 40
TOKENS_PER_CRITERION = 16  # "12: yes" and a line end, with room to spare
ANSWER = re.compile(r"^\W*(?:criterion\s+)?(\d+)\W+(yes|no)\b", re.IGNORECASE | re.MULTILINE)
FORMS = (
    "a rubric is a list of {criterion, weight}, of {title, description, weight}, or of texts, "
    "which have weight 1"
)


@dataclass(frozen=True)
class Criterion:
    """What a completion should do, or for a negative weight should not, with its name in the log.

    Both texts are on one line.
    """

    name: str
    text: str
    weight: float = 1.0


def parse_rubric(value: Any) -> list[Criterion]:
    """Return the criteria of a rubric; raise `ValueError` that says what is wrong with it."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"it is {describe_type(value)}, not a list")
    if not 0 < len(value) <= MOST_CRITERIA:
        raise ValueError(f"it has {len(value)} criteria, not 1 to {MOST_CRITERIA}")
    criteria = []
    for number, one in enumerate(value, start=1):
        try:
            criteria.append(parse_criterion(one))
        except ValueError as error:
            raise ValueError(f"criterion {number}: {error}") from None
    if not any(criterion.weight > 0 for criterion in criteria):
        raise ValueError("no criterion has a weight above 0")
    return criteria


def parse_criterion(value: Any) -> Criterion:
    """Return one criterion; raise `ValueError` that says what is wrong with it."""
    found = {"criterion": value} if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ValueError(f"it is {describe_type(value)}, not a text or an object")
    text = found.get("criterion") or found.get("description")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("it has no text: neither 'criterion' nor 'description'")
    title = found.get("title") or text
    if not isinstance(title, str):
        raise ValueError(f"its title is {describe_type(title)}, not a text")
    weight = next((found[key] for key in ("weight", "points") if found.get(key) is not None), 1.0)
    if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
        raise ValueError(f"its weight is {weight!r:.40}, not a number")
    name = " ".join(title.split())
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return Criterion(name, " ".join(text.split()), float(weight))


def describe_type(value: Any) -> str:
    """Return what kind of value stands where another one is expected."""
    names = {str: "a text", bool: "a truth value", dict: "an object", list: "a list"}
    return "a number" if type(value) in (int, float) else names.get(type(value), repr(value)[:40])


def rubric_of(row: Mapping[str, Any], column: str) -> list[Criterion] | None:
    """Return the rubric of a row, None if it has none; raise `ValueError` for a wrong one."""
    value = row.get(column)
    return None if value is None else parse_rubric(value)


def check_rubrics(rows: Iterable[Mapping[str, Any]], column: str) -> list[str]:
    """Check the rubrics of all rows, and return the names of the commonest criteria.

    Raise `BadInput` that names the first row with a wrong one, or if no row has any.
    """
    names: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        try:
            criteria = rubric_of(row, column) or []
        except ValueError as error:
            prompt = " ".join(format_content(row["prompt"]).split())
            raise BadInput(
                f"column {column!r}: {error}",
                where=f"training row {number}, {prompt[:60]!r}",
                hint=FORMS,
            ) from None
        names.update(dict.fromkeys((criterion.name for criterion in criteria), 1))
    if not names:
        raise BadInput(f"option --reward: no row has a rubric in column {column!r}", hint=FORMS)
    return [name for name, _ in names.most_common(MOST_NAMES)]


def apply_rubrics(
    judge: Judge,
    answered: Sequence[tuple[Mapping[str, Any], str]],
    rubrics: Sequence[list[Criterion] | None],
) -> list[list[bool] | None]:
    """Return which criteria each completion meets, asked in one call for each completion.

    None stands for a completion without a rubric, or whose judge left a criterion without an
    answer.
    """
    found: list[list[bool] | None] = [None] * len(rubrics)
    # The limit is a part of the cache's key: it depends on the own rubric, not on the others.
    limits = {
        i: TOKENS_PER_CRITERION * 2 ** math.ceil(math.log2(len(rubric)))
        for i, rubric in enumerate(rubrics)
        if rubric is not None
    }
    for limit in sorted(set(limits.values())):
        asked = [i for i in limits if limits[i] == limit]
        replies = judge.write(
            [build_rubric_question(*answered[i], rubrics[i] or []) for i in asked], limit
        )
        for i, reply in zip(asked, replies, strict=True):
            found[i] = parse_marks(reply, len(rubrics[i] or []))
    return found


def build_rubric_question(
    row: Mapping[str, Any], completion: str, rubric: Sequence[Criterion]
) -> list[Message]:
    """Show the prompt, the completion and the numbered criteria, and ask for a line for each."""
    listed = "\n".join(f"{i}. {criterion.text}" for i, criterion in enumerate(rubric, start=1))
    text = (
        f"Here is a conversation, and a response to its last message.\n\n"
        f"[Conversation]\n{format_content(row['prompt'])}\n\n[Response]\n{completion.strip()}\n\n"
        f"[Criteria]\n{listed}\n\n"
        "Which of the criteria does the response meet? Answer with one line for each criterion, "
        'its number and yes or no, such as "1: yes". Write nothing else.'
    )
    return [{"role": "user", "content": text}]


def parse_marks(reply: str, count: int) -> list[bool] | None:
    """Return the answer for each of `count` criteria, None if one is missing.

    Of two answers to one criterion, the first counts.
    """
    marks: dict[int, bool] = {}
    for number, answer in ANSWER.findall(reply):
        marks.setdefault(int(number), answer.lower() == "yes")
    numbers = range(1, count + 1)
    return [marks[i] for i in numbers] if marks.keys() >= set(numbers) else None


def weigh_marks(rubric: Sequence[Criterion], marks: Sequence[bool]) -> float:
    """Return the weighted share of the criteria that are met, in [0, 1]; see this module."""
    met = math.fsum(c.weight for c, mark in zip(rubric, marks, strict=True) if mark)
    total = math.fsum(max(criterion.weight, 0.0) for criterion in rubric)
    return min(max(met / total, 0.0), 1.0)
