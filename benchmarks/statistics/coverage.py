"""Check the statistics of `alignzoo compare` on simulated boards whose truth is known.

    python benchmarks/statistics/coverage.py

On the scale of a normal quantile, a score is the sum of its entry's level, a deviation of the
entry's seed, of the item, of the entry on that item, and a rest. The score is the normal
probability of that (smooth) or whether that plus one more normal variable is above 0 (binary). Both
have the mean Phi(level / sqrt(1 + sum of the variances)).
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import typer
from scipy.special import ndtr
from scipy.stats import t

from alignzoo_compare.statistics.behrens_fisher import Array
from alignzoo_compare.statistics.intervals import MeanVariance, split_variance
from alignzoo_compare.statistics.multiple import (
    correct_by_holm,
    least_detectable_difference,
    split_pair_variance,
)

RESULTS = Path(__file__).parents[1] / "results" / "statistics"
LEVEL, BASE_LEVEL = 0.3, -0.2
ENTRIES = 8
ALPHA = 0.05
BOOTSTRAPS = 400

# Standard deviations of seeds, items, entry on item, and rest.
SPREADS = {
    "seeds": (0.4, 0.3, 0.1, 0.3),
    "both": (0.15, 0.8, 0.4, 0.5),
    "items": (0.03, 1.0, 0.5, 0.5),
}


@dataclass(frozen=True)
class Regime:
    """What a board is like: how many seeds and items, and what its scores vary by."""

    seeds: int
    items: int
    score: str  # smooth or binary
    spread: str  # seeds, both or items


def list_regimes(items: Sequence[int] = (100, 200)) -> list[Regime]:
    """Return all combinations."""
    return [Regime(*each) for each in product((2, 3, 5, 10), items, ("smooth", "binary"), SPREADS)]


def draw_scores(
    rng: np.random.Generator, regime: Regime, levels: Sequence[float], boards: int
) -> Array:
    """Return scores [entries, boards, S, I]. The first entry is the base, which trains no seed.

    All entries of a board have the same items.
    """
    seed_sd, item_sd, own_sd, rest_sd = SPREADS[regime.spread]
    seeds, items = regime.seeds, regime.items
    difficulty = rng.normal(0, item_sd, (boards, 1, items))
    scores = []
    for index, level in enumerate(levels):
        latent = level + difficulty + rng.normal(0, own_sd, (boards, 1, items))
        if index > 0:
            latent = latent + rng.normal(0, seed_sd, (boards, seeds, 1))
        latent = latent + rng.normal(0, rest_sd, (boards, seeds, items))
        smooth = ndtr(latent)
        scores.append(
            smooth
            if regime.score == "smooth"
            else (rng.random(smooth.shape) < smooth).astype(float)
        )
    return np.stack(scores)


def true_mean(regime: Regime, level: float, base: bool = False) -> float:
    """Return the mean that the scores of an entry with this level are drawn with."""
    seed_sd, *others = SPREADS[regime.spread]
    variance = sum(sd**2 for sd in others) + (0 if base else seed_sd**2)
    return float(ndtr(level / np.sqrt(1 + variance)))


def measure_coverage(rng: np.random.Generator, regime: Regime, boards: int) -> dict[str, Any]:
    """Return how often the intervals of a mean and of a difference to the base hold the truth."""
    base, entry = draw_scores(rng, regime, [BASE_LEVEL, LEVEL], boards)
    truth, base_truth = true_mean(regime, LEVEL), true_mean(regime, BASE_LEVEL, base=True)
    row = asdict(regime)
    found = {"mean": (entry, truth), "difference": (entry - base, truth - base_truth)}
    for name, (scores, expected) in found.items():
        means = split_variance(scores)
        width = means.half_width
        row[name] = float(np.mean(np.abs(means.mean - expected) <= width))
        row[f"{name}_half_width"] = float(np.median(width))
    return row


def measure_false_claims(
    rng: np.random.Generator, regime: Regime, levels: Sequence[float], boards: int
) -> float:
    """Return on what share of boards any two entries of one level are told apart, or wrong ones.

    All pairs are compared, with Holm's correction. A claim is false if the entry that is told to be
    better has no higher level.
    """
    pairs = []
    for _ in range(boards):
        # Level 0 is left out: it is the base, whose true mean at a level is another.
        scores = draw_scores(rng, regime, [0.0, *levels], 1)[1:, 0]
        pairs.append(split_pair_variance(scores))
    fields = ("mean", "seeds", "items", "rest", "df_seeds", "df_items")
    stacked = MeanVariance(
        *(np.stack([getattr(pair, field) for pair in pairs]) for field in fields)
    )
    i, j = np.triu_indices(len(levels), 1)
    gaps = np.asarray(levels)[i] - np.asarray(levels)[j]
    p_values = stacked.p_value
    correct_by_holm(p_values[0])  # imports statsmodels
    gc.freeze()  # statsmodels collects garbage at each call: leave it little to look through
    apart = np.array([correct_by_holm(p) < ALPHA for p in p_values])
    gc.unfreeze()
    return float(np.mean((apart & (np.sign(stacked.mean) != np.sign(gaps))).any(-1)))


def measure_power(rng: np.random.Generator, seeds: int, boards: int) -> dict[str, Any]:
    """Return how often a difference as large as the least detectable one is found: of 80%.

    The differences are normal. Half of the variance of their mean is by items, a quarter by seeds
    and a quarter by the rest.
    """
    items, quarter = 200, 1e-4
    by_seed, by_item, rest, df_seeds, df_items = map(
        np.array, (2 * quarter, 2 * quarter, quarter, seeds - 1.0, items - 1.0)
    )
    variances = MeanVariance(np.array(0.0), by_seed, by_item, rest, df_seeds, df_items)
    least = least_detectable_difference(variances)
    scores = least + rng.normal(0, np.sqrt(quarter * seeds * items), (boards, seeds, items))
    scores += rng.normal(0, np.sqrt(quarter * seeds), (boards, seeds, 1))
    scores += rng.normal(0, np.sqrt(2 * quarter * items), (boards, 1, items))
    found = float(np.mean(split_variance(scores).p_value < ALPHA))
    return {"seeds": seeds, "least_detectable": least, "found": found}


def measure_others(
    rng: np.random.Generator, seeds: int, spread: str, boards: int
) -> dict[str, Any]:
    """Return how often other intervals of a mean hold the truth, smooth scores, 200 items."""
    regime = Regime(seeds, 200, "smooth", spread)
    scores = draw_scores(rng, regime, [BASE_LEVEL, LEVEL], boards)[1]
    truth = true_mean(regime, LEVEL)
    means = split_variance(scores)
    variance = means.seeds + means.items
    satterthwaite = variance**2 / (
        means.seeds**2 / means.df_seeds + means.items**2 / means.df_items
    )
    distance = np.abs(means.mean - truth)
    low, high = bootstrap_two_ways(rng, scores)
    by_item = scores.mean(1)
    item_error = by_item.std(-1, ddof=1) / np.sqrt(regime.items)
    quantile = 1 - ALPHA / 2
    half_widths = {
        "alignzoo": means.half_width,
        "Satterthwaite": t.ppf(quantile, satterthwaite) * np.sqrt(variance),
        "Student over seeds": t.ppf(quantile, seeds - 1) * np.sqrt(means.seeds),
        "Student over items": t.ppf(quantile, regime.items - 1) * item_error,
    }
    row = {name: float(np.mean(distance <= half)) for name, half in half_widths.items()}
    bootstrap = float(np.mean((low <= truth) & (truth <= high)))
    return {"seeds": seeds, "spread": spread, **row, "two-way bootstrap": bootstrap}


def bootstrap_two_ways(rng: np.random.Generator, scores: Array) -> tuple[Array, Array]:
    """Return the ends of percentile intervals of means of scores [boards, S, I].

    Seeds and items are drawn again apart: the bootstrap of Owen, "The pigeonhole bootstrap" (2007).
    """
    boards, seeds, items = scores.shape
    ends = np.empty((2, boards))
    for index in range(boards):
        seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), BOOTSTRAPS)
        item_counts = rng.multinomial(items, np.full(items, 1 / items), BOOTSTRAPS)
        means = ((seed_counts @ scores[index]) * item_counts).sum(-1) / (seeds * items)
        ends[:, index] = np.percentile(means, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return ends[0], ends[1]


def run_all(simulations: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of a table and a row of it, one measurement after the other."""
    rng = np.random.default_rng(seed)
    for regime in list_regimes():
        yield "coverage", measure_coverage(rng, regime, simulations)
    for regime in list_regimes(items=(200,)):
        equal = measure_false_claims(rng, regime, [0.0] * ENTRIES, simulations)
        levels = [0.6, 0.3, 0.3, *[0.0] * (ENTRIES - 3)]
        mixed = measure_false_claims(rng, regime, levels, simulations)
        yield "false_claims", {**asdict(regime), "all_equal": equal, "three_levels": mixed}
    for seeds in (2, 3, 5, 10):
        yield "power", measure_power(rng, seeds, simulations)
        for spread in SPREADS:
            yield "other_intervals", measure_others(rng, seeds, spread, simulations)


