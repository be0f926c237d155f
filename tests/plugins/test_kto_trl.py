"""KTO against TRL 1.16: the same loss from the same token ids and the same two models."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from plugin_fakes import bigram, fake_run

from alignzoo import Example
from alignzoo_zoo.kto.algorithm import KTO
from alignzoo_zoo.kto.losses import mismatch

pytest.importorskip("trl")
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

ROWS = [
    Example([1, 2], [[3, 4, 5]], columns={"label": [True]}),
    Example([2], [[0, 6]], columns={"label": [False]}),
    Example([5, 1, 0], [[6]], columns={"label": [True]}),
    Example([4, 4], [[1, 1, 2, 6, 3]], columns={"label": [False]}),
    Example([6], [[2]], columns={"label": [True]}),
]


class Bigram(torch.nn.Module):
    """A bigram model behind the interface of TRL's fused head."""

    is_gradient_checkpointing = False

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, input_ids, labels, **_):
        targets = labels[:, 1:]
        logprobs = self.logits.log_softmax(-1)[input_ids[:, :-1], targets.clamp(min=0)]
        logprobs = torch.where(targets != -100, logprobs, 0.0)
        zeros = torch.zeros_like(logprobs).detach()
        return SimpleNamespace(log_probs=logprobs, entropy=zeros, mean_logits=zeros)


def trl_loss(algorithm: KTO, policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x),
        model=Bigram(policy),
        ref_model=Bigram(reference.detach()),
        calculate_KL=algorithm.loss_type == "kto",
        precompute_ref_logps=False,
        aux_loss_enabled=False,
        loss_type=algorithm.loss_type,
        beta=algorithm.beta,
        desirable_weight=algorithm.desirable_weight,
        undesirable_weight=algorithm.undesirable_weight,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    trainer._compute_kl_logps = partial(KTOTrainer._compute_kl_logps, trainer)
    rows = [
        {
            "prompt_ids": row.prompt,
            "completion_ids": row.completions[0],
            "KL_completion_ids": other.completions[0],
            "label": row.columns["label"][0],
        }
        for row, other in zip(ROWS, mismatch(ROWS, 1024), strict=True)
    ]
    batch = DataCollatorForUnpairedPreference(pad_token_id=0)(rows)
    return KTOTrainer._compute_loss(trainer, trainer.model, batch, False)


@pytest.mark.parametrize("models", [(1, 2), (2, 1)], ids=["KL > 0", "KL clamped to 0"])
@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_the_loss_and_its_gradient_are_those_of_trl(loss_type, models):
    algorithm = KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7, loss_type=loss_type)
    policy, reference = bigram(models[0]), bigram(models[1])
    run = fake_run(policy, reference)
    ours = algorithm.alignzoo_loss(run, algorithm.alignzoo_sample(run, ROWS))
    (ours.sum / ours.count).backward()
    gradient, policy.grad = policy.grad, None
    theirs = trl_loss(algorithm, policy, reference)
    theirs.backward()
    assert ours.mean == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(gradient, policy.grad, atol=1e-6)
    assert gradient.abs().max() > 1e-3
