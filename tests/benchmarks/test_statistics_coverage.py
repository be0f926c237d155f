"""Simulated boards with a known truth, fewer than `benchmarks/statistics` draws."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "statistics" / "coverage.py"
BOARDS = 400


@pytest.fixture(scope="module")
def coverage():
    # By its path: a package named coverage exists.
    spec = importlib.util.spec_from_file_location("statistics_coverage", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("score", ["smooth", "binary"])
def test_the_truth_is_the_mean_of_many_boards(coverage, score):
    regime = coverage.Regime(10, 100, score, "both")
    drawn = coverage.draw_scores(np.random.default_rng(0), regime, [-0.2, 0.3], 2000)
    truth = [coverage.true_mean(regime, -0.2, base=True), coverage.true_mean(regime, 0.3)]
    assert drawn.mean((1, 2, 3)) == pytest.approx(truth, abs=3e-3)


def test_intervals_cover_what_they_say(coverage):
    """A share of 400 lies within 4% of its expectation of 95% but once in 4000 times."""
    rng = np.random.default_rng(0)
    for spread in coverage.SPREADS:
        row = coverage.measure_coverage(rng, coverage.Regime(5, 100, "binary", spread), BOARDS)
        assert 0.91 < row["mean"] < 0.99 and 0.91 < row["difference"] < 0.99


def test_equal_entries_are_seldom_told_apart_and_others_never_the_wrong_way(coverage):
    rng = np.random.default_rng(0)
    regime = coverage.Regime(5, 100, "smooth", "both")
    assert coverage.measure_false_claims(rng, regime, [0.0] * 5, 200) < 0.1
    assert coverage.measure_false_claims(rng, regime, [0.0, 0.2, 0.4], 200) < 0.1


def test_the_least_detectable_difference_is_found_four_times_in_five(coverage):
    row = coverage.measure_power(np.random.default_rng(0), 5, BOARDS)
    assert row["found"] == pytest.approx(0.8, abs=0.08)


def test_a_bootstrap_covers_less_with_few_seeds(coverage):
    row = coverage.measure_others(np.random.default_rng(0), 3, "both", BOARDS)
    assert row["two-way bootstrap"] < 0.93 < row["alignzoo"]


def test_the_committed_tables_are_those_of_the_committed_numbers(coverage):
    numbers = json.loads((coverage.RESULTS / "coverage.json").read_text(encoding="utf-8"))
    text = (coverage.RESULTS / "coverage.md").read_text(encoding="utf-8")
    assert numbers["simulations"] >= 2000
    for name in coverage.TITLES:
        assert coverage.format_table(name, numbers[name]) in text
