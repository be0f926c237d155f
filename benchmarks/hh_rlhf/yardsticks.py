"""Judges without a neural network: by the length of an answer, or by its words.

A judge returns a margin per held-out pair, above 0 if it prefers the chosen answer.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
from dialogues import Pair, answer_text, split_folds
from torch import Tensor
from torch.nn.functional import softplus

WORD = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)?|[^\sa-z0-9]")
MIN_ANSWERS = 2  # answers of the training part that a word must be in
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # C; chosen on the training part
INNER_FOLDS = 3


def prefer_longer(train: list[Pair], test: list[Pair]) -> list[float]:
    """Prefer the answer with more characters."""
    return [float(len(answer_text(p, "chosen")) - len(answer_text(p, "rejected"))) for p in test]


def prefer_shorter(train: list[Pair], test: list[Pair]) -> list[float]:
    """Prefer the answer with fewer characters."""
    return [-margin for margin in prefer_longer(train, test)]


def prefer_by_words(train: list[Pair], test: list[Pair]) -> list[float]:
    """Prefer by logistic regression on word counts, its C chosen by inner folds of `train`."""
    parts = split_folds(train, INNER_FOLDS, seed=0)

    def count_right(strength: float) -> int:
        found = 0
        for part in parts:
            rest = [p for other in parts if other is not part for p in other]
            found += sum(margin > 0 for margin in fit_and_predict(rest, part, strength))
        return found

    return fit_and_predict(train, test, max(STRENGTHS, key=count_right))


def fit_and_predict(train: list[Pair], test: list[Pair], strength: float) -> list[float]:
    """Return the margins w.d of `test`, w fitted on `train` with C = `strength`.

    w minimises |w|^2 / 2 + C sum log(1 + exp(-w.d)), with d a pair's word counts, chosen minus
    rejected. There is no intercept: the order of the two answers means nothing.
    """
    seen = Counter(
        word
        for pair in train
        for side in ("chosen", "rejected")
        for word in count_words(pair, side)
    )
    index = {word: i for i, word in enumerate(w for w, n in seen.items() if n >= MIN_ANSWERS)}
    differences = count_differences(train, index)
    weights = torch.zeros(len(index), 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weights.square().sum() / 2 + strength * softplus(-differences @ weights).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (count_differences(test, index) @ weights.detach()).flatten().tolist()


def count_differences(pairs: list[Pair], index: dict[str, int]) -> Tensor:
    """Return word counts of the chosen answer minus those of the rejected one, `[n, words]`."""
    places, counts = [], []
    for number, pair in enumerate(pairs):
        for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
            for word, n in count_words(pair, side).items():
                if word in index:
                    places.append((number, index[word]))
                    counts.append(sign * n)
    size = (len(pairs), len(index))
    return torch.sparse_coo_tensor(
        torch.tensor(places).T, counts, size, check_invariants=True
    ).coalesce()


def count_words(pair: Pair, side: str) -> Counter[str]:
    """Count the words and signs of an answer."""
    return Counter(WORD.findall(answer_text(pair, side).lower()))


YARDSTICKS = {
    "longer answer": prefer_longer,
    "shorter answer": prefer_shorter,
    "bag of words": prefer_by_words,
}
