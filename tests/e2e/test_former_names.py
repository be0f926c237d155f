"""Names that plugins were written against still work, and say what they are called now."""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from alignzoo import deprecated
from alignzoo.training.loop import train

PLUGIN = Path(__file__).with_name("former_plugin.py")


@pytest.mark.parametrize("name", sorted(deprecated.NAMES))
def test_a_former_name_is_the_present_one(name):
    module, _, attribute = name.rpartition(".")
    home, _, present = deprecated.NAMES[name].rpartition(".")
    value = getattr(import_module(home), present)
    with pytest.warns(DeprecationWarning, match=deprecated.NAMES[name]):
        assert getattr(import_module(module), attribute) is value


@pytest.mark.parametrize("name", sorted(deprecated.MODULES))
def test_a_former_module_has_no_other_names(name):
    assert not hasattr(import_module(name), "nonsense")


def test_a_plugin_of_the_former_names_trains(make_run):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = make_run(str(PLUGIN), task="sums", steps=2, batch_size=2, max_new_tokens=12)
        train(run)
    rows = [json.loads(x) for x in (run.record.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["former/rows"] for row in rows] == [2.0, 2.0]
    said = {str(warning.message) for warning in warned}
    for present in ("alignzoo.rollout.complete", "'progress_metric'", "run.log_mean", "iterations"):
        assert any(present in text for text in said), present
