"""Another sampler than the model itself: found by name or file, corrected where it is foreign."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.functional import importance_weights, per_token
from alignzoo.options import split_options
from alignzoo.recipe import Recipe
from alignzoo.rollout import complete, load_sampler
from alignzoo.training.loop import train
from alignzoo_zoo.grpo.algorithm import GRPO
from alignzoo_zoo.rloo.losses import rloo_loss

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 24}
RATIO = "sampling/importance_sampling_ratio/"
DIFFERENCE = "sampling/sampling_logp_difference/"

# The model's own completions, as drawn by a program that finds each token e^SHIFT times likelier.
CODE = """
from dataclasses import dataclass
from alignzoo import hookimpl
from alignzoo.rollout import DefaultSampler

@dataclass
class Shifted(DefaultSampler):
    shift: float = -0.5
    drawn: int = 0
    external_logprobs = True

    def complete(self, run, rows, size, draw):
        self.drawn += 1
        groups = super().complete(run, rows, size, draw)
        for completion in (one for group in groups for one in group):
            completion.logprobs = [x + self.shift for x in completion.logprobs]
        return groups
"""


@pytest.fixture
def shifted(tmp_path):
    path = tmp_path / "shifted.py"
    path.write_text(CODE)
    return str(path)


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_weights_by_hand():
    policy = torch.tensor([[-1.0, -2.0, -1.0, -1.0, 0.0]])
    sampler = torch.tensor([[-1.0, -1.0, -4.0, torch.nan, 0.0]])
    # e^0, e^-1, e^3 held at 2, unknown, padding
    expected = torch.tensor([[1.0, 0.36787944, 2.0, 1.0, 1.0]])
    assert torch.allclose(importance_weights(policy, sampler, 2.0), expected)
    far = importance_weights(torch.tensor([[-1e4]]), torch.tensor([[0.0]]), 2.0)
    assert 0 <= far.item() < 1e-8 and far.isfinite().all()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Ratios of the tokens: e^0.5, e^-0.25, e^0.5, unknown; e^0.75, e^1, padding.
        ("token_truncate", [[1.64872, 0.77880, 1.64872, 1.0], [2.117, 2.5, 1.0, 1.0]]),
        ("token_mask", [[1.64872, 0.77880, 1.64872, 1.0], [2.117, 0.0, 1.0, 1.0]]),
        # Their products over what the policy wrote: e^(0.5 - 0.25) and e^(0.75 + 1) = 5.75.
        ("sequence_truncate", [[1.28403] * 4, [2.5] * 4]),
        ("sequence_mask", [[1.28403] * 4, [0.0] * 4]),
    ],
)
def test_weights_of_every_mode_by_hand(mode, expected):
    policy = torch.tensor([[-1.0, -2.0, -1.0, -1.0], [-1.0, -1.0, 0.0, 0.0]])
    sampler = torch.tensor([[-1.5, -1.75, -1.5, torch.nan], [-1.75, -2.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False, True], [True, True, False, False]])
    weights = importance_weights(policy, sampler, 2.5, mode, mask)
    assert torch.allclose(weights, torch.tensor(expected), atol=1e-5)


def test_credit_per_completion_or_token():
    assert per_token(torch.ones(3)).shape == (3, 1)
    assert per_token(torch.ones(3, 4)).shape == (3, 4)


def test_a_foreign_sampler_is_corrected(make_run, shifted):
    run = make_run("grpo", options={"group_size": 3}, sampler=shifted, **SETTINGS)
    own = make_run("grpo", options={"group_size": 3}, **SETTINGS)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    plain = own.hook.alignzoo_sample(run=own, rows=own.data.train[:4])
    assert torch.equal(batch.tokens, plain.tokens)
    # pi_old is the trainer's, and what each token weighs is e^0.5.
    assert torch.allclose(batch["logprobs"], plain["logprobs"], atol=1e-4)
    drawn = torch.where(batch.mask, plain["logprobs"] - 0.5, 0.0)
    assert torch.equal(batch["inference_logprobs"], drawn)
    weights = torch.where(batch.mask, 1.6487213, 1.0)
    expected = plain["advantages"][:, None] * weights
    assert torch.allclose(batch["advantages"], expected, atol=1e-4)
    assert run.round_metrics.numbers[f"{DIFFERENCE}mean"] == pytest.approx(0.5, abs=1e-4)
    for name in ("min", "mean", "max"):
        assert run.round_metrics.numbers[RATIO + name] == pytest.approx(1.6487213, abs=1e-4)
    # The forward pass for it is charged.
    assert run.ledger.flops["generation"] == own.ledger.flops["generation"]
    assert run.ledger.flops["scoring"] > 0.5 * run.ledger.flops["generation"]
    assert own.ledger.flops["scoring"] == 0


def test_the_cap_and_none(make_run, shifted):
    options = {"options": {"group_size": 3}, **SETTINGS}
    run = make_run("grpo", sampler=f"{shifted},shift=-2", importance_cap=3.0, **options)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert run.round_metrics.numbers[f"{RATIO}max"] == 3.0
    assert batch["advantages"].shape == batch.tokens.shape
    run = make_run("grpo", sampler=shifted, importance_cap=0.0, **options)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert batch["advantages"].shape == (6,) and f"{RATIO}max" not in run.round_metrics.numbers
    assert run.round_metrics.numbers[f"{DIFFERENCE}max"] == pytest.approx(0.5, abs=1e-4)


def test_a_completion_above_the_cap_teaches_nothing(make_run, shifted):
    # Some sums end within 40 tokens: e^(0.03 * 36) is below the cap of 3, e^(0.03 * 37) above.
    options = {"options": {"group_size": 3}, **SETTINGS, "max_new_tokens": 40}
    correction = {"importance_mode": "sequence_mask", "importance_cap": 3.0}
    run = make_run("grpo", sampler=f"{shifted},shift=-0.03", **correction, **options)
    own = make_run("grpo", **options)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    plain = own.hook.alignzoo_sample(run=own, rows=own.data.train[:4])
    lengths = batch.mask.sum(-1)
    short = lengths <= 36
    assert short.any() and not short.all()
    weights = torch.where(short, (0.03 * lengths).exp(), 0.0)
    expected = (plain["advantages"] * weights)[:, None].expand(batch.tokens.shape)
    assert torch.allclose(batch["advantages"], expected, rtol=1e-3, atol=1e-4)
    found = run.round_metrics.numbers
    assert found[f"{RATIO}masked"] == pytest.approx(float(lengths[~short].sum() / lengths.sum()))
    assert found[f"{RATIO}max"] == pytest.approx(float(weights.max()), rel=1e-3)


def test_advantages_that_are_no_credit_are_left_alone(make_run, shifted, monkeypatch):
    monkeypatch.setattr(GRPO, "advantages_are_weights", False, raising=False)
    run = make_run("grpo", options={"group_size": 3}, sampler=shifted, **SETTINGS)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert batch["advantages"].shape == (6,)


@pytest.mark.parametrize("options", [{}, {"level": "token"}], ids=["sequence", "token"])
def test_it_trains_and_logs_what_it_found(make_run, shifted, options):
    options = {"group_size": 3, "round_prompts": 4, **options}
    run = make_run("rloo", options=options, sampler=shifted, **SETTINGS, steps=3)
    train(run)
    rows = logged(run)
    assert all(row[f"{DIFFERENCE}mean"] == pytest.approx(0.5, abs=1e-4) for row in rows)
    assert all(row[f"{RATIO}max"] == pytest.approx(1.64872, abs=1e-3) for row in rows)
    assert rows[0]["clip_ratio/region_mean"] == 0.0


def test_the_reference_is_drawn_from_in_process(make_run, shifted):
    run = make_run("rloo", options={"group_size": 2}, sampler=shifted, **SETTINGS)
    complete(run, run.data.train[:1], 2)
    with run.model.as_reference():
        complete(run, run.data.train[:1], 2, "reference")
        assert run.model.is_reference
    (sampler,) = [p for n, p in run.plugins.list_name_plugin() if n.startswith("sampler ")]
    assert sampler.drawn == 1 and not run.model.is_reference


def test_a_weight_per_token_in_the_losses_of_rloo():
    mask = torch.tensor([[True, True, False]])
    log_ratio = torch.tensor([[0.1, -0.1, 5.0]])
    credit = torch.tensor([[2.0, 0.5, 9.0]])
    by_token = rloo_loss(log_ratio, credit, mask, 0.9, by_token=True)
    # -(e^0.1 2 + e^-0.1 0.5)
    assert by_token.item() == pytest.approx(-(2.2103418 + 0.4524187), abs=1e-6)


def test_names_and_options():
    assert split_options("vllm,url=http://a:1/v1?x=a,b,c=d", "--sampler") == (
        "vllm",
        {"url": "http://a:1/v1?x=a,b", "c": "d"},
    )
    with pytest.raises(BadInput, match="option --sampler: 'x' in 'vllm,x' is not an option"):
        split_options("vllm,x", "--sampler")


NOT_ONE = """
from alignzoo import hookimpl

