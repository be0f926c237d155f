"""A vLLM engine in this process, next to the model in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignzoo import BadInput
from alignzoo.errors import NotAvailable
from alignzoo.rollout import Completion, Sampling

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the values of max_lora_rank that vLLM accepts
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}  # by --precision


class Engine:
    """`vllm.LLM` on the base model, with a `LoRARequest` for each adapter, or new weights."""

    def __init__(self, base: str, recipe: Any, memory: float):
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise NotAvailable(
                f"sampler 'vllm': vLLM is not installed here ({error})",
                hint="pip install alignzoo[vllm], or use a server that runs elsewhere: "
                "--sampler vllm,url=http://localhost:8000/v1",
            ) from None
        self.whole_models = recipe.adapter == "none"
        if recipe.lora_rank > RANKS[-1] and not self.whole_models:
            raise BadInput(
                f"option --lora-rank: vLLM takes adapters up to rank {RANKS[-1]}",
                hint="use a smaller rank, or leave out --sampler",
            )
        self.vllm, self.request = vllm, LoRARequest
        lora: dict[str, Any] = {}
        if not self.whole_models:
            rank = next(rank for rank in RANKS if rank >= recipe.lora_rank)
            lora = {"enable_lora": True, "max_lora_rank": rank}
        self.llm = vllm.LLM(
            model=base,
            dtype=DTYPES[recipe.precision],
            max_model_len=recipe.max_length,
            seed=recipe.seed,
            **lora,
            gpu_memory_utilization=memory,
            logprobs_mode="processed_logprobs",  # of the distribution drawn from, like the trainer
        )
        self.adapter: Any = None
        self.loaded = 0

    def load(self, name: str, folder: Path) -> None:
        """Draw from the weights in this folder from now on: an adapter's, or a whole model's."""
        if self.whole_models:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            self.llm.reset_prefix_cache()  # it was computed with other weights
            return
        # vLLM caches adapters by number; a new number makes it read the folder.
        self.loaded += 1
        self.adapter = self.request(name, self.loaded, str(folder))

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Draw one completion per prompt and seed."""
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [self.parameters(seed, sampling) for seed in seeds],
            lora_request=self.adapter,
            use_tqdm=False,
        )
        return [to_completion(output.outputs[0]) for output in outputs]

    def parameters(self, seed: int, sampling: Sampling) -> Any:
        """Return the sampling settings as `vllm.SamplingParams`."""
        return self.vllm.SamplingParams(
            seed=seed,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            stop=list(sampling.stop),
            stop_token_ids=list(sampling.stop_ids),
            logprobs=0,  # of the sampled token only
            detokenize=bool(sampling.stop),
        )


def to_completion(output: Any) -> Completion:
    """Convert a `vllm.CompletionOutput`."""
    tokens = list(output.token_ids)
    steps = zip(output.logprobs, tokens, strict=True)
    logprobs = [float(known[token].logprob) for known, token in steps]
    return Completion(tokens, logprobs, output.finish_reason == "stop")
