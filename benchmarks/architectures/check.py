"""Check that alignzoo computes one model as transformers defines it.

The definition is a plain forward pass of transformers over one sequence, without a cache, padding
or anything of alignzoo's; for adapters, PEFT's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from alignzoo.batch import Batch, Example, collate
from alignzoo.errors import BadInput, one_line
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.policy.flops import profile
from alignzoo.policy.probe import textbook_logprobs
from alignzoo.rollout import Sampling, generate

CPU = torch.device("cpu")
STOP, NEW_TOKENS = 2, 8
TOLERANCE = 1e-3  # nats of a log-prob; share of the norm of a gradient
ROUNDING = 1e-5  # nats of a log-prob computed again
MESSAGE = 160  # characters of an error


def check_model(config: PreTrainedConfig, folder: Path) -> dict[str, Any]:
    """Build a model with random weights in a folder, check it, and return the row of the table.

    `status` is "right", "wrong" (see `failed`), "refused" (with alignzoo's message) or "not built"
    (transformers cannot run a model of this configuration).
    """
    base = folder / "base"
    try:
        name = build(config, base)
    except Exception as error:  # an unknown model may fail in any way
        return {"status": "not built", "message": describe(error)}
    row: dict[str, Any] = {"class": name}
    try:
        policy = load(base, "lora")
    except BadInput as error:
        return row | {"status": "refused", "message": one_line(error)[: 2 * MESSAGE]}
    except Exception as error:
        return row | {"status": "wrong", "failed": ["load"], "message": describe(error)}
    row["scoring"] = type(policy._scorer).__name__
    row["decoding"] = policy.decoder.__name__
    row |= run_checks(policy, base, folder / "run")
    return row | {"status": "wrong" if row["failed"] else "right"}


def run_checks(policy: Policy, base: Path, run: Path) -> dict[str, Any]:
    """Return the numbers of every check, and the names of those that `failed`."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "log-probs": lambda: compare_logprobs(policy, model),
        "generation": lambda: compare_generation(policy, model),
        "DPO": lambda: train_dpo(policy),
        "reload": lambda: compare_reloaded(policy, base, run),
        "gradient": lambda: compare_gradient(policy, model, run),
    }
    row: dict[str, Any] = {"failed": [], "FLOPs ratio": compare_flops(model)}
    for name, check in checks.items():
        try:
            found = check()
        except Exception as error:
            found = {"right": False, "message": describe(error)}
        if not found.pop("right"):
            row["failed"].append(name)
        row |= found
    return row


def describe(error: Exception) -> str:
    """Return an error in one line."""
    return one_line(error)[:MESSAGE]


def build(config: PreTrainedConfig, folder: Path) -> str:
    """Save a model with random weights and a tokenizer of its size; return the model's class."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model(input_ids=torch.arange(3, 13)[None], use_cache=False)
    model.save_pretrained(folder)
    size = config.get_text_config().vocab_size
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2")
    tokenizer.save_pretrained(folder)
    return type(model).__name__


def load(folder: Path, adapter: str | None) -> Policy:
    """Load a policy on the CPU, in evaluation mode."""
    policy = load_policy(ModelSpec(str(folder), adapter=adapter, lora_rank=4, device=CPU))
    policy.eval()
    return policy


def pairs(vocabulary: int, shift: int = 0) -> Batch:
    """Return four groups of two completions, of unlike lengths; `shift` changes the prompts."""
    draw = torch.Generator().manual_seed(3)

    def ids(count: int) -> Tensor:
        return torch.randint(3, vocabulary, (count,), generator=draw)

    sizes = [(3, 5, 9), (14, 6, 2), (25, 7, 8), (1, 4, 4)]
    examples = []
    for prompt, chosen, rejected in sizes:
        tokens = (ids(prompt) + shift) % vocabulary
        examples.append(Example(tokens.tolist(), [ids(chosen).tolist(), ids(rejected).tolist()]))
    return collate(examples)


@torch.no_grad()
def compare_logprobs(policy: Policy, model: Any) -> dict[str, Any]:
    """Compare the log-probs of a batch; the prompts must show in them, or it proves nothing."""
    batch = pairs(policy.model.config.get_text_config().vocab_size)
    other = pairs(policy.model.config.get_text_config().vocab_size, shift=1)
    expected = textbook_logprobs(model, batch)
    effect = float((textbook_logprobs(model, other) - expected).abs().mean())
    error = float((policy(batch).logprobs - expected).abs().max())
    right = error < min(TOLERANCE, effect / 10)
    return {"right": right, "log-prob error": error, "effect of the prompt": effect}


@torch.no_grad()
def compare_generation(policy: Policy, model: Any) -> dict[str, Any]:
    """Compare greedy completions with the definition, alone and in a batch.

    `generate` names what transformers' own `generate` gives: "equal", or that it is "different",
    "different when padded" or in error. Alignzoo is right if it gives what the model defines.
    """
    vocabulary = policy.model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(4)
    prompts = [
        torch.randint(3, vocabulary, (size,), generator=draw).tolist() for size in (3, 18, 11)
    ]
    greedy = Sampling(max_new_tokens=NEW_TOKENS, stop_ids=[STOP], temperature=0.0)
    together = [found.tokens for found in generate(policy, prompts, [0, 1, 2], greedy)]
    alone = [generate(policy, [prompt], [0], greedy)[0].tokens for prompt in prompts]
    right = all(
        is_greedy(model, prompt, tokens)
        for found in (together, alone)
        for prompt, tokens in zip(prompts, found, strict=True)
    )
    return {"right": right, "generate": compare_generate(model, prompts, alone)}


def is_greedy(model: Any, prompt: list[int], tokens: list[int]) -> bool:
    """Return whether each token is the most likely one, or within rounding of it."""
    ids = torch.tensor([prompt + tokens])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()  # (t, V)
    chosen = logits.gather(1, torch.tensor(tokens)[:, None]).squeeze(1)
    ended = len(tokens) == NEW_TOKENS or tokens[-1] == STOP
    return ended and bool((logits.max(1).values - chosen).max() < TOLERANCE)


def compare_generate(model: Any, prompts: list[list[int]], expected: list[list[int]]) -> str:
    """Say how transformers' `generate` compares with greedy completions."""
    options = {
        "do_sample": False,
        "max_new_tokens": NEW_TOKENS,
        "eos_token_id": STOP,
        "pad_token_id": 0,
    }
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    try:
        alone = [
            model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
            for prompt in prompts
        ]
        if alone != expected:
            return "different"
        padded = model.generate(ids, attention_mask=mask, **options)[:, width:].tolist()
    except Exception as error:
        return f"error: {describe(error)}"
    same = all(row[: len(e)] == e for row, e in zip(padded, expected, strict=True))
    return "equal" if same else "different when padded"


