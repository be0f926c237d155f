"""An export as plain transformers and peft see it, without anything of alignzoo's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.data import Content
from alignzoo.policy import quiet_libraries
from alignzoo.rollout import Sampling
from alignzoo_export.write import CONFIG, read_config


class PlainModel:
    """A model or an adapter that was exported, loaded in float32 as its card says."""

    def __init__(self, folder: Path, *, device: torch.device, trust_remote_code: bool):
        self.name = "peft" if (folder / CONFIG).is_file() else "transformers"
        base = str(folder)
        if self.name == "peft":
            base = read_config(folder)["base_model_name_or_path"]
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        with quiet_libraries():
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                base, dtype=torch.float32, use_safetensors=True, **options
            )
            if self.name == "peft":
                self.model = PeftModel.from_pretrained(self.model, str(folder))
        self.model.to(device).eval()

    @property
    def bos(self) -> int | None:
        """Return the id of its BOS, None if it has none."""
        return self.tokenizer.bos_token_id

    @property
    def eos(self) -> int | None:
        """Return the id of its EOS."""
        return self.tokenizer.eos_token_id

    def stops_at(self, token: int) -> bool:
        """Return whether generation ends with this token."""
        stops = self.model.generation_config.eos_token_id
        return token in (stops if isinstance(stops, list) else [stops])

    def encode(self, prompt: Content, values: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a prompt, messages by the exported chat template."""
        if isinstance(prompt, str):
            return self.tokenizer(prompt).input_ids
        text = self.tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=False, **values
        )
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def logprobs(self, prompt: list[int], answer: list[int]) -> list[float]:
        """Return the log-prob (nats) of each token of an answer."""
        ids = torch.tensor([[*prompt, *answer]], device=self.model.device)  # (1, p + t)
        # From the end: virtual tokens have logits too.
        logits = self.model(input_ids=ids).logits[0, -len(answer) - 1 : -1]  # (t, V)
        chosen = ids[0, len(prompt) :, None]
        return logits.float().log_softmax(-1).gather(-1, chosen).squeeze(-1).tolist()

    @torch.no_grad()
    def answer(self, prompt: list[int], sampling: Sampling, seed: int) -> list[int]:
        """Return the tokens of an answer, sampled by `generate`."""
        settings: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            settings = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p or None,
            }
        ids = torch.tensor([prompt], device=self.model.device)
        torch.manual_seed(seed)
        with quiet_libraries():
            found = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=sampling.max_new_tokens,
                pad_token_id=self.eos,
                **settings,
            )
        return found[0, len(prompt) :].tolist()

    def close(self) -> None:
        """Free its memory."""
        self.model = None
