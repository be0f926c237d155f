"""Find the steps of a solution, in its text and in the tokens of a completion."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from alignzoo.data.codec import Codec


def split_steps(text: str, separator: str) -> list[str]:
    """Split a text into its steps; pieces without words are dropped."""
    return [piece for piece in text.split(separator) if piece.strip()]


def step_ends(
    codec: Codec, ids: Sequence[int], steps: Sequence[str], separator: str
) -> list[int] | None:
    """Return the index of the token at which each step is complete.

    That is the token in which the separator after it ends, and for the last step the completion's
    last token. White space around a step is ignored, because some templates drop it. Return None
    if the text of the tokens is not these steps with separators between them.
    """
    text, at = codec.decode(ids), 0
    ends: list[int] = []
    for number, step in enumerate(steps):
        words = step.strip()
        start = text.find(words, at)
        if start < 0:
            return None
        if number + 1 == len(steps):
            return [*ends, len(ids) - 1]
        found = text.find(separator, start + len(words))
        if found < 0:
            return None
        at = found + len(separator)
        ends.append(_token_at(codec, ids, text[:at]))
    return ends


def _token_at(codec: Codec, ids: Sequence[int], beginning: str) -> int:
    """Return the index of the token that completes this beginning of the text."""
    return bisect_left(
        range(len(ids)),
        True,
        key=lambda last: codec.decode(ids[: last + 1]).startswith(beginning),
    )
