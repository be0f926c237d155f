"""The real command line on real data: human preference pairs and GSM8K, a 50,257-entry BPE."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, shared_data: Path) -> Path:
    """A Qwen2 model of random weights with GPT-2's tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    folder = tmp_path_factory.mktemp("qwen2")
    bpe = shared_data / "gpt2-bpe"
    tokenizer = ByteLevelBPETokenizer(str(bpe / "vocab.json"), str(bpe / "merges.txt"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=50257,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        # With the usual 0.02 a narrow head can move a log-prob by a nat at most.
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def run(out: Path, *words: str) -> tuple[list[dict], dict, subprocess.CompletedProcess[str]]:
    """`alignzoo run ...` in a process of its own: its metrics, its run.json, its output."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "alignzoo",
            "run",
            *words,
            "--output-dir",
            str(out),
            "--name",
            "one",
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    lines = (out / "one" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(x) for x in lines], json.loads((out / "one" / "run.json").read_text()), done


@pytest.mark.long
@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_dpo_on_human_preferences(tmp_path, shared_data, model_folder, adapter):
    # Few enough to be seen eight times: whether all 2,312 teach anything is another question.
    pairs = tmp_path / "pairs.jsonl.gz"
    with gzip.open(shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt") as lines:
        pairs.write_bytes(gzip.compress("".join(islice(lines, 32)).encode()))
    rows, _, done = run(
        tmp_path,
        *("dpo", "--model", str(model_folder), "--data", str(pairs), "--adapter", adapter),
        *("--steps", "32", "--batch-size", "8", "--learning-rate", "5e-3", "--max-length", "192"),
        *("--eval-size", "2", "--max-new-tokens", "8"),
    )
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    first, last = (sum(r["rewards/accuracies"] for r in part) for part in (rows[1:6], rows[-5:]))
    assert last >= first + 1, (first, last)
    assert rows[-1]["loss"] < 0.6
    assert "rows read" in done.stdout
    assert done.stderr == ""

    # Plain peft loads the result, and it is not the base.
    from peft import AutoPeftModelForCausalLM

    tuned = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "one" / "adapter")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        adapted = tuned(ids).logits
        with tuned.disable_adapter():
            assert not torch.allclose(adapted, tuned(ids).logits, atol=1e-4)


@pytest.mark.long
def test_sft_on_gsm8k_lowers_the_held_out_loss(tmp_path, shared_data, model_folder):
    rows, facts, _ = run(
        tmp_path,
        *("sft", "--model", str(model_folder), "--data", str(shared_data / "gsm8k/train.jsonl")),
        *("--steps", "25", "--batch-size", "8", "--learning-rate", "1e-2", "--max-length", "192"),
        *("--eval-size", "32", "--max-new-tokens", "8"),
    )
    before = facts["results"]["before"]["held-out/loss"]["mean"]
    after = facts["results"]["after"]["held-out/loss"]["mean"]
    assert after < before - 0.5
    assert len(rows) == 25


def test_grpo_on_gsm8k_with_the_math_reward(tmp_path, shared_data, model_folder):
    rows, facts, done = run(
        tmp_path,
        *("grpo", "--model", str(model_folder), "--data", str(shared_data / "gsm8k/test.jsonl")),
        *("--reward", "math", "--steps", "2", "--batch-size", "3", "--group-size", "4"),
        *("--max-length", "256", "--max-new-tokens", "24", "--eval-size", "0"),
    )
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 <= row["rewards/math/mean"] == row["reward"] <= 1
        assert 1 <= row["completions/mean_length"] <= row["completions/max_length"] <= 24
        # Of 50,257 tokens none is likely under random weights.
        assert 0.5 * math.log(50257) < row["entropy"] <= math.log(50257)
    assert facts["ledger"]["feedback"]["verifier_calls"] == 2 * 3 * 4
    assert facts["ledger"]["flops"]["generation"] > 0
    assert done.stderr == ""
