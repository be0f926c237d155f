"""The task `pairs`: which of two answers a model prefers, checked against plain transformers."""

from __future__ import annotations

import json
import math

import pytest
import torch

from alignzoo import discovery
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.evaluation import EvaluationSettings, evaluate_model
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.session import execute, recipe_for
from alignzoo.ui import Silent
from alignzoo_tasks.pairs import Pairs, agreement

WORDS = ("lake", "the house by the lake", "sea", "good", "a very good day", "cat", "one", "why not")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Return a file of pairs with their prompt inside, as hh-rlhf writes them; one is no pair."""
    rows = [
        {
            "chosen": f"\n\nHuman: Say {n}.\n\nAssistant: {WORDS[n % 8]}",
            "rejected": f"\n\nHuman: Say {n}.\n\nAssistant: {WORDS[(n * 3 + 1) % 8]}",
        }
        for n in range(60)
    ]
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def policy():
    """Return a policy that has moved from its base."""
    made = load_policy(ModelSpec("zoo-tiny", adapter="lora", device=torch.device("cpu")))
    made.eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(len(name)))
    return made


def logprobs_of(policy, prompt, answer):
    """Return the log-prob of each token of an answer, by the model's own logits."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + answer])).logits[0]
    found = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return found[range(len(answer)), answer]


@pytest.mark.parametrize("per_token", [False, True])
def test_margins_are_those_of_plain_transformers(policy, path, per_token):
    from alignzoo.data import Codec

    task = Pairs(str(path), per_token=per_token)
    items = task.measure(policy, "dev", 5)
    codec = Codec(policy.tokenizer)
    assert [item.item for item in items] == [0, 1, 2, 3, 4]
    for item, row in zip(items, task.rows("preferences", "dev"), strict=False):
        prompt = codec.prompt(row["prompt"])
        reduce = torch.mean if per_token else torch.sum
        margins = {}
        for name in ("likelihood", "reward"):
            sides = []
            for side in ("chosen", "rejected"):
                answer = codec.completion(row["prompt"], row[side])
                found = logprobs_of(policy, prompt, answer)
                if name == "reward":
                    with policy.base():
                        found = found - logprobs_of(policy, prompt, answer)
                sides.append(float(reduce(found)))
            margins[name] = sides[0] - sides[1]
            assert item.measures[f"{name}_margin"] == pytest.approx(margins[name], abs=1e-4)
            assert item.measures[f"{name}_accuracy"] == (margins[name] > 0)
        assert item.score == item.measures["reward_accuracy"]
        better = "chosen" if margins["reward"] > 0 else "rejected"
        assert item.completion.strip() == row[better].strip()
        assert item.length == len(codec.completion(row["prompt"], row[better]))


def test_a_tie_is_half_right(path):
    untrained = load_policy(ModelSpec("zoo-tiny", adapter="lora", device=torch.device("cpu")))
    untrained.eval()
    items = Pairs(str(path)).measure(untrained, "dev", 8)
    assert {item.score for item in items} == {0.5}
    assert [agreement(x) for x in (1e-9, 0.0, -1e-9)] == [1.0, 0.5, 0.0]


def test_a_model_alone_has_likelihoods_and_no_reward(path):
    settings = EvaluationSettings(limit=20)
    name = f"pairs,path={path},prefer=likelihood"
    found = evaluate_model("zoo-tiny", [name], settings, trust_remote_code=False, ui=Silent())[name]
    assert found.summary.keys() == {"score", "likelihood_accuracy", "likelihood_margin"}
    mean = sum(item["score"] for item in found.items) / len(found.items)
    score = found.summary["score"]
    assert score.mean == pytest.approx(mean) and score.low < mean < score.high
    with pytest.raises(BadInput, match="prefer=likelihood") as error:
        evaluate_model(
            "zoo-tiny", [f"pairs,path={path}"], settings, trust_remote_code=False, ui=Silent()
        )
    assert error.value.hint
    many = EvaluationSettings(samples=2)
    with pytest.raises(BadInput, match="option --samples"):
        evaluate_model("zoo-tiny", [name], many, trust_remote_code=False, ui=Silent())


def test_a_run_learns_pairs_and_is_evaluated_on_others(path, tmp_path):
    settings = {"task": f"pairs,path={path}", "steps": 6, "batch_size": 8, "eval_size": 12,
                "output_dir": str(tmp_path), "name": "run", "learning_rate": 0.01}  # fmt: skip
    result = execute(recipe_for("dpo", {**settings, "eval_split": "test"}))
    assert result.before.summary["score"].mean == 0.5
    after = result.after
    assert after.summary["reward_margin"].mean != 0
    assert {name for name in after.summary if not name.startswith("held-out")} == {
        "score", "reward_accuracy", "reward_margin", "likelihood_accuracy", "likelihood_margin",
    }  # fmt: skip
    prompts = {row["prompt"] for row in Pairs(str(path)).rows("preferences", "test")}
    assert all(any(item["prompt"].strip() in p for p in prompts) for item in after.items)
    assert all(math.isfinite(item["logprob"]) for item in after.items)
    with pytest.raises(BadInput, match="grpo needs a reward"):
        execute(recipe_for("grpo", {**settings, "name": "other"}))


def test_a_bad_file_is_one_message(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"chosen": "a b", "rejected": "a c"}\n{"chosen": 3, "rejected": "a"}\n')
    with pytest.raises(BadInput, match="task 'pairs': column 'chosen'") as error:
        Pairs(str(file)).rows("preferences", "dev")
    assert error.value.where == f"{file}, row 2"


def test_pairs_of_hh_rlhf(shared_data, capsys):
    task = Pairs(str(shared_data / "hh-rlhf"))
    sizes = {split: len(task.rows("preferences", split)) for split in task.splits}
    assert sum(sizes.values()) > 2200
    assert all(size > 400 for size in sizes.values())
    assert discovery.load_plugin("tasks", "pairs") is Pairs
    assert status(["eval", "zoo-tiny", "--tasks", "pairs,prefer=neither"]) == 2
    assert "prefer" in capsys.readouterr().err
