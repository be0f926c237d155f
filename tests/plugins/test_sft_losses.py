"""The losses of supervised fine-tuning by hand, and against TRL."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from alignzoo import Example, Loss, collate
from alignzoo_zoo.sft.algorithm import SFT
from alignzoo_zoo.sft.losses import cross_entropy, dynamic_fine_tuning, noisy_embeddings


def test_mean_over_the_tokens_that_count():
    # Tokens of probability 1/2, 1/4, 1/8; the last is masked: (ln 2 + ln 4) / 2 = 1.0397208.
    logprobs = torch.tensor([[0.5, 0.25, 0.125]]).log().requires_grad_()
    loss = Loss.per_token(cross_entropy(logprobs), torch.tensor([[True, True, False]]))
    assert loss.mean == pytest.approx(1.0397208, abs=1e-6)
    loss.sum.backward()
    assert logprobs.grad.tolist() == [[-1.0, -1.0, 0.0]]


def test_dft_value_and_gradient_by_hand():
    # Tokens of probability 1/2, 1/4, 1/8: L = p ln(1/p) = 0.3465736, 0.3465736, 0.2599302, and the
    # gradient with respect to log p is -p, for the weight has none. The last token is masked.
    logprobs = torch.tensor([[0.5, 0.25, 0.125]]).log().requires_grad_()
    values = dynamic_fine_tuning(logprobs)
    assert values.tolist()[0] == pytest.approx([0.3465736, 0.3465736, 0.2599302], abs=1e-6)
    loss = Loss.per_token(values, torch.tensor([[True, True, False]]))
    loss.sum.backward()
    assert loss.mean == pytest.approx(0.3465736, abs=1e-6)
    assert logprobs.grad.tolist()[0] == pytest.approx([-0.5, -0.25, 0.0])


def test_dft_of_an_impossible_token_is_zero():
    logprobs = torch.tensor([[-50.0, -500.0, 0.0]], requires_grad=True)
    values = dynamic_fine_tuning(logprobs)
    values.sum().backward()
    assert values.tolist()[0] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert logprobs.grad.tolist()[0] == pytest.approx([0.0, 0.0, -1.0], abs=1e-6)


def test_noise_has_the_papers_size():
    # alpha / sqrt(L d) = 5 / sqrt(4 * 64) = 0.3125 and 5 / sqrt(100 * 64) = 0.0625; uniform noise
    # of half-width s has the standard deviation s / sqrt(3).
    torch.manual_seed(0)
    lengths = torch.tensor([4] * 400 + [100] * 400)
    noise = noisy_embeddings(torch.zeros(800, 64), lengths, 5.0)
    for part, scale in ((noise[:400], 0.3125), (noise[400:], 0.0625)):
        assert scale * 0.99 < float(part.abs().max()) <= scale
        assert float(part.std()) == pytest.approx(scale / 3**0.5, rel=0.02)
        assert float(part.mean()) == pytest.approx(0.0, abs=scale * 0.02)


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_agrees_with_trl(loss_type):
    trainer = pytest.importorskip("trl.trainer.sft_trainer").SFTTrainer
    # Two completions of unequal length; the second token of the first is masked.
    tokens = collate([Example([1], [[2, 3, 4]], masks=[[True, False, True]]), Example([1], [[5]])])
    values = torch.tensor([[-0.3, -2.0, -1.1], [-50.0, 0.0, 0.0]])
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    run = SimpleNamespace(policy=lambda batch, perturb: SimpleNamespace(logprobs=ours))
    loss = SFT(loss_type).alignzoo_loss(run, tokens)
    (loss.sum / loss.count).backward()

    def model(**_):
        zeros = torch.zeros_like(values)
        return SimpleNamespace(
            log_probs=torch.where(tokens.mask, theirs, 0.0),
            label_mask=tokens.mask,
            entropy=zeros,
            is_top1=zeros,
        )

    stub = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(loss_type=loss_type, average_tokens_across_devices=False),
        accelerator=SimpleNamespace(gather_for_metrics=lambda x: x, parallelism_config=None),
        aux_loss_enabled=False,
        compute_loss_func=None,
        label_smoother=None,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    expected = trainer.compute_loss(stub, model, {"labels": tokens.tokens})
    expected.backward()
    assert loss.mean == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=0)


def test_noise_is_for_training_alone(make_run):
    run = make_run("sft", options={"neftune_noise_alpha": 5.0})
    batch = collate(run.data.train[:4])
    plain = Loss.per_token(-run.policy(batch).logprobs, batch.mask).mean
    losses = [run.algorithm.alignzoo_loss(run, batch).mean for _ in range(2)]
    assert len({plain, *losses}) == 3
    with torch.no_grad():
        assert run.algorithm.alignzoo_loss(run, batch).mean == pytest.approx(plain, rel=1e-6)


def test_everything_counts_the_prompt_too(make_run):
    answer, everything = (make_run("sft", options={"learn": x}) for x in ("answer", "everything"))
    one, two = answer.data.train[0], everything.data.train[0]
    assert two.prompt + two.completions[0] == one.prompt + one.completions[0]
    assert len(two.prompt) == 1 < len(one.prompt)
