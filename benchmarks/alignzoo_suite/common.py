"""What every task of the suite shares: seeded randomness, the held-out split, the shape of rows."""

from hashlib import blake2b
from random import Random
from typing import Any

Row = dict[str, Any]
SPLITS = ("train", "test")
VIEWS = ("text", "demonstrations", "preferences", "feedback", "prompts")


def rng(*key: object) -> Random:
    """A generator that depends on `key` alone: row 7 is the same row whatever was drawn before.

    `Random` hashes text with SHA-512, so this holds across processes, unlike Python's `hash`.
    """
    return Random("/".join(map(str, key)))


def held_out(key: str, share: float) -> bool:
    """Whether `key` belongs to the test split; about `share` of all keys do.

    The seed has no say: whatever seed a run has, zoo-tiny was never trained on a test prompt.
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") < share * 2**64


def ask(text: str) -> list[Row]:
    """One user message."""
    return [{"role": "user", "content": text}]


def answer(text: str) -> list[Row]:
    """One assistant message."""
    return [{"role": "assistant", "content": text}]


def check_view(view: str, views: tuple[str, ...], split: str) -> None:
    """Refuse a view or a split that the task does not have."""
    if view not in views:
        raise ValueError(f"no view {view!r} here; there are: {', '.join(views)}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} here; there are: {', '.join(SPLITS)}")
