"""Training on log-probs of the reference that were computed before, by this run or another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from resuming import assert_same_run, result_of, rows_of, straight_and_broken

from alignzoo.batch import collate
from alignzoo.errors import BadInput
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train
from alignzoo.training.reference_cache import cache_reference, model_key

SETTINGS = {
    "steps": 6,
    "batch_size": 4,
    "checkpoint_every": 4,
    "eval_size": 4,
    "max_new_tokens": 4,
}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """The completions of each forward of the reference."""
    seen = []
    reference = Policy.reference

    def counted(self, batch, **options):
        seen.append(len(batch.tokens))
        return reference(self, batch, **options)

    monkeypatch.setattr(Policy, "reference", counted)
    return seen


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Say {n}.", "chosen": f"It is {n}, {'so ' * n}", "rejected": f"No {n * n}."}
        for n in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def facts(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_same_result_and_no_forward_the_second_time(tmp_path, data, forwards, adapter):
    def go(name: str, **more):
        settings = {
            **SETTINGS,
            "data": data,
            "output_dir": str(tmp_path / "runs"),
            "adapter": adapter,
        }
        forwards.clear()
        return execute(recipe_for("dpo", {**settings, "name": name, **more})).folder, sum(forwards)

    without, count = go("without")
    assert count > 2 * 4 * 6
    first, count = go("first", cache_reference=True)
    assert count == 2 * 40  # each completion once, whether learnt from or held out
    second, count = go("second", cache_reference=True, seed=0)
    assert count == 0
    _, count = go("reseeded", cache_reference=True, seed=3)
    assert count == 0

    rate = max(row["learning_rate"] for row in rows_of(without))
    for name, weight in result_of(without).items():
        # The cache's passes are packed otherwise, so its log-probs are rounded otherwise. Adam
        # divides by a gradient's own size, which carries rounding into a weight whose gradient is
        # next to nothing: never more than a small part of a step.
        apart = (result_of(first)[name] - weight).abs()
        assert apart.max() < 0.02 * rate
        assert apart.mean() < 1e-7
        assert torch.equal(result_of(first)[name], result_of(second)[name])
    for one, other in zip(rows_of(without), rows_of(first), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-6)
        assert other["logps/chosen"] == pytest.approx(one["logps/chosen"], abs=1e-4)

    computed, read = facts(first), facts(second)
    assert computed["reference_cache"]["completions_computed"] == 80
    assert computed["ledger"]["flops"]["reference"] == computed["reference_cache"]["flops"] > 0
    assert read["reference_cache"]["completions_read"] == 80
    for kind in ("flops", "tokens"):
        assert read["ledger"][kind] == computed["ledger"][kind]
        assert computed["ledger"]["saved"][kind] == 0
        assert read["ledger"]["saved"][kind] == read["ledger"][kind]["reference"]
    assert rows_of(first) == rows_of(second)


@pytest.mark.parametrize("options", [{}, {"reference_every": 2, "reference_mix": 0.6}])
@pytest.mark.parametrize("step", [3, 6])
def test_resumed_is_straight_through(tmp_path, data, monkeypatch, options, step):
    """Interrupted before the first checkpoint or after it; each run begins with an empty cache."""

    def recipe(name: str):
        settings = {**SETTINGS, "data": data, "output_dir": str(tmp_path), "cache_reference": True}
        monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / f"cache-{name}"))
        return recipe_for("dpo", {**settings, "name": name, "options": options})

    straight, broken = straight_and_broken(recipe, monkeypatch, step)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)  # with the flops, which were charged once


def test_a_run_killed_after_it_filled_the_cache_is_charged_for_it(tmp_path, data, monkeypatch):
    def recipe(name: str):
        settings = {**SETTINGS, "data": data, "output_dir": str(tmp_path), "cache_reference": True}
        monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / f"cache-{name}"))
        return recipe_for("dpo", {**settings, "name": name})

    def killed(values):
        raise KeyboardInterrupt

    straight = execute(recipe("straight")).folder
    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.training.reference_cache.ReferenceCache", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe("killed"))
    resumed = execute(recipe("killed"), resume=True).folder
    assert_same_run(resumed, straight)
    assert facts(resumed)["ledger"]["flops"] == facts(straight)["ledger"]["flops"]
    saved = facts(resumed)["ledger"]["saved"]
    assert saved["flops"] == facts(straight)["ledger"]["flops"]["reference"] > 0


def prepared(make_run, **settings):
    run = make_run("dpo", cache_reference=True, **settings)
    cache_reference(run)
    return run


def test_changed_rows_and_models_miss(make_run, data, forwards, tmp_path):
    run = prepared(make_run, data=data)
    assert sum(forwards) == 80
    forwards.clear()

    text = Path(data).read_text().replace("No 49.", "No, 49.")
    (tmp_path / "other.jsonl").write_text(text)
    prepared(make_run, data=str(tmp_path / "other.jsonl"))
    assert sum(forwards) == 80  # all rows are one part

    forwards.clear()
    trained = execute(
        recipe_for("sft", {"steps": 1, "eval_size": 0, "output_dir": str(tmp_path)})
    ).folder
    prepared(make_run, data=data, model=str(trained))
    assert sum(forwards) == 80

    batch = collated(run)
    forwards.clear()
    cached = run.reference(batch).logprobs
    assert forwards == []
    torch.testing.assert_close(cached, run.model.reference(batch).logprobs, atol=1e-5, rtol=0)


def collated(run):
    return collate(run.data.train[:3]).to(run.device)


def test_a_moved_reference_and_rows_that_are_not_there_are_computed(make_run, data, forwards):
    run = prepared(make_run, data=data)
    batch = collated(run)
    forwards.clear()
    cached = run.reference(batch).logprobs
    assert forwards == []

    strange = run.codec.completion("Say 1.", "Something that nobody had written.")
    batch.tokens[0, : batch.lengths[0]] = torch.tensor(strange[:1] * int(batch.lengths[0]))
    spent = run.ledger.flops["reference"]
    run.reference(batch)
    assert forwards == [6] and run.ledger.flops["reference"] > spent

    batch = collated(run)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.05)
    assert torch.equal(run.reference(batch).logprobs, cached)  # the policy's weights do not matter
    run.move_reference(1.0)
    moved = run.reference(batch).logprobs
    torch.testing.assert_close(moved, run.policy(batch).logprobs.detach())
    assert (moved - cached).abs().max() > 1e-3


def test_a_model_is_known_by_every_value():
    policy, full = load_policy(ModelSpec("zoo-tiny", adapter="lora")), load_policy("zoo-tiny")
    key = model_key(policy)
    assert key == model_key(load_policy(ModelSpec("zoo-tiny", adapter="none", reference=True)))
    assert key != model_key(load_policy(ModelSpec("zoo-tiny", adapter="lora", precision="bf16")))
    weight = full.model.get_input_embeddings().weight
    assert model_key(full) == key
    with torch.no_grad():
        weight[777, 3] += 1e-6  # not among the values that the fingerprint looks at
    assert model_key(full) != key


@pytest.mark.slow
def test_four_bits(make_run, data, forwards):
    pytest.importorskip("bitsandbytes")
    keys = [
        model_key(load_policy(ModelSpec("zoo-tiny", adapter=adapter)))
        for adapter in ("qlora", "qlora", "lora")
    ]
    assert keys[0] == keys[1] != keys[2]
    run = prepared(make_run, data=data, adapter="qlora")
    batch = collated(run)
    forwards.clear()
    cached = run.reference(batch).logprobs
    assert forwards == []
    torch.testing.assert_close(cached, run.model.reference(batch).logprobs, atol=1e-4, rtol=0)


def test_kto_computes_the_completions_it_mismatches_alone(make_run, data, forwards):
    run = make_run("kto", data=data, cache_reference=True, batch_size=4, steps=2)
    cache_reference(run)
    forwards.clear()
    train(run)
    # The rows' own completions are known; those put in their places for the KL are not.
    assert 0 < sum(forwards) <= 2 * 4


def test_an_algorithm_without_a_reference_has_nothing_to_cache(make_run):
    with pytest.raises(BadInput, match="--cache-reference: sft has no reference"):
        make_run("sft", cache_reference=True)
