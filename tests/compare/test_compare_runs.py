"""`alignzoo compare` with real runs: killed at any time, it ends in the same rows."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from alignzoo_compare.board import read_board

GRID = """
entries: [sft]
tasks: [style]
seeds: 1
trials: 1
budget: 6e9flops
eval_size: 10
common: {batch_size: 4}
"""
MISSING = 120  # seconds without any new row, after which the program hangs


def start(folder):
    grid = folder.with_suffix(".yaml")
    grid.write_text(GRID)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "alignzoo",
            "compare",
            "--grid",
            grid,
            "--jobs",
            "1",
            "--out",
            folder,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def results(folder):
    """Return what is the same whenever and however often a board was stopped."""
    found = {}
    for row in read_board(folder).rows:
        kept = {k: row[k] for k in row if k not in ("environment", "ledger", "fingerprints")}
        kept["flops"] = row["ledger"]["total_flops"]
        found[row["kind"], row["entry"], row["number"]] = kept
    return found


def wait_for_rows(folder, count, process):
    path = folder / "cells.jsonl"
    for _ in range(MISSING * 20):
        if path.exists() and path.read_text().count("\n") >= count:
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("no new row")


@pytest.mark.long
@pytest.mark.timeout(1200)  # four programs, on a machine that may be busy
def test_a_comparison_that_is_killed_ends_in_the_same_rows(tmp_path):
    whole = start(tmp_path / "whole")
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    rows = results(tmp_path / "whole")
    assert {row["status"] for row in rows.values()} == {"finished"}
    assert len(rows) == 6

    stopped = tmp_path / "stopped"
    for count, number in ((1, signal.SIGKILL), (3, signal.SIGTERM)):
        process = start(stopped)
        wait_for_rows(stopped, count, process)
        if number == signal.SIGKILL:
            os.kill(process.pid, number)
        else:
            os.killpg(process.pid, number)
        output, _ = process.communicate()
        assert process.returncode == (-9 if number == signal.SIGKILL else 143), output
    assert "to go on" in output
    again = start(stopped)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert results(stopped) == rows

    one = json.loads((stopped / "cells.jsonl").read_text().splitlines()[0])
    assert one["entry"] == "base"
    assert one["ledger"]["feedback"]["verifier_calls"] == 10
