"""Tasks of lm-evaluation-harness, offline: its own `hf` model and ours give the same numbers."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.evaluation import EvaluationSettings, evaluate_model
from alignzoo.named import load_task
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.ui import Silent

ROWS = [
    {"question": "Say hello.", "choices": ["Hello.", "The lake is fine.", "no"], "label": n % 3}
    for n in range(5)
] + [{"question": f"What is {n} + 1?", "choices": ["2", f"{n + 1}"], "label": 1} for n in range(5)]
CHOICE = """
task: tiny-choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\n"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ROLLING = """
task: tiny-perplexity
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}} {{{{choices[0]}}}}"
metric_list: [{{metric: word_perplexity}}]
"""
WRITTEN = """
task: tiny-written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 8}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval", reason="lm_eval is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with three tasks and their data."""
    made = tmp_path_factory.mktemp("tasks")
    data = made / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in (("choice", CHOICE), ("perplexity", ROLLING), ("written", WRITTEN)):
        (made / f"{name}.yaml").write_text(text.format(data=data))
    return made


@pytest.fixture(scope="module")
def models(lm_eval):
    """Return zoo-tiny as lm_eval's own model and as ours."""
    from lm_eval.models.huggingface import HFLM

    from alignzoo_lm_eval.model import PolicyLM

    policy = load_policy(ModelSpec("zoo-tiny", device=torch.device("cpu")))
    policy.eval()
    # In transformers the model's own limit on new tokens wins over the one that lm_eval asks for.
    policy.model.generation_config.max_new_tokens = None
    theirs = HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=4, device="cpu")
    return theirs, PolicyLM(policy, batch_size=3)


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, place) for place, args in enumerate(arguments)]


def test_log_probs_and_what_is_greedy_agree(models):
    theirs, ours = models
    (greedy,) = theirs.generate_until(
        requests("generate_until", ("Say hello.", {"until": [], "max_gen_toks": 3}))
    )
    pairs = [(row["question"], choice) for row in ROWS[4:7] for choice in row["choices"]]
    pairs += [("Say hello.", greedy), ("", "Hello."), ("with a space ", "behind it")]
    expected = theirs.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    found = ours.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    for (total, is_greedy), (other, other_greedy) in zip(found, expected, strict=True):
        assert total == pytest.approx(other, abs=1e-4)
        assert is_greedy == other_greedy
    assert {is_greedy for _, is_greedy in found} == {True, False}


def test_rolling_log_probs_agree_in_several_windows(models, monkeypatch):
    theirs, ours = models
    monkeypatch.setattr(theirs, "_max_length", 16)
    monkeypatch.setattr(ours, "max_length", 16)
    texts = [("The lake is fine, and so is the house by the lake. " * 2,), ("Hello.",)]
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", *texts))
    found = ours.loglikelihood_rolling(requests("loglikelihood_rolling", *texts))
    assert found == pytest.approx(expected, abs=1e-4)


def test_generations_agree(models):
    theirs, ours = models
    settings = {"until": ["."], "max_gen_toks": 12}
    contexts = [(row["question"], settings) for row in ROWS[3:8]]
    contexts.append(("Say hello.", {"until": [], "max_gen_toks": 4}))
    expected = theirs.generate_until(requests("generate_until", *contexts), disable_tqdm=True)
    assert ours.generate_until(requests("generate_until", *contexts)) == expected
    assert any(expected)
    with pytest.raises(BadInput, match="num_beams"):
        ours.generate_until(requests("generate_until", ("a", {"until": [], "num_beams": 2})))


@pytest.mark.parametrize(
    ("name", "metric", "chat"),
    [("choice", "acc", False), ("perplexity", "word_perplexity", False),
     ("written", "exact_match", False), ("choice", "acc", True)],
)  # fmt: skip
def test_a_task_gives_the_metrics_of_lm_eval(models, folder, name, metric, chat):
    from lm_eval.evaluator import evaluate

    theirs, _ = models
    path = folder / f"{name}.yaml"
    task = f"lm-eval:{path}" + ",chat=true" * chat
    expected = evaluate(
        theirs, load_task(task).load(), bootstrap_iters=0, apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )  # fmt: skip
    (results,) = expected["results"].values()
    settings = EvaluationSettings(limit=len(ROWS))
    found = evaluate_model("zoo-tiny", [task], settings, trust_remote_code=False, ui=Silent())[task]
    estimate = found.summary[metric]
    assert estimate.mean == pytest.approx(results[f"{metric},none"], rel=1e-4)
    assert (estimate.low is None) == (metric == "word_perplexity")
    assert len(found.items) == len(ROWS)


def test_a_folder_of_tasks_and_worked_examples(models, folder):
    loaded = load_task(f"lm-eval:tiny-choice,include={folder},shots=2").load()
    (task,) = loaded["tasks"].values()
    assert task.get_config("num_fewshot") == 2
    with pytest.raises(BadInput, match="no task 'tiny-choise'") as error:
        load_task(f"lm-eval:tiny-choise,include={folder}").load()
    assert "did you mean 'tiny-choice'" in error.value.hint


def test_what_cannot_be_evaluated_is_one_message(lm_eval, folder, tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text(CHOICE.format(data=tmp_path / "missing.jsonl"))
    for task, words in (
        (f"lm-eval:{tmp_path}/none.yaml", "no such file"),
        (f"lm-eval:x,include={tmp_path}/none", "no such folder"),
        (f"lm-eval:{broken}", "cannot be loaded"),
    ):
        assert status(["eval", "zoo-tiny", "--tasks", task]) == 2
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said


def test_a_missing_package_is_one_message(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    policy = load_policy(ModelSpec("zoo-tiny", device=torch.device("cpu")))
    with pytest.raises(BadInput, match="lm_eval cannot be imported") as error:
        load_task(f"lm-eval:{folder}/choice.yaml").measure(policy, "test", 2)
    assert error.value.hint == "pip install 'alignzoo[lm-eval]'"
