"""The rows of every task: shape, seeds, splits, and no import of torch."""

import subprocess
import sys

import pytest

from alignzoo_suite.format import Format
from alignzoo_suite.pairs import prob_first_wins
from alignzoo_suite.retention import Retention
from alignzoo_suite.style import Style
from alignzoo_suite.sums import Sums
from alignzoo_suite.totals import Totals
from alignzoo_suite.unlearn import Unlearn
from alignzoo_suite.walks import Walks
from alignzoo_suite.zoo import Scout, Zoo

TASKS = {
    "style": lambda seed=0: Style(seed, text=300, demonstrations=300),
    "sums": lambda seed=0: Sums(seed, text=300, demonstrations=300, prompts=300, steps=300),
    "format": lambda seed=0: Format(seed, text=300, demonstrations=300, prompt_rows=300),
    "walks": lambda seed=0: Walks(seed, text=300, demonstrations=300, prompt_rows=300),
    "totals": lambda seed=0: Totals(seed, demonstrations=300, prompt_rows=300),
    "retention": lambda seed=0: Retention(seed, text=300, demonstrations=300),
    "unlearn": Unlearn,
    "zoo": lambda seed=0: Zoo(seed, text=300),
}
COLUMNS = {
    "text": {"messages"},
    "demonstrations": {"prompt", "completion"},
    "preferences": {"prompt", "chosen", "rejected"},
    "feedback": {"prompt", "completion", "label"},
    "steps": {"prompt", "completions", "labels"},
    "prompts": {"prompt"},
}
CASES = [(name, view) for name, make in TASKS.items() for view in make().views]


def question(row: dict) -> str:
    return (row.get("messages") or row["prompt"])[0]["content"]


@pytest.mark.parametrize(("name", "view"), CASES)
def test_shape(name: str, view: str) -> None:
    task = TASKS[name]()
    for split in ("train", "dev"):
        rows = task.rows(view, split)
        assert len(rows) >= 100
        for row in rows:
            assert row.keys() >= COLUMNS[view]
            for column in COLUMNS[view] - {"label", "completions", "labels"}:
                assert all(message.keys() == {"role", "content"} for message in row[column])
                assert row[column][0]["role"] == (
                    "user" if column in ("prompt", "messages") else "assistant"
                )
                assert all(message["content"] for message in row[column])


@pytest.mark.parametrize(("name", "view"), CASES)
def test_splits_share_no_prompt(name: str, view: str) -> None:
    task = TASKS[name]()
    train, dev = ({question(row) for row in task.rows(view, s)} for s in ("train", "dev"))
    assert not train & dev
    test = {question(row) for row in task.rows("prompts", "test")}
    assert len(test) >= 200 and not test & train
    assert not test & dev or view in ("text", "steps")


@pytest.mark.parametrize(("name", "view"), CASES)
def test_same_seed_same_rows(name: str, view: str) -> None:
    assert TASKS[name]().rows(view, "train") == TASKS[name]().rows(view, "train")
    assert TASKS[name]().rows(view, "train") != TASKS[name](1).rows(view, "train")


def test_rows_are_the_same_in_another_process() -> None:
    code = (
        "from alignzoo_suite.zoo import Scout, Zoo\n"
        "print([task(text=50).rows('text', 'train') for task in (Zoo, Scout)])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([one(text=50).rows("text", "train") for one in (Zoo, Scout)])


@pytest.mark.parametrize("name", ["style", "sums", "format", "walks"])
def test_the_annotator_mostly_prefers_the_better(name: str) -> None:
    task = TASKS[name]()
    rows = task.rows("preferences", "train")
    gaps = [
        task.score(row, row["chosen"][0]["content"])
        - task.score(row, row["rejected"][0]["content"])
        for row in rows
    ]
    assert 0 not in gaps
    assert 0.75 < sum(gap > 0 for gap in gaps) / len(gaps) < 0.97


def test_bradley_terry() -> None:
    assert prob_first_wins(0, 0.1) == 0.5
    assert prob_first_wins(0.1, 0.1) == pytest.approx(0.731059, abs=1e-6)
    assert prob_first_wins(-0.1, 0.1) + prob_first_wins(0.1, 0.1) == pytest.approx(1)


def test_feedback_is_the_pairs_taken_apart() -> None:
    task = TASKS["style"]()
    labelled = task.rows("feedback", "train")
    assert sum(row["label"] for row in labelled) * 2 == len(labelled)
    assert len(labelled) == 2 * len(task.rows("preferences", "train"))


def test_unknown_views_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="no view 'pairs'; choose from: text, demonstrations"):
        Style().rows("pairs", "train")
    with pytest.raises(ValueError, match="no split 'valid'"):
        Sums().rows("prompts", "valid")
    with pytest.raises(ValueError, match="'test' has prompts alone, no feedback"):
        Style().rows("feedback", "test")
    with pytest.raises(ValueError, match="no view 'preferences'; choose from: text, prompts"):
        Zoo().rows("preferences", "train")


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, alignzoo_suite.zoo; alignzoo_suite.zoo.Zoo(text=9).rows('text', 'train');"
        "assert not {'torch', 'transformers', 'tokenizers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
