"""Every setting of a run as one flat dataclass: the flags, the YAML file, `run.json`.

Precedence, lowest first: the defaults here, the algorithm's `defaults`, the recipe file, the flags.
A recipe file has the same keys as the flags, with the algorithm's own under `options`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from alignzoo import discovery
from alignzoo.errors import BadInput, nearest
from alignzoo.named import load_task
from alignzoo.options import (
    Alias,
    build,
    current_names,
    flag_of,
    options_of,
    rename_options,
    to_json_value,
)
from alignzoo.policy.kinds import ADAPTER_OPTIONS, ADAPTERS
from alignzoo.safe_yaml import read_yaml

# Keys of a recipe that may name Python code; so may any option of an algorithm.
CODE_KEYS = ("algorithm", "task", "environment", "addons", "sampler", "optimizer", "reward")
# A Python file or a function: alone, before a weight or options, or as the value of an option.
CODE = re.compile(r"\.py(?=$|[,:])|(?:^|[,=])python:")
MOST_FLOPS = 1e30  # of a budget
LONGEST_NAME = 255  # bytes of the name of a file
COLDEST = 1e-3  # temperature above 0
BUDGET = re.compile(
    r"\s*([0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)\s*(flops|feedback)?\s*", re.IGNORECASE
)


@dataclass
class Recipe:
    """All settings of a run. Field order is the order of `--help`."""

    algorithm: Annotated[str, "name of an installed algorithm, or a Python file"]
    options: Annotated[dict[str, Any], "options of the algorithm"] = field(default_factory=dict)

    model: Annotated[
        str,
        "zoo-tiny, zoo-critic, zoo-scout or zoo-abacus (the defaults of the tasks made for "
        "them), a name on the Hub, a folder, or an earlier run",
    ] = "zoo-tiny"
    teacher: Annotated[
        str | None,
        "model to learn from, named as --model is and with the same vocabulary, or a server, "
        "http://HOST:PORT/v1[,model=NAME]; base: the run's own before training, under another "
        "prompt for example",
    ] = None
    teacher_four_bit: Annotated[bool, "load the teacher in 4 bits"] = False
    task: Annotated[
        str | None,
        "task to train and evaluate on, NAME[,OPTION=VALUE...] [default: style, if there is no "
        "--data]",
    ] = None
    environment: Annotated[
        str | None,
        "environment that answers between the turns of a completion, NAME[,OPTION=VALUE...]: the "
        "name of an environment or a Python file [default: the task's, if it has one]",
    ] = None
    data: Annotated[
        str | dict[str, Any] | None,
        "JSONL, JSON, CSV or Parquet file, folder, or name on the Hub (owner/name:config@split); "
        "a weighted mixture is a.jsonl:0.7,b.jsonl:0.3",
    ] = None
    reward: Annotated[
        list[str],
        "reward of a completion, NAME[:WEIGHT][,OPTION=VALUE...]: the name of a reward, the folder "
        "of a reward model, python:module.function or a Python file [default: the task's score]",
    ] = field(default_factory=list)
    adapter: Annotated[
        Literal[
            "lora", "qlora", "dora", "rslora", "loha", "lokr", "vera", "oft", "ia3", "prompt",
            "prefix", "none",
        ],
        "weights to train: LoRA, LoRA on a 4-bit base (qlora), another adapter, virtual tokens "
        "before every prompt (prompt, prefix), or all weights (none)",
    ] = "lora"  # fmt: skip
    lora_rank: Annotated[
        int, "adapter rank (lora, qlora, dora, rslora, loha, lokr)", Ge(1), Le(16_384)
    ] = 16
    lora_alpha: Annotated[float, "adapter alpha (scale = alpha / rank)", Gt(0), Le(1e6)] = 32.0
    lora_dropout: Annotated[
        float, "dropout on the adapter's input (lora, qlora, dora, rslora)", Ge(0), Le(0.9)
    ] = 0.0
    virtual_tokens: Annotated[
        int, "number of virtual tokens of --adapter prompt or prefix", Ge(1), Le(10_000)
    ] = 20

    steps: Annotated[
        int | None, "optimizer steps [default: --epochs passes over the data]", Ge(0), Le(10**9)
    ] = None
    epochs: Annotated[
        float, "passes over the data when neither --steps nor --budget is given", Gt(0), Le(1e6)
    ] = 1.0
    budget: Annotated[
        str | None,
        "stop after this much compute, e.g. 1e15flops, or this much feedback, e.g. 2000feedback "
        "(labelled rows, or scores and judgements of completions)",
    ] = None
    batch_size: Annotated[int, "groups (prompts, pairs) per optimizer step", Ge(1), Le(10**6)] = 32
    micro_tokens: Annotated[
        int | None,
        "maximum tokens per forward pass; does not change the result "
        "[default: 1024 on a CPU, else 8192]",
        Ge(1),
        Le(10**9),
    ] = None
    learning_rate: Annotated[
        float | None,
        "peak learning rate [default: the algorithm's, scaled to the model's width]",
        Gt(0),
        Le(100),
    ] = None
    warmup: Annotated[
        float, "fraction of the run over which the learning rate warms up", Ge(0), Le(1)
    ] = 0.1
    schedule: Annotated[Literal["linear", "cosine", "constant"], "learning rate decay"] = "cosine"
    weight_decay: Annotated[
        float, "decoupled weight decay of matrices, not of norms and biases", Ge(0), Le(100)
    ] = 0.0
    optimizer: Annotated[
        str | None,
        "optimizer, NAME[,OPTION=VALUE...]: the name of an optimizer or a Python file "
        "[default: AdamW]",
    ] = None
    max_grad_norm: Annotated[float, "clip gradients to this norm", Gt(0)] = 1.0
    gradient_checkpointing: Annotated[
        bool, "recompute activations in the backward pass to save memory"
    ] = False
    shard: Annotated[
        bool | None,
        "with several processes, split weights, gradients and optimizer over them (FSDP) instead "
        "of copying them [default: if the model does not fit on one GPU]",
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], "auto: bf16 on a GPU that supports it, else fp32"
    ] = "auto"
    cache_reference: Annotated[
        bool, "compute the reference's log-probs of the data once and cache them for later runs"
    ] = False
    random_init: Annotated[
        bool, "start from random weights instead of the model's own", Alias("scratch")
    ] = False

    max_length: Annotated[
        int, "maximum tokens of a prompt and its completion", Ge(8), Le(10**7)
    ] = 1024
    fail_on_bad_rows: Annotated[
        bool, "fail on unusable rows instead of skipping them", Alias("strict")
    ] = False
    eval_size: Annotated[
        int, "items to evaluate before and after training (0: none)", Ge(0), Le(10**8)
    ] = 200
    eval_split: Annotated[
        Literal["dev", "test"],
        "split of the task whose prompts are evaluated: dev to tune and choose, test once at the "
        "end",
    ] = "dev"
    eval_every: Annotated[int, "also evaluate every N steps (0: never)", Ge(0), Le(10**9)] = 0
    eval_before: Annotated[bool, "evaluate before training as well"] = True
    eval_held_out: Annotated[bool, "measure the loss on held-out rows in evaluations"] = True
    sampler: Annotated[
        str | None,
        "sampler of completions, NAME[,OPTION=VALUE...]: the name of a sampler or a Python file "
        "[default: the model itself, in this process]",
    ] = None
    importance_cap: Annotated[
        float,
        "cap on importance weights for an external sampler (0: no correction)",
        Ge(0),
    ] = 2.0
    importance_mode: Annotated[
        Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
        "importance weight of a token: its own ratio, or the product over its completion; above "
        "the cap truncated to it, or masked (0)",
    ] = "token_truncate"
    max_new_tokens: Annotated[
        int, "maximum length of a generated completion in tokens", Ge(1), Le(10**6)
    ] = 64
    temperature: Annotated[float, "sampling temperature (0: greedy)", Ge(0), Le(100)] = 1.0
    top_k: Annotated[int, "top-k sampling (0: off)", Ge(0), Le(10**9)] = 0
    top_p: Annotated[float, "nucleus (top-p) mass", Gt(0), Le(1)] = 1.0
    min_p: Annotated[float, "min-p threshold relative to the top token", Ge(0), Le(1)] = 0.0
    stop_text: Annotated[
        list[str], "text that ends a completion (may be repeated)", Alias("stop")
    ] = field(default_factory=list)
    stop_on_alarm: Annotated[
        list[str],
        "stop the run on this alarm: ties, entropy, kl, length, overoptimised, sampler, "
        "displacement or saturated (may be repeated)",
        Alias("stop_on"),
    ] = field(default_factory=list)
    rollouts_every: Annotated[
        int,
        "write completions to rollouts.jsonl every N steps, for `alignzoo view` (0: never)",
        Ge(0),
        Le(10**9),
    ] = 10
    checkpoint_every: Annotated[
        int, "save every N steps (0: only at the end)", Ge(0), Le(10**9)
    ] = 50

    seed: Annotated[int, "random seed", Ge(0), Le(2**63 - 1)] = 0
    output_dir: Annotated[str, "folder for runs", Alias("out")] = "runs"
    name: Annotated[
        str | None, "name of the run [default: made from algorithm, model and task]"
    ] = None
    addons: Annotated[
        list[str], "add-on to register, NAME[,OPTION=VALUE...]: the name of one, or a Python file"
    ] = field(default_factory=list)
    report_to: Annotated[
        list[str], "also log to tensorboard, wandb, trackio or mlflow", Alias("track")
    ] = field(default_factory=list)

    @property
    def budget_flops(self) -> float | None:
        """Return the budget in FLOPs, or None; raise `BadInput` for a bad one."""
        return self._budget_in("flops")

    @property
    def budget_feedback(self) -> float | None:
        """Return the budget in units of feedback, or None; raise `BadInput` for a bad one."""
        return self._budget_in("feedback")

    def _budget_in(self, unit: str) -> float | None:
        if self.budget is None:
            return None
        match = BUDGET.fullmatch(self.budget)
        if not match or not 0 < float(match[1]) < MOST_FLOPS:
            raise BadInput(
                f"option --budget: {self.budget!r} is not an amount of compute or feedback",
                hint="write a positive number of floating-point operations, e.g. 1e15flops, or of "
                "labels, e.g. 2000feedback",
            )
        return float(match[1]) if (match[2] or "flops").lower() == unit else None

    def micro_tokens_on(self, device_type: str) -> int:
        """Return the most tokens in one forward pass on a type of device, "cpu" or another."""
        # Measured on a CPU, 1024 was 17% faster than 8192 (width 256, 4 layers) at a third of the
        # memory; on zoo-tiny it was 8% slower.
        return self.micro_tokens or (1024 if device_type == "cpu" else 8192)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as a dictionary of its fields, with values that JSON has."""
        recipe: dict[str, Any] = to_json_value(asdict(self))
        return recipe


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file, with current option names. Raise `BadInput` for an unknown one.

    Values are checked later, by `resolve`.
    """
    loaded = read_yaml(path, "recipe file")
    if not isinstance(loaded, dict):
        raise BadInput("a recipe is a mapping of option names to values", where=str(path))
    options = options_of(Recipe)
    loaded = rename_options(options, loaded, str(path))
    known = [option.name for option in options]
    for key in loaded:
        if key not in known:
            raise BadInput(f"unknown key {key!r}", where=str(path), hint=nearest(str(key), known))
    return loaded


def find_code(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first key of a recipe that names Python code, and the text that does; or None."""
    options = settings.get("options") or {}
    named = {key: settings[key] for key in CODE_KEYS if key in settings}
    for key, value in {**named, **{f"options: {key}": options[key] for key in options}}.items():
        for text in list_texts(value):
            # The value of an option may be quoted, and hold options of its own.
            if CODE.search(re.sub(r'["\\]', "", text)):
                return key, text
    return None


