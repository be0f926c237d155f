"""Write what a run came to: a model with everything merged, or one adapter on the base."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from alignzoo import BadInput
from alignzoo.data import Codec
from alignzoo.files import write_json
from alignzoo.policy import load_merged, locate_model, quiet_libraries

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GENERATION = "generation_config.json"
# A dialogue as alignzoo writes it for a tokenizer without a template of its own.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{{ message['role'].capitalize() + ': ' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)


def write_model(run: str, folder: Path, dtype: str, *, trust_remote_code: bool) -> str:
    """Write the run's model with all adapters merged, and return its dtype, "bfloat16" say.

    They are merged in float32, and rounded once to `dtype`: "base" is that of the stored base.
    """
    merged = load_merged(run, trust_remote_code=trust_remote_code)
    stored = merged.stored_dtype if merged.stored_dtype in DTYPES.values() else torch.bfloat16
    rounded = stored if dtype == "base" else DTYPES[dtype]
    with quiet_libraries():
        merged.model.to(rounded).save_pretrained(folder)  # type: ignore[arg-type]
    return str(rounded).removeprefix("torch.")


def write_adapter(run: str, folder: Path, *, trust_remote_code: bool) -> str:
    """Write the run's adapter on its base model, and return PEFT's name of its kind.

    LoRA adapters that were trained one on another become one whose rank is the sum of theirs, and
    which computes the same. Raise `BadInput` if adapters of other kinds would have to be combined.
    """
    source = locate_model(run)
    paths = [adapter.path for adapter in source.adapters]
    configs = [read_config(path) for path in paths]
    if len(paths) == 1:
        shutil.copy(paths[0] / WEIGHTS, folder / WEIGHTS)
        write_json(folder / CONFIG, configs[0] | {"base_model_name_or_path": source.base})
    else:
        check_combinable(run, configs)
        combine(source.base, paths, folder, trust_remote_code=trust_remote_code)
    return str(configs[0]["peft_type"])


def read_config(adapter: Path) -> dict[str, Any]:
    """Return the configuration of an adapter's folder."""
    config: dict[str, Any] = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    return config


def check_combinable(run: str, configs: Sequence[dict[str, Any]]) -> None:
    """Raise `BadInput` unless all adapters are plain LoRA."""
    for config in configs:
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
            raise BadInput(
                f"its {len(configs)} adapters cannot become one: one of them is {kind}, not LoRA",
                where=run,
                hint="add --merge, for a model with all of them merged",
            )


def combine(base: str, paths: Sequence[Path], folder: Path, *, trust_remote_code: bool) -> None:
    """Write one LoRA adapter that adds what several add, by concatenating their matrices."""
    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
        names = [f"adapter_{k}" for k in range(len(paths))]
        model = PeftModel.from_pretrained(model, str(paths[0]), adapter_name=names[0])
        for name, path in zip(names[1:], paths[1:], strict=True):
            model.load_adapter(str(path), name)
        # The matrices are multiplied by the scales of their own adapters. That of the new one is
        # alpha / rank = 1, which PEFT would divide differently if the first was rank-stabilised.
        for config in model.peft_config.values():
            config.use_rslora = False
            config.base_model_name_or_path = base
        weights = [1.0] * len(names)
        model.base_model.add_weighted_adapter(names, weights, "default", combination_type="cat")
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's, to be filled in


def write_tokenizer(codec: Codec, folder: Path) -> None:
    """Write the run's tokenizer, and the ids that end an answer.

    A tokenizer without a chat template gets the one that the run wrote dialogues with.
    """
    tokenizer = copy.deepcopy(codec.tokenizer)
    if not tokenizer.chat_template:
        bos = "{{ bos_token }}" if codec.bos is not None else ""
        tokenizer.chat_template = bos + PLAIN_TEMPLATE
    with quiet_libraries():
        tokenizer.save_pretrained(folder)
    path = folder / GENERATION
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**config, "eos_token_id": list(codec.stop_ids)})
