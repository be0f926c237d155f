"""Short texts under two instructions that code can check."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from alignzoo_suite.common import Row, user_message
from alignzoo_suite.drawn import DrawnTask
from alignzoo_suite.format_writer import BASE, DEMONSTRATOR, SUBJECTS, draw_rules, write_text

ASKS = ("Write about the {}.", "Tell me about the {}.", "Describe the {}.", "What is the {} like?")
SAID = {
    "words": "Use exactly {} words.",
    "begin": "Begin with the word {}.",
    "end": "End with the word {}.",
    "capitals": "Write in capitals.",
    "without": "Do not use the word {}.",
    "items": "Give a list of {} items.",
}
CHECKS: dict[str, Callable[[str, list[str], Any], bool]] = {
    "words": lambda text, words, count: len(words) == count,
    "begin": lambda text, words, word: words[0] == word,
    "end": lambda text, words, word: words[-1] == word,
    "capitals": lambda text, words, _: text.isupper(),
    "without": lambda text, words, word: word not in words,
    "items": lambda text, words, count: len(list_items(text)) == count,
}


def list_items(text: str) -> list[str]:
    """Return the parts of a text between commas and line ends."""
    return [part for part in re.split(r"[,\n]", text) if part.strip()]


def list_words(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return re.findall(r"[a-z']+", text.lower())


def check_rules(rules: dict[str, Any], text: str) -> dict[str, bool]:
    """Return for each rule, by its kind, whether a text follows it. The empty text follows none."""
    words = list_words(text)
    return {kind: bool(words) and CHECKS[kind](text, words, rules[kind]) for kind in rules}


@dataclass(eq=False)
class Format(DrawnTask):
    """Follow two instructions about the form of a text; the gold score is the share followed."""

    name = "format"
    model = "zoo-scout"
    annotator_noise = 0.3

    def draw(self, random: Random) -> Row:
        topic = random.choice(SUBJECTS)
        rules = draw_rules(topic, random)
        said = [SAID[kind].format(value) for kind, value in rules.items()]
        prompt = " ".join([random.choice(ASKS).format(topic), *said])
        return {"prompt": user_message(prompt), "topic": topic, "rules": rules}

    def reply(self, row: Row, random: Random, *, base: bool) -> str:
        return write_text(row["topic"], row["rules"], BASE if base else DEMONSTRATOR, random)

    def score(self, row: Row, completion: str) -> float:
        """Return the share of the instructions that a text follows, whatever it is about."""
        followed = check_rules(row["rules"], completion)
        return sum(followed.values()) / len(followed)

    def measures(self, row: Row, completion: str) -> dict[str, float]:
        """Return for each kind of instruction in the prompt whether it is followed, 1 or 0."""
        return {kind: float(met) for kind, met in check_rules(row["rules"], completion).items()}