TITLES = {
    "coverage": "Coverage of 95% intervals: the mean of an entry, and its paired difference to the "
    "base. `varies by` says what most of the variance is by",
    "false_claims": f"Boards of {ENTRIES} entries on which any claim of a difference is false",
    "power": "How often a difference as large as the least detectable one is found; 80% is meant",
    "other_intervals": "What other intervals of a mean cover (smooth scores, 200 items)",
}
HEADINGS = {"spread": "varies by", "mean_half_width": "± (median)",
            "difference_half_width": "± (median)"}  # fmt: skip
SHARES = {"mean", "difference", "all_equal", "three_levels", "found"}


def format_table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a table in Markdown, shares as percentages."""
    columns = list(rows[0])
    lines = [
        "| " + " | ".join(HEADINGS.get(c, c.replace("_", " ")) for c in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for row in rows:
        cells = [format_cell(name, column, row[column]) for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_cell(table: str, column: str, value: Any) -> str:
    """Return one cell; coverage outside of 95% ± 1.5% is marked as too high or too low."""
    if not isinstance(value, float):
        return str(value)
    if column not in SHARES and table != "other_intervals":
        return f"{value:.3f}"
    mark = ""
    if table == "coverage" and abs(value - 0.95) > 0.015:
        mark = " (above)" if value > 0.95 else " (below)"
    return f"{100 * value:.1f}%{mark}"


def main(simulations: int = 2000, seed: int = 0, out: Path = RESULTS) -> None:
    """Simulate the boards, and write the tables to `coverage.md` and `coverage.json`."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TITLES}
    for name, row in run_all(simulations, seed):
        tables[name].append(row)
        print(name, *row.values(), flush=True)
    command = "python benchmarks/statistics/coverage.py"
    if (simulations, seed) != (2000, 0):
        command += f" --simulations {simulations} --seed {seed}"
    parts = [f"    {command}", f"{simulations} simulated boards for each row."]
    parts += [f"## {title}\n\n{format_table(name, tables[name])}" for name, title in TITLES.items()]
    out.mkdir(parents=True, exist_ok=True)
    (out / "coverage.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    result = {"command": command, "simulations": simulations, "seed": seed, **tables}
    (out / "coverage.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
