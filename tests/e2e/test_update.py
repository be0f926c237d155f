"""One optimizer step: the same whatever the micro-batches, the padding and the order."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo.batch import Batch, Example, collate
from alignzoo.errors import BadInput
from alignzoo.training.loop import train, update


def optimizer_of(run) -> torch.optim.Optimizer:
    return torch.optim.SGD(run.model.parameters(), lr=run.learning_rate)


def stepped(
    make_run, monkeypatch, parts: list[list[int]], algorithm: str, options: dict, **settings
):
    """The trained weights after one step on 8 rows, cut into these micro-batches."""
    # Without clipping, and with an adapter that has left zero, so that every weight moves.
    settings = {"max_grad_norm": 1e9, "learning_rate": 1.0, "warmup": 0.0} | settings
    run = make_run(algorithm, options=options, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:8])
    monkeypatch.setattr(Batch, "split", lambda self, _: [self.select(part) for part in parts])
    metrics = update(run, optimizer_of(run), batch)
    return metrics, {name: p.detach().clone() for name, p in run.model.named_parameters()}


SPLITS = [
    [[0], [1], [2], [3], [4], [5], [6], [7]],
    [[0, 1, 2, 3], [4, 5, 6, 7]],
    [[0, 1, 2], [3, 4, 5, 6, 7]],
    [[7, 2, 5, 0, 1, 6, 4, 3]],
]


VARIED = {"loss_type": "sigmoid:1,ipo:0.1,sft:0.5", "wpo": True, "ld_alpha": 0.5}
PLAIN = ["sft", "dpo", "kto", "bco", "npo", "orpo", "simpo", "cpo", "slic", "tpo", "reward"]


@pytest.mark.parametrize(
    ("algorithm", "options"), [*((name, {}) for name in PLAIN), ("dpo", VARIED)]
)
@pytest.mark.parametrize("parts", SPLITS, ids=["8x1", "2x4", "3+5", "order"])
def test_micro_batches_and_order_change_nothing(make_run, monkeypatch, algorithm, options, parts):
    whole, expected = stepped(make_run, monkeypatch, [[*range(8)]], algorithm, options)
    metrics, weights = stepped(make_run, monkeypatch, parts, algorithm, options)
    assert metrics == pytest.approx(whole, rel=2e-5, abs=1e-6)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize(
    "adapter", ["dora", "rslora", "loha", "lokr", "vera", "oft", "ia3", "prompt", "prefix"]
)
def test_micro_batches_change_nothing_whatever_the_adapter(make_run, monkeypatch, adapter):
    kind = {"adapter": adapter}
    whole, expected = stepped(make_run, monkeypatch, [[*range(8)]], "dpo", {}, **kind)
    metrics, weights = stepped(make_run, monkeypatch, SPLITS[0], "dpo", {}, **kind)
    assert metrics == pytest.approx(whole, rel=2e-5, abs=1e-5)
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("adapter", ["prompt", "prefix"])
def test_the_base_cannot_be_mixed_with_virtual_tokens(make_run, adapter):
    moving = {"reference_every": 2, "reference_mix": 0.5}
    with pytest.raises(BadInput, match=f"new --adapter {adapter}"):
        make_run("dpo", options=moving, adapter=adapter)


def test_a_loss_that_couples_the_rows_gets_whole_batches(make_run):
    updates = []
    for micro_tokens in (8192, 16):
        run = make_run(
            "dpo", options={"loss_type": "aot"}, micro_tokens=micro_tokens, batch_size=6, warmup=0.0
        )
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:6])
        updates.append(update(run, optimizer_of(run), batch))
        # Held-out rows are more than a batch.
        more = run.hook.alignzoo_sample(run=run, rows=run.data.train[:14])
        assert [len(part) for part in run.micro_batches(more)] == [6, 6, 2]
    assert updates[0] == updates[1]


def test_it_is_refused_in_several_processes(make_run, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(BadInput, match="one process"):
        make_run("dpo", options={"loss_type": "aot"})


def test_the_first_dpo_loss_is_ln_2(make_run):
    run = make_run("dpo")
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:32])
    metrics = update(run, optimizer_of(run), batch)
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["rewards/margins"] == 0.0


def test_padding_changes_nothing(make_run):
    run = make_run("dpo")
    rows = sorted(run.data.train[:64], key=lambda e: e.size)
    short, long = rows[0], rows[-1]
    alone = run.policy(collate([short])).logprobs
    beside = run.policy(collate([short, long], pad=3)).logprobs[:2, : alone.shape[1]]
    assert torch.allclose(alone, beside, atol=2e-5)


def test_which_positions_count_depends_on_no_token(make_run):
    """Shift every prompt token; make completions look like padding: the mask stays as it is."""
    run = make_run("dpo")
    vocabulary = len(run.model.tokenizer)
    rows = run.data.train[:16]
    pad, eos = run.model.tokenizer.pad_token_id, run.model.tokenizer.eos_token_id
    before = collate(rows)
    for shift in (1, 7):
        moved = [Example([(t + shift) % vocabulary for t in e.prompt], e.completions) for e in rows]
        assert torch.equal(collate(moved).mask, before.mask)
    for token in (pad, eos):
        same = [Example(e.prompt, [[token] * len(c) for c in e.completions]) for e in rows]
        assert torch.equal(collate(same).mask, before.mask)
        assert torch.equal(collate(same, pad=token).mask, before.mask)


def test_every_completion_ends_in_an_eos_that_counts(make_run):
    run = make_run("sft")
    batch = collate(run.data.train[:32])
    last = batch.tokens[torch.arange(len(batch)), batch.lengths - 1]
    assert set(last.tolist()) <= set(run.codec.stop_ids)
    assert bool(batch.mask[torch.arange(len(batch)), batch.lengths - 1].all())


def test_weight_decay_leaves_norms_alone(make_run):
    ends = []
    for decay in (0.0, 0.5):
        settings = {"adapter": "none", "learning_rate": 0.01, "warmup": 0.0, "steps": 1}
        run = make_run("sft", weight_decay=decay, batch_size=2, **settings)
        train(run)
        ends.append({name: p.detach().clone() for name, p in run.model.named_parameters()})
    vectors = [name for name, p in ends[0].items() if p.ndim == 1]
    assert vectors and all("norm" in name for name in vectors)
    for name, p in ends[0].items():
        assert torch.equal(p, ends[1][name]) == (name in vectors), name
