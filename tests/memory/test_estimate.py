"""What a run will take, against what tensors of real passes take."""

from __future__ import annotations

import json
import random

import pytest
import torch

from alignzoo.algorithm import Traits
from alignzoo.batch import Example, collate
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.memory.longest import longest_micro_batch, with_completions
from alignzoo.memory.machine import machine_of
from alignzoo.memory.passes import PassMeter
from alignzoo.memory.sizes import STEP
from alignzoo.memory.tracker import MemoryTracker, storage_bytes
from alignzoo.named import build_plugin
from alignzoo.policy import load_policy
from alignzoo.policy.scoring import SharedScorer
from alignzoo.policy.weightless import load_weightless
from alignzoo.session import recipe_for
from alignzoo.session.estimate import estimate_run
from alignzoo.session.inputs import spec_of

CPU = torch.device("cpu")


def test_a_tracker_finds_the_peak_of_a_block():
    with MemoryTracker() as tracker:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000
        del a  # 4000
        c = torch.cat([b, b])  # 12000
        del b, c
    assert tracker.peak().total == 12_000
    assert tracker.held == 0


def test_views_and_what_was_there_before_count_once_and_not_at_all():
    weight = torch.zeros(50, 50)
    tracker = MemoryTracker(vocabulary=50)
    tracker.ignore([weight])
    with tracker:
        product = weight.t() @ weight
        flat = product.view(-1)
    assert tracker.peak() == (0, flat.nbytes, 0)


def real_peak(policy, batch, needs, entropy):
    """The peak of the real passes, by the tracker, without the weights."""
    tracker = MemoryTracker()
    networks = [*policy._networks(), policy.score_head, policy.value_head]
    tracker.ignore(x for n in networks if n is not None for x in (*n.parameters(), *n.buffers()))
    policy.train()
    with tracker:
        if needs.score_head:
            total = policy.scores(batch).sum()
        else:
            found = policy(batch, entropy=entropy, values=needs.values is not None)
            total = found.logprobs.sum()
            if needs.values is not None:
                total = total + found.values.sum()
            del found
            if needs.reference:
                policy.reference(batch)
        total.backward()
    return tracker.peak().total


@pytest.mark.parametrize(
    ("algorithm", "options", "settings"),
    [
        ("sft", {}, {}),
        ("sft", {}, {"gradient_checkpointing": True}),
        ("sft", {}, {"precision": "bf16"}),
        ("dpo", {}, {"adapter": "qlora"}),
        ("dpo", {}, {"adapter": "none"}),
        ("reward", {}, {}),
        ("grpo", {}, {}),
        ("ppo", {"values": "own"}, {}),
    ],
)
def test_passes_without_weights_take_what_real_ones_do(algorithm, options, settings):
    recipe = recipe_for(algorithm, {**settings, "options": options})
    needs = Traits.of(build_plugin("algorithms", algorithm, recipe.options)).needs
    spec = spec_of(recipe, needs, CPU, False)
    policy = load_policy(spec)
    base = policy.network.get_base_model() if recipe.adapter != "none" else policy.network
    policy._scorer = SharedScorer(base)  # the padded one, which the estimate assumes
    draw = random.Random(0)
    batch = collate(
        [
            Example([1] * draw.randint(5, 30), [[2] * draw.randint(5, 60) for _ in range(2)])
            for _ in range(6)
        ]
    )
    half = torch.bfloat16 if recipe.precision == "bf16" else None
    weightless = load_weightless(spec, half)
    assert storage_bytes(weightless.policy.parameters()) == storage_bytes(policy.parameters())
    assert weightless.policy.flops == policy.flops
    entropy = algorithm in ("grpo", "ppo")
    found = PassMeter(weightless, "cpu").update(
        batch, needs, entropy=entropy, reference=needs.reference, accumulates=False
    )
    assert found.total == pytest.approx(real_peak(policy, batch, needs, entropy), rel=0.03)


def sizes_of(recipe, algorithm):
    draw = random.Random(1)
    rows = [Example([1] * draw.randint(1, 40), [[2] * draw.randint(1, 40)]) for _ in range(60)]
    found = longest_micro_batch(rows, algorithm, recipe, recipe.micro_tokens)
    return rows, sum(found.batch.sizes())


