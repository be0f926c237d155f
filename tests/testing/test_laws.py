"""The kit finds seeded mistakes and passes what is right; `python -m mutants.measure` tries all."""

from __future__ import annotations

import json

import pytest

from alignzoo import discovery
from alignzoo.testing import LAWS, check
from alignzoo.testing.laws import check_law
from alignzoo.testing.stage import Stage
from mutants.measure import ALLOWED_MISSES, PAGE, RESULTS, write_page
from mutants.mistakes import MISTAKES, RIGHT

QUICK = ("micro-batches", "direction", "temperature", "padding", "missing reward", "neutral loss")


def broken(path, names=QUICK):
    stage = Stage(str(path))
    findings = [
        check_law(law, stage, stage.plugin) for law in LAWS["algorithms"] if law.name in names
    ]
    return {finding.law.name: finding for finding in findings if finding.status == "broken"}


@pytest.mark.parametrize("name", ["prefer", "group"])
def test_right_plugins_break_no_law(name):
    assert not broken(RIGHT / f"{name}.py")


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("chosen and rejected swapped", "direction"),
        ("margins normalised over the micro-batch", "micro-batches"),
        ("no temperature", "temperature"),
        ("padding counts", "padding"),
        ("NaN spreads through the group", "missing reward"),
        ("a constant margin left in", "neutral loss"),
    ],
)
def test_a_mistake_breaks_its_law(name, law, tmp_path):
    [mistake] = [each for each in MISTAKES if each.name == name]
    path = tmp_path / "wrong.py"
    path.write_text(mistake.source)
    found = broken(path)
    assert law in found
    text, *rest = found[law].lines()
    assert text
    assert any(line.startswith("usual cause: ") for line in rest)
    assert str(path) in rest[-1]  # the line to look at


TEACHER_PLUGIN = """
from dataclasses import dataclass
from alignzoo import Demonstrations, Loss, Needs, hookimpl

@dataclass(eq=False)
class Imitate:
    "Imitate a teacher"
    data = Demonstrations
    needs = Needs(teacher=True)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        {loss}
        return Loss.per_token(loss, batch.mask)
"""
TOPS = """
        teacher = run.teacher(batch, top_k=3)
        policy = run.policy(batch, top_ids=teacher.top_ids)
        loss = (teacher.top_logprobs.exp() * -policy.top_logprobs).sum(-1)"""


@pytest.mark.parametrize(
    ("loss", "right"),
    [
        ("loss = run.divergence(batch, beta=0.5).divergence", True),
        ("loss = -run.divergence(batch, beta=0.5).divergence", False),
        (TOPS, True),
        (TOPS.replace("* -policy", "* policy"), False),
    ],
)
def test_a_step_moves_to_the_teacher(loss, right, tmp_path):
    path = tmp_path / "imitate.py"
    path.write_text(TEACHER_PLUGIN.format(loss=loss))
    assert ("direction" in broken(path)) is not right


def test_the_committed_measurement_is_of_these_mistakes():
    rows = [json.loads(line) for line in (RESULTS / "rows.jsonl").read_text().splitlines()]
    mistakes = [(row["plugin"], row["mistake"]) for row in rows if row["mistake"]]
    assert mistakes == [(each.plugin, each.name) for each in MISTAKES]
    assert len(mistakes) >= 45
    assert not [row for row in rows if row["mistake"] is None and row["laws"]]
    assert sum(not row["laws"] for row in rows if row["mistake"]) <= ALLOWED_MISSES
    assert PAGE.read_text(encoding="utf-8") == write_page(rows)


def test_a_plugin_states_an_exception_with_its_reason(tmp_path):
    path = tmp_path / "excepted.py"
    [mistake] = [each for each in MISTAKES if each.name == "chosen and rejected swapped"]
    stated = '    known_exceptions = {"direction": "it unlearns what is chosen"}\n'
    path.write_text(mistake.source.replace("    data = Pref", f"{stated}\n    data = Pref"))
    stage = Stage(str(path))
    [law] = [each for each in LAWS["algorithms"] if each.name == "direction"]
    finding = check_law(law, stage, stage.plugin)
    assert (finding.status, finding.text) == ("excepted", "it unlearns what is chosen")


@pytest.mark.parametrize(
    ("stated", "message"),
    [('{"directoin": "it unlearns what is chosen"}', "no law"), ('{"direction": ""}', "a reason")],
)
def test_an_exception_needs_a_law_and_a_reason(stated, message, tmp_path):
    path = tmp_path / "excepted.py"
    source = (RIGHT / "prefer.py").read_text()
    path.write_text(
        source.replace("    data = Pref", f"    known_exceptions = {stated}\n\n    data = Pref")
    )
    with pytest.raises(Exception, match=message):
        next(check("algorithms", str(path)))


def test_what_has_passed_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))
    sha256 = discovery.hash_plugin("algorithms", "dpo")
    assert discovery.checked_version(sha256) is None
    discovery.record_check(sha256, "dpo", 1)
    assert discovery.checked_version(sha256) == 1
    with discovery.recording() as loaded:
        discovery.load_plugin("algorithms", "dpo")
    assert loaded["algorithms", "dpo"].checked == 1
