"""Generators of trials: each makes odd input of one kind, and the command that reads it."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import odd
import yaml
from inputs import (
    ALGORITHMS,
    FORMATS,
    QUICK,
    as_jsonl,
    model,
    options_for,
    rows_for,
    run_folder,
    write_rows,
)
from trials import Command, Generator

from alignzoo.discovery import load_plugin
from alignzoo.options import options_of
from alignzoo.recipe import Recipe

# --- recipes

SNIPPETS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("bcdefgh")),
    "x: &x [*x]\n", "<<: {steps: 1}\n", "<<: *unknown\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n",
    "seed: " + "9" * 5000 + "\n", "seed: 0x" + "f" * 5000 + "\n", "steps: 12:30:45\n",
    "warmup: .nan\n", "warmup: -.inf\n", "learning_rate: 1e-4\n", "name: 2024-01-01\n",
    "name: 2024-01-01 12:30:00\n", "name: \"\\ud800\"\n", 'name: "\\x00"\n', "steps: yes\n",
    "steps: 1_0\n", "steps: 0o7\n", "steps: !!int '1'\n", "steps: !!python/object:os.system x\n",
    "steps: !!python/object/apply:os.system ['true']\n", "steps: !!binary aGVsbG8=\n",
    "steps: !!set {a, b}\n", "steps: !!timestamp 2024-01-01\n", "steps: !unknown x\n",
    "data: {a.jsonl: 1, a.jsonl: 2}\n", "stop_text: [\n", "\tsteps: 1\n", "---\n",
    "...\n---\na: b\n", "%YAML 9.9\n---\n", "options: 5\n", "options: [beta]\n",
    "options: {beta: {x: 1}}\n",
    "options: {beta: 0.1, beta: 0.2}\n", "[" * 3000 + "\n", "{a: " * 1000 + "\n",
    "- " * 2000 + "x\n", "seed: 1\nseed: 2\n", "Seed: 1\n", "true: 1\n", "null: 1\n", "1: 1\n",
    "1.5: 1\n",
    ": 1\n", ".nan: 1\n", "x\n",
    "steps: |\n  1\n", "steps: >-\n  many\n", "reward: python:os.getcwd\n", "algorithm: ./x.py\n",
    "task: ./x.py\n", "addons: [./x.py]\n", "sampler: ./x.py\n", "report_to: tensorbord\n",
    "scratch: true\nrandom_init: true\n", "strict: maybe\n", "\ufeffsteps: 1\n",
    "# " + "x" * 600_000 + "\n",
    "name: " + "x" * 100_000 + "\n", "steps: 1 # \x07\n",
)  # fmt: skip


def recipes(rng: random.Random, folder: Path) -> Command:
    """A recipe with odd keys and values, or odd YAML; few of them get as far as a model."""
    algorithm = rng.choice(ALGORITHMS)
    data = write_rows(folder / "rows.jsonl", rows_for(algorithm))
    recipe: dict[Any, Any] = {"data": data, "model": str(model("llama"))}
    own = [option.name for option in options_of(load_plugin("algorithms", algorithm))]
    common = [option.name for option in options_of(Recipe)]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        where = rng.random()
        if where < 0.55:
            recipe[rng.choice(common)] = near_value(rng)
        elif where < 0.9 and own:
            options = recipe.setdefault("options", {})
            if isinstance(options, dict):
                options[rng.choice(own)] = near_value(rng)
        else:
            recipe[rng.choice([odd.text(rng), odd.number(rng), None])] = odd.yaml_value(rng)
    text = yaml.safe_dump(recipe, allow_unicode=rng.random() < 0.5)
    if rng.random() < 0.35:
        lines = text.splitlines(keepends=True)
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(SNIPPETS))
        text = "".join(lines)
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        content = odd.damage(rng, content)
    (folder / "recipe.yaml").write_bytes(content)
    words = ["run", algorithm, *options_for(algorithm), *QUICK, "--recipe", "recipe.yaml"]
    return Command([*words, "--output-dir", "runs", "--steps", rng.choice("01")])


def near_value(rng: random.Random) -> Any:
    """A value that is often right: a small number, a name, a switch."""
    if rng.random() < 0.5:
        return odd.yaml_value(rng)
    return rng.choice(
        [0, 1, 2, 0.5, 0.01, 1.0, True, False, "none", "lora", "length", "sigmoid", "style", "1e-4"]
    )


# --- rows

EXTRA = (
    "system", "context", "history", "tools", "chat_template_kwargs", "images", "margin", "score",
    "messages", "conversations", "question", "instruction", "input", "output", "label", "labels",
    "completions", "text", "chosen", "rejected", "prompt", "answer", "Unnamed: 0", "",
)  # fmt: skip
TURNS: tuple[Any, ...] = (
    {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
    {"role": "system", "content": "z"}, {"role": "tool", "content": "1", "tool_call_id": "a"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    {"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "user"},
    {"role": "user", "content": [{"type": "image", "image": "x"}]}, {"content": "x"},
    {"role": "assistant", "tool_calls": "f"}, {"role": "wizard", "content": "x"},
    {"from": "human", "value": "x"}, {"from": "gpt", "value": "y"},
    {"role": None, "content": 5}, {}, [], "x", None, 5, {"role": "assistant", "content": ""},
)  # fmt: skip


def rows(rng: random.Random, folder: Path) -> Command:
    """A table of some format and view, with odd cells, columns or bytes."""
    algorithm = rng.choice(ALGORITHMS)
    table: list[Any] = rows_for(algorithm, dialogues=rng.random() < 0.4)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        spoil_row(rng, table)
    suffix = rng.choice(list(FORMATS))
    content = FORMATS[suffix](table)
    if suffix == ".json" and rng.random() < 0.1:
        content = json.dumps(odd.change(rng, odd.deep(rng))).encode()
    if rng.random() < 0.2:
        content = odd.damage(rng, content)
    if rng.random() < 0.1:
        suffix = rng.choice([*FORMATS, ".jsonl.gz", ".csv.gz", ".txt", ".JSONL"])
    (folder / f"rows{suffix}").write_bytes(content)
    words = ["run", algorithm, *options_for(algorithm), *QUICK, "--data", f"rows{suffix}"]
    if rng.random() < 0.2:
        words += ["--max-length", rng.choice(["8", "9", "16", "64"])]
    if rng.random() < 0.2:
        words += ["--eval-size", "2"]
    name = rng.choice(["llama", "zoo-tiny"])
    words += ["--model", str(model(name)), "--output-dir", "runs", "--steps", rng.choice("0001")]
    return Command(words + ["--fail-on-bad-rows"] * (rng.random() < 0.2))


def spoil_row(rng: random.Random, table: list[Any]) -> None:
    """Change one row, or one column of all rows."""
    at = rng.randrange(len(table))
    row = table[at]
    kind = rng.randrange(8)
    column = rng.choice([*row, *EXTRA]) if isinstance(row, dict) else ""
    if kind == 0:
        table[at] = odd.value(rng)
    elif kind == 1:
        turns = [copy.deepcopy(rng.choice(TURNS)) for _ in range(rng.randrange(5))]
        spread(rng, table, at, column, turns)
    elif kind == 2:
        for other in table:
            if isinstance(other, dict):
                other.pop(column, None)
    elif kind == 3:
        spread(rng, table, at, column, "huge " * rng.choice([1_000, 100_000]))
    elif kind == 4:
        table[at] = odd.change(rng, row)
    else:
        spread(rng, table, at, column, odd.value(rng))


def spread(rng: random.Random, table: list[Any], at: int, column: str, cell: Any) -> None:
    """Put a cell into a column of one row or, as often, of all."""
    for other in table if rng.random() < 0.5 else [table[at]]:
        if isinstance(other, dict):
            other[column] = cell


# --- models

SHORT = "--tasks style --limit 1 --max-new-tokens 2".split()

TEMPLATES: tuple[Any, ...] = (
    "", "x", "{{", "{% for m in messages %}", "{{ messages[0].content.missing.deep }}",
    "{{ raise_exception('no') }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ 'x' * 10**10 }}",
    "{{ messages }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ 1 / 0 }}",
    "{% include '/etc/passwd' %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ bos_token }}{% for m in messages %}{{ m['content'][5] }}{% endfor %}", 5, None, ["x"],
    {"default": "{{ messages }}"}, [{"name": "rag", "template": "x"}], [{"name": "default"}],
    "{{ messages | tojson }}", "{{ '\\ud800' }}", "{{ strftime_now('%Y') }}", "{% set x = %}",
    "{{ messages[-1].content | upper }}",
)  # fmt: skip
CONFIG: tuple[tuple[str, Any], ...] = (
    ("model_type", "nope"), ("model_type", "gpt2"), ("model_type", "bert"), ("model_type", "t5"),
    ("model_type", 5), ("architectures", ["LlamaForSequenceClassification"]), ("architectures", 5),
    ("architectures", ["Nope"]), ("architectures", None), ("auto_map", {"AutoConfig": "x.Y"}),
    ("auto_map", 5), ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("quantization_config", {"quant_method": "nope"}), ("quantization_config", 5),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("rope_scaling", {"type": "yarn"}), ("rope_scaling", {"rope_type": "nope", "factor": -1}),
    ("rope_parameters", 5), ("rope_parameters", {"rope_type": "longrope"}),
    ("num_hidden_layers", 0), ("num_hidden_layers", 3), ("num_hidden_layers", 10**9),
    ("hidden_size", 10**9), ("vocab_size", 10**12), ("vocab_size", 1), ("vocab_size", 0),
    ("num_attention_heads", 3), ("num_key_value_heads", 7), ("hidden_act", "nope"),
    ("torch_dtype", "nope"), ("dtype", "float16"), ("dtype", "int8"), ("dtype", 5),
    ("max_position_embeddings", 1), ("max_position_embeddings", -1), ("eos_token_id", [2, 3]),
    ("eos_token_id", "x"), ("eos_token_id", 10**9), ("eos_token_id", -1), ("bos_token_id", 1e300),
    ("pad_token_id", 10**9), ("tie_word_embeddings", "x"), ("is_encoder_decoder", True),
    ("attn_implementation", "nope"), ("_attn_implementation", "flash_attention_2"),
    ("layer_types", ["nope"]), ("layer_types", []), ("use_cache", False), ("sliding_window", 1),
    ("transformers_weights", "x.bin"), ("attention_dropout", 5), ("rms_norm_eps", "x"),
    ("text_config", {}), ("head_dim", 0), ("initializer_range", -1), ("id2label", 5),
)  # fmt: skip
TOKENIZER: tuple[tuple[str, Any], ...] = (
    ("eos_token", None), ("eos_token", "nope"), ("eos_token", 5), ("eos_token", {"content": "w2"}),
    ("bos_token", ["w1"]), ("pad_token", None), ("pad_token", {}), ("unk_token", 5),
    ("tokenizer_class", "Nope"), ("tokenizer_class", "GPT2Tokenizer"), ("tokenizer_class", 5),
    ("model_max_length", "x"), ("model_max_length", -1), ("padding_side", "up"),
    ("added_tokens_decoder", {"x": {"content": "y"}}), ("added_tokens_decoder", 5),
    ("added_tokens_decoder", {"2": {"content": 5}}), ("additional_special_tokens", 5),
    ("extra_special_tokens", ["a"]), ("extra_special_tokens", {"image_token": "<i>"}),
    ("auto_map", {"AutoTokenizer": ["x.Y", None]}), ("clean_up_tokenization_spaces", "x"),
    ("add_bos_token", True), ("split_special_tokens", 5), ("legacy", 5),
)  # fmt: skip


def models(rng: random.Random, folder: Path) -> Command:
    """The folder of a model, of an adapter, or of a run on it, with something wrong in it."""
    path = folder / "model"
    kind = rng.random()
    if kind < 0.7:
        shutil.copytree(model(rng.choice(["llama", "llama", "gpt2", "qwen3", "zoo-tiny"])), path)
    else:
        shutil.copytree(run_folder("sft", finished=True) / "adapter", path)
        if rng.random() < 0.3:
            config = json.loads((path / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = str(model(rng.choice(["gpt2", "qwen3"])))
            (path / "adapter_config.json").write_text(json.dumps(config))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        spoil_model(rng, path)
    rest = ["--model", "model", *QUICK, "--output-dir", "runs", "--steps", rng.choice("0001")]
    data = write_rows(folder / "rows.jsonl", rows_for("sft", dialogues=rng.random() < 0.5))
    command = rng.randrange(8)
    if command == 0:
        return Command(
            ["eval", "model", "--tasks", "style", "--limit", "1", "--max-new-tokens", "2"]
        )
    if command == 1:
        return Command(["chat", "model", "--prompt", "w5 w6", "--max-new-tokens", "2"])
    if command == 2:
        write_rows(folder / "prompts.jsonl", rows_for("grpo"))
        words = ["run", "grpo", "--data", "prompts.jsonl", "--reward", "model", *QUICK]
        return Command([*words, "--output-dir", "runs", "--steps", "0"])
    if command == 3:
        rest += ["--random-init", "--adapter", "none"]
    elif command == 4:
        rest += ["--adapter", rng.choice("qlora dora vera oft ia3 prompt prefix none loha".split())]
    return Command(["run", "sft", "--data", data, *rest])


def spoil_model(rng: random.Random, path: Path) -> None:
    """Change a value of a configuration, a tensor or the bytes of a file, or put another there."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    if not files:
        return
    kind = rng.randrange(10)
    if kind < 3:
        name = rng.choice(["config.json", "tokenizer_config.json", "adapter_config.json"])
        values = {"config.json": CONFIG, "tokenizer_config.json": TOKENIZER}.get(name)
        if (path / name).is_file() and values:
            edit(path / name, dict([rng.choice(values)]))
    elif kind < 5:
        named = [file for file in files if file.suffix == ".json"]
        if named:
            file = rng.choice(named)
            file.write_text(json.dumps(odd.change(rng, read(file))), encoding="utf-8")
    elif kind == 5:
        spoil_template(rng, path)
    elif kind == 6:
        spoil_tensors(rng, path)
    elif kind == 7:
        file = rng.choice(files)
        file.write_bytes(odd.damage(rng, file.read_bytes()))
    elif kind == 8:
        file = rng.choice(files)
        file.unlink()
        replace(rng, file)
    else:
        weights = rng.choice([file for file in files if file.suffix == ".safetensors"] or files)
        weights.rename(path / rng.choice(
            ["model.gguf", "pytorch_model.bin", "adapter_model.safetensors", "model.safetensors",
             "model-00001-of-00002.safetensors", "score_head.safetensors"]
        ))  # fmt: skip


