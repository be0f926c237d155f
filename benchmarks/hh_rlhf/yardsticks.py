"""Judges without a neural network: the length of an answer, and the words that it has.

A judge gives a margin per held-out pair, above 0 where it prefers the chosen answer.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
from dialogues import Pair, answer, folds
from torch import Tensor
from torch.nn.functional import softplus

WORD = re.compile(r"[a-z0-9]+(?:['\u2019][a-z]+)?|[^\sa-z0-9]")
SEEN_AT_LEAST = 2  # answers of the training part that a word has to be in
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # one is chosen on the training part
INNER_FOLDS = 3


def longer(train: list[Pair], test: list[Pair]) -> list[float]:
    """The answer of more characters."""
    return [float(len(answer(p, "chosen")) - len(answer(p, "rejected"))) for p in test]


def shorter(train: list[Pair], test: list[Pair]) -> list[float]:
    """The answer of fewer characters."""
    return [-margin for margin in longer(train, test)]


def bag_of_words(train: list[Pair], test: list[Pair]) -> list[float]:
    """Logistic regression on differences of word counts, regularised as suits the training part."""
    parts = folds(train, INNER_FOLDS, seed=0)

    def right(strength: float) -> int:
        found = 0
        for part in parts:
            rest = [p for other in parts if other is not part for p in other]
            found += sum(margin > 0 for margin in regression(rest, part, strength))
        return found

    return regression(train, test, max(STRENGTHS, key=right))


def regression(train: list[Pair], test: list[Pair], strength: float) -> list[float]:
    """The weights w that minimise |w|^2 / 2 + C sum log(1 + exp(-w.d)), C being the strength.

    d is a pair's difference of word counts, chosen minus rejected. There is no intercept: which
    of the two answers comes first means nothing.
    """
    seen = Counter(
        word for pair in train for side in ("chosen", "rejected") for word in words(pair, side)
    )
    index = {word: i for i, word in enumerate(w for w, n in seen.items() if n >= SEEN_AT_LEAST)}
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
    """Counts of the words in the chosen answer minus those in the rejected one, `[n, words]`."""
    places, counts = [], []
    for number, pair in enumerate(pairs):
        for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
            for word, n in words(pair, side).items():
                if word in index:
                    places.append((number, index[word]))
                    counts.append(sign * n)
    size = (len(pairs), len(index))
    return torch.sparse_coo_tensor(
        torch.tensor(places).T, counts, size, check_invariants=True
    ).coalesce()


def words(pair: Pair, side: str) -> Counter[str]:
    """How often the answer has each word or sign."""
    return Counter(WORD.findall(answer(pair, side).lower()))


YARDSTICKS = {"longer answer": longer, "shorter answer": shorter, "bag of words": bag_of_words}
