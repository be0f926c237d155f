"""Plugins by name and options, `NAME[,OPTION=VALUE...]`: every kind, from files as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import View, load_task
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.named import build_named, label_of
from alignzoo.recipe import find_code, read_recipe, resolve
from alignzoo.rewards import RewardSpec
from alignzoo.rewards.resolve import resolve_reward
from alignzoo.training.loop import train
from alignzoo_compare.cell import Cell
from alignzoo_compare.grid import read_grid
from alignzoo_judges import check_judge, resolve_judge

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated
from annotated_types import Ge, Gt, Le
from alignzoo import hookimpl
from alignzoo_judges import Judge
if TYPE_CHECKING:
    from nowhere import Nothing
"""
TASK = """
@dataclass
class Letters:
    rows_of_each: Annotated[int, "rows of each split", Gt(0)] = 8
    letter: str = "a"
    views = ("prompts",)
    splits = ("train", "dev", "test")
    worst, best = 0.0, 1.0

    def rows(self, view, split):
        return [{"prompt": f"{split} {n}"} for n in range(self.rows_of_each)]

    def score(self, row, completion):
        return float(self.letter in completion)
"""
JUDGE = """
@dataclass
class Sure(Judge):
    share: Annotated[float, "probability of the first option", Ge(0), Le(1)] = 0.5
    notes = ()

    def answers(self, questions):
        for i, question in enumerate(questions):
            rest = len(question.options) - 1
            yield i, [self.share, *[(1 - self.share) / rest] * rest]
"""
BASE = """
class Base(Judge):
    other: Nothing  # read by nobody
"""
ADDON = """
class Level(Enum):
    LOW, HIGH = 1, 2

@dataclass
class Log:
    every: Annotated[int, "a number", Ge(1)] = 5
    level: Level = Level.LOW

    @hookimpl
    def alignzoo_step(self, run, step, metrics):
        metrics |= {"every": float(self.every), "level": float(self.level.value)}
"""


@pytest.fixture
def write(tmp_path):
    def write(name: str, code: str) -> str:
        path = tmp_path / name
        path.write_text(HEAD + code)
        return str(path)

    return write


def test_options_of_an_addon(make_run, write, tmp_path):
    addon = write("log.py", ADDON)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"addons: ['{addon},every=3,level=HIGH']\n")
    settings = read_recipe(recipe)
    run = make_run("dpo", steps=1, batch_size=2, **settings)
    train(run)
    (row,) = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    assert (json.loads(row)["every"], json.loads(row)["level"]) == (3.0, 2.0)
    for text, says in [
        (f"{addon},every=0", "--every: '0' is not allowed: input should be greater"),
        (f"{addon},evry=1", "did you mean 'every'"),
        (f"{addon},level=HUGE", "it should be LOW or HIGH"),
    ]:
        with pytest.raises(BadInput, match=says):
            build_named("addons", text, "--with")
    with pytest.raises(BadInput, match="is named twice"):
        make_run("dpo", addons=[addon, f"{addon},every=2"])


def test_a_file_as_a_task(make_run, write, tmp_path, capfd):
    text = f"{write('letters.py', TASK)},rows_of_each=4,letter=z"
    run = make_run("grpo", task=text, batch_size=2)
    assert [len(run.data.train), run.task.letter] == [4, "z"]
    assert run.record.folder.name == "grpo-zoo-tiny-letters" == f"grpo-zoo-tiny-{label_of(text)}"
    assert status(["eval", "zoo-tiny", "--tasks", text, "--limit", "2", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["tasks"].values()
    assert len(found["items"]) == 2
    cell = Cell("final", "dpo", text, 0, {})
    assert "/" not in cell.name and "," not in cell.name
    assert cell.name != Cell("final", "dpo", text.replace("letter=z", "letter=y"), 0, {}).name
    assert Cell("final", "dpo", "sums", 0, {}).name == "dpo.sums.final0"
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"tasks: ['{text}']\n")
    with pytest.raises(BadInput, match="which a grid cannot run by itself"):
        read_grid(grid, allow_code=False)
    assert read_grid(grid, allow_code=True)["tasks"] == [text]


class Riddles(View):
    """A view of a plugin's own."""

    name, forms, columns = "riddles", (("riddle",),), ("riddle",)


def test_the_views_of_a_task_exist(write):
    def task(views: str) -> str:
        return write("letters.py", TASK.replace('("prompts",)', views))

    with pytest.raises(BadInput, match="'preferenses' in its `views`.*\n.*mean 'preferences'"):
        load_task(task('("prompts", "preferenses")'))
    with pytest.raises(BadInput, match="'prompts,' in its `views`"):
        load_task(task('"prompts,"'))
    assert load_task(task('("prompts", "riddles")')).views == ("prompts", "riddles")
    with pytest.raises(BadInput, match="it has no 'rows'"):
        load_task(write("other.py", TASK.replace("def rows", "def columns")))


def test_a_judge_with_options_in_a_reward(write):
    judge = write("sure.py", BASE + JUDGE.replace("(Judge)", "(Base)"))
    assert resolve_judge(f"{judge},share=0.25").share == 0.25
    spec = RewardSpec.parse(f'judge:2,judge="{judge},share=0.25",pairs=true')
    reward = resolve_reward(spec, None, allow_code=False)
    assert (reward.name, reward.pairs, spec.weight) == (f"{judge},share=0.25", True, 2.0)
    for text, says in [("share=2", "less than or equal to 1"), ("shre=1", "did you mean 'share'")]:
        with pytest.raises(BadInput, match=says):
            check_judge(f"{judge},{text}")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x: Annotated[int, Ge(1)] = 0", "addon '.*odd.py': its own default is refused: .*--x: 0"),
        ("x: Level = 'LOW '", "its own default is refused"),
        ("x: Nothing = 1", "--x cannot be read: name 'Nothing' is not defined"),
        ("x: object = 1; y: print = 2", "--y: .* is not a type of values that can be typed"),
        ("x: int = None", None),
        ("def __post_init__(self): raise KeyError('q')", "addon '.*odd.py': it cannot be made"),
    ],
)
def test_a_class_that_is_wrong_is_named(write, code, says):
    path = write("odd.py", f"{ADDON}    {code}\n")
    if says is None:
        build_named("addons", path, "--with")
        return
    with pytest.raises(BadInput, match=says):
        build_named("addons", path, "--with")


def test_a_path_and_an_enum_are_recorded_as_text(write):
    code = """
from pathlib import Path
from alignzoo_zoo.dpo.algorithm import DPO

class Level(Enum):
    LOW, HIGH = 1, 2

@dataclass(eq=False)
class Mine(DPO):
    level: Level = Level.LOW
    table: Path = Path("t.csv")
"""
    algorithm = write("mine.py", code)
    built = build_named("algorithms", f"{algorithm},level=2,table=~/x.csv", "ALGO")
    assert (built.level.name, built.table) == ("HIGH", Path("~/x.csv"))
    options = {"level": built.level, "table": built.table}
    recipe = resolve({"algorithm": algorithm, "options": options})
    assert json.loads(json.dumps(recipe.as_dict()))["options"] == {
        "level": "HIGH",
        "table": "~/x.csv",
    }


@pytest.mark.parametrize(
    "value",
    ['judge,judge="./j.py"', 'judge,judge="./j.py,p=1"', 'judge,judge="python:a.b"',
     r'a,x="b,y=\"./j.py\""', Path("j.py")],
)  # fmt: skip
def test_code_in_a_quoted_value_is_found(value):
    assert find_code({"reward": [value]}) is not None
