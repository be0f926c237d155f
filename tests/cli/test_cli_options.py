from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alignzoo import discovery
from alignzoo.cli import status
from alignzoo.cli.run import compose, recipe_options, refuse_clashes, split_algorithm
from alignzoo.errors import BadInput
from alignzoo.options import Option

SUITE = Path(__file__).parents[2] / "benchmarks" / "alignzoo_suite"


def test_help_shows_types_bounds_defaults_and_the_algorithms_own_defaults(
    toy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert status(["run", toy, "--help"]) == 0
    text = capsys.readouterr().out
    assert "noise" not in text
    assert "A toy [of mine], for tests." in text
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│ --")}
    assert "<float>" in lines["--beta"]
    assert "strength [of the pull] [> 0] [default: 0.1]" in lines["--beta"]
    assert "<sigmoid|hinge>" in lines["--kind"]
    assert "--no-center" in lines["--center"]
    assert "<int> ..." in lines["--layers"]
    assert "[default: 0.0002]" in lines["--learning-rate"]
    assert "the algorithm's" not in lines["--learning-rate"]
    assert "[default: 4]" in lines["--batch-size"]
    assert "[default: style, if there is no --data]" in lines["--task"]
    panels = [line.split()[1] for line in text.splitlines() if line.startswith("╭")]
    assert panels == [
        "Options",
        "Algorithm",
        "Model",
        "Data",
        "Training",
        "Evaluation",
        "Generation",
        "Run",
    ]


def test_every_flag_can_be_read_in_a_narrow_terminal(
    toy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status(["run", toy, "--help"])
    text = capsys.readouterr().out
    for option in recipe_options():
        assert (option.flag if option.name != "addons" else "--with") + " " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bta", "1"], "unknown option --bta: did you mean --beta?"),
        (["--max_length", "9"], "did you mean --max-length?"),
        (["--beta", "-1"], "option --beta: '-1' is not allowed: input should be greater than 0"),
        (["--kind", "round"], "input should be 'sigmoid' or 'hinge'"),
        (["--seed", "x"], "option --seed: 'x' is not allowed"),
        (["--layers", "1", "--layers", "b"], "option --layers"),
        (["--beta"], "'--beta' requires an argument"),
        (["surplus"], "unexpected extra argument"),
        (
            ["--fail-on-bad-rows", "--no-fail-on-bad-rows"],
            "--fail-on-bad-rows and --no-fail-on-bad-rows contradict each other",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_style_with_exit_code_2(
    toy: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert status(["run", toy, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("alignzoo: ")
    assert message in err
    assert "Traceback" not in err


def test_layers_of_a_recipe_in_their_order(toy: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "batch_size: 8\nseed: 3\nfail_on_bad_rows: true\noptions: {beta: 0.5, kind: hinge}\n"
    )
    plugin = discovery.load_plugin_file(Path("toy.py"))

    bare = compose(toy, plugin, {})
    assert (bare.algorithm, bare.batch_size, bare.learning_rate, bare.seed) == (toy, 4, 2e-4, 0)
    assert bare.options == {}

    filed = compose(toy, plugin, {"recipe": str(file)})
    assert (filed.batch_size, filed.learning_rate, filed.seed, filed.fail_on_bad_rows) == (
        8,
        2e-4,
        3,
        True,
    )
    assert filed.options == {"beta": 0.5, "kind": "hinge"}

    values: dict[str, Any] = {
        "recipe": str(file), "seed": "9", "fail_on_bad_rows": [False], "beta": "1e-2",
        "layers": ["1", "2"],        "learning_rate": None, "addons": ["a", "b"],
    }  # fmt: skip
    typed = compose(toy, plugin, values)
    assert (typed.batch_size, typed.seed, typed.fail_on_bad_rows, typed.addons) == (
        8,
        9,
        False,
        ["a", "b"],
    )
    assert typed.options == {"beta": 0.01, "kind": "hinge", "layers": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("options: {bta: 1}", r"r\.yaml: options: unknown option 'bta'\n.*'beta'"),
        ("options: {beta: -1}", r"r\.yaml: option --beta: -1 is not allowed"),
        ("options: [beta]", r"r\.yaml: options: not a mapping"),
        ("seed: many", r"r\.yaml: option --seed"),
    ],
)
def test_a_mistake_in_a_recipe_file_names_the_file(toy: str, text: str, message: str) -> None:
    Path("r.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        compose(toy, discovery.load_plugin_file(Path("toy.py")), {"recipe": "r.yaml"})


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        (["dpo", "--seed", "1"], "dpo", ["--seed", "1"]),
        (["--seed", "1", "dpo"], "dpo", ["--seed", "1"]),
        (["--seed=1", "--fail-on-bad-rows", "dpo"], "dpo", ["--seed=1", "--fail-on-bad-rows"]),
        (
            ["--no-fail-on-bad-rows", "--with", "x", "dpo"],
            "dpo",
            ["--no-fail-on-bad-rows", "--with", "x"],
        ),
        (["--beta", "0.2", "dpo"], "dpo", ["--beta", "0.2"]),
        (["--recipe", "r.yaml", "--own-switch", "--seed", "3"], None, None),
        ([], None, None),
    ],
)
def test_flags_may_stand_before_the_algorithm(
    words: list[str], name: str | None, rest: list[str] | None
) -> None:
    assert split_algorithm(words) == (name, words if rest is None else rest)


@pytest.mark.parametrize(
    "name", ["seed", "recipe", "resume", "no_strict", "out", "with", "options"]
)
def test_an_option_of_an_algorithm_that_every_run_has_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"algorithm 'mine' has an option '{name}'"):
        refuse_clashes("mine", [Option(name, float, 0.1)])


def test_a_former_flag_still_works_and_names_its_successor(
    toy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("alignzoo.cli.run.start", lambda recipe, *_, **__: seen.append(recipe))
    Path("r.yaml").write_text("track: [wandb]\n")
    words = ["--out", "here", "--strict", "--stop", "a", "--stop", "b", "--recipe", "r.yaml"]
    assert status(["run", *words, toy]) == 0
    (recipe,) = seen
    assert (recipe.output_dir, recipe.fail_on_bad_rows) == ("here", True)
    assert (recipe.stop_text, recipe.report_to) == (["a", "b"], ["wandb"])
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "alignzoo: option --out is deprecated: use --output-dir",
        "alignzoo: option --stop is deprecated: use --stop-text",
        "alignzoo: option --strict is deprecated: use --fail-on-bad-rows",
        "alignzoo: r.yaml: option --track is deprecated: use --report-to",
    ]
    assert status(["run", toy, "--out", "a", "--output-dir", "b"]) == 2
    assert "option --output-dir is given twice" in capsys.readouterr().err


def test_a_former_flag_is_not_in_the_help(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    status(["run", toy, "--help"])
    assert "--out " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dpo --reward task", "option --reward: dpo does not learn from rewards"),
        ("sft --stop-on-alarm ties", "option --stop-on-alarm: sft draws no completions to"),
        ("dpo --stop-on-alarm kl", "option --stop-on-alarm: dpo draws no completions to"),
        ("dpo --stop-on-alarm drift", "option --stop-on-alarm: dpo is not evaluated on the way"),
        ("sft --stop-on-alarm saturated", "option --stop-on-alarm: sft learns from no pairs"),
        ("xpo --stop-on-alarm displacement", "option --stop-on-alarm: xpo draws its completions"),
        ("sft --sampler vllm", "option --sampler: sft draws no completions to learn from"),
        ("orpo --cache-reference", "option --cache-reference: orpo has no reference model"),
        ("best-of-n --epochs 2", "option --epochs: best-of-n trains nothing"),
        ("dpo --eval-size 0 --top-k 5", "option --top-k: dpo generates no completions in this run"),
    ],
)
def test_an_option_that_nothing_reads_is_refused(
    words: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(["run", *words.split(), "--output-dir", str(tmp_path)]) == 2
    assert f"alignzoo: {message}" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_counts_are_in_the_singular_and_a_refused_model_names_the_flag(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--output-dir", str(tmp_path)]
    words = ["sft", "--steps", "1", "--batch-size", "4", "--eval-size", "0", *out]
    assert status(["run", *words]) == 0
    assert "1 step of 4, learning rate" in capfd.readouterr().out

    config = {
        "model_type": "of_my_own",
        "architectures": ["Model"],
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    shutil.copytree(SUITE / "zoo_tiny", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "code.py").write_text("raise SystemExit('this ran')")
    assert status(["run", "sft", "--model", str(tmp_path / "model"), *out]) == 2
    assert "add --trust-remote-code to run it" in capfd.readouterr().err
