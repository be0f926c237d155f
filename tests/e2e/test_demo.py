"""What the README's first screen promises."""

from __future__ import annotations

import json

import pytest

from alignzoo.cli import status

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_dpo_raises_the_gold_score_of_style_beyond_doubt(tmp_path, capfd):
    assert status(["run", "dpo", "--output-dir", str(tmp_path)]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    facts = json.loads((tmp_path / "dpo-zoo-tiny-style/run.json").read_text())
    before, after = (facts["results"][phase]["score"] for phase in ("before", "after"))
    assert after["low"] > before["high"]
    assert f"{before['mean']:.3f}   {after['mean']:.3f}   +0." in printed.out
    # Nothing of the libraries underneath has leaked, to the terminal or even to the log.
    assert (tmp_path / "dpo-zoo-tiny-style/log.txt").read_text() == ""


@pytest.mark.parametrize("task", ["style", "sums"])
def test_zoo_tiny_has_room_below_and_above(task, capfd):
    words = ["eval", "zoo-tiny", "--tasks", task, "--limit", "200", "--json"]
    assert status(words) == 0
    score = json.loads(capfd.readouterr().out)["tasks"][task]["summary"]["score"]
    assert 0.2 < score["low"] < score["high"] < 0.6
