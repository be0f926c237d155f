"""Self-distillation from successful siblings: who is shown whose completion, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alignzoo import BadInput, Example, collate
from alignzoo.session.session import load_teacher
from alignzoo_zoo.self_distill.algorithm import SelfDistill
from alignzoo_zoo.self_distill.siblings import find_siblings, show_siblings


def test_the_first_other_success_of_the_group_is_shown():
    rewards = torch.tensor(
        [
            [0.0, 1.0, 0.0, 1.0],
            [1.0, 0.0, math.nan, 0.5],  # one success, which has no other
            [0.0, 0.0, 0.0, 0.0],
            [1.0, 1.0, 1.0, 1.0],
        ]
    )
    assert find_siblings(rewards, 1.0).tolist() == [
        [1, 3, 1, 1],
        [-1, 0, 0, 0],
        [-1, -1, -1, -1],
        [1, 0, 0, 0],
    ]
    assert find_siblings(rewards, 0.5)[1].tolist() == [3, 0, 0, 0]


def test_each_completion_has_its_own_prompt_with_the_text_of_its_sibling():
    batch = collate([Example([1, 2], [[3], [4, 5], [6]], row={"id": 0}),
                     Example([7], [[8], [9], [10]], row={"id": 1})])  # fmt: skip
    batch.columns["rewards"] = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    shown = show_siblings(batch, list("abcdef"), 1.0, "sibling")
    assert [(row["id"], row["sibling"]) for row in shown.rows] == [
        (0, "b"), (0, "b"), (1, "e"), (1, "d"), (1, "d")
    ]  # fmt: skip
    assert shown.completions() == [[3], [6], [8], [9], [10]]
    assert shown.group.tolist() == [0, 1, 2, 3, 4]
    assert shown.prompt_lengths.tolist() == [2, 2, 1, 1, 1]
    assert shown.prompts[0].tolist() == [1, 2] and shown.prompts[2, 0] == 7


def test_a_step_learns_from_what_its_siblings_have_written(make_run):
    run = make_run(
        "self-distill", task="sums", batch_size=2, max_new_tokens=40,
        options={"privilege": "sibling", "group_size": 4, "teacher_top_k": 20},
    )  # fmt: skip
    run.forwards.loaded_teacher = load_teacher(run)
    run.hook.alignzoo_start(run=run)
    rows = run.data.train[:2]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    assert 0 < len(batch) == len(batch.tokens) <= 8
    texts = {row["sibling"] for row in batch.rows}
    assert all(any(run.task.score(row, x) == 1 for row in batch.rows) for x in texts)
    seen = run.algorithm.seen_by_teacher(run, batch)
    for n, row in enumerate(batch.rows):
        prompt = run.codec.decode(seen.prompts[n, : seen.prompt_lengths[n]].tolist())
        assert row["sibling"] in prompt and row["prompt"][-1]["content"] in prompt
    loss = run.hook.alignzoo_loss(run=run, batch=batch)
    assert loss.mean > 1e-3 and loss.sum.requires_grad
    assert run.ledger.feedback["verifier_calls"] == 8


@pytest.mark.parametrize("options", [{"group_size": 4}, {"success": 0.5}])
def test_options_of_siblings_are_refused_without_them(options):
    with pytest.raises(BadInput, match="only --privilege sibling reads it"):
        SelfDistill(**options)


def test_without_a_reward_nobody_is_successful(make_run, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "1 + 1?"}\n' * 3)
    run = make_run("self-distill", data=str(data), options={"privilege": "sibling"})
    with pytest.raises(BadInput, match="nothing says which completions are successful"):
        run.hook.alignzoo_start(run=run)