@torch.no_grad()
def compare_flops(model: Any) -> float | None:
    """Return the ledger's count of a pass over torch's; None if the pass cannot be counted.

    Torch counts the products of eager code alone.
    """
    plain = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        model.set_experts_implementation("eager")
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.arange(20)[None] + 3, use_cache=False)
    except Exception:  # an unknown model may fail in any way
        return None
    finally:
        model.set_attn_implementation(plain)
    # Eager attention computes the masked half as well.
    return profile(model, trains_base=True).forward(20, 20 * 20, 20) / counter.get_total_flops()


def train_dpo(policy: Policy) -> dict[str, Any]:
    """Take one step of DPO: the loss is ln 2 before it, and less after it."""
    batch = pairs(policy.model.config.get_text_config().vocab_size)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.01)
    before = dpo_loss(policy, batch)
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = float(dpo_loss(policy, batch))
    policy.eval()
    start = float(before.detach())
    right = abs(start - 0.6931472) < TOLERANCE and after < start
    return {"right": right, "DPO loss": [start, after]}


def dpo_loss(policy: Policy, batch: Batch) -> Tensor:
    """Return the loss of DPO with beta 0.1 on groups of two."""
    policy.train()
    margins = (policy(batch).logprobs - policy.reference(batch).logprobs).sum(1)  # (N,)
    chosen, rejected = margins.view(-1, 2).unbind(1)
    return -logsigmoid(0.1 * (chosen - rejected)).mean()


@torch.no_grad()
def compare_reloaded(policy: Policy, base: Path, run: Path) -> dict[str, Any]:
    """Save the trained policy as a run, and compare it as loaded, and as merged by the next run."""
    run.mkdir()
    policy.save(run)
    recipe = {"model": str(base), "adapter": "lora"}
    (run / "run.json").write_text(json.dumps({"status": "finished", "recipe": recipe}))
    batch = pairs(policy.model.config.get_text_config().vocab_size)
    expected = policy(batch).logprobs
    error = float((load(run, None)(batch).logprobs - expected).abs().max())
    try:
        merged = float((load(run, "lora")(batch).logprobs - expected).abs().max())
    except BadInput as refusal:
        message = one_line(refusal)[:MESSAGE]
        return {"right": error < ROUNDING, "reload error": error, "merge": f"refused: {message}"}
    right = error < ROUNDING and merged < TOLERANCE
    return {"right": right, "reload error": error, "merge error": merged}


def compare_gradient(policy: Policy, model: Any, run: Path) -> dict[str, Any]:
    """Compare the gradient and the log-probs of the adapter with those of plain PEFT."""
    plain = PeftModel.from_pretrained(model, run / "adapter", is_trainable=True).eval()
    policy.eval()
    batch = pairs(model.config.get_text_config().vocab_size)
    expected, got = textbook_logprobs(plain, batch), policy(batch).logprobs
    for weight in policy.parameters():
        weight.grad = None
    expected.sum().backward()
    got.sum().backward()
    theirs = {name: weight.grad for name, weight in plain.named_parameters()}
    gaps, norms = [], []
    for name, weight in policy.named_parameters():
        # An expert that no token reached has no gradient.
        other, ours = (
            torch.zeros_like(weight) if found is None else found
            for found in (theirs[name], weight.grad)
        )
        gaps.append((ours - other).norm() ** 2)
        norms.append(other.norm() ** 2)
    share = float((sum(gaps) / sum(norms)) ** 0.5)
    error = float((got - expected).detach().abs().max())
    right = share < TOLERANCE and error < TOLERANCE
    return {"right": right, "gradient error": share, "adapter log-prob error": error}
