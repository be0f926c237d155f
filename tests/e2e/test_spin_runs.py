"""SPIN on zoo-tiny: a round is the whole data against the policy at its start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from resuming import assert_same_run, rounds_sampled, rows_of, state_of, straight_and_broken

from alignzoo import discovery, hookimpl
from alignzoo.errors import BadInput, RunFailed
from alignzoo.rollout import complete
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train

ROWS = 10
SETTINGS = {"batch_size": 4, "max_new_tokens": 40}  # 3 steps a round


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "demonstrations.jsonl"
    rows = discovery.load_plugin("tasks", "sums")().rows("demonstrations", "train")[:ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Watch:
    """Record the batch of each round, and its log-probs under the policy at the start."""

    def __init__(self):
        self.batches, self.policy, self.base = [], [], []

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        batch = yield
        self.batches.append(batch)
        with torch.no_grad(), run.model.evaluating():
            self.policy.append(run.policy(batch).logprobs)
            with run.model.base():
                self.base.append(run.policy(batch).logprobs)
        return batch


def weights(run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def close(x: torch.Tensor, y: torch.Tensor) -> bool:
    return torch.allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge"])
def test_the_opponent_is_the_policy_at_the_start_of_the_round(make_run, data, loss_type):
    options = {"loss_type": loss_type}
    run = make_run("spin", data=data, **SETTINGS, options=options, epochs=2, learning_rate=0.01)
    run.plugins.register(watch := Watch())
    train(run)
    # 3 steps on 10 pairs, then 5 on these and 10 more.
    assert [row["step"] for row in rows_of(run.record.folder)] == [1, 2, 3, 4, 5, 6, 7, 8]
    first, second = (batch["opponent"] for batch in watch.batches)
    assert close(first, watch.base[0]) and close(first, watch.policy[0])
    assert close(second, watch.policy[1]) and not close(second, watch.base[1])
    for index in (0, 3):  # before the first step of a round they are one and the same
        row = rows_of(run.record.folder)[index]
        assert row["loss"] == pytest.approx(0.6931 if loss_type == "sigmoid" else 1.0, abs=1e-3)
        assert row["rewards/margins"] == pytest.approx(0.0, abs=1e-4)


def pairs_of(batch) -> list[list[int]]:
    """Return each pair as one list of ids: prompt, demonstration, the opponent's completion."""
    both = batch.pairs(batch.tokens), batch.pairs(batch.lengths)
    return [
        [*prompt[:size].tolist(), *real[:m].tolist(), *own[:n].tolist()]
        for prompt, size, real, own, m, n in zip(
            batch.prompts, batch.prompt_lengths, *both[0], *both[1], strict=True
        )
    ]


def test_a_round_has_the_previous_pairs_against_the_current_opponent(make_run, data):
    run = make_run("spin", data=data, **SETTINGS, epochs=4, learning_rate=0.01)
    assert run.total_steps == 3 + 5 + 5 + 5
    run.plugins.register(watch := Watch())
    train(run)
    assert run.step == 18
    fresh = pairs_of(watch.batches[0])
    later = zip(watch.batches[1:], watch.policy[1:], strict=True)
    for last, (batch, policy) in zip(watch.batches, later, strict=False):
        found = pairs_of(batch)
        assert found[-len(fresh) :] == fresh  # of the last round, not of those before it
        fresh = found[: -len(fresh)]
        assert ROWS - 2 <= len(fresh) <= ROWS
        assert close(batch["opponent"], policy)  # the old pairs' as well, which was another
        old = batch.keep(torch.arange(len(batch.tokens)) >= 2 * len(fresh))["opponent"]
        width = min(old.shape[1], last["opponent"].shape[1])
        assert not close(old[:, :width], last["opponent"][: len(old), :width])


def test_without_mixing_a_round_has_its_own_pairs_only(make_run, data):
    run = make_run("spin", data=data, **SETTINGS, epochs=3, options={"mix": False})
    assert run.total_steps == 9
    run.plugins.register(watch := Watch())
    train(run)
    assert run.step == 9 and all(len(batch) <= ROWS for batch in watch.batches)
    assert not (run.record.folder / "pairs").exists()


def change_a_token(text: str) -> str:
    return text.replace("1", "2", 1)


@pytest.mark.parametrize("harm", [lambda text: text[:-9], change_a_token, lambda text: ""])
def test_damaged_pairs_are_reported(make_run, data, harm):
    run = make_run("spin", data=data, **SETTINGS)
    run.hook.alignzoo_sample(run=run, rows=run.data.train)
    (path,) = (run.record.folder / "pairs").iterdir()
    path.write_text(harm(path.read_text()))
    run.schedule.round = 1
    with pytest.raises(RunFailed, match="cannot read the pairs of round 1"):
        run.hook.alignzoo_sample(run=run, rows=run.data.train)


