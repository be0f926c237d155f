"""Instructions that code can check, in the style of IFEval."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo_tasks.from_file import FileTask, Row, ask

Check = Callable[[str, Mapping[str, Any]], bool]


def count_words(text: str) -> int:
    """Return the number of words."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Return the number of parts that end in a full stop or the like, or at the end."""
    return len([part for part in re.split(r"[.!?]+(?:\s+|$)|\n+", text) if part.strip()])


def count_word(text: str, word: str) -> int:
    """Return how often a word or phrase stands in a text, in any case."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def compare(count: int, relation: str, wanted: int) -> bool:
    """Return True if a count is `at least` or `less than` what is wanted, or equal without one."""
    if relation == "less than":
        return count < wanted
    return count >= wanted if relation == "at least" else count == wanted


def is_json(text: str) -> bool:
    """Return True if a text is JSON, in a fence or not."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), re.DOTALL | re.IGNORECASE)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


# By the last part of IFEval's names; `k` has the instruction's arguments.
CHECKS: dict[str, Check] = {
    "no_comma": lambda text, k: "," not in text,
    "number_words": lambda text, k: compare(count_words(text), k["relation"], k["num_words"]),
    "number_sentences": lambda text, k: compare(
        count_sentences(text), k["relation"], k["num_sentences"]
    ),
    "number_paragraphs": lambda text, k: (
        len([part for part in re.split(r"\s*\*\*\*\s*", text) if part.strip()])
        == k["num_paragraphs"]
    ),
    "existence": lambda text, k: all(count_word(text, word) for word in k["keywords"]),
    "forbidden_words": lambda text, k: (
        not any(count_word(text, word) for word in k["forbidden_words"])
    ),
    "frequency": lambda text, k: compare(
        count_word(text, k["keyword"]), k["relation"], k["frequency"]
    ),
    "letter_frequency": lambda text, k: compare(
        text.lower().count(k["letter"].lower()), k["let_relation"], k["let_frequency"]
    ),
    "english_lowercase": lambda text, k: text.islower(),
    "english_capital": lambda text, k: text.isupper(),
    "capital_word_frequency": lambda text, k: compare(
        sum(word.isupper() for word in re.findall(r"\w+", text)),
        k["capital_relation"],
        k["capital_frequency"],
    ),
    "number_highlighted_sections": lambda text, k: (
        len(re.findall(r"\*[^\n*]+\*", text)) >= k["num_highlights"]
    ),
    "number_bullet_lists": lambda text, k: (
        len(re.findall(r"^\s*(?:[*-])\s+\S", text, re.MULTILINE)) == k["num_bullets"]
    ),
    "number_placeholders": lambda text, k: (
        len(re.findall(r"\[[^\]\n]+\]", text)) >= k["num_placeholders"]
    ),
    "title": lambda text, k: re.search(r"<<[^\n>]*\w[^\n>]*>>", text) is not None,
    "json_format": lambda text, k: is_json(text),
    "quotation": lambda text, k: len(text) > 2 and text[0] == '"' == text[-1],
    "end_checker": lambda text, k: text.strip('" \n').lower().endswith(k["end_phrase"].lower()),
    "postscript": lambda text, k: k["postscript_marker"].lower() in text.lower(),
    "two_responses": lambda text, k: (
        len({part.strip() for part in text.split("******") if part.strip()}) == 2
    ),
}


@dataclass(eq=False)
class IFEval(FileTask):
    """Prompts with instructions that code can check (Zhou et al. 2023, arXiv 2311.07911)

    The score is the share of a prompt's instructions that the text follows. Prompts with an
    instruction that no check is written for (the language of the answer, for example) are left out.
    """

    name = "ifeval"
    hub = "google/IFEval"

    def read(self, row: Row) -> Row | None:
        kinds = [name.rpartition(":")[2] for name in row["instruction_id_list"]]
        if not all(kind in CHECKS for kind in kinds):
            return None
        return {"prompt": ask(row["prompt"]), "instructions": kinds, "arguments": row["kwargs"]}

    def follow(self, row: Row, completion: str) -> list[bool]:
        """Return for each instruction whether a text follows it; the empty text follows none."""
        text = completion.strip()
        return [
            bool(text) and CHECKS[kind](text, arguments)
            for kind, arguments in zip(row["instructions"], row["arguments"], strict=True)
        ]

    def score(self, row: Row, completion: str) -> float:
        """Return the share of the instructions that are followed."""
        followed = self.follow(row, completion)
        return sum(followed) / len(followed)

    def measures(self, row: Row, completion: str) -> dict[str, float]:
        """Return whether every instruction of the prompt is followed, 1 or 0."""
        return {"all_instructions": float(all(self.follow(row, completion)))}
