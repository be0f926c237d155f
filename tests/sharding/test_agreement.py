"""What the processes of a run with split weights agree on, without starting any."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from alignzoo.batch import Example, collate
from alignzoo.errors import BadInput
from alignzoo.loss import Loss
from alignzoo.policy.sharding import layers_of, shares_weights
from alignzoo.rollout.sampling import seeds
from alignzoo.run.schedule import seed_from
from alignzoo.session.processes import outgrows_device
from alignzoo.training.micro_batches import MicroBatch, agree_on_micro_batches, compute_loss


def test_one_process_has_nothing_to_split(make_run):
    with pytest.raises(BadInput, match="there is one process"):
        make_run("sft", shard=True)


def batch_of(rows: int):
    return collate([Example([1, 2], [[3] * (n + 1)]) for n in range(rows)])


def run_of(micros: list[int], others: list[int], *, active: bool):
    """Return a process of a run with micro-batches of so many rows; others have so many of them."""
    given = iter([[len(micros), *others], [*(batch_of(1) for n in others if n)]])
    return SimpleNamespace(
        micro_batches=lambda batch: [batch_of(n) for n in micros],
        model=SimpleNamespace(sharding=SimpleNamespace(active=active)),
        world=SimpleNamespace(gather_each=lambda value: next(given)),
    )


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ([3, 2], [2], [3, 2]),
        ([3, 2], [4], [3, 2, -2, -2]),  # it repeats its smallest
        ([3, 2], [0], [3, 2]),
        ([], [2, 0], [-1, -1]),  # one of another process
        ([], [0], []),
    ],
)
def test_processes_make_equally_many_micro_batches(own, others, expected):
    run = run_of(own, others, active=True)
    found = agree_on_micro_batches(run, batch_of(sum(own)))
    assert [len(m.batch.tokens) * (1 if m.counts else -1) for m in found] == expected
    assert [m.is_last for m in found] == [False] * (len(found) - 1) + [True] * bool(found)


def test_copied_weights_need_no_agreement():
    found = agree_on_micro_batches(run_of([3], [5], active=False), batch_of(3))
    assert [m.counts for m in found] == [True]


def test_a_repeated_micro_batch_is_zero_and_counts_nothing(make_run):
    run = make_run("sft", batch_size=2)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    counted = compute_loss(run, MicroBatch(batch))
    spent = run.ledger.total_flops
    loss: Loss = compute_loss(run, MicroBatch(batch, counts=False))
    assert counted.count > 0 and spent > 0 and run.ledger.total_flops == spent
    assert (loss.sum.item(), loss.count.item(), loss.metrics) == (0.0, 0, {})
    loss.sum.backward()
    assert all(p.grad is not None and not p.grad.any() for p in run.model.parameters())


@pytest.mark.parametrize("size", [1, 3])
def test_a_row_has_the_same_seeds_on_any_number_of_processes(size):
    def of(rank: int, processes: int, rows: int) -> list[int]:
        world = SimpleNamespace(rank=rank, size=processes)
        run = SimpleNamespace(world=world, round=4, seed_for=lambda *what: seed_from(str(what)))
        return seeds(run, rows * size, "sample", size)

    alone = of(0, 1, 5)
    assert len(set(alone)) == len(alone) == 5 * size
    rows = [alone[i : i + size] for i in range(0, len(alone), size)]
    assert of(0, 2, 3) == [seed for row in rows[0::2] for seed in row]
    assert of(1, 2, 2) == [seed for row in rows[1::2] for seed in row]


@pytest.mark.parametrize(
    ("device", "weights", "trained", "expected"),
    [
        ("cuda", 30e9, 1e6, False),  # bytes, numbers
        ("cuda", 30e9, 7e9, True),  # each takes 12 bytes more
        ("cpu", 30e9, 7e9, False),
    ],
)
def test_a_model_that_outgrows_a_gpu_is_split(monkeypatch, device, weights, trained, expected):
    gpu = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: gpu)
    model = SimpleNamespace(
        device=SimpleNamespace(type=device), weight_bytes=weights, trainable_count=trained
    )
    assert outgrows_device(model) is expected


def test_layers_that_share_weights_are_found():
    """As in ALBERT; the head that shares the weight of the embeddings is in one unit with them."""

    def model(layers: list[nn.Module]) -> nn.Module:
        made = nn.Module()
        made.embed, made.head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
        made.head.weight = made.embed.weight
        made.layers, made.others = nn.ModuleList(layers), nn.ModuleList([nn.Linear(2, 2)])
        return made

    one, two, tied = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = one.weight
    assert layers_of(model([one, two])) == [one, two]
    assert not shares_weights(model([one, two]))
    assert shares_weights(model([one, tied])) and shares_weights(model([one, one]))
    with_outside = model([one, two])
    with_outside.extra = nn.Linear(4, 4)
    with_outside.extra.weight = two.weight
    assert shares_weights(with_outside)
