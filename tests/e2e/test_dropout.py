"""What a loss compares the policy with is computed without dropout, although the policy trains."""

from __future__ import annotations

import pytest
import torch
from test_grpo_runs import move

from alignzoo.rollout import INFERENCE
from alignzoo_judges import Judge
from alignzoo_zoo.opponent import OPPONENT

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 36, "lora_dropout": 0.5}
OLD_LOGPROBS = [
    ("spin", {}, OPPONENT),
    ("sppo", {"group_size": 3}, OPPONENT),
    ("self-rewarding", {"group_size": 3}, OPPONENT),
    ("ppo", {"group_size": 3}, "logprobs"),
    ("grpo", {"group_size": 3, "beta": 0.1}, "logprobs"),
]


class Rising(Judge):
    """Rates the completions of a group 1, 5 and 9, in order."""

    def answers(self, questions):
        for number, question in enumerate(questions):
            rating = str(1 + 4 * (number % 3))
            yield number, [float(option == rating) for option in question.options]


def sampled(make_run, algorithm: str, options: dict, **settings):
    """A run whose adapter has left zero, in training mode, and the batch of a round."""
    run = make_run(algorithm, options=options, **SETTINGS, **settings)
    run.hook.alignzoo_start(run=run)
    if algorithm == "self-rewarding":
        run.algorithm.judge = Rising()
    move(run, scale=0.05)
    run.model.train()
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert run.model.model.training
    return run, batch


@pytest.mark.parametrize(("algorithm", "options", "column"), OLD_LOGPROBS)
def test_old_logprobs_have_no_dropout(make_run, algorithm, options, column):
    run, batch = sampled(make_run, algorithm, options)
    with torch.no_grad():
        noisy = run.policy(batch, temperature=run.temperature).logprobs
        with run.model.evaluating():
            expected = run.policy(batch, temperature=run.temperature).logprobs
    assert torch.allclose(batch[column], expected, rtol=0, atol=1e-4)
    assert (noisy - expected).abs().max() > 0.05  # with dropout they would differ
    if "reference" in batch.columns:
        reference = run.reference(batch, temperature=run.temperature).logprobs
        assert torch.allclose(batch["reference"], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("values", ["shared", "own"])
def test_old_values_have_no_dropout(make_run, values):
    run, batch = sampled(make_run, "ppo", {"group_size": 3, "values": values})
    with torch.no_grad():
        noisy = run.values(batch)
        with run.model.evaluating():
            expected = run.values(batch)
    assert torch.allclose(batch["values"], expected, rtol=0, atol=1e-5)
    assert (noisy - expected).abs().max() > 1e-3


def test_an_external_sampler_is_compared_without_dropout(make_run):
    run, batch = sampled(make_run, "grpo", {"group_size": 3})
    from alignzoo.rollout.rollout import replace_logprobs

    replace_logprobs(run, batch)
    # The sampler was this model, so its log-probs are the policy's, but for rounding.
    assert torch.allclose(batch["logprobs"], batch[INFERENCE], rtol=0, atol=1e-4)
