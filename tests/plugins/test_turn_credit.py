"""Credit per turn of an episode: golden values by hand."""

from __future__ import annotations

import pytest
import torch

from alignzoo.errors import BadInput
from alignzoo_zoo.grpo.advantages import group_advantages
from alignzoo_zoo.grpo.algorithm import GRPO
from alignzoo_zoo.grpo.turn_credit import turn_advantages

# Three episodes of one group: two turns, two turns, one turn; the last column is padding.
WRITTEN = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 1, 0], [1, 1, 1, 0, 0]]).bool()
REWARDS = torch.tensor([[0, 0.2, 0, 1, 0], [0.6, 0, 0, 0, 0], [0, 0, 0.5, 0, 0]])
GROUP = torch.zeros(3, dtype=torch.long)
# First turns that are not last: 0.2 and 0.6, mean 0.4. Last turns: 1, 0 and 0.5, mean 0.5.
PLAIN = [[0.3, 0.3, 0.5, 0.5, 0], [-0.3, -0.5, -0.5, -0.5, 0], [0, 0, 0, 0, 0]]
FIRST, LAST = 0.08**0.5 + 1e-4, 0.5 + 1e-4  # deviations, n - 1 in the denominator


def test_a_token_has_the_credit_of_its_turn_and_of_those_after_it():
    found = turn_advantages(REWARDS, WRITTEN, GROUP, "none")
    assert torch.allclose(found, torch.tensor(PLAIN), atol=1e-6)
    found = turn_advantages(REWARDS, WRITTEN, GROUP, "group")[WRITTEN]
    outcome = 0.5 / LAST
    expected = [-0.2 / FIRST + outcome] * 2 + [outcome, 0.2 / FIRST - outcome, -outcome, 0, 0, 0]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


def test_a_turn_has_no_credit_for_those_before_it():
    other = REWARDS.clone()
    other[0, 1] = 5.0  # the reward of the first turn of the first episode
    found, changed = (turn_advantages(x, WRITTEN, GROUP, "group") for x in (REWARDS, other))
    assert torch.equal(found[:, 3], changed[:, 3]) and not torch.equal(found[:, 0], changed[:, 0])


def test_of_episodes_of_one_turn_it_is_the_usual_advantage():
    rewards = torch.tensor([0.1, 0.4, 0.9, 0.9])
    at_the_end = torch.zeros(4, 3).index_copy(1, torch.tensor([2]), rewards[:, None])
    written = torch.ones(4, 3, dtype=torch.bool)
    group = torch.zeros(4, dtype=torch.long)
    found = turn_advantages(at_the_end, written, group, "group")
    expected = group_advantages(rewards.reshape(1, 4, 1), "group").flatten()
    assert torch.allclose(found, expected[:, None].expand(4, 3), atol=1e-6)


def test_groups_are_apart():
    two = torch.tensor([0, 0, 1])
    found = turn_advantages(REWARDS, WRITTEN, two, "none")
    assert not found[2].any() and found[0, 3] == 0.5 and found[1, 3] == -0.5


@pytest.mark.parametrize("options", [{"loss_type": "gspo"}, {"scale_rewards": "batch"}])
def test_what_is_of_whole_completions_is_refused(options):
    with pytest.raises(BadInput, match="option --credit turns: .* is of whole completions"):
        GRPO(credit="turns", **options)


def test_it_needs_an_environment(make_run):
    run = make_run(
        "grpo", task="sums,prompts=8,demonstrations=8,held_out=2", options={"credit": "turns"}
    )
    with pytest.raises(BadInput, match="the rewards of an environment's turns are the only reward"):
        run.hook.alignzoo_start(run=run)
