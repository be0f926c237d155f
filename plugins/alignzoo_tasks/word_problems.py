"""Word problems with a number as the answer: GSM8K and SVAMP."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from alignzoo_rewards.exact_math import are_equal, extract_answer, parse_math
from alignzoo_tasks.from_file import FileTask, Row, ask

CALCULATION = re.compile(r"<<[^>]*>>")  # what GSM8K's calculator would do


@dataclass(eq=False)
class WordProblems(FileTask):
    """Problems whose answer is checked as mathematics; right is 1, wrong is 0."""

    instruction: Annotated[str, "what follows the question in the prompt"] = (
        "Work it out step by step, and write the answer after ####."
    )

    def score(self, row: Row, completion: str) -> float:
        """Return 1 if the final answer equals the row's, else 0."""
        right = parse_math(extract_answer(row["answer"]))
        return float(are_equal(right, parse_math(extract_answer(completion))))

    def answer(self, completion: str) -> str | None:
        """Return the final answer of a completion as mathematics reads it, None without one."""
        parsed = parse_math(extract_answer(completion))
        return str(parsed[0]) if parsed else None

    def pose(self, question: str, answer: str) -> Row:
        """Return the row of a question."""
        prompt = f"{question}\n{self.instruction}" if self.instruction else question
        return {"prompt": ask(prompt), "question": question, "answer": answer}

    def key(self, row: Row) -> str:
        return row["question"]


@dataclass(eq=False)
class GSM8K(WordProblems):
    """Grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168)"""

    name = "gsm8k"
    hub = "openai/gsm8k:main"
    hub_test = "openai/gsm8k:main@test"
    shares = (0.1, 0.1)
    views = ("prompts", "demonstrations")

    def read(self, row: Row) -> Row:
        return self.pose(row["question"], row["answer"])

    def rows(self, view: str, split: str) -> list[Row]:
        """Return prompts, with the solution as the completion if the view is demonstrations."""
        rows = super().rows(view, split)
        if view == "prompts":
            return rows
        solutions = [CALCULATION.sub("", row["answer"]) for row in rows]
        return [
            row | {"completion": [{"role": "assistant", "content": solution}]}
            for row, solution in zip(rows, solutions, strict=True)
        ]


@dataclass(eq=False)
class SVAMP(WordProblems):
    """Short word problems, one written in several ways (Patel et al. 2021, arXiv 2103.07191)"""

    name = "svamp"
    hub = "ChilleD/SVAMP"
    hub_test = "ChilleD/SVAMP@test"

    def read(self, row: Row) -> Row:
        body = row["Body"].strip()
        question = f"{body if body.endswith('.') else f'{body}.'} {row['Question'].strip()}"
        return self.pose(question, f"{float(row['Answer']):g}")
