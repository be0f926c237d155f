"""One judge for two questions: teach it on answers of the base, and measure it on held-out ones."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from graded_constitution import GradedConstitution, mark_answer

from alignzoo import load_policy
from alignzoo.data import Codec, read_task_rows
from alignzoo.evaluation.statistics import mean_with_interval
from alignzoo.rollout import Sampling, generate
from alignzoo.session import execute, recipe_for
from alignzoo_judges import rate, resolve_judge
from alignzoo_judges.rubric import apply_rubrics, parse_rubric, weigh_marks

Row = dict[str, Any]

BASE = "zoo-critic"
TASK = str(Path(__file__).parent / "graded_constitution.py")
MAX_NEW_TOKENS = 64
PER_PROMPT = {"train": 2, "dev": 2}  # answers of the base


def train_judge(settings: Row, runs: Path) -> Row:
    """Train the judge in a folder below `runs`, and return its row: what it learned, and its cost.

    A judge that is there already is measured only.
    """
    answers = runs / "answers.jsonl"
    answered = sample_answers()
    answers.write_text("".join(f"{json.dumps(row)}\n" for row in answered), encoding="utf-8")
    if not (runs / "judge" / "model").exists():
        given = {"model": BASE, "task": f"{TASK},answers={answers}", **settings}
        execute(recipe_for("sft", given | {"output_dir": str(runs), "name": "judge"}))
    facts = json.loads((runs / "judge" / "run.json").read_text(encoding="utf-8"))
    held_out = [row for row in answered if row["split"] == "dev"]
    return {
        "settings": settings,
        "answers": {split: sum(row["split"] == split for row in answered) for split in PER_PROMPT},
        "agreement": {
            name: measure_judge(model, held_out)
            for name, model in {"untaught": BASE, "taught": str(runs / "judge")}.items()
        },
        "fingerprints": facts["fingerprints"],
        "ledger": facts["ledger"],
        "environment": facts["environment"],
    }


def sample_answers() -> list[Row]:
    """Return rows of the prompts to learn from and of `dev`, each with an answer of the base."""
    policy = load_policy(BASE)
    codec = Codec(policy.tokenizer)
    rows = [
        row | {"split": split}
        for split, count in PER_PROMPT.items()
        for row in read_task_rows(GradedConstitution(), "prompts", split)
        for _ in range(count)
    ]
    prompts = [codec.prompt(row["prompt"]) for row in rows]
    sampling = Sampling(MAX_NEW_TOKENS, codec.stop_ids, decode=codec.decode)
    drawn = generate(policy, prompts, list(range(len(rows))), sampling, charge=lambda *_: None)
    return [row | {"answer": codec.decode(x.tokens)} for row, x in zip(rows, drawn, strict=True)]


def measure_judge(judge: str, answered: list[Row]) -> Row:
    """Return how often a judge agrees with the task's code, each a mean with its interval.

    - `rating` and `rubric`: of two answers to one prompt whose gold scores differ, the reward of
      the better one is higher; a tie counts as half.
    - `criteria`: a criterion is marked right; absent if no rubric is answered.
    - `unanswered`: a rubric lacks a mark.
    """
    task, asked = GradedConstitution(), resolve_judge(judge)
    pairs = [(row, row["answer"]) for row in answered]
    rubrics = [parse_rubric(row["rubric"]) for row in answered]
    marks = apply_rubrics(asked, pairs, list(rubrics))
    shares = [weigh_marks(r, m) if m else 0.0 for r, m in zip(rubrics, marks, strict=True)]
    gold = [task.score(row, answer) for row, answer in pairs]
    right = [
        float(found == truth)
        for (row, answer), given in zip(pairs, marks, strict=True)
        if given is not None
        for found, truth in zip(given, mark_answer(row, answer), strict=True)
    ]
    found = {
        "rating": compare_order(answered, gold, rate(asked, pairs)),
        "rubric": compare_order(answered, gold, shares),
        "criteria": right,
        "unanswered": [float(given is None) for given in marks],
    }
    return {name: asdict(mean_with_interval(values)) for name, values in found.items() if values}


def compare_order(answered: list[Row], gold: list[float], scores: list[float]) -> list[float]:
    """Return 1 for each pair of a prompt's answers that scores order as gold does, 0.5 for ties."""
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(answered):
        by_prompt[row["prompt"][0]["content"]].append(i)
    return [
        0.5 if scores[i] == scores[j] else float((scores[i] > scores[j]) == (gold[i] > gold[j]))
        for one in by_prompt.values()
        for i, j in combinations(one, 2)
        if gold[i] != gold[j]
    ]
