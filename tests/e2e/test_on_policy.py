"""The core's own sampling is enough for a plain on-policy algorithm: REINFORCE in a few lines."""

from __future__ import annotations

import torch

from alignzoo.training.loop import train

CODE = """
from dataclasses import dataclass
from alignzoo import Loss, Prompts, hookimpl

@dataclass(eq=False)
class Reinforce:
    data = Prompts
    group_size = 4

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        rewards = batch.groups(batch["rewards"])
        return (rewards - rewards.mean(1, keepdim=True)).flatten()

    @hookimpl
    def alignzoo_loss(self, run, batch):
        logprobs = batch.total(run.policy(batch).logprobs)
        loss = -batch["advantages"] * logprobs
        return Loss.per_sequence(loss, {"rewards/mean": batch["rewards"]})
"""


def test_fresh_completions_are_scored_and_learnt_from(make_run, tmp_path):
    path = tmp_path / "reinforce.py"
    path.write_text(CODE)
    run = make_run(str(path), task="sums", steps=2, batch_size=3, max_new_tokens=40)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:3])
    assert batch.tokens.shape[0] == 12
    assert batch["advantages"].shape == (12,)
    assert torch.allclose(batch.groups(batch["advantages"]).sum(1), torch.zeros(3), atol=1e-6)
    assert set(batch["rewards"].tolist()) <= {0.0, 1.0}
    # Token in, token out: what was sampled has the log-probs that it was sampled with.
    assert torch.allclose(run.policy(batch).logprobs, batch["logprobs"], atol=1e-4)
    train(run)
    assert run.step == 2
    assert run.ledger.flops["generation"] > 0
    assert run.ledger.feedback["verifier_calls"] == 12 + 24
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())
