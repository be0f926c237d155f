"""Trouble of on-policy training, named in words while it happens.

Every step's metrics are looked at, the last few against the first few. An alarm rings once, and
again only after it has been silent; `--stop-on-alarm NAME` ends the run with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput, nearest
from alignzoo.run import Run

WINDOW = 5  # steps whose mean is looked at
FAR = 50.0  # nats from the reference per completion, where a reward no longer means what it did
MetricsRow = Mapping[str, float]


@dataclass(frozen=True)
class Past:
    """The metrics of all steps, oldest first, and the scores of the evaluations in their order."""

    rows: Sequence[MetricsRow]
    scores: Sequence[Mapping[str, Any]] = ()

    def first(self, name: str) -> float | None:
        return window_mean(self.rows[:WINDOW], name)

    def last(self, name: str) -> float | None:
        return window_mean(self.rows[-WINDOW:], name)


def window_mean(rows: Sequence[MetricsRow], name: str) -> float | None:
    """The mean of a metric over a whole window; None where it is not in all of its rows."""
    values = [row[name] for row in rows if name in row]
    return sum(values) / WINDOW if len(values) == WINDOW else None


def check_ties(past: Past) -> str | None:
    """No group has two completions of different reward: there is nothing to learn from."""
    share = past.last("frac_reward_zero_std")
    if share is None or share < 1.0:
        return None
    return (
        f"all groups are tied for {WINDOW} steps: the completions of a prompt got the same reward, "
        "so nothing is learnt; take easier or harder prompts, or a finer reward"
    )


def check_entropy(past: Past) -> str | None:
    """Completions have all but lost their variety: a tenth of the entropy at the start."""
    before, now = past.first("entropy"), past.last("entropy")
    if before is None or now is None or now > 0.1 * before:
        return None
    return (
        f"entropy collapse: {now:.3g} nats per token, at the start {before:.3g}; completions "
        "hardly differ any more. Try a lower --learning-rate, an entropy bonus or a larger group"
    )


def check_kl(past: Past) -> str | None:
    """Further from the reference than `FAR`, where rewards and log-probs mean little."""
    per_token, length = past.last("kl"), past.last("completions/mean_length")
    if per_token is None or length is None or per_token * length < FAR:
        return None
    return (
        f"KL runaway: {per_token * length:.0f} nats per completion from the reference; try a lower "
        "--learning-rate or a larger --beta"
    )


def check_length(past: Past) -> str | None:
    """Twice as long as at the start, and half of the completions are cut off."""
    name = "completions/mean_length"
    before, now, clipped = past.first(name), past.last(name), past.last("completions/clipped_ratio")
    if before is None or now is None or clipped is None or now < 2 * before or clipped < 0.5:
        return None
    return (
        f"length explosion: {now:.0f} tokens, at the start {before:.0f}, and {clipped:.0%} of the "
        "completions are cut off; add --reward length,most=... or a larger --max-new-tokens"
    )


def check_overoptimised(past: Past) -> str | None:
    """The reward is above where it was, while the score lies below its best, interval by interval:
    the reward is being exploited (Gao et al. 2022, https://arxiv.org/abs/2210.10760).
    """
    before, now = past.first("reward"), past.last("reward")
    if before is None or now is None or now <= before or len(past.scores) < 2:
        return None
    best, latest = max(past.scores, key=lambda s: s["mean"]), past.scores[-1]
    if latest["high"] is None or best["low"] is None or latest["high"] >= best["low"]:
        return None
    return (
        f"over-optimisation: the reward rose from {before:.3g} to {now:.3g} while the score fell "
        f"from {best['mean']:.3g} to {latest['mean']:.3g}; stop earlier, or keep nearer to the "
        "reference"
    )


ALARMS: dict[str, Callable[[Past], str | None]] = {
    "ties": check_ties,
    "entropy": check_entropy,
    "kl": check_kl,
    "length": check_length,
    "overoptimised": check_overoptimised,
}


class Alarms:
    """Registered with every run. `stop_on` names the alarms that end it."""

    def __init__(self, stop_on: Sequence[str] = ()):
        for name in stop_on:
            if name not in ALARMS:
                raise BadInput(
                    f"option --stop-on-alarm: no alarm {name!r}", hint=nearest(name, ALARMS)
                )
        self.stop_on = stop_on
        self.rows: list[dict[str, float]] = []
        self.read = False
        self.ringing: set[str] = set()

    @hookimpl(trylast=True)
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        """Say what has begun to ring, log what rings, and stop if that was asked for."""
        if not self.read:  # of a run that goes on, what came before is on disk
            self.rows, self.read = run.record.read_metrics(step), True
            self.ringing = {name for name, _ in find_alarms(self.past(run))}
        self.rows.append(dict(metrics))
        found = dict(find_alarms(self.past(run)))
        for name, text in found.items():
            metrics[f"alarms/{name}"] = 1.0
            if name not in self.ringing:
                run.ui.note(f"step {step}: {text}")
                if name in self.stop_on:
                    run.stop(f"alarm {name!r} at step {step}")
        self.ringing = set(found)

    def past(self, run: Run) -> Past:
        phases = run.record.facts["results"].items()
        scores = [
            found["score"] for phase, found in phases if phase != "after" and "score" in found
        ]
        return Past(self.rows, scores)


def find_alarms(past: Past) -> list[tuple[str, str]]:
    """The alarms that ring, each with what it says; none before there are two whole windows."""
    if len(past.rows) < 2 * WINDOW:
        return []
    found = ((name, alarm(past)) for name, alarm in ALARMS.items())
    return [(name, text) for name, text in found if text is not None]
