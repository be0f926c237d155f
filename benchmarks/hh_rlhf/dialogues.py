"""The pairs of hh-rlhf as messages, and which of them are held out together."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

from alignzoo import Preferences
from alignzoo.data.read import read_rows

Pair = dict[str, Any]  # id, prompt, chosen, rejected: messages
ROLES = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant):")


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of which both answers say something; `id` is the number of the row, from 1."""
    pairs = []
    for number, row in enumerate(read_rows(str(path)), start=1):
        texts = Preferences.canonical(row)
        chosen, rejected = texts["chosen"].strip(), texts["rejected"].strip()
        if chosen and rejected:
            prompt = messages(texts["prompt"])
            pairs.append(
                {
                    "id": number,
                    "prompt": prompt,
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
            )
    return pairs


def messages(prompt: str) -> list[dict[str, str]]:
    """The turns of a prompt, which ends where the assistant is about to answer."""
    _, *parts = TURN.split(prompt)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[who], "content": said.strip()} for who, said in turns][:-1]


def folds(pairs: list[Pair], count: int, seed: int) -> list[list[Pair]]:
    """The pairs in so many parts; dialogues that open with the same question are in one.

    Each group goes, in random order, to the part that is smallest so far.
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


def answer(pair: Pair, side: str) -> str:
    """The words of the `chosen` or the `rejected` answer."""
    return pair[side][0]["content"]
