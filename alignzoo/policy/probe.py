"""Pick the way of scoring that is right for a model by trying each, never by assumption.

A group of two completions of different length, of random tokens, is scored by each candidate and by
the definition: one completion at a time through the untouched model, log-softmax of its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.batch import Batch, Example, collate
from alignzoo.errors import BadInput, one_line
from alignzoo.policy.attention import ATTENTION_NAME
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.scoring import (
    BackboneScorer,
    LogitsScorer,
    RowScorer,
    Scorer,
    SharedScorer,
    UnpaddedScorer,
)
from alignzoo.policy.virtual import Virtual

PROMPT, COMPLETIONS = 7, (5, 3)


@torch.no_grad()
def pick_scorer(model: PreTrainedModel) -> Scorer:
    """Return the first scorer that gives the model's own log-probs; BadInput if none does.

    The model is left in evaluation mode, with the attention that the scorer needs.
    """
    model.eval()
    batch = _batch(model)
    plain = model.config._attn_implementation
    expected = defined_logprobs(model, batch)
    # Each scorer rounds differently. It must see the right tokens at the right positions, so its
    # error is compared with the effect of changing the tokens of the prompt.
    allowed = allowed_error(model, defined_logprobs(model, _batch(model, shift=1)), expected)

    kinds: tuple[type[Scorer], ...] = (UnpaddedScorer, SharedScorer, RowScorer, LogitsScorer)
    for kind in kinds:
        model.set_attn_implementation(ATTENTION_NAME if kind.shared else plain)
        try:
            scorer = kind(model)
            if isinstance(scorer, SharedScorer) and not scorer.reads_positions(batch):
                continue
            if isinstance(scorer, BackboneScorer) and not scorer.head.fits(model):
                continue
            errors = [(got - expected).abs().mean() for got in _score_each_way(scorer, batch)]
        except (BadInput, torch.cuda.OutOfMemoryError):
            raise
        except Exception:  # an unknown model may fail in any way
            continue
        if all(bool(error <= allowed) for error in errors):
            return scorer
    raise BadInput(
        f"{type(model).__name__} does not give per-token log-probabilities",
        hint="alignzoo trains decoder-only (causal) language models",
    )


def _score_each_way(scorer: Scorer, batch: Batch) -> list[Tensor]:
    """Return the log-probs by each kind of attention that the scorer may choose."""
    if not isinstance(scorer, UnpaddedScorer):
        return [scorer(batch).logprobs]
    found = []
    for scorer.unpadded in (True, False):
        found.append(scorer(batch).logprobs)
    scorer.unpadded = None
    return found


def defined_logprobs(model: Any, batch: Batch) -> Tensor:
    """Return `textbook_logprobs`; BadInput if the model cannot be run, or they are not finite."""
    try:
        logprobs = textbook_logprobs(model, batch)
    except (BadInput, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # an unknown model may fail in any way
        raise BadInput(
            f"{type(model).__name__} cannot be run on a few tokens: {one_line(error)}",
            hint="alignzoo trains decoder-only (causal) language models; an adapter may not fit",
        ) from error
    if not bool(logprobs.isfinite().all()):
        raise BadInput(
            "the model's log-probabilities are not finite (NaN or infinity)",
            hint="its weights are damaged or too large for its precision: try --precision fp32",
        )
    return logprobs


@torch.no_grad()
def logprobs_to_keep(model: Any) -> tuple[Tensor, Tensor]:
    """Return log-probs `[N, T]` of a few tokens, and how much they may change by rounding."""
    model.eval()
    expected = defined_logprobs(model, _batch(model))
    changed = defined_logprobs(model, _batch(model, shift=1))
    return expected, allowed_error(model, changed, expected)


@torch.no_grad()
def keeps_logprobs(model: Any, expected: Tensor, allowed: Tensor) -> bool:
    """Return True if a model gives what `logprobs_to_keep` returned, but for rounding."""
    found = defined_logprobs(model.eval(), _batch(model))
    return bool((found - expected).abs().mean() <= allowed)


@torch.no_grad()
def check_noise(model: Any) -> None:
    """Raise BadInput if log-probs are others in training mode, as they are with dropout."""
    expected, allowed = logprobs_to_keep(model)
    with torch.random.fork_rng():
        found = defined_logprobs(model.train(), _batch(model))
    model.eval()
    if bool((found - expected).abs().mean() > allowed):
        raise BadInput(
            f"a {model.config.model_type} model gives other log-probabilities in training mode",
            hint="set what it draws (dropout, jitter) to 0 in its config.json",
        )


@torch.no_grad()
def check_virtual(model: Any, scorer: Scorer, virtual: Virtual) -> None:
    """Raise BadInput unless virtual tokens do what they do in plain PEFT."""
    model.eval()
    base = model.get_base_model()
    batch = _batch(base)
    try:
        expected = textbook_logprobs(model, batch)
        got = scorer(virtual.prepend_to(batch), ForwardOptions(virtual=virtual))
        allowed = allowed_error(base, textbook_logprobs(base, batch), expected)
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


def allowed_error(model: Any, other: Tensor, expected: Tensor) -> Tensor:
    """Return the tolerated mean error; `other` are log-probs after a change that must show."""
    effect = (other - expected).abs().mean()
    if _coarse(model):
        return 0.2 * effect
    share = 0.01 if torch.is_autocast_enabled(model.device.type) else 0.001
    return share * effect + 1e-6 * expected.abs().mean()


def textbook_logprobs(model: Any, batch: Batch) -> Tensor:
    """Compute log-probs `[N, T]` by the definition: each completion alone, from full logits."""
    out = torch.zeros(batch.tokens.shape, device=batch.tokens.device)
    for n, length in enumerate(batch.lengths.tolist()):
        prompt = batch.prompts[batch.group[n], : batch.prompt_lengths[batch.group[n]]]
        completion = batch.tokens[n, :length]
        ids = torch.cat([prompt, completion])[None]  # (1, p + t)
        logits = model(input_ids=ids, use_cache=False).logits[0, -length - 1 : -1]  # (t, V)
        out[n, :length] = logits.float().log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
    return out


def _batch(model: PreTrainedModel, shift: int = 0) -> Batch:
    """Make a batch of random tokens; `shift` changes the prompt only."""
    return _random_batch(model, [(PROMPT, COMPLETIONS)], shift)


LONGEST_WINDOW = 256  # tokens; longer windows would make the probe slow


def decoding_batch(model: Any, shift: int = 0) -> Batch:
    """Make a batch of two prompts of unlike length, one past the model's window if that is short.

    `shift` changes the prompts only. A prompt with two completions tests that a cache can be
    spread, and their unlike length that rows can leave it.
    """
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    short = [w for w in windows if isinstance(w, int) and 0 < w <= LONGEST_WINDOW]
    return _random_batch(model, [(max([PROMPT, *short]), (4,)), (3, (5, 2))], shift)


def _random_batch(model: Any, sizes: Sequence[tuple[int, tuple[int, ...]]], shift: int) -> Batch:
    vocabulary = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    examples = []
    for length, completions in sizes:
        ids = torch.randint(vocabulary, (length + sum(completions),), generator=draw)
        prompt = (ids[:length] + shift) % vocabulary
        examples.append(
            Example(prompt.tolist(), [c.tolist() for c in ids[length:].split(completions)])
        )
    return collate(examples).to(model.device)


def _coarse(model: Any) -> bool:
    """Return True for weights below single precision."""
    quantised = getattr(model, "is_quantized", False)
    return quantised or any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
