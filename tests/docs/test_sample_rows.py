"""The sample rows on the pages of the algorithms are rows that their views accept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alignzoo import Demonstrations, Feedback, Preferences, Prompts, Steps, Text, discovery

DATA = Path(__file__).parents[2] / "docs/data.md"
VIEWS = {view.__name__: view for view in (Demonstrations, Feedback, Preferences, Prompts, Text)}
VIEWS["Steps"] = Steps.separated_by("\n")


@pytest.mark.parametrize("name", list(discovery.discover("algorithms")))
def test_a_sample_row_fits_its_view(name):
    source = discovery.find_plugin("algorithms", name).source
    assert source is not None
    check_rows(source.parent / "README.md")


def test_the_page_of_data_has_a_row_of_every_view():
    assert check_rows(DATA) == set(VIEWS)


def check_rows(page: Path) -> set[str]:
    """Check that views accept the rows of a page, and return their names."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^\*\*Data\.\*\* `(\w+)`.*?^```json\n(.*?)^```", text, re.M | re.S)
    assert blocks
    for view, rows in blocks:
        for line in rows.splitlines():
            row = VIEWS[view].canonical(json.loads(line))
            assert set(VIEWS[view].columns) <= row.keys()
    return {view for view, _ in blocks}
