"""What only a GPU shows; `benchmarks/gpu/run.sh` runs these. Elsewhere they are skipped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from alignzoo.batch import Batch, Example, collate
from alignzoo.discovery import hookimpl
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.policy.logprobs import chunked_logprobs
from alignzoo.policy.probe import textbook_logprobs
from alignzoo.policy.scoring import SharedScorer, UnpaddedScorer
from alignzoo.rollout import Sampling, generate
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "qwen3": tf.Qwen3Config(**SIZES, head_dim=64, tie_word_embeddings=True),
    "a sliding window": tf.MistralConfig(**SIZES, head_dim=32, sliding_window=16),
    "a softcap": tf.Gemma2Config(
        **SIZES, head_dim=32, sliding_window=16, attn_logit_softcapping=2.0
    ),
}


def save_model(path: Path, kind: str) -> Path:
    """Write a model of random weights with a tokenizer."""
    torch.manual_seed(0)
    tf.AutoModelForCausalLM.from_config(CONFIGS[kind]).save_pretrained(path)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(1000)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w2", bos_token="w1")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=list(CONFIGS))
def folder(request, tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("qwen"), "qwen3")


def some_rows(count: int = 6) -> Batch:
    """Groups of one to four completions of unlike length."""
    draw = torch.Generator().manual_seed(1)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=draw))
        return torch.randint(3, 1000, (length,), generator=draw).tolist()

    return collate(
        [Example(ids(5, 90), [ids(2, 60) for _ in range(n % 4 + 1)]) for n in range(count)]
    )


def expected_logprobs(folder: Path, batch: Batch) -> torch.Tensor:
    """By the definition, in single precision on the CPU."""
    return textbook_logprobs(tf.AutoModelForCausalLM.from_pretrained(folder), batch)


def load(folder: Path, **spec) -> Policy:
    return load_policy(ModelSpec(str(folder), device=torch.device("cuda"), **spec))


@pytest.mark.parametrize("unpadded", [True, False])
def test_log_probs_in_bf16_are_the_models_own(folder, unpadded, request):
    batch = some_rows()
    policy = load(folder, adapter="lora", precision="bf16")
    softcapped = "softcap" in request.node.name
    assert type(policy._scorer) is (SharedScorer if softcapped else UnpaddedScorer)
    if not softcapped:
        policy._scorer.unpadded = unpadded
    with torch.no_grad():
        found = policy(batch.to(policy.device)).logprobs.float().cpu()
    expected = expected_logprobs(folder, batch)
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()


def test_log_probs_in_single_precision_are_the_models_own(folder):
    batch = some_rows()
    policy = load(folder, adapter="lora", precision="fp32")
    with torch.no_grad():
        found = policy(batch.to(policy.device)).logprobs.cpu()
    torch.testing.assert_close(found, expected_logprobs(folder, batch), atol=1e-3, rtol=1e-3)


def test_gradients_without_padding_are_those_of_padded_blocks(qwen):
    batch = some_rows()
    gradients = []
    for precision, unpadded in (("fp32", False), ("bf16", True), ("bf16", False)):
        policy = load(qwen, adapter="none", precision=precision)
        if precision == "bf16":
            policy._scorer.unpadded = unpadded
        policy(batch.to(policy.device)).logprobs.mean().backward()
        gradients.append(torch.cat([p.grad.flatten().double() for p in policy.parameters()]))
    exact, *others = gradients
    for other in others:
        assert torch.nn.functional.cosine_similarity(exact, other, dim=0) > 0.999
        assert float(other.norm() / exact.norm()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", [True, False])
def test_the_head_in_chunks_is_log_softmax(dtype, trained):
    torch.manual_seed(0)
    hidden = torch.randn(3000, 64, device="cuda").to(dtype)
    weight = (torch.randn(50_257, 64, device="cuda") / 8).to(dtype)
    targets = torch.randint(50_257, (3000,), device="cuda")
    results = []
    for cast in (lambda x: x, lambda x: x.double()):
        h = cast(hidden).detach().requires_grad_()
        w = cast(weight).detach().requires_grad_(trained)
        if h.dtype == torch.float64:
            found = (h @ w.T).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        else:
            found = chunked_logprobs(h, w, targets, entropy=True)[0]
        found.sum().backward()
        results.append((found, h.grad, *([w.grad] if trained else [])))
    for ours, exact in zip(*([x.detach() for x in found] for found in results), strict=True):
        error = float((ours.double() - exact).norm() / exact.norm())
        assert error < (1e-4 if dtype == torch.float32 else 1e-2)


def test_a_base_in_4_bits_is_scored_as_transformers_does_and_trained(qwen, tmp_path):
    batch = some_rows()
    policy = load(qwen, adapter="qlora", precision="bf16")
    base = policy.model.get_base_model()
    names = {type(module).__name__ for module in base.modules()}
    assert "Linear4bit" in names
    with torch.no_grad(), policy.autocast():
        found = policy(batch.to(policy.device)).logprobs.float()
        expected = textbook_logprobs(base, batch.to(policy.device))
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()
    losses = losses_of_sft(tmp_path, qwen, adapter="qlora")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit", "muon"])
def test_optimizers_lower_the_loss(qwen, tmp_path, optimizer):
    losses = losses_of_sft(tmp_path, qwen, optimizer=optimizer)
    assert losses[-1] < losses[0]


def test_greedy_completions_are_those_of_transformers(qwen):
    policy = load(qwen, adapter=None, precision="fp32")
    prompts = [[5, 9, 11], list(range(20, 50)), [7, 8]]
    with policy.evaluating():
        found = generate(policy, prompts, [0, 1, 2], Sampling(24, [2], temperature=0.0))
    plain = tf.AutoModelForCausalLM.from_pretrained(qwen).to("cuda")
    for prompt, completion in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt], device="cuda")
        theirs = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24,
                                do_sample=False)  # fmt: skip
        assert completion.tokens == theirs[0, len(prompt) :].tolist()


def test_sampled_log_probs_are_the_trainers(tmp_path):
    result = execute(recipe_for("grpo", settings(tmp_path, task="sums", steps=1)))
    assert logged(result.folder, "sampling/sampling_logp_difference/mean")[0] < 0.02


class Stops:
    """Ctrl-C after step 2."""

    @hookimpl
    def alignzoo_step(self, step):
        if step == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_resumed_run_goes_on_as_the_straight_one(tmp_path, monkeypatch, algorithm):
    """Sums of atomic additions vary in their last digits, so not bit for bit."""

    def recipe(name: str):
        more = {"name": name, "precision": "fp32", "steps": 4, "checkpoint_every": 2}
        return recipe_for(algorithm, settings(tmp_path, task="sums", **more))

    straight = execute(recipe("straight")).folder

    def interrupted(run):
        run.plugins.register(Stops())
        train(run)

    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.session.session.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe("broken"))
    broken = execute(recipe("broken"), resume=True).folder
    assert logged(broken, "loss") == pytest.approx(logged(straight, "loss"), rel=1e-3, abs=1e-5)


# Each path through the loop: a reference, a KL of the batch, a score head, a value head, a mixture
# with the reference, judges, two references.
PATHS = ("sft", "dpo", "kto", "reward", "ppo", "nash-md", "rlaif", "xpo", "sppo", "bco")


@pytest.mark.parametrize("algorithm", PATHS)
def test_algorithms_take_steps(tmp_path, algorithm):
    wanted = settings(tmp_path, task="sums")
    if algorithm == "reward":
        del wanted["max_new_tokens"]
    result = execute(recipe_for(algorithm, wanted))
    losses = logged(result.folder, "loss")
    assert losses and all(math.isfinite(loss) for loss in losses)


def test_a_card_that_is_too_small_gets_smaller_passes(qwen, tmp_path):
    draw = torch.Generator().manual_seed(0)
    words = [" ".join(f"w{i}" for i in torch.randint(3, 1000, (300,), generator=draw).tolist())
             for _ in range(32)]  # fmt: skip
    rows = [json.dumps({"prompt": "w5 w6", "completion": " " + text}) for text in words]
    (tmp_path / "long.jsonl").write_text("\n".join(rows))

    def losses(name: str) -> list[float]:
        more = {"data": str(tmp_path / "long.jsonl"), "model": str(qwen), "name": name}
        recipe = settings(tmp_path, micro_tokens=10**6, **more) | {"batch_size": 32, "steps": 1}
        return logged(execute(recipe_for("sft", recipe)).folder, "loss")

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole = losses("whole")
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    try:
        parts = losses("parts")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    facts = json.loads((tmp_path / "runs/parts/run.json").read_text())
    assert facts["micro_tokens"] < 10**6
    assert parts == pytest.approx(whole, rel=1e-2)


def losses_of_sft(folder: Path, model: Path, **more) -> list[float]:
    """Train on one row, many times."""
    row = {"prompt": "w5 w6 w7", "completion": " w8 w9 w10"}
    (folder / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 12)
    data = {"data": str(folder / "rows.jsonl"), "learning_rate": 1e-2, "schedule": "constant"}
    result = execute(recipe_for("sft", settings(folder, model=str(model), **data, **more)))
    return logged(result.folder, "loss")


def settings(folder: Path, **more) -> dict:
    return {
        "steps": 3,
        "batch_size": 4,
        "eval_size": 0,
        "max_new_tokens": 8,
        "output_dir": str(folder / "runs"),
        **more,
    }


def logged(folder: Path, name: str) -> list[float]:
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, rows) if name in row]
