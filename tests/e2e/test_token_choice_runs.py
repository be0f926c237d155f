"""Tokens chosen by entropy and covariance on zoo-tiny, also in a resumed run."""

from __future__ import annotations

import pytest
import torch
from resuming import Interrupts, rows_of

from alignzoo.training.loop import train

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 40}


@pytest.mark.parametrize(
    ("options", "column", "share"),
    [
        ({"top_entropy": 0.2}, "high_entropy", 0.2),
        ({"loss_type": "kl_cov", "cov_fraction": 0.1}, "chosen", 0.1),
        ({"loss_type": "clip_cov", "cov_fraction": 0.01}, "chosen", 0.01),
    ],
)
def test_it_chooses_a_share_of_the_tokens_of_a_round(make_run, options, column, share):
    run = make_run("grpo", options=options, **{**SETTINGS, "batch_size": 8})
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:8])
    chosen, tokens = batch[column], batch.mask
    assert not (chosen & ~tokens).any()
    assert chosen.sum() / tokens.sum() == pytest.approx(share, abs=0.02) and chosen.any()
    if column == "high_entropy":
        with torch.no_grad():
            entropy = run.policy(batch, entropy=True).entropy
        assert entropy[chosen].min() >= entropy[tokens & ~chosen].max() - 1e-5
        assert run.ledger.tokens["scoring"] > 0
    else:
        assert run.round_metrics.numbers["cov/chosen"] == pytest.approx(
            chosen.sum().item() / tokens.sum().item()
        )


def test_a_resumed_run_chooses_the_same_tokens(make_run):
    options = {"group_size": 3, "iterations": 2, "top_entropy": 0.5, "pass_at": 2}
    options |= {"loss_type": "clip_cov", "cov_fraction": 0.01}
    settings = {**SETTINGS, "options": options, "steps": 4, "checkpoint_every": 1}
    whole = make_run("grpo", **settings, name="whole")
    train(whole)
    part = make_run("grpo", **settings, name="part")
    part.plugins.register(Interrupts(4))  # between two passes over a round
    with pytest.raises(KeyboardInterrupt):
        train(part)
    part.record.close()
    again = make_run("grpo", **settings, name="part", resume=True)
    train(again)
    assert rows_of(whole.record.folder) == rows_of(again.record.folder)
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in whole.model.named_parameters())