class Other:
    @hookimpl
    def alignzoo_start(self, run):
        pass
"""


def test_what_is_no_sampler_is_refused(tmp_path, shifted):
    path = tmp_path / "other.py"
    path.write_text(NOT_ONE)
    for text, says in [
        ("nothing", "unknown sampler 'nothing'"),
        (f"{shifted},shuft=1", "unknown option 'shuft'"),
        (str(path), "is not an alignzoo.rollout.Sampler"),
    ]:
        with pytest.raises(BadInput, match=says):
            load_sampler(Recipe("grpo", sampler=text))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dpo", "--sampler", "SHIFTED"], "--sampler: dpo draws no completions"),
        (["grpo", "--importance-cap", "3"], "--importance-cap"),
        (["grpo", "--importance-mode", "token_mask"], "--importance-mode: this sampler has"),
        (
            "grpo --sampler SHIFTED --importance-cap 0 --importance-mode token_mask".split(),
            "with --importance-cap 0 there are no importance weights",
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, capfd, shifted, words, says):
    words = [word.replace("SHIFTED", shifted) for word in words]
    assert status(["run", *words, "--output-dir", str(tmp_path / "runs")]) == 2
    assert says in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_groups_of_a_batch_keep_the_columns_of_the_correction():
    batch = collate([Example([1], [[2, 3, 4]]), Example([1], [[5]])])
    batch.columns["inference_logprobs"] = torch.zeros(2, 3)
    assert batch.select([1])["inference_logprobs"].shape == (1, 1)
