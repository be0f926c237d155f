"""Sample the preference pairs of the suite's tasks from the model of each task, once.

    python -m alignzoo_suite.make_pairs style sums [--model FOLDER] [--pairs 2000]

Two completions for each prompt, sampled at temperature 1. Pairs of equal gold score are dropped,
the same text twice among them: there is nothing to prefer. So are pairs with an empty text. The
files have no labels; `pairs.label_pairs` draws them at load.
"""

import argparse
from itertools import cycle, islice
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding
from transformers import PreTrainedTokenizerBase as Tokenizer

from alignzoo_suite import MODELS, pairs
from alignzoo_suite.common import Row, rng
from alignzoo_suite.constitution import Constitution
from alignzoo_suite.format import Format
from alignzoo_suite.style import Style
from alignzoo_suite.sums import Sums
from alignzoo_suite.walks import Walks

Model = Any  # transformers' models do not match the type of their own `generate`
Task = Style | Sums | Constitution | Format | Walks
TASKS: dict[str, tuple[type[Task], str]] = {
    "style": (Style, "zoo-tiny"),
    "sums": (Sums, "zoo-tiny"),
    "constitution": (Constitution, "zoo-critic"),
    "format": (Format, "zoo-scout"),
    "walks": (Walks, "zoo-scout"),
}

MAX_NEW_TOKENS = 96
BATCH_SIZE = 128  # prompts at once, two completions each
TRIES = 20  # prompts per pair wanted, before giving up on completions that never differ in gold


def sample_completions(model: Model, tokenizer: Tokenizer, prompts: list[list[Row]]) -> list[str]:
    """Return two sampled completions of each prompt, those of one prompt next to each other."""
    inputs = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    assert isinstance(inputs, BatchEncoding)
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=2,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
    completions = output[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(completions, skip_special_tokens=True)


def sample_pairs(
    model: Model, tokenizer: Tokenizer, task: Task, split: str, wanted: int
) -> list[Row]:
    """Return `wanted` pairs for the prompts of a split, taken in turn.

    Exit if too few pairs differ in gold score.
    """
    prompts = task.rows("prompts", split)
    found: list[Row] = []
    turns = cycle(prompts)
    for _ in range(-(-TRIES * wanted // BATCH_SIZE)):
        rows = list(islice(turns, BATCH_SIZE))
        texts = sample_completions(model, tokenizer, [row["prompt"] for row in rows])
        for row, first, second in zip(rows, texts[::2], texts[1::2], strict=True):
            if first and second and task.score(row, first) != task.score(row, second):
                prompt = {"split": split, "prompt": row["prompt"][0]["content"]}
                found.append(row | prompt | {"first": first, "second": second})
        if len(found) >= wanted:
            return found[:wanted]
    raise SystemExit(f"only {len(found)} of {wanted} pairs differ in gold after {TRIES} tries each")


def main() -> None:
    """Write `pairs_TASK.jsonl.gz` of each task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--model", help="folder of the base model [default: the task's]")
    parser.add_argument("--pairs", type=int, default=2000, help="training pairs of each task")
    parser.add_argument("--dev-pairs", type=int, default=200, help="dev pairs of each task")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    for name in options.tasks:
        cls, model_name = TASKS[name]
        task, folder = cls(options.seed), options.model or MODELS[model_name]
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        torch.manual_seed(rng(options.seed, name, "pairs").getrandbits(63))
        found = [
            pair
            for split, wanted in (("train", options.pairs), ("dev", options.dev_pairs))
            for pair in sample_pairs(model, tokenizer, task, split, wanted)
        ]
        pairs.save_shipped_pairs(name, found)
        print(f"{pairs.shipped_pairs_path(name)}: {len(found)} pairs")


if __name__ == "__main__":
    main()
