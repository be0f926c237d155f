"""The pairs of hh-rlhf as messages, and the folds of the cross-validation."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

from alignzoo import Preferences
from alignzoo.data.read import read_rows

Pair = dict[str, Any]  # id, and prompt, chosen, rejected as messages
ROLES = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant):")


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs without an empty answer; `id` is the number of the row, from 1."""
    pairs = []
    for number, row in enumerate(read_rows(str(path)), start=1):
        texts = Preferences.canonical(row)
        chosen, rejected = texts["chosen"].strip(), texts["rejected"].strip()
        if chosen and rejected:
            prompt = parse_turns(texts["prompt"])
            pairs.append(
                {
                    "id": number,
                    "prompt": prompt,
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
            )
    return pairs


def parse_turns(prompt: str) -> list[dict[str, str]]:
    """Return the turns of a prompt, without the empty turn of the assistant at its end."""
    _, *parts = TURN.split(prompt)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[speaker], "content": text.strip()} for speaker, text in turns][:-1]


def split_folds(pairs: list[Pair], count: int, seed: int) -> list[list[Pair]]:
    """Split the pairs into `count` parts; dialogues that open with one question stay together.

    Each group of dialogues goes, in random order, to the part that is smallest so far.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair["prompt"][0]["content"].lower(), []).append(pair)
    order = list(groups.values())
    Random(seed).shuffle(order)
    parts: list[list[Pair]] = [[] for _ in range(count)]
    for group in order:
        min(parts, key=len).extend(group)
    return parts


def answer_text(pair: Pair, side: str) -> str:
    """Return the text of the `chosen` or the `rejected` answer."""
    return pair[side][0]["content"]
