"""Trackers beside our own files."""

from __future__ import annotations

import pytest

from alignzoo.session.session import execute, recipe_for

tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_tensorboard_is_told_what_metrics_jsonl_is_told(tmp_path):
    settings = {"output_dir": str(tmp_path), "steps": 3, "batch_size": 4, "eval_size": 0}
    folder = execute(recipe_for("dpo", {**settings, "report_to": ["tensorboard"]})).folder
    found = tensorboard.EventAccumulator(str(folder / "alignzoo"))
    found.Reload()
    assert [e.step for e in found.Scalars("loss")] == [1, 2, 3]
    assert found.Scalars("loss")[0].value == pytest.approx(0.693147, abs=1e-5)
    assert "rewards/margins" in found.Tags()["scalars"]