@pytest.mark.parametrize(("micro_tokens", "batch_size"), [(100, 8), (1000, 8), (30, 8), (200, 60)])
def test_no_step_has_a_larger_micro_batch_than_the_longest(micro_tokens, batch_size):
    algorithm = build_plugin("algorithms", "sft", {})
    recipe = recipe_for("sft", {"micro_tokens": micro_tokens, "batch_size": batch_size})
    rows, longest = sizes_of(recipe, algorithm)
    draw = random.Random(2)
    for _ in range(50):
        batch = collate(draw.sample(rows, batch_size))
        assert max(sum(part.sizes()) for part in batch.split(micro_tokens)) <= longest
    ordered = collate(sorted(rows, key=lambda row: -row.size))
    if batch_size == len(rows):  # a step has all rows: it is one of its micro-batches
        assert longest >= max(sum(part.sizes()) for part in ordered.split(micro_tokens))


def test_completions_that_are_to_be_drawn_have_their_longest_length():
    recipe = recipe_for("grpo", {"max_new_tokens": 7, "options": {"group_size": 3}})
    algorithm = build_plugin("algorithms", "grpo", recipe.options)
    row = with_completions(Example([1, 2], []), algorithm, recipe)
    assert [len(tokens) for tokens in row.completions] == [7, 7, 7]
    recipe = recipe_for("spin", {"max_new_tokens": 5})
    row = with_completions(Example([1], [[4, 4]]), build_plugin("algorithms", "spin", {}), recipe)
    assert [len(tokens) for tokens in row.completions] == [2, 5]


@pytest.fixture(autouse=True)
def _no_long_measurement(monkeypatch):
    monkeypatch.setattr("alignzoo.memory.machine.MEASURE_SECONDS", 0.0)


def test_an_estimate_lists_parts_that_add_up():
    found = estimate_run(recipe_for("dpo", {"batch_size": 8, "max_new_tokens": 8}))
    assert set(found.phases) == {"training step", "sampling", "loading", "checkpoint"}
    assert found.phases[STEP] == sum(found.parts.values()) + found.base
    assert found.fits and found.seconds > 0
    assert found.parts["optimizer"] == 2 * found.parts["adapter"]


def test_a_card_computes_in_bf16_and_holds_half_the_weights():
    there = estimate_run(recipe_for("sft", {"eval_size": 0}), card="RTX 4090")
    old = estimate_run(recipe_for("sft", {"eval_size": 0}), card="t4")
    assert there.parts["weights"] == pytest.approx(old.parts["weights"] / 2, rel=0.01)


def run_error(capfd, *words):
    assert status(["estimate", *words]) == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    return printed


def test_bad_input_is_one_message(capfd):
    assert "did you mean 'rtx-3090'" in run_error(capfd, "sft", "--card", "rtx-3091")
    said = run_error(capfd, "sft", "--card", "t4", "--precision", "bf16")
    assert "t4 has no bf16" in said and "rtx-4090" in said
    assert "trains nothing" in run_error(capfd, "best-of-n")
    assert "missing ALGO" in run_error(capfd)


def test_a_run_that_cannot_fit_is_refused_with_advice(capfd, monkeypatch):
    monkeypatch.setattr("alignzoo.memory.machine.free_memory", lambda device: 10_000_000)
    said = run_error(capfd, "sft", "--adapter", "none", "--eval-size", "0")
    assert "needs" in said and "--adapter lora, or --qlora" in said
    assert "--gradient-checkpointing" in said


def test_the_command_prints_json_for_programs(capfd):
    assert status(["estimate", "sft", "--eval-size", "0", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["peak"] == max(found["phases"].values())
    assert machine_of("h100", "auto").name == "h100"


def test_layers_that_need_values_are_refused(monkeypatch):
    def nonzero(self, row):
        return row.ids.nonzero()

    monkeypatch.setattr(SharedScorer, "hidden", nonzero)
    with pytest.raises(BadInput, match="cannot be estimated"):
        estimate_run(recipe_for("sft", {"eval_size": 0}))
