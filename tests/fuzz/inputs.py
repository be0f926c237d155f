"""Input as it should be, which the generators then spoil: rows, models and runs."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from alignzoo.discovery import hookimpl
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train

Row = dict[str, Any]

PAIRS = "dpo orpo simpo cpo slic reward".split()
LABELS = "kto bco".split()
PROMPTS = "grpo rloo reinforce ppo raft online-dpo xpo nash-md sppo best-of-n".split()
ALGORITHMS = [*PAIRS, *LABELS, *PROMPTS, "sft", "spin", "pretrain"]
LENGTH = "length,most=8"
QUICK = "--eval-size 0 --batch-size 2 --max-new-tokens 2 --micro-tokens 1024".split()


def rows_for(algorithm: str, dialogues: bool = False) -> list[Row]:
    """Return six rows that an algorithm learns from, as text or as messages."""

    def say(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if dialogues else text

    rows = []
    for i in range(6):
        prompt, good, bad = say("user", f"What is {i} + 1?"), f"It is {i + 1}.", "I do not know."
        answers = {"chosen": say("assistant", good), "rejected": say("assistant", bad)}
        if algorithm in PAIRS:
            rows.append({"prompt": prompt, **answers})
        elif algorithm in LABELS:
            completion = say("assistant", good if i % 2 else bad)
            rows.append({"prompt": prompt, "completion": completion, "label": i % 2 == 1})
        elif algorithm == "pretrain":
            rows.append({"text": f"What is {i} + 1? {good}"})
        elif algorithm in PROMPTS:
            rows.append({"prompt": prompt, "answer": str(i + 1)})
        else:
            rows.append({"prompt": prompt, "completion": say("assistant", good)})
    return rows


def options_for(algorithm: str) -> list[str]:
    """Return the options without which an algorithm does not learn from `rows_for` it."""
    if algorithm in PROMPTS:
        return ["--reward", LENGTH]
    return ["--adapter", "none"] if algorithm == "pretrain" else []


def as_jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_json(rows: list[Any]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def as_csv(rows: list[Any]) -> bytes:
    columns = list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(column, "") for column in columns] if isinstance(row, dict) else [row]
        writer.writerow(cells)
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: list[Any]) -> bytes:
    """Return a Parquet table; of rows with values of several types, as JSON."""
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    try:
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, file)
    except Exception:
        return as_json(rows)
    return file.getvalue()


FORMATS = {".jsonl": as_jsonl, ".json": as_json, ".csv": as_csv, ".parquet": as_parquet}


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_bytes(FORMATS[path.suffix](rows))
    return str(path)


@cache
def store() -> Path:
    """Return the folder of models and runs that are made once."""
    import atexit

    path = Path(tempfile.mkdtemp(prefix="fuzz-store-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def model(family: str) -> Path:
    """Return the folder of a small model of random weights, or of zoo-tiny itself."""
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = store() / family
    if family == "zoo-tiny":
        spec = find_spec("alignzoo_suite")
        assert spec is not None and spec.submodule_search_locations
        shutil.copytree(Path(spec.submodule_search_locations[0]) / "zoo_tiny", path)
        return path
    sizes = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    configs = {
        "llama": tf.LlamaConfig(
            **sizes, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64,
        ),
        "gpt2": tf.GPT2Config(**sizes, n_embd=16, n_layer=1, n_head=2, n_positions=64),
        "qwen3": tf.Qwen3Config(
            **sizes, hidden_size=16, intermediate_size=32, num_hidden_layers=2, head_dim=8,
            num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        ),
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.AutoModelForCausalLM.from_config(configs[family]).save_pretrained(path)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w3"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="w1", eos_token="w2", pad_token="w0", unk_token="w3"
    )
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} w2 "
        "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
    )
    tokenizer.save_pretrained(path)
    return path


class Interrupts:
    """Ctrl-C after the second step."""

    @hookimpl
    def alignzoo_step(self, run: Any, step: int, metrics: Any) -> None:
        if step == 2:
            raise KeyboardInterrupt


@cache
def run_folder(algorithm: str, *, finished: bool) -> Path:
    """Return the folder of a run of four steps on the small Llama, or of its first two."""
    out = store() / ("finished" if finished else "interrupted")
    out.mkdir(exist_ok=True)
    data = write_rows(store() / f"{algorithm}.jsonl", rows_for(algorithm))
    settings = {
        "model": str(model("llama")), "data": data, "output_dir": str(out), "name": algorithm,
        "steps": 4, "batch_size": 2, "checkpoint_every": 1, "eval_size": 1, "max_new_tokens": 2,
        **({"reward": [LENGTH]} if algorithm in PROMPTS else {}),
    }  # fmt: skip

    def interrupted(run: Any) -> None:
        run.plugins.register(Interrupts())
        train(run)

    recipe = recipe_for(algorithm, settings)
    if finished:
        return execute(recipe).folder
    with mock.patch("alignzoo.session.session.train", interrupted):
        try:
            execute(recipe)
        except KeyboardInterrupt:
            return out / algorithm
    raise AssertionError("the run was not interrupted")
