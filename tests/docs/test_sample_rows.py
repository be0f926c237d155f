"""The sample rows on the pages of the algorithms are rows that their views accept."""

from __future__ import annotations

import json
import re

import pytest

from alignzoo import Demonstrations, Feedback, Preferences, Prompts, Steps, Text, discovery

VIEWS = {view.__name__: view for view in (Demonstrations, Feedback, Preferences, Prompts, Text)}
VIEWS["Steps"] = Steps.separated_by("\n")


@pytest.mark.parametrize("name", list(discovery.discover("algorithms")))
def test_a_sample_row_fits_its_view(name):
    source = discovery.find_plugin("algorithms", name).source
    assert source is not None
    page = (source.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\*\*Data\.\*\* `(\w+)`.*?^```json\n(.*?)^```", page, re.M | re.S)
    assert blocks
    for view, rows in blocks:
        for line in rows.splitlines():
            row = VIEWS[view].canonical(json.loads(line))
            assert set(VIEWS[view].columns) <= row.keys()
