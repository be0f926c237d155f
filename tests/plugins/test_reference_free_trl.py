"""ORPO, SimPO, AlphaPO, CPO and SLiC-HF's hinge as TRL 1.16 (trl.experimental) computes them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from plugin_fakes import bigram, fake_run

from alignzoo import Example, collate
from alignzoo_zoo.cpo.algorithm import CPO
from alignzoo_zoo.orpo.algorithm import ORPO
from alignzoo_zoo.simpo.algorithm import SimPO
from alignzoo_zoo.slic.algorithm import SLiC

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")
CPOTrainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
ORPOTrainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer

# Both prompts are one token and both chosen sides three, for there TRL's means over the tokens of
# the batch are the means of the sequences; the rejected sides differ in length.
PAIRS = [
    Example([1], [[3, 4, 5], [6]]),
    Example([5], [[0, 2, 2], [2, 2, 6, 1]]),
]


def trl_batch() -> dict[str, torch.Tensor]:
    """The pairs as TRL's collator lays them out: prompt and completion, labels -100 on the rest."""
    batch: dict[str, torch.Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        ids = [e.prompt + e.completions[side] for e in PAIRS]
        width = max(map(len, ids))
        batch[f"{name}_input_ids"] = torch.tensor([x + [0] * (width - len(x)) for x in ids])
        batch[f"{name}_attention_mask"] = torch.tensor(
            [[1] * len(x) + [0] * (width - len(x)) for x in ids]
        )
        batch[f"{name}_labels"] = torch.tensor(
            [[-100] + x[1:] + [-100] * (width - len(x)) for x in ids]
        )
    return batch


def trl_loss(trainer_class, policy: torch.Tensor, **options) -> torch.Tensor:
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x),
        aux_loss_enabled=False,
        is_encoder_decoder=False,
        pad_token_id=0,
        padding_value=0,
        label_smoothing=0.0,
        concatenated_inputs=trainer_class.concatenated_inputs,
        get_batch_logps=trainer_class.get_batch_logps,
        **options,
    )
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(trainer_class, name):
            setattr(trainer, name, partial(getattr(trainer_class, name), trainer))

    def model(input_ids, **_):
        return SimpleNamespace(logits=policy[input_ids])

    loss, _ = trainer_class.get_batch_loss_metrics(trainer, model, trl_batch())
    return loss


def cpo_trainer(loss_type: str, beta: float, nll: float = 0.0, gamma: float = 0.0, alpha=0.0):
    return partial(
        trl_loss,
        CPOTrainer,
        loss_type=loss_type,
        beta=beta,
        cpo_alpha=nll,
        simpo_gamma=gamma,
        alpha=alpha,
    )


CASES = {
    "cpo": (CPO(beta=0.2, nll_weight=0.6), cpo_trainer("sigmoid", 0.2, nll=0.6)),
    "simpo": (SimPO(beta=1.5, gamma=0.3), cpo_trainer("simpo", 1.5, gamma=0.3)),
    "alphapo": (
        SimPO(beta=1.5, gamma=0.3, alpha=0.25),
        cpo_trainer("simpo", 1.5, gamma=0.3, alpha=0.25),
    ),
    # The margin of TRL's hinge is 1; there is no likelihood of the sum in it.
    "slic": (SLiC(delta=1.0, nll_weight=0.0), cpo_trainer("hinge", 1.0)),
    "orpo": (ORPO(odds_weight=0.4), partial(trl_loss, ORPOTrainer, beta=0.4)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_loss_and_its_gradient_are_those_of_trl(name):
    algorithm, theirs_of = CASES[name]
    policy = bigram(4)
    ours = algorithm.alignzoo_loss(fake_run(policy), collate(PAIRS))
    (ours.sum / ours.count).backward()
    gradient, policy.grad = policy.grad, None
    theirs = theirs_of(policy)
    theirs.backward()
    assert ours.mean == pytest.approx(theirs.item(), abs=1e-5)
    assert torch.allclose(gradient, policy.grad, atol=1e-5)
    assert gradient.abs().max() > 1e-3
