"""GRPO's family and RLOO as TRL 1.16 computes them, from the same log-probs and advantages."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from on_policy_fakes import LONGEST, entropy_of, make_batch, policy_logprobs, run_around, values

from alignzoo.functional import importance_weights
from alignzoo_zoo.grpo.algorithm import GRPO
from alignzoo_zoo.grpo.loss_types import LOSS_TYPES
from alignzoo_zoo.grpo.token_choice import choose_high_entropy
from alignzoo_zoo.rloo.algorithm import RLOO

pytest.importorskip("trl")
from trl.experimental.gmpo import GMPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

# In TRL gspo is grpo with ratios of sequences, and gmpo has a trainer of its own.
NOT_IN_TRL = {"dppo_tv", "dppo_kl", "clip_cov", "kl_cov"}
NAMES = {name: "grpo" if name == "gspo" else name for name in LOSS_TYPES if name not in NOT_IN_TRL}
EPSILONS = {"epsilon": 0.2, "epsilon_high": 0.3}


def inputs_of(batch, logprobs):
    """Make the arguments of `_compute_loss`, and what the stub of the forward pass returns."""
    ids = torch.zeros(batch.tokens.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :2],
        "prompt_mask": torch.ones_like(ids[:, :2]),
        "completion_ids": ids,
        "completion_mask": batch.mask.long(),
        "advantages": batch["advantages"],
        "old_per_token_logps": batch["logprobs"],
        "ref_per_token_logps": batch["reference"],
        "num_items_in_batch": batch.mask.sum(),
    }
    outputs = (logprobs, entropy_of(logprobs).detach(), None)
    return inputs, outputs


def stub(outputs, **settings) -> SimpleNamespace:
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: outputs,
        accelerator=SimpleNamespace(
            gather=lambda x: x,
            reduce=lambda x, reduction: x,
            num_processes=1,
            sync_gradients=True,
        ),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        **settings,
    )


def grpo_trainer(outputs, name: str, beta: float, entropy: float) -> SimpleNamespace:
    return stub(
        outputs,
        loss_type=NAMES[name],
        importance_sampling_level="sequence" if name in ("gspo", "luspo") else "token",
        epsilon_low=0.2,
        # There it is the bound, here its distance from 1.
        epsilon_high=1.3 if name == "cispo" else 0.3,
        beta=beta,
        args=SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            vespo_k_pos=2.0,
            vespo_lambda_pos=3.0,
            vespo_k_neg=3.0,
            vespo_lambda_neg=2.0,
            steps_per_generation=1,
        ),
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=True,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=entropy > 0,
        entropy_coef=entropy,
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
    )


def agree(algorithm, batch, theirs, metrics, logprobs) -> None:
    theirs.backward()
    expected, logprobs.grad = logprobs.grad, None
    ours = algorithm.alignzoo_loss(run_around(logprobs), batch)
    (ours.sum / ours.count).backward()
    assert ours.mean == pytest.approx(theirs.item(), abs=1e-5)
    assert torch.allclose(logprobs.grad, expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 1e-3
    for name in metrics.keys() & ours.metrics.keys():
        total, count = ours.metrics[name]
        assert (total / count).item() == pytest.approx(metrics[name][-1], abs=1e-6), name
    assert "entropy" in metrics and "entropy" in ours.metrics


@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("name", list(NAMES))
def test_losses_of_the_grpo_family(name, beta):
    batch = make_batch()
    if name != "luspo":
        batch.columns["mean_tokens"] = torch.full((6,), batch.mask.sum() / 6)
    logprobs = policy_logprobs(batch)
    given = {} if name in ("sapo", "vespo") else dict(EPSILONS)
    if name == "cispo":
        del given["epsilon"]
    inputs, outputs = inputs_of(batch, logprobs)
    trainer = grpo_trainer(outputs, name, beta, 0.0)
    trainer_class = GMPOTrainer if name == "gmpo" else GRPOTrainer
    theirs = trainer_class._compute_loss(trainer, trainer.model, inputs)
    algorithm = GRPO(loss_type=name, beta=beta, **given)
    agree(algorithm, batch, theirs, trainer._metrics["train"], logprobs)


def test_the_entropy_bonus_of_a_mean_over_tokens():
    batch = make_batch()
    logprobs = policy_logprobs(batch)
    inputs, (same, _, _) = inputs_of(batch, logprobs)
    trainer = grpo_trainer((same, entropy_of(logprobs), None), "bnpo", 0.0, 0.3)
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    algorithm = GRPO(loss_type="bnpo", entropy_bonus=0.3, **EPSILONS)
    agree(algorithm, batch, theirs, trainer._metrics["train"], logprobs)


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_the_mask_of_high_entropy_tokens(name):
    batch = make_batch()
    batch.columns["mean_tokens"] = torch.full((6,), batch.mask.sum() / 6)
    logprobs = policy_logprobs(batch)
    inputs, outputs = inputs_of(batch, logprobs)
    trainer = grpo_trainer(outputs, name, 0.4, 0.0)
    trainer.top_entropy_quantile = 0.3
    trainer.accelerator.pad_across_processes = lambda x, **_: x
    trainer.get_high_entropy_mask = lambda *given: GRPOTrainer.get_high_entropy_mask(
        trainer, *given
    )
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    entropy = outputs[1].float()
    chosen = choose_high_entropy(entropy, batch.mask, entropy[batch.mask], 0.3)
    assert 0 < chosen.sum() < batch.mask.sum()
    batch.columns["high_entropy"] = chosen
    algorithm = GRPO(loss_type=name, beta=0.4, top_entropy=0.3, **EPSILONS)
    agree(algorithm, batch, theirs, trainer._metrics["train"], logprobs)


def test_rloo():
    batch = make_batch()
    # In TRL the masked tokens are in the attention mask only; both sums leave the others out.
    logprobs = policy_logprobs(batch, 0.2)
    inputs, outputs = inputs_of(batch, logprobs)
    inputs["old_logps"] = batch.total(batch["logprobs"])
    trainer = stub(outputs, epsilon_low=0.2, epsilon_high=0.2)
    theirs = RLOOTrainer._compute_loss(trainer, trainer.model, inputs)
    metrics = trainer._metrics["train"]
    assert metrics["clip_ratio/low_mean"][0] > 0 and metrics["clip_ratio/high_mean"][0] > 0
    agree(RLOO(beta=0.0, epsilon=0.2), batch, theirs, metrics, logprobs)


# TRL makes the weights part of the ratio of vespo's phi; here they weight its loss as any other.
# Its GMPOTrainer reads no weights.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("vespo", "gmpo")])
def test_truncated_importance_sampling(name):
    batch = make_batch()
    batch.columns["mean_tokens"] = torch.full((6,), batch.mask.sum() / 6)
    sampler = batch["logprobs"] + values(9, 0.8, batch.mask)
    weights = importance_weights(batch["logprobs"], sampler, 2.0)
    # As in TRL's token_truncate: the exponential of the masked difference, capped at 2.
    difference = (batch["logprobs"] - sampler) * batch.mask
    assert torch.equal(weights, torch.clamp(torch.exp(difference), max=2.0))
    assert (weights == 2.0).any() and (weights[batch.mask] < 0.8).any()
    logprobs = policy_logprobs(batch)
    given = {} if name == "sapo" else dict(EPSILONS)
    if name == "cispo":
        del given["epsilon"]
    inputs, outputs = inputs_of(batch, logprobs)
    inputs["importance_sampling_ratio"] = weights
    trainer = grpo_trainer(outputs, name, 0.4, 0.0)
    trainer.use_vllm = True
    theirs = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    batch.columns["advantages"] = batch["advantages"][:, None] * weights
    algorithm = GRPO(loss_type=name, beta=0.4, **given)
    agree(algorithm, batch, theirs, trainer._metrics["train"], logprobs)