def test_a_round_pairs_demonstrations_with_opponent_completions(make_run, data):
    run = make_run("spin", data=data, **{**SETTINGS, "max_new_tokens": 30})
    rows = run.data.train
    drawn = [group[0] for group in complete(run, rows, 1)]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    told = [
        (tokens[:length].tolist())
        for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True)
    ]
    expected = [
        (row.completions[0], own.tokens)
        for row, own in zip(rows, drawn, strict=True)
        if row.completions[0] != own.tokens
    ]
    assert 0 < len(expected) <= ROWS
    assert list(zip(told[::2], told[1::2], strict=True)) == expected
    assert max(len(own) for _, own in expected) <= 30
    clipped = sum(not own.ended for own in drawn) / ROWS
    lengths = sum(len(own.tokens) for own in drawn) / ROWS
    assert run.round_metrics.numbers == pytest.approx(
        {
            "spin/same": 1 - len(expected) / ROWS,
            "completions/mean_length": lengths,
            "completions/clipped_ratio": clipped,
        }
    )


def test_an_opponent_that_writes_the_demonstration_is_left_out(make_run, data):
    run = make_run("spin", data=data, **SETTINGS)
    drawn = [group[0].tokens for group in complete(run, run.data.train, 1)]
    imitated = [
        replace(row, completions=[own]) if index % 2 else replace(row, completions=[[*own, *own]])
        for index, (row, own) in enumerate(zip(run.data.train, drawn, strict=True))
    ]
    batch = run.hook.alignzoo_sample(run=run, rows=imitated)
    assert len(batch) == ROWS / 2 and run.round_metrics.numbers["spin/same"] == 0.5
    assert [row.row for row in imitated[::2]] == batch.rows


def test_identical_pairs_change_no_weight(make_run, data):
    """The demonstrations are those of a greedy opponent: steps are logged, no weight changes."""
    run = make_run("spin", data=data, **SETTINGS, temperature=0.0)
    own = [group[0].tokens for group in complete(run, run.data.train, 1)]
    run.data.train[:] = [
        replace(row, completions=[tokens]) for row, tokens in zip(run.data.train, own, strict=True)
    ]
    before = weights(run)
    train(run)
    rows = rows_of(run.record.folder)
    assert [(row["loss"], row["spin/same"]) for row in rows] == [(0.0, 1.0)] * 3
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())


def test_micro_batches_do_not_change_the_update(make_run, data):
    after = []
    for tokens in (60, 4096):
        run = make_run(
            "spin", data=data, **SETTINGS, micro_tokens=tokens, steps=2, name=f"of-{tokens}"
        )
        train(run)
        after.append(weights(run))
    assert all(torch.allclose(after[0][name], p, atol=1e-5) for name, p in after[1].items())


def test_iterations_pass_over_a_round_again(make_run, data):
    run = make_run("spin", data=data, **SETTINGS, options={"iterations": 2})
    run.plugins.register(watch := Watch())
    train(run)
    assert run.step == 6 and len(watch.batches) == 1


def test_held_out_demonstrations_are_not_compared(tmp_path: Path, data):
    recipe = recipe_for(
        "spin", {"data": data, **SETTINGS, "steps": 1, "eval_size": 2, "output_dir": str(tmp_path)}
    )
    found = execute(recipe).after.summary
    assert found["held-out/logps/chosen"].mean < 0
    assert "held-out/loss" not in found and "held-out/rewards/margins" not in found


def test_every_prompt_needs_room_for_a_completion(make_run, data):
    with pytest.raises(BadInput, match="leaves no room for 60") as told:
        make_run("spin", data=data, max_length=64, max_new_tokens=60)
    assert "--max-length" in told.value.hint


@pytest.mark.parametrize(
    ("mix", "at", "stop", "rounds_left"),
    [
        (False, 7, 9, [2]),  # rounds of 5 steps
        (True, 7, 9, [2]),  # of 5, then 9
        (True, 14, 17, [2]),  # between two rounds, the second of which is drawn again
    ],
)
def test_a_run_is_resumed_inside_a_round_or_between_two(
    tmp_path: Path, monkeypatch, data, mix, at, stop, rounds_left
):
    """The result is the same bit for bit, and an unfinished round is not sampled again."""
    settings = {
        **SETTINGS,
        "data": data,
        "steps": 18 if mix else 12,
        "options": {"mix": mix},
        "learning_rate": 0.01,
        "lora_dropout": 0.1,
        "eval_size": 1,  # 9 rows are left
        "batch_size": 2,
        "checkpoint_every": at,
        "output_dir": str(tmp_path),
    }

    def recipe(name: str):
        return recipe_for("spin", {**settings, "name": name})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=stop)
    state = state_of(broken)
    assert state["step"] == at and state["round"] == (2 if at == 14 else 1)
    assert ("current" in state) == (at != 14)

    rounds = rounds_sampled(monkeypatch)
    execute(recipe("broken"), resume=True)
    assert rounds == rounds_left
    assert_same_run(broken, straight)
