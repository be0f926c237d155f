"""Shared by the tasks of the suite: seeded randomness, the splits, the shape of rows."""

from hashlib import blake2b
from random import Random
from typing import Annotated, Any

from annotated_types import Ge

Row = dict[str, Any]
SPLITS = ("train", "dev", "test")
# The names of the splits in the seeds of rows: `dev` keeps the one that it had when the models were
# trained and the pairs were sampled.
SEED_NAMES = {"train": "train", "dev": "test", "test": "unseen"}
Seed = Annotated[int, "seed of all that is drawn at random", Ge(0)]
STANDARD_VIEWS = ("text", "demonstrations", "preferences", "feedback", "prompts")


def rng(*key: object) -> Random:
    """Return a generator that depends on `key` alone, so that row 7 never depends on rows 0 to 6.

    `Random` hashes text with SHA-512, so this holds across processes, unlike Python's `hash`.
    """
    return Random("/".join(map(str, key)))


def is_held_out(key: str, fraction: float) -> bool:
    """Return True if `key` is kept out of the train split, as about `fraction` of all keys are.

    It does not depend on the seed of a run, so zoo-tiny was never trained on a held-out prompt.
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") < fraction * 2**64


def user_message(text: str) -> list[Row]:
    """Return a text as one user message."""
    return [{"role": "user", "content": text}]


def assistant_message(text: str) -> list[Row]:
    """Return a text as one assistant message."""
    return [{"role": "assistant", "content": text}]


def check_view(view: str, views: tuple[str, ...], split: str) -> None:
    """Raise `ValueError` for a view or a split that the task does not have.

    `test` has prompts alone: it is there to be evaluated on, once.
    """
    if view not in views:
        raise ValueError(f"no view {view!r}; choose from: {', '.join(views)}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; choose from: {', '.join(SPLITS)}")
    if split == "test" and view != "prompts":
        raise ValueError(f"the split 'test' has prompts alone, no {view}")
