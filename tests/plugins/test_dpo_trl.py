"""DPO's losses and gradients against those of TRL 1.16, from the same log-probs."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from alignzoo import Example, collate
from alignzoo_zoo.dpo.algorithm import DPO
from alignzoo_zoo.dpo.loss_types import LOSS_TYPES
from alignzoo_zoo.dpo.losses import sft_loss

pytest.importorskip("trl")
from trl.trainer.dpo_trainer import DPOTrainer

UNEQUAL = [(7, 3), (4, 6), (1, 5), (6, 6), (2, 1), (5, 7)]  # tokens of chosen and rejected
EQUAL = [(4, 4)] * 6
TRL_DEFAULTS = {
    "aux_loss_enabled": False,
    "precompute_ref_logps": False,
    "beta": 0.1,
    "label_smoothing": 0.0,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "use_weighting": False,
    "_total_train_tokens": 0,
    "_tp_size": 1,
}


def token_values(seed: int, scale: float, offset: float, mask: torch.Tensor) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    values = offset - scale * torch.rand(mask.shape, generator=draw)
    return torch.where(mask, values, 0.0)


class Case:
    """Log-probs of six pairs under a policy and a reference, and log sum(p^2) of the policy."""

    def __init__(self, lengths: list[tuple[int, int]]):
        self.batch = collate([Example([1, 2], [[5] * c, [6] * r]) for c, r in lengths])
        if lengths is UNEQUAL:
            self.batch.mask[0, 2] = False  # a masked token
        mask = self.batch.mask
        self.policy = token_values(1, 3.0, 0.0, mask).requires_grad_()
        self.reference = token_values(2, 4.0, 0.0, mask)
        self.log_sum_p2 = token_values(3, 1.0, 0.0, mask)

    def ours(self, **options):
        algorithm = DPO(**({"beta": TRL_DEFAULTS["beta"]} | options))
        outputs = SimpleNamespace(
            logprobs=self.policy, log_sum_p2=self.log_sum_p2 if algorithm.wpo else None
        )
        run = SimpleNamespace(
            policy=lambda batch, log_sum_p2: outputs,
            reference=lambda batch: SimpleNamespace(logprobs=self.reference),
        )
        loss = algorithm.alignzoo_loss(run, self.batch)
        metrics = {name: float(s / n) for name, (s, n) in loss.metrics.items()}
        return self.with_gradient(loss.sum / loss.count), metrics

    def theirs(self, loss_types, loss_weights=(1.0,), **settings):
        """Compute TRL's loss; `settings` are attributes of its trainer."""
        model = torch.nn.Module()
        model.is_gradient_checkpointing = False
        trainer = SimpleNamespace(
            **{**TRL_DEFAULTS, **settings},
            loss_types=loss_types,
            loss_weights=loss_weights,
            model=model,
            ref_model=lambda **_: SimpleNamespace(log_probs=self.rows(self.reference)),
            accelerator=SimpleNamespace(
                device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
            ),
            args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05),
            _metrics={"train": defaultdict(list)},
        )
        mask = self.rows(self.batch.mask.long())
        outputs = SimpleNamespace(
            log_probs=self.rows(self.policy),
            log_sum_sq_probs=self.rows(self.log_sum_p2),
            entropy=torch.zeros(mask.shape),
            mean_logits=torch.zeros(mask.shape),
            is_top1=torch.zeros(mask.shape, dtype=torch.bool),
        )
        completion_mask = torch.nn.functional.pad(mask, (1, 0))  # a prompt of one token
        inputs = {
            "input_ids": torch.ones_like(completion_mask),
            "attention_mask": torch.ones_like(completion_mask),
            "completion_mask": completion_mask,
        }
        loss = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
        metrics = trainer._metrics["train"]
        return self.with_gradient(loss), metrics

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[2B, T]` in TRL's order: all chosen completions, then all rejected ones."""
        return torch.cat(self.batch.pairs(torch.where(self.batch.mask, x, 0)))

    def with_gradient(self, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return loss.detach(), torch.autograd.grad(loss, self.policy)[0]


def agree(ours, theirs) -> None:
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-5, rtol=1e-5)
    assert ours[0][1].abs().max() > 1e-6


SMOOTHED = {"exo_pair": [0.1], "robust": [0.0, 0.2], "aot": [0.0, 0.2], "aot_unpaired": [0.0, 0.2]}
PLAIN = [
    (name, smoothing)
    for name in LOSS_TYPES
    if name != "sft"
    for smoothing in SMOOTHED.get(name, [0.0])
]


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize(("name", "smoothing"), PLAIN)
def test_every_loss(name, smoothing, beta):
    case = Case(UNEQUAL)
    ours = case.ours(loss_type=name, beta=beta, label_smoothing=smoothing)
    theirs = case.theirs([name], beta=beta, label_smoothing=smoothing)
    agree(ours, theirs)
    for metric, value in ours[1].items():
        assert value == pytest.approx(theirs[1][metric][0], abs=1e-5), metric


def test_sft_if_all_chosen_have_one_length():
    case = Case(EQUAL)
    agree(case.ours(loss_type="sft"), case.theirs(["sft"]))


def test_sft_of_trl_is_a_mean_over_tokens_and_ours_over_completions():
    case = Case(UNEQUAL)
    theirs = case.theirs(["sft"])
    chosen = case.batch.pairs(case.batch.total(case.policy))[0]
    lengths = case.batch.pairs(case.batch.mask.sum(-1))[0]
    ours = case.with_gradient(sft_loss(chosen, lengths.float().mean()).mean())
    torch.testing.assert_close(ours, theirs[0], atol=1e-5, rtol=1e-5)
    assert abs(case.ours(loss_type="sft")[0][0] - theirs[0][0]) > 1e-2


def test_a_weighted_sum():
    case = Case(EQUAL)
    ours = case.ours(loss_type="sigmoid:0.8, bco_pair:0.2, sft")
    agree(ours, case.theirs(["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]))


DIVERGENCES = [
    ("forward_kl", 0.5, {"f_divergence_type": "forward_kl"}),
    ("js", 0.5, {"f_divergence_type": "js_divergence"}),
    ("alpha", 0.5, {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5}),
    # TRL's coefficient is 1 - alpha of the paper.
    ("alpha", 0.2, {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.8}),
]


@pytest.mark.parametrize(
    "name", ["sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"]
)
@pytest.mark.parametrize(("divergence", "alpha", "options"), DIVERGENCES)
def test_divergences(name, divergence, alpha, options):
    case = Case(UNEQUAL)
    smoothing = {"exo_pair": 0.1, "robust": 0.2}.get(name, 0.0)
    ours = case.ours(
        loss_type=name, label_smoothing=smoothing, divergence=divergence, divergence_alpha=alpha
    )
    agree(ours, case.theirs([name], label_smoothing=smoothing, **options))


@pytest.mark.parametrize("ld_alpha", [0.0, 0.5])
@pytest.mark.parametrize("name", ["sigmoid", "ipo", "nca_pair", "aot", "sigmoid_norm"])
def test_length_desensitisation(name, ld_alpha):
    case = Case(UNEQUAL)
    agree(case.ours(loss_type=name, ld_alpha=ld_alpha), case.theirs([name], ld_alpha=ld_alpha))
    plain = case.ours(loss_type=name)[0][0]
    assert abs(case.ours(loss_type=name, ld_alpha=ld_alpha)[0][0] - plain) > 1e-4


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "apo_down"])
def test_wpo(name):
    case = Case(UNEQUAL)
    agree(case.ours(loss_type=name, wpo=True), case.theirs([name], use_weighting=True))
    assert abs(case.ours(loss_type=name, wpo=True)[0][0] - case.ours(loss_type=name)[0][0]) > 1e-4