def list_texts(value: Any) -> list[str]:
    """Return the texts in a value: itself, or those in a list or a mapping, keys included."""
    if isinstance(value, Mapping):
        return [text for pair in value.items() for part in pair for text in list_texts(part)]
    if isinstance(value, list | tuple | set):
        return [text for part in value for text in list_texts(part)]
    return [str(value)] if isinstance(value, str | Path) else []


def update_stored(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a `run.json` with current option names, also those of the algorithm."""

    def rename(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
        current = current_names(options_of(cls))
        return {current.get(name, name): value for name, value in values.items()}

    algorithm = discovery.load_plugin("algorithms", recipe["algorithm"])
    return {**rename(Recipe, recipe), "options": rename(algorithm, recipe.get("options") or {})}


def resolve(*layers: Mapping[str, Any]) -> Recipe:
    """Merge layers of values into a recipe, later ones winning.

    Raise `BadInput` for a wrong name or value.
    """
    values: dict[str, Any] = {}
    options: dict[str, Any] = {}
    known = options_of(Recipe)
    for layer in layers:
        layer = rename_options(known, layer)
        values.update({k: v for k, v in layer.items() if k != "options"})
        options.update(layer.get("options") or {})
    recipe: Recipe = build(Recipe, {**values, "options": options})
    _ = recipe.budget_flops  # raises if it is malformed
    if 0 < recipe.temperature < COLDEST:
        raise BadInput(
            f"option --temperature: {recipe.temperature:g} is too low to compute with",
            hint=f"use 0, which is greedy, or at least {COLDEST:g}",
        )
    check_names(recipe)
    check_adapter(recipe)
    if recipe.task is None and recipe.data is None:
        recipe.task = "style"
    missing = [name for name in ("model", "environment") if name not in values]
    if missing and recipe.task is not None:
        task = load_task(recipe.task)
        for name in missing:
            setattr(recipe, name, getattr(task, name, getattr(recipe, name)))
    return recipe


def check_names(recipe: Recipe) -> None:
    """Expand `~` in the folder of runs; raise `BadInput` for a name that no file can have."""
    recipe.output_dir = os.path.expanduser(recipe.output_dir)
    if recipe.output_dir.startswith("~"):
        user = recipe.output_dir.partition("/")[0]
        raise BadInput(f"option --output-dir: there is no user {user[1:]!r}")
    named = (
        "algorithm", "model", "task", "environment", "reward", "sampler", "optimizer", "addons",
    )  # fmt: skip
    for name in (*named, "output_dir"):
        value = getattr(recipe, name)
        for text in value if isinstance(value, list) else [value or ""]:
            if "\0" in text or max(len(part.encode()) for part in text.split("/")) > LONGEST_NAME:
                raise BadInput(f"option {flag_of(name)}: {text[:40]!r}... is too long for a name")


def check_adapter(recipe: Recipe) -> None:
    """Raise `BadInput` for an option of another kind of adapter than the recipe's."""
    for option in options_of(Recipe):
        foreign = option.name in ADAPTER_OPTIONS - ADAPTERS[recipe.adapter].options
        if foreign and getattr(recipe, option.name) != option.default:
            users = [name for name, kind in ADAPTERS.items() if option.name in kind.options]
            raise BadInput(
                f"option {option.flag} does not apply to --adapter {recipe.adapter}",
                hint=f"it applies to {', '.join(users)}",
            )
