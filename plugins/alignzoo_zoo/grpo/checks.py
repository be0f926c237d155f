"""Combinations of grpo's options that are refused."""

from __future__ import annotations

from typing import Any

from alignzoo import BadInput
from alignzoo_zoo.grpo.step_credit import TOKEN_LOSSES


def check_options(options: Any) -> None:
    """Raise `BadInput` for options of `GRPO` that do not go together."""
    if options.kl_in == "loss" and options.kl_estimator == "k1":
        raise BadInput(
            "option --kl-estimator k1: in the loss, its expected gradient is zero",
            hint="use k2 or k3, or --kl-in reward",
        )
    if options.credit != "completion":
        check_token_credit(options)
    if options.pass_at > 1:
        check_pass_at(options)
    if options.top_entropy < 1 and options.loss_type not in TOKEN_LOSSES:
        raise BadInput(
            f"option --top-entropy: --loss-type {options.loss_type} has one ratio for all tokens "
            "of a completion",
            hint=f"it is for --loss-type {', '.join(TOKEN_LOSSES)}",
        )
    if options.normalize_rewards == "before":
        check_decoupled(options)


def check_token_credit(options: Any) -> None:
    """Raise `BadInput` for an option that credit per token does not go with."""
    wrong = {
        f"--loss-type {options.loss_type}": options.loss_type not in TOKEN_LOSSES,
        "--scale-rewards batch": options.scale == "batch",
        "--normalize-rewards before": options.normalize_rewards == "before",
        "--kl-in reward": options.kl_in == "reward" and options.beta > 0,
        "--pass-at": options.pass_at > 1,
    }
    for option, is_wrong in wrong.items():
        if is_wrong:
            raise BadInput(
                f"option --credit {options.credit}: {option} is of whole completions",
                hint=f"use --loss-type {', '.join(TOKEN_LOSSES)}, with the other options' defaults",
            )


def check_pass_at(options: Any) -> None:
    """Raise `BadInput` for a `--pass-at` above 1 that nothing can be computed of."""
    if options.pass_at > options.group_size:
        raise BadInput(
            f"option --pass-at: the best of {options.pass_at} cannot be told from groups of "
            f"{options.group_size} completions",
            hint="raise --group-size, or lower it",
        )
    if options.normalize_rewards == "before":
        raise BadInput(
            "option --pass-at: the best reward is that of the sum of the rewards, which "
            "--normalize-rewards before does not take first"
        )


def check_decoupled(options: Any) -> None:
    """Raise `BadInput` for an option that `--normalize-rewards before` does not go with."""
    if options.scale != "group":
        raise BadInput(
            "option --scale-rewards: --normalize-rewards before scales by the group",
            hint="add --scale-rewards group",
        )
    if options.beta and options.kl_in == "reward":
        raise BadInput(
            "option --kl-in reward: the penalty is subtracted from the sum of the rewards, "
            "which --normalize-rewards before does not take first"
        )
