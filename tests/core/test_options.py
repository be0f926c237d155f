"""Options from dataclasses, and recipes from layers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le

from alignzoo.cli.options import parameters
from alignzoo.errors import BadInput
from alignzoo.options import (
    Alias,
    build,
    join_options,
    options_of,
    options_read,
    refuse_unread,
    rename_options,
    split_names,
    split_options,
)
from alignzoo.recipe import Recipe, read_recipe, resolve


@dataclass(eq=False)
class Example:
    beta: Annotated[float, "pull to the reference", Gt(0)] = 0.1
    share: Annotated[float, "a share", Ge(0), Le(1)] = 0.5
    kind: Annotated[Literal["a", "b"], "one of two"] = "a"
    deep: bool = False


def test_options_carry_type_bounds_and_help():
    beta, share, kind, deep = options_of(Example)
    assert (beta.flag, beta.default, beta.help, beta.bounds) == (
        "--beta",
        0.1,
        "pull to the reference",
        "> 0",
    )
    assert share.bounds == ">= 0, <= 1"
    assert kind.bare_type == Literal["a", "b"]
    assert (deep.bare_type, deep.help) == (bool, "")


def test_the_text_of_a_number_is_the_number():
    assert build(Example, {"beta": "1e-2"}).beta == 0.01


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"beta": 0}, ["--beta", "greater than 0"]),
        ({"beta": float("nan")}, ["--beta", "finite"]),
        ({"beta": True}, ["--beta", "True is not allowed: it should be a number"]),
        ({"beta": 1e30}, ["--beta", "beyond what can be computed with"]),
        ({"beta": "1e-300"}, ["--beta", "beyond what can be computed with"]),
        ({"beta": 10**5000}, ["--beta", "thousands of digits"]),
        ({"share": 1.5}, ["--share", "less than or equal to 1"]),
        ({"kind": "c"}, ["--kind", "'a' or 'b'"]),
        ({"bta": 1}, ["bta", "did you mean 'beta'"]),
    ],
)
def test_a_wrong_value_is_named(values, words):
    with pytest.raises(BadInput) as error:
        build(Example, values)
    assert all(word in error.value.message for word in words), error.value.message


@dataclass
class Renamed:
    report_to: Annotated[str, "where metrics go", Alias("track"), Alias("log_to")] = "none"


def test_a_former_name_is_accepted_with_a_warning():
    (option,) = options_of(Renamed)
    assert option.aliases == ("track", "log_to")
    assert (option.bare_type, option.help) == (str, "where metrics go")
    with pytest.warns(DeprecationWarning, match="--track is deprecated: use --report-to"):
        assert build(Renamed, {"track": "wandb"}).report_to == "wandb"
    with pytest.warns(DeprecationWarning, match="r.yaml: option --log-to"):
        assert rename_options([option], {"log_to": 1, "x": 2}, "r.yaml") == {"report_to": 1, "x": 2}


def test_an_option_under_two_names_is_refused():
    with (
        pytest.warns(DeprecationWarning, match="--track"),
        pytest.raises(BadInput, match="--report-to is given twice"),
    ):
        build(Renamed, {"report_to": "none", "track": "wandb"})


def hinge(margin, *, beta):
    return margin, beta


def robust(margin, *, beta, smoothing):
    return margin, beta, smoothing


@dataclass
class Losses:
    loss_type: str = "hinge"
    beta: float = 0.1
    smoothing: Annotated[float, "probability that a label is wrong"] = 0.0
    seed: int = 0


READS = {"hinge": options_read(hinge), "robust": options_read(robust), "sft": ()}


def test_keyword_only_arguments_are_the_options_that_a_function_reads():
    assert READS == {"hinge": ("beta",), "robust": ("beta", "smoothing"), "sft": ()}


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({"smoothing": 0.0, "beta": 0.2}, None),
        ({"loss_type": "robust", "smoothing": 0.1}, None),
        ({"loss_type": "sft", "seed": 3}, None),
        ({"loss_type": "hinge,robust", "smoothing": 0.1}, ["hinge", "robust"]),
    ],
)
def test_an_option_that_a_chosen_loss_reads_is_accepted(values, chosen):
    refuse_unread(Losses(**values), "loss_type", READS, chosen)


@pytest.mark.parametrize(
    ("values", "chosen", "words"),
    [
        ({"smoothing": 0.1}, None, "--smoothing: --loss-type hinge .*\n.*for --loss-type robust"),
        ({"loss_type": "sft", "beta": 1.0}, None, "--beta: .*\n.*hinge, robust"),
        ({"loss_type": "hinge,sft", "smoothing": 0.1}, ["hinge", "sft"], "hinge,sft does not"),
    ],
)
def test_an_option_that_no_chosen_loss_reads_is_refused(values, chosen, words):
    with pytest.raises(BadInput, match=words):
        refuse_unread(Losses(**values), "loss_type", READS, chosen)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a,x=1,2,y=b=c", {"x": "1,2", "y": "b=c"}),  # a comma that no option follows
        ('a,x="1,y=2",z=3', {"x": "1,y=2", "z": "3"}),
        (r'a,x="b,y=\"c,d=1\""', {"x": 'b,y="c,d=1"'}),
        (r'a,x="\\,\d"', {"x": r"\,\d"}),
        ('a,x="1"2', {"x": '"1"2'}),  # quotes that are not around the whole value
        ("a,x=", {"x": ""}),
        ('a,x=""', {"x": ""}),
    ],
)
def test_options_of_a_text(text, options):
    assert split_options(text, "--f") == ("a", options)


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,1", "'1' in 'a,1' is not an option"), ("a,x=1,x=2", "'x' is given twice")],
)
def test_a_text_that_has_no_options_in_it(text, says):
    with pytest.raises(BadInput, match=f"option --f: {says}"):
        split_options(text, "--f")


def test_names_with_options_in_one_text():
    text = 'a,x=1,y="b,c",./d.py,a,x=1,y="b,c"'
    assert split_names(text, "--tasks") == ['a,x=1,y="b,c"', "./d.py"]
    with pytest.raises(BadInput, match="--tasks: 'a,,b' has an empty name"):
        split_names("a,,b", "--tasks")


class Level(Enum):
    LOW, HIGH = 1, "h"


@dataclass
class Kinds:
    level: Annotated[Level | None, "how much"] = None
    size: Literal[1, 2] = 1
    file: Path = Path("a")
    text: str = ""


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"level": "LOW", "size": "2"}, Kinds(Level.LOW, 2)),
        ({"level": "1", "size": 2}, Kinds(Level.LOW, 2)),
        ({"level": "h", "file": "b/c"}, Kinds(Level.HIGH, file=Path("b/c"))),
        ({"level": "HIGH"}, Kinds(Level.HIGH)),
        ({"text": 'x,level="h",\\"'}, Kinds(text='x,level="h",\\"')),
    ],
)
def test_options_go_into_a_text_and_come_back(values, found):
    built = build(Kinds, values)
    assert built == found
    name, options = split_options(join_options("kinds", built), "--f")
    assert name == "kinds" and build(Kinds, options) == found


def test_the_choices_of_an_enum_are_in_the_help_and_in_the_message():
    level, size, *_ = options_of(Kinds)
    assert parameters(level)[0].metavar == "<LOW|h>" and parameters(size)[0].metavar == "<1|2>"
    with pytest.raises(BadInput, match="'low' is not allowed: it should be LOW or h"):
        build(Kinds, {"level": "low"})


def test_later_layers_win_and_options_merge():
    recipe = resolve(
        {"algorithm": "dpo", "batch_size": 8, "options": {"beta": 1, "loss": "a"}},
        {"batch_size": 4, "options": {"beta": 2}},
    )
    assert recipe.batch_size == 4
    assert recipe.options == {"beta": 2, "loss": "a"}


def test_the_task_is_style_only_when_no_data_is_given():
    assert resolve({"algorithm": "dpo"}).task == "style"
    assert resolve({"algorithm": "dpo", "data": "x.jsonl"}).task is None


def test_a_task_may_have_a_model_of_its_own():
    task = {"algorithm": "dpo", "task": "constitution"}
    assert resolve(task).model == "zoo-critic"
    assert resolve(task, {"model": "zoo-tiny"}).model == "zoo-tiny"
    assert resolve({"algorithm": "dpo", "task": "sums"}).model == "zoo-tiny"


@pytest.mark.parametrize(
    ("text", "flops"), [("1e15flops", 1e15), ("2.5E3 FLOPs", 2500.0), ("7", 7.0), (None, None)]
)
def test_a_budget_is_read(text, flops):
    assert Recipe("dpo", budget=text).budget_flops == flops


@pytest.mark.parametrize("text", ["much", "-1e3flops", "0", "1e15 tokens", "1.2.3"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="--budget"):
        resolve({"algorithm": "dpo", "budget": text})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch_size: [", ["line 1", "not YAML"]),
        ("- a\n- b\n", ["mapping"]),
        (".nan: 3\n", ["unknown key nan"]),
        ("batchsize: 3\n", ["batchsize", "did you mean 'batch_size'"]),
        ("x: !!python/object/apply:os.system ['true']\n", ["not YAML"]),
    ],
)
def test_a_bad_recipe_file_is_named(tmp_path: Path, text, words):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_recipe(path)
    assert all(word in error.value.message for word in [*words, "r.yaml"]), error.value.message


def test_a_missing_recipe_file_is_named(tmp_path: Path):
    with pytest.raises(BadInput, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2**63}, {"batch_size": 10**9}, {"epochs": 1e300}, {"temperature": 1e-300},
        {"lora_rank": 10**9}, {"max_new_tokens": 10**9}, {"virtual_tokens": 10**9},
        {"learning_rate": 1e38}, {"budget": "1e999flops"}, {"learning_rate": True},
    ],
)  # fmt: skip
def test_numbers_beyond_all_use_are_refused(values):
    with pytest.raises(BadInput, match=f"option --{next(iter(values)).replace('_', '-')}"):
        resolve({"algorithm": "dpo", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"model": "n" * 5000}, {"reward": ["n" * 5000]}, {"output_dir": "a/" + "n" * 5000},
        {"output_dir": "~no-such-user/runs"},
    ],
)  # fmt: skip
def test_names_that_no_file_can_have_are_refused(values):
    with pytest.raises(BadInput, match=f"option --{next(iter(values)).replace('_', '-')}") as error:
        resolve({"algorithm": "dpo", **values})
    assert len(str(error.value)) < 200
