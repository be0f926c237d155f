"""The laws of each kind but algorithms: each finds its mistakes, and right plugins break none."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
from kind_mistakes import MISTAKES, RIGHT

from alignzoo.cli import status
from alignzoo.testing import LAWS, CheckReport, check, kinds_of
from alignzoo.testing.check import SUBJECTS
from alignzoo.testing.laws import Finding, check_law

importlib.import_module("alignzoo_judges.testing")  # registers the laws for judges

QUICK = ("starts", "described options")
ROOT = Path(__file__).parents[2]

LONG = ("addons", "optimizers")  # their runs take seconds each
KINDS = [pytest.param(kind, marks=[pytest.mark.long] * (kind in LONG)) for kind in RIGHT]
SEEDED = [
    pytest.param(
        kind,
        mistake,
        id=f"{kind} {number} {mistake.law}",
        marks=[pytest.mark.long] * (kind in LONG and mistake.law not in QUICK),
    )
    for kind, mistakes in MISTAKES.items()
    for number, mistake in enumerate(mistakes)
]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignzoo.testing.addons.ALGORITHMS", ("dpo",))


def write(folder: Path, kind: str, source: str) -> str:
    path = folder / f"{kind}_plugin.py"
    path.write_text(source)
    return str(path)


def find(kind: str, path: str, name: str) -> Finding:
    """Check one law on a plugin in a file."""
    subject = SUBJECTS[kind](path, {})
    [law] = [law for law in LAWS[kind] if law.name == name]
    return check_law(law, subject, subject.plugin)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_plugin_breaks_no_law(kind, tmp_path):
    path = write(tmp_path, kind, RIGHT[kind])
    assert kinds_of(path) == [kind]
    report = CheckReport(kind, path, list(check(kind, path)))
    assert {each.law.name: each.text for each in report.findings if each.status != "held"} == {}
    assert report.passed


@pytest.mark.parametrize(("kind", "mistake"), SEEDED)
def test_a_mistake_breaks_its_law(kind, mistake, tmp_path):
    assert mistake.old in RIGHT[kind]
    path = write(tmp_path, kind, RIGHT[kind].replace(mistake.old, mistake.new))
    finding = find(kind, path, mistake.law)
    assert finding.status == "broken"
    assert len(finding.lines()) >= 3


@pytest.mark.parametrize("kind", RIGHT)
def test_there_is_a_mistake_for_each_law(kind):
    assert {law.name for law in LAWS[kind]} == {mistake.law for mistake in MISTAKES[kind]}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rewards", "math"),
        ("rewards", "random"),
        ("rewards", "judge,judge=gold,pairs=true"),
        ("rewards", "regex"),
        ("rewards", 'regex,pattern="^a=b,c=d$"'),
        ("tasks", "sums"),
        ("judges", "table"),
        ("judges", "gold"),
        ("judges", "zoo-critic"),
    ],
)
def test_built_in_plugins_pass(kind, text):
    report = CheckReport(kind, text, list(check(kind, text)))
    assert not report.broken
    assert report.passed and not report.skipped


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("samplers", "vllm", "vLLM is not installed"),
        ("samplers", "vllm,url=http://127.0.0.1:9/v1", "no answer"),
        ("judges", "http://127.0.0.1:9/v1", "no answer"),
        ("tasks", "svamp,path=/no/such/file.json", "no such file"),
    ],
)
def test_what_is_not_there_is_skipped_and_does_not_pass(kind, text, reason):
    if reason == "vLLM is not installed" and importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    report = CheckReport(kind, text, list(check(kind, text)))
    assert reason in report.skipped
    assert not report.passed


def test_the_command_says_what_was_not_checked_and_fails_for_what_is_broken(tmp_path, capsys):
    assert status(["check", "svamp,path=/no/such/file.json"]) == 0
    assert "was not checked: /no/such/file.json: no such" in capsys.readouterr().out
    assert status(["check", "svamp,path=/no/such/file.json", "--json"]) == 0
    [report] = json.loads(capsys.readouterr().out)
    assert (report["passed"], "no such file" in report["skipped"]) == (False, True)
    assert status(["check", "gold", "--kind", "judges"]) == 0
    source = RIGHT["tasks"].replace("completion.strip() ==", "completion.split()[0] ==")
    assert status(["check", write(tmp_path, "tasks", source)]) == 1
    shown = capsys.readouterr().out
    assert "an empty completion: IndexError" in shown
    assert "usual cause: text.split()[0]" in shown


def test_an_option_that_is_required_and_not_given_is_skipped(tmp_path):
    source = RIGHT["rewards"].replace("Gt(0)] = 1.0", "Gt(0)]")
    path = write(tmp_path, "rewards", source)
    report = CheckReport("rewards", path, list(check("rewards", path)))
    assert report.skipped == "option --worth is required"


def test_the_page_lists_every_law():
    page = (ROOT / "docs/check.md").read_text(encoding="utf-8")
    for kind, laws in LAWS.items():
        title = "Add-ons" if kind == "addons" else kind.capitalize()
        section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        wanted = [f"| {law.name} | {law.says} | {law.cause} |" for law in laws]
        assert sorted(rows) == sorted(wanted)


def test_a_task_that_measures_a_model_by_itself_is_skipped():
    report = CheckReport("tasks", "lm-eval", list(check("tasks", "lm-eval")))
    assert "measures a model by itself" in report.skipped
    assert not report.passed
