"""Metrics of pairs and of labelled completions, under the names that TRL gives them."""

from __future__ import annotations

from torch import Tensor


def pair_metrics(rewards: tuple[Tensor, Tensor], logps: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return the metrics of B pairs; `rewards` and `logps` are (chosen, rejected), each `[B]`.

    A pair counts as accurate if the chosen side's reward is the greater; a tie does not.
    """
    chosen, rejected = rewards
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": chosen > rejected,
        "logps/chosen": logps[0],
        "logps/rejected": logps[1],
    }


def label_metrics(rewards: Tensor, logps: Tensor, desirable: Tensor) -> dict[str, Tensor]:
    """Return the metrics of N labelled completions, all `[N]`; `desirable` ones are chosen."""
    return {
        "rewards/chosen": rewards[desirable],
        "rewards/rejected": rewards[~desirable],
        "logps/chosen": logps[desirable],
        "logps/rejected": logps[~desirable],
    }
