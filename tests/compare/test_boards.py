"""The tables in the README, and the numbers of the findings, are those of the published boards."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from alignzoo.cli import status

ROOT = Path(__file__).parents[2]
BOARDS = Path("benchmarks/results/board")


@pytest.mark.slow
def test_the_readme_and_the_findings_show_the_published_boards(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)  # tables name the folders of boards as the command does
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", page)
    boards = [str(path.parent) for path in sorted(BOARDS.glob("*/board.json"))]
    words = ["leaderboard", *boards, "--apart", "--out", str(tmp_path / "all")]
    assert status([*words, "--markdown", str(page)]) == 0
    capfd.readouterr()
    assert page.read_text() == (ROOT / "README.md").read_text(), "run: make leaderboard"
    tables = (tmp_path / "all/table.md").read_text()
    findings = (ROOT / "benchmarks/board/FINDINGS.md").read_text()
    estimates = set(re.findall(r"[+-]?\d\.\d{3} \[[^]]+\]", findings))
    assert estimates and not [text for text in estimates if text not in tables]
