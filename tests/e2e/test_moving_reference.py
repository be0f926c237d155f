"""TR-DPO: the reference moves when it should, as far as it should, and not before."""

from __future__ import annotations

import pytest
import torch

from alignzoo.policy.policy import REFERENCE
from alignzoo.training.loop import train

SETTINGS = {"batch_size": 4, "learning_rate": 5e-3, "warmup": 0.0}


def trained(make_run, steps: int, **options):
    """A run of so many steps, with a batch and the log-probs of the base on it."""
    adapter = options.pop("adapter", "lora")
    run = make_run("dpo", options=options, steps=steps, adapter=adapter, **SETTINGS)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    base = run.reference(batch).logprobs
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    train(run)
    return run, batch, base, start


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_reference_becomes_the_policy_at_every_nth_step(make_run, adapter):
    run, batch, base, _ = trained(make_run, 2, reference_every=2, adapter=adapter)
    with torch.no_grad():
        policy = run.policy(batch).logprobs
    assert (policy - base).abs().max() > 0.05
    assert torch.allclose(run.reference(batch).logprobs, policy, rtol=0, atol=1e-5)


def test_not_before(make_run):
    run, batch, base, _ = trained(make_run, 2, reference_every=3)
    assert torch.equal(run.reference(batch).logprobs, base)
    assert not run.model.reference_moved


def test_part_of_the_way(make_run):
    run, _, _, start = trained(make_run, 1, reference_every=1, reference_mix=0.25, adapter="none")
    state = run.model.state()
    for name, before in start.items():
        expected = before + 0.25 * (state[name] - before)
        assert torch.allclose(state[REFERENCE + name], expected, rtol=0, atol=1e-6), name


def test_the_loss_is_relative_to_where_the_reference_is(make_run):
    # After a hard update policy and reference agree, so the next step's loss is ln 2 again.
    run, _, _, _ = trained(make_run, 2, reference_every=1)
    rows = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    assert all('"loss": 0.69314' in row for row in rows) and len(rows) == 2
