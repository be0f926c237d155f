"""Self-distillation on zoo-tiny: what the teacher sees, how it moves, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from resuming import assert_same_run, ledger_of, rows_of, straight_and_broken

from alignzoo import hookimpl
from alignzoo.cli import status
from alignzoo.policy import generalized_jsd
from alignzoo.session.session import execute, load_teacher, recipe_for
from alignzoo.training.loop import train

SHORT = {
    "task": "sums", "batch_size": 4, "max_new_tokens": 12, "eval_size": 0, "checkpoint_every": 2,
    "learning_rate": 1e-2, "warmup": 0.0,
}  # fmt: skip
VOCABULARY = 1024


class Watch:
    """Compare the divergence of the first batch with a computation over all log-probs."""

    def __init__(self, algorithm):
        self.algorithm, self.checked, self.apart = algorithm, False, []

    @hookimpl(tryfirst=True)
    def alignzoo_step(self, run, step, metrics):
        """Measure how far the teacher is from the policy, on one prompt for both."""
        with torch.no_grad(), run.free_of_charge(), run.model.evaluating():
            batch = self.batch.to(run.device)
            ours, theirs = run.policy(batch).logprobs, run.teacher(batch).logprobs
        self.apart.append(float((ours - theirs).abs().max()))

    @hookimpl(wrapper=True)
    def alignzoo_loss(self, run, batch):
        loss = yield
        self.batch = batch
        if not self.checked:
            self.check(run, batch, loss)
        return loss

    @torch.no_grad()
    def check(self, run, batch, loss):
        seen = self.algorithm.seen_by_teacher(run, batch)
        for b, row in enumerate(batch.rows):
            text = run.codec.decode(seen.prompts[b, : seen.prompt_lengths[b]].tolist())
            assert row["prompt"][-1]["content"] in text
            assert row["completion"][-1]["content"] in text
        ids = torch.arange(VOCABULARY).expand(*batch.tokens.shape, VOCABULARY)
        with run.free_of_charge(), run.model.evaluating():
            policy = run.policy(batch, top_ids=ids).top_logprobs
            teacher = run.reference(seen, top_ids=ids).top_logprobs
        apart = generalized_jsd(policy, teacher, self.algorithm.beta)
        assert loss.mean == pytest.approx(float(apart[batch.mask].mean()), rel=1e-3)
        assert loss.mean > 1e-3  # what it has seen makes a difference
        self.checked = True


@pytest.mark.parametrize(("rate", "adapter"), [(0.0, "lora"), (0.5, "none"), (1.0, "lora")])
def test_the_teacher_sees_more_and_moves_as_it_is_told(make_run, rate, adapter):
    run = make_run(
        "self-distill", **SHORT, steps=2, adapter=adapter, options={"teacher_rate": rate}
    )
    run.forwards.loaded_teacher = load_teacher(run)
    watch = Watch(run.algorithm)
    run.plugins.register(watch)
    train(run)
    assert watch.checked and len(watch.apart) == 2
    with torch.no_grad(), run.model.evaluating():
        ours, theirs = run.policy(watch.batch).logprobs, run.teacher(watch.batch).logprobs
    left = float((ours - theirs).abs().max())
    if rate == 0:
        assert left == watch.apart[1] > watch.apart[0] * 0.5 > 1e-4
    elif rate == 1:
        assert left < 1e-5 < watch.apart[1]
    else:
        assert 1e-5 < left < watch.apart[1]


def test_an_average_of_the_policy_is_resumed_bit_for_bit(tmp_path, monkeypatch):
    def recipe(name: str):
        settings = {**SHORT, "steps": 4, "output_dir": str(tmp_path), "name": name}
        return recipe_for("self-distill", settings, {"options": {"teacher_rate": 0.3}})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=3)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    assert len(rows_of(straight)) == 4
    flops = ledger_of(straight)["flops"]
    assert flops["teacher"] > 0 == flops["reference"]


REFUSED = {
    "--privilege answer": ["--privilege", "'answer'", "prompt, a, b, completion"],
    "--template {prompt}": ["--template", "{privilege}"],
    "--teacher zoo-tiny --teacher-rate 0.1": ["--teacher-rate"],
    "--loss-type sampled --temperature 0": ["--temperature"],
    "--adapter prompt --teacher-rate 0.1": ["--adapter prompt"],
}


@pytest.mark.parametrize("options", list(REFUSED))
def test_bad_input_is_refused_and_leaves_nothing_behind(options, tmp_path, capfd):
    rows = [{"prompt": "1 + 1?", "a": 1, "b": 1, "completion": "2"}] * 3
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--data", str(data), "--eval-size", "0", "--steps", "1"]
    out = tmp_path / "runs"
    command = ["run", "self-distill", *options.split(), *words, "--output-dir", str(out)]
    assert status(command) == 2
    message = " ".join(capfd.readouterr().err.split())
    assert all(part in message for part in REFUSED[options]), message
    assert "Traceback" not in message and not (out.exists() and any(out.iterdir()))
