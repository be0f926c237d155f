"""Small pure functions that more than one part of the project needs: numbers and tensors only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def pair_metrics(rewards: tuple[Tensor, Tensor], logps: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """What is logged of pairs: `rewards` and `logps` are (chosen, rejected), each `[B]`.

    A pair counts as accurate where the chosen side's reward is the greater; a tie does not.
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
    """The same of unpaired completions, all `[N]`: chosen are those with a true label."""
    return {
        "rewards/chosen": rewards[desirable],
        "rewards/rejected": rewards[~desirable],
        "logps/chosen": logps[desirable],
        "logps/rejected": logps[~desirable],
    }