def read(file: Path) -> Any:
    """The value of a JSON file, or None if an earlier change broke it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def edit(file: Path, changes: dict[str, Any]) -> None:
    value = read(file)
    if isinstance(value, dict):
        file.write_text(json.dumps(value | changes), encoding="utf-8")


def spoil_template(rng: random.Random, path: Path) -> None:
    template = rng.choice(TEMPLATES)
    if rng.random() < 0.5 and isinstance(template, str):
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        (path / "chat_template.jinja").unlink(missing_ok=True)
        edit(path / "tokenizer_config.json", {"chat_template": template})


def spoil_tensors(rng: random.Random, path: Path) -> None:
    """Rename, lose, reshape or retype a tensor, or make its values not finite."""
    import torch
    from safetensors.torch import load_file, save_file

    file = next((one for one in sorted(path.glob("*.safetensors")) if one.is_file()), None)
    if file is None:
        return
    try:
        tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    except Exception:
        return
    if not tensors:
        return
    key = rng.choice(sorted(tensors))
    kind = rng.randrange(7)
    if kind == 0:
        tensors[rng.choice(["module.", "base_model.", "x"]) + key] = tensors.pop(key)
    elif kind == 1:
        del tensors[key]
    elif kind == 2:
        tensors[key] = tensors[key].flatten()
    elif kind == 3:
        tensors[key] = tensors[key].to(rng.choice([torch.int32, torch.float16, torch.float64]))
    elif kind == 4:
        tensors[key] = tensors[key] * rng.choice([float("nan"), float("inf"), 1e30, 0.0])
    elif kind == 5:
        tensors[key] = torch.zeros(rng.choice([(), (0,), (3, 3, 3)]))
    else:
        tensors = {}
    save_file(tensors, file, metadata=rng.choice([None, {"format": "pt"}, {"format": "tf"}]))


def replace(rng: random.Random, file: Path) -> None:
    """Put something else where a file was: nothing, a folder, a pipe, a device, a dead link."""
    kind = rng.randrange(5)
    if kind == 1:
        file.mkdir()
    elif kind == 2:
        os.mkfifo(file)
    elif kind == 3:
        file.symlink_to("/dev/zero")
    elif kind == 4:
        file.symlink_to(file.name)


# --- runs


def runs(rng: random.Random, folder: Path) -> Command:
    """The damaged folder of a run, to resume, to evaluate, to chat with or to train from."""
    algorithm = rng.choice(["sft", "dpo", "grpo"])
    finished = rng.random() < 0.3
    source = run_folder(algorithm, finished=finished)
    path = folder / "runs" / algorithm
    shutil.copytree(source, path)
    for _ in range(rng.choice([1, 1, 2])):
        spoil_run(rng, path)
    kind = rng.randrange(8)
    where = f"runs/{algorithm}"
    if kind == 0:
        return Command(["eval", where, *SHORT])
    if kind == 1:
        return Command(["eval", where, "--limit", "1"])
    if kind == 2:
        return Command(["chat", where, "--prompt", "x", "--max-new-tokens", "2"])
    if kind == 3:
        data = write_rows(folder / "rows.jsonl", rows_for("sft"))
        words = ["run", "sft", "--model", where, "--data", data, *QUICK]
        return Command([*words, "--steps", "0", "--output-dir", "runs"])
    words = ["run", algorithm, "--model", str(model("llama")), *options_for(algorithm)]
    words += ["--data", str(source.parents[1] / f"{algorithm}.jsonl"), "--name", algorithm]
    words += "--steps 4 --batch-size 2 --checkpoint-every 1 --eval-size 1".split()
    words += ["--max-new-tokens", "2", "--output-dir", "runs", "--resume"]
    return Command(words + ["--allow-changes"] * (rng.random() < 0.3))


def spoil_run(rng: random.Random, path: Path) -> None:
    """Damage, change or replace a file of a run, mostly its `run.json`."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    if not files:
        return
    file = rng.choice(files) if rng.random() < 0.6 else path / "run.json"
    if not file.is_file():
        return
    kind = rng.randrange(6)
    if kind < 3 and file.suffix == ".json":
        file.write_text(json.dumps(odd.change(rng, read(file))), encoding="utf-8")
    elif kind < 3 and file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        changed = odd.change(rng, lines)
        file.write_bytes(as_jsonl(changed if isinstance(changed, list) else [changed]))
    elif kind < 5:
        file.write_bytes(odd.damage(rng, file.read_bytes()))
    else:
        file.unlink()
        replace(rng, file)


