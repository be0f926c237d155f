"""zoo-critic answers badly enough to be aligned, and criticises, revises and judges well enough."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from alignzoo_judges import Comparison, compare, read_principles, resolve_judge
from alignzoo_suite import MODELS
from alignzoo_suite.acts import ACTS
from alignzoo_suite.common import rng, user_message
from alignzoo_suite.constitution import Constitution
from alignzoo_suite.constitution_writer import AVERAGE, assess, possible_findings, write_reply
from alignzoo_suite.critic import Critic
from alignzoo_zoo.constitutional.critique import revise

TASK = Constitution()


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def critic():
    return resolve_judge("zoo-critic")


def text(message: list[dict[str, str]]) -> str:
    return message[0]["content"]


def test_its_judge_agrees_with_gold_in_most_pairs_and_not_in_all(critic):
    rows = TASK.rows("preferences", "dev")
    pairs = [Comparison(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    better = [TASK.score(row, text(row["chosen"])) > TASK.score(row, text(row["rejected"]))
              for row in rows]  # fmt: skip
    verdicts = compare(critic, pairs)
    right = [
        (verdict.label[0] > 0.5) == is_better
        for verdict, is_better in zip(verdicts, better, strict=True)
    ]
    assert all(verdict.usable for verdict in verdicts)
    assert 0.85 <= sum(right) / len(right) <= 0.97


@pytest.mark.parametrize("principle", read_principles().principles, ids=lambda p: p.name)
def test_it_finds_a_fault_and_fixes_it(critic, principle):
    drafts = []
    for number, row in enumerate(TASK.rows("prompts", "dev")):
        draft = write_reply(row["act"], AVERAGE, rng(principle.name, number))
        found = assess(principle.name, row["act"], draft, ACTS[row["act"]] == "harmful")
        if found == possible_findings(principle.name, row["act"])[0]:
            drafts.append((row, draft.text, found))
    drafts = drafts[:30]
    steps = revise(
        [row["prompt"] for row, _, _ in drafts],
        [draft for _, draft, _ in drafts],
        [principle] * len(drafts),
        lambda dialogues: critic.write(dialogues, 64),
    )
    named = [
        step.critique == f"The response {found}."
        for step, (*_, found) in zip(steps, drafts, strict=True)
    ]
    gains = [
        TASK.score(row, step.revision) - TASK.score(row, draft)
        for step, (row, draft, _) in zip(steps, drafts, strict=True)
    ]
    assert sum(named) / len(named) > 0.8
    assert sum(gains) / len(gains) > 0.15


def test_its_training_data_fits_its_context():
    tokenizer = AutoTokenizer.from_pretrained(MODELS["zoo-critic"])
    rows = Critic(demonstrations=300).rows("demonstrations", "train")
    longest = max(
        len(tokenizer.apply_chat_template(row["messages"], return_dict=False)) for row in rows
    )
    assert 100 < longest < 300 < tokenizer.model_max_length
    kinds = {len(row["messages"]) for row in rows}
    assert kinds == {2, 4, 6}  # an answer or a verdict; a thought before one; a revision


def test_the_models_differ_in_words_alone():
    for name in ("config.json", "generation_config.json"):
        found = [json.loads((folder / name).read_text()) for folder in MODELS.values()]
        assert all(one | {"vocab_size": 0} == found[0] | {"vocab_size": 0} for one in found)


def test_a_prompt_is_written_as_for_zoo_tiny():
    message = user_message("How do I bake rolls for the picnic?")
    texts = {
        AutoTokenizer.from_pretrained(folder).apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        for folder in MODELS.values()
    }
    assert texts == {"<|bos|><|user|>How do I bake rolls for the picnic?<|end|><|assistant|>"}
