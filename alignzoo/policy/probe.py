"""Which way of scoring is right for this model: found out by trying, never assumed.

A group of two completions of unlike length, of random tokens, is scored by each candidate and by
the textbook: one completion at a time through the untouched model, log-softmax of its logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.batch import Batch, Example, collate
from alignzoo.errors import BadInput
from alignzoo.policy.attention import NAME
from alignzoo.policy.scoring import LogitsScorer, RowScorer, Scorer, SharedScorer
from alignzoo.policy.virtual import Virtual

PROMPT, COMPLETIONS = 7, (5, 3)


@torch.no_grad()
def choose(model: PreTrainedModel) -> Scorer:
    """The first of the scorers whose log-probabilities are the model's own."""
    model.eval()
    batch = _batch(model)
    plain = model.config._attn_implementation
    expected = textbook(model, batch)
    # Each path rounds differently. What matters is that it sees the right tokens in the right
    # places, so its error is held against what other tokens in the prompt would change.
    allowed = _allowed(model, textbook(model, _batch(model, shift=1)), expected)

    kinds: tuple[type[Scorer], ...] = (SharedScorer, RowScorer, LogitsScorer)
    for kind in kinds:
        model.set_attn_implementation(NAME if kind.shared else plain)
        try:
            scorer = kind(model)
            got = scorer(batch, entropy=False, temperature=1.0).logprobs
        except (BadInput, torch.cuda.OutOfMemoryError):
            raise
        except Exception:  # whatever a foreign model does with what it did not expect
            continue
        if bool((got - expected).abs().mean() <= allowed):
            return scorer
    raise BadInput(
        f"{type(model).__name__} does not give per-token log-probabilities",
        hint="alignzoo trains decoder-only (causal) language models",
    )


@torch.no_grad()
def check_virtual(model: Any, scorer: Scorer, virtual: Virtual) -> None:
    """`BadInput` unless these virtual tokens do what they do in plain peft."""
    model.eval()
    base = model.get_base_model()
    batch = _batch(base)
    try:
        expected = textbook(model, batch)
        got = scorer(virtual.before(batch), entropy=False, temperature=1.0, virtual=virtual)
        allowed = _allowed(base, textbook(base, batch), expected)
        right = bool((got.logprobs - expected).abs().mean() <= allowed)
    except (BadInput, torch.cuda.OutOfMemoryError):
        raise
    except Exception:  # as above
        right = False
    if not right:
        raise BadInput(
            f"virtual tokens do not fit a {base.config.model_type} model",
            hint="use --adapter lora",
        )


def _allowed(model: PreTrainedModel, other: Tensor, expected: Tensor) -> Tensor:
    """The error that may be, where `other` is what a change that must be seen makes."""
    effect = (other - expected).abs().mean()
    return 0.2 * effect if _coarse(model) else 0.01 * effect + 1e-6 * expected.abs().mean()


def textbook(model: PreTrainedModel, batch: Batch) -> Tensor:
    """`[N, T]`: each completion alone through the whole model."""
    out = torch.zeros(batch.tokens.shape, device=batch.tokens.device)
    for n, length in enumerate(batch.lengths.tolist()):
        prompt = batch.prompts[batch.group[n], : batch.prompt_lengths[batch.group[n]]]
        completion = batch.tokens[n, :length]
        ids = torch.cat([prompt, completion])[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, -length - 1 : -1]
        out[n, :length] = logits.float().log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
    return out


def _batch(model: PreTrainedModel, shift: int = 0) -> Batch:
    """Random tokens; `shift` changes the prompt only."""
    vocabulary = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (PROMPT + sum(COMPLETIONS),), generator=draw)
    prompt = (ids[:PROMPT] + shift) % vocabulary
    completions = [c.tolist() for c in ids[PROMPT:].split(COMPLETIONS)]
    return collate([Example(prompt.tolist(), completions)]).to(model.device)


def _coarse(model: PreTrainedModel) -> bool:
    quantised = getattr(model, "is_quantized", False)
    return quantised or any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