# --- command lines


def commands(rng: random.Random, folder: Path) -> Command:
    """A command with odd flags, values, names and paths."""
    typed = "\n".join(odd.text(rng) for _ in range(rng.randrange(3)))
    command = rng.choice(["run"] * 5 + ["eval", "chat", "judge", "plugins"])
    words = {"run": run_words, "eval": eval_words, "chat": chat_words, "judge": judge_words}.get(
        command, lambda rng, folder: [command]
    )(rng, folder)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        at = rng.randrange(len(words) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            words.insert(at, odd.text(rng))
        elif kind == 1:
            words.insert(at, "--" + odd.text(rng)[:50])
        elif kind == 2 and words:
            del words[min(at, len(words) - 1)]
        else:
            words.insert(at, rng.choice(["--help", "--version", "-h", "--json", "--resume", "--"]))
    return Command([word.replace("\0", "") for word in words], typed)


def odd_word(rng: random.Random, folder: Path) -> str:
    """The value of a flag: a number, a text, a path, as a shell can give it."""
    kind = rng.randrange(4)
    if kind == 0:
        return str(odd.number(rng))
    if kind == 1:
        return odd.path(rng, folder)
    if kind == 2:
        return rng.choice(["0", "1", "2", "0.5", "none", "lora", "style", "length", "zoo", "math"])
    return odd.text(rng)


def run_words(rng: random.Random, folder: Path) -> list[str]:
    algorithm = rng.choice(ALGORITHMS)
    data = write_rows(folder / "rows.jsonl", rows_for(algorithm))
    # What is given twice is what comes last: the odd flags do not make a run long.
    words = [
        "run",
        algorithm,
        "--data",
        data,
        "--model",
        str(model("llama")),
        *options_for(algorithm),
    ]
    own = options_of(load_plugin("algorithms", algorithm))
    flags = [option.flag for option in [*options_of(Recipe), *own]] + ["--recipe", "--with"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        flag = rng.choice(flags)
        form = rng.random()
        value = odd_word(rng, folder)
        words += [f"{flag}={value}"] if form < 0.3 else [flag] if form < 0.4 else [flag, value]
    return [*words, *QUICK, "--output-dir", "runs", "--steps", rng.choice("01")]


def eval_words(rng: random.Random, folder: Path) -> list[str]:
    target = rng.choice([str(model("llama")), "zoo-tiny", odd_word(rng, folder)])
    words = ["eval", target]
    flags = ["--tasks", "--seed", "--temperature", "--top-k", "--top-p", "--min-p", "--stop-text"]
    for _ in range(rng.choice([0, 1, 2])):
        words += [rng.choice([*flags, "--limit", "--max-new-tokens"]), odd_word(rng, folder)]
    return [*words, "--limit", "1", "--max-new-tokens", "2"]


def chat_words(rng: random.Random, folder: Path) -> list[str]:
    words = ["chat", rng.choice([str(model("llama")), "zoo-tiny", odd_word(rng, folder)])]
    for _ in range(rng.choice([0, 1, 2])):
        flag = rng.choice(["--system", "--prompt", "--temperature", "--seed", "--max-new-tokens"])
        words += [flag, odd_word(rng, folder)]
    return [*words, "--max-new-tokens", "2"]


def judge_words(rng: random.Random, folder: Path) -> list[str]:
    data = write_rows(folder / "rows.jsonl", rows_for("dpo"))
    judge = rng.choice(["gold", "zoo-critic", str(model("llama")), odd_word(rng, folder)])
    words = ["judge", "--judge", judge, "--data", data]
    for _ in range(rng.choice([0, 1, 2])):
        flag = rng.choice(["--judge", "--data", "--task", "--question", "--think", "--limit"])
        words += [flag, odd_word(rng, folder)]
    return [*words, "--limit", "1", "--think", "0"]  # of random weights: it says nothing of use


GENERATORS: dict[str, Generator] = {
    "recipes": recipes,
    "rows": rows,
    "models": models,
    "runs": runs,
    "commands": commands,
}
