"""Credit per token from rewards of steps: golden values by hand."""

from __future__ import annotations

import pytest
import torch

from alignzoo.errors import BadInput
from alignzoo_zoo.grpo.algorithm import GRPO
from alignzoo_zoo.grpo.step_credit import step_advantages

# Two groups: steps of 0.8 and 0.2 beside one of 0.8, and a completion of one step by itself.
STEP_REWARDS = torch.tensor([[0.0, 0.8, 0.0, 0.2], [0.0, 0.0, 0.8, 0.0], [0.0, 0.3, 0.0, 0.0]])
GROUP = torch.tensor([0, 0, 1])
CENTRED = [[-0.2, -0.2, -0.4, -0.4], [0.2, 0.2, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]]
DEVIATION = ((0.2**2 + 0.4**2 + 0.2**2) / 2) ** 0.5


@pytest.mark.parametrize(("scale", "divisor"), [("none", 1.0), ("group", DEVIATION + 1e-4)])
def test_a_token_has_the_credit_of_the_steps_that_end_there_or_later(scale, divisor):
    found = step_advantages(STEP_REWARDS, GROUP, scale)
    assert torch.allclose(found, torch.tensor(CENTRED) / divisor, atol=1e-6)


def test_steps_that_are_equally_good_have_no_credit():
    found = step_advantages((STEP_REWARDS > 0) * 0.7, GROUP, "group")
    assert torch.allclose(found, torch.zeros(3, 4), atol=1e-3)


def test_credit_of_one_step_per_completion_is_that_of_the_completion():
    from alignzoo_zoo.grpo.advantages import group_advantages

    rewards = torch.tensor([0.1, 0.4, 0.9, 0.9])
    at_the_end = torch.zeros(4, 3).index_copy(1, torch.tensor([2]), rewards[:, None])
    found = step_advantages(at_the_end, torch.zeros(4, dtype=torch.long), "group")
    expected = group_advantages(rewards.reshape(1, 4, 1), "group").flatten()
    assert torch.allclose(found, expected[:, None].expand(4, 3), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "gspo"}, {"loss_type": "vespo"}, {"scale_rewards": "batch"},
        {"normalize_rewards": "before"}, {"kl_in": "reward", "beta": 0.1},
        {"pass_at": 4},
    ],
)  # fmt: skip
def test_what_is_of_whole_completions_is_refused(options):
    with pytest.raises(BadInput, match="is of whole completions"):
        GRPO(credit="steps", **options)
