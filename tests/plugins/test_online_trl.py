"""Online DPO as TRL 1.16 computes it, from the same log-probs and rewards."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from alignzoo import Batch, Example, collate
from alignzoo_zoo.online_dpo.algorithm import OnlineDPO

pytest.importorskip("trl")
from trl.experimental.online_dpo.online_dpo_trainer import OnlineDPOTrainer

LENGTHS = [(4, 2), (1, 5), (3, 3)]
REWARDS = [(1.0, 0.0), (0.2, 0.7), (0.5, 0.9)]
ENDED = [(True, True), (True, True), (True, False)]
EOS = 9


def fresh_pairs() -> Batch:
    """Make a batch as the sampler does, in float64; every completion that ended has an EOS."""
    draw = torch.Generator().manual_seed(2)
    rows = []
    for lengths, ended in zip(LENGTHS, ENDED, strict=True):
        tokens = [[3] * (n - 1) + [EOS if e else 3] for n, e in zip(lengths, ended, strict=True)]
        rows.append(Example([1, 2], tokens, columns={"ended": list(ended)}))
    batch = collate(rows)
    batch.columns["rewards"] = torch.tensor(REWARDS).flatten()

    def random(scale: float) -> torch.Tensor:
        noise = torch.randn(batch.tokens.shape, generator=draw, dtype=torch.float64)
        return torch.where(batch.mask, scale * noise, 0.0)

    batch.columns["reference"] = torch.where(batch.mask, -1.5 + random(0.3), 0.0)
    batch.columns["logprobs"] = batch["reference"] + random(0.5)
    return batch


def halves(x: torch.Tensor) -> torch.Tensor:
    """Reorder as in TRL: the first completions of all prompts, then the second ones."""
    return torch.cat([x[0::2], x[1::2]])


def theirs(batch: Batch, logprobs: torch.Tensor, loss_type: str, penalty: float):
    """Run TRL's training step with stubs for forward passes, generation and rewards."""
    passes = iter([halves(logprobs), halves(batch["reference"])])
    ids = halves(batch.tokens)
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            use_vllm=False,
            missing_eos_penalty=penalty,
            loss_type=loss_type,
            torch_empty_cache_steps=None,
            optim="adamw_torch",
            n_gpu=1,
            gradient_accumulation_steps=1,
        ),
        _generate=lambda *_: (ids[:, :2], ids[:, :2], ids, halves(batch.mask).long(), None),
        _forward=lambda *_: next(passes),
        _calculate_rewards_from_functions=lambda **_: halves(batch["rewards"]).clone(),
        processing_class=SimpleNamespace(batch_decode=lambda ids, **_: [""] * len(ids)),
        accelerator=SimpleNamespace(
            gather_for_metrics=lambda x: x, backward=lambda loss: loss.backward()
        ),
        eos_token_ids=[EOS],
        ref_model=object(),
        reward_funcs=[None],
        beta=0.3,
        state=SimpleNamespace(global_step=1),
        stats=defaultdict(list),
    )
    model = SimpleNamespace(train=lambda: None)
    loss = OnlineDPOTrainer.training_step(trainer, model, {"prompt": ["a", "b", "c"]})
    return loss.item(), trainer.stats


@pytest.mark.parametrize("penalty", [0.0, 0.6])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_online_dpo(loss_type, penalty):
    batch = fresh_pairs()
    logprobs = batch["logprobs"].clone().requires_grad_()
    loss, stats = theirs(batch, logprobs, loss_type, penalty)
    expected, logprobs.grad = logprobs.grad, None
    assert expected.abs().max() > 0.01

    algorithm = OnlineDPO(beta=0.3, loss_type=loss_type, missing_eos_penalty=penalty)
    observed = {}
    run = SimpleNamespace(
        log_mean=lambda numbers: observed.update(
            {n: float(x.nanmean()) for n, x in numbers.items()}
        ),
        temperature=1.0,
        policy=lambda *_, **__: SimpleNamespace(
            logprobs=logprobs, entropy=torch.zeros_like(logprobs)
        ),
    )
    batch.columns["advantages"] = algorithm.alignzoo_advantage(run, batch)
    # The penalty of 0.6 reverses the last pair: 0.5 against 0.9 - 0.6.
    assert batch["advantages"].tolist()[4:] == ([1, -1] if penalty else [-1, 1])
    ours = algorithm.alignzoo_loss(run, batch)
    (ours.sum / ours.count).backward()
    assert ours.mean == pytest.approx(loss, abs=1e-6)
    assert torch.allclose(logprobs.grad, expected, rtol=0, atol=1e-9)
    for name, (total, count) in ours.metrics.items():
        if name in stats:
            assert (total / count).item() == pytest.approx(stats[name][0], abs=1e-6), name
    assert {"rewards/margins", "rewards/accuracies", "logps/chosen", "objective/kl"} <= (
        stats.keys() & ours.metrics.keys()
    )
    assert observed["objective/scores_margin"] == pytest.approx(stats["objective/scores_margin"][0])
