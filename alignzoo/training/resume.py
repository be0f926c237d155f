"""Save a run between two steps, also when a signal ends it, and resume it bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from alignzoo import signals
from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy.sharding import own_part
from alignzoo.run import Run
from alignzoo.signals import Interrupted
from alignzoo.training import checkpoint
from alignzoo.training.optimizer import flatten_optimizer, restore_optimizer
from alignzoo.training.rounds import Round


def save_checkpoint(
    run: Run,
    optimizer: torch.optim.Optimizer,
    current: Round | None = None,
    *,
    evaluate: bool = False,
) -> None:
    """Write a checkpoint between two rounds, or in the middle of the `current` one.

    With `evaluate`, an evaluation is due before the next round. All processes call it; the main
    one writes.
    """
    plugins = run.states.snapshot()
    state = {
        "round": run.round,
        "plugins": plugins.shared,
        "states": plugins.values,
        "stopped": run.schedule.stopped,
        "evaluate": evaluate,
    }
    batches = []
    if current is not None:
        batches = run.world.gather_each(current.batch)  # every process has a part of it
        state["current"] = {
            "began": current.began,
            "rows": current.rows,
            "done": current.done,
            "processes": run.world.size,
            "metrics": run.round_metrics.numbers,
        }
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    moments, state["optimizer"] = flatten_optimizer(optimizer, names)
    weights = run.model.state()
    check_weights(run, weights)
    shards = write_parts(run, weights, moments) if run.model.sharding.active else None
    if not run.world.is_main:
        return
    run.record.flush()
    checkpoint.write_checkpoint(
        run.record.checkpoints,
        run.step,
        weights,
        moments,
        {**state, "ledger": run.ledger.as_dict()},
        batches,
        plugins.tensors,
        shards,
    )
    run.record.set_status("running", run.ledger)


def write_parts(run: Run, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> Path:
    """Write what this process holds of the weights and the optimizer, and return the folder."""
    made = checkpoint.shards_folder(run.record.checkpoints, run.step) if run.world.is_main else None
    folder: Path = run.world.gather_each(made)[0]  # type: ignore[assignment]  # the main one's
    checkpoint.write_shards(folder, weights, moments)
    return folder


def check_weights(run: Run, weights: Mapping[str, Tensor]) -> None:
    """Raise `RunFailed` if a weight is not finite: no checkpoint and no result has such."""
    names = (name for name, x in weights.items() if not torch.isfinite(own_part(x)).all())
    broken = next(filter(None, run.world.gather_each(next(names, None))), None)
    if broken is not None:
        raise RunFailed(
            f"the weights are not finite after step {run.step}: {broken}",
            hint="try a lower --learning-rate; the last checkpoint is intact",
        )


def choose_checkpoint(run: Run) -> Path | None:
    """Return the newest intact checkpoint, None if the run has none yet.

    Delete damaged ones that are newer, and say so. Raise `BadInput` if all are damaged.
    """
    damages: list[str] = []
    chosen = None
    if run.world.is_main:
        for path in checkpoint.find_checkpoints(run.record.checkpoints):
            damage = checkpoint.find_damage(path)
            if damage is None:
                chosen = path
                break
            damages.append(f"{path.name}: {damage}")
    # One process decides: all of them take the same checkpoint.
    chosen, damages = run.world.gather_each((chosen, damages))[0]
    if damages and chosen is None:
        raise BadInput(
            "no checkpoint is intact: " + "; ".join(damages),
            where=str(run.record.checkpoints),
            hint="delete this folder, and the run resumes from its first step",
        )
    if chosen is None:
        return None
    for damage in damages:
        run.ui.note(f"checkpoint {damage}; taking {chosen.name} instead")
    if run.world.is_main:
        checkpoint.delete_others(chosen)
    return chosen


def restore_states(run: Run) -> Path | None:
    """Restore the state of the plugins from the last intact checkpoint, once.

    Return that checkpoint, None if there is none yet.
    """
    if run.states.source is None:
        path = choose_checkpoint(run)
        if path is None:
            return None
        saved = checkpoint.read_snapshot(path)
        run.states.restore(saved, run.device)
        if not saved.values:
            adopt_shared(run, saved.shared)
        run.states.source = path
    return run.states.source


def adopt_shared(run: Run, shared: Mapping[str, float]) -> None:
    """Copy the numbers `PREFIX/KEY` of an older checkpoint to the state of the plugins.

    Each goes to the plugin of the name PREFIX, or to the algorithm if there is none.
    """
    for name, value in shared.items():
        prefix, _, key = name.rpartition("/")
        owner = run.plugins.get_plugin(prefix) or run.algorithm
        run.state_of(owner)[key] = value


def resume_run(run: Run, optimizer: torch.optim.Optimizer) -> tuple[Round | None, bool]:
    """Restore the last intact checkpoint if there is one, and delete what was logged after it.

    Return the round in whose middle it was written, None if it was written between rounds, and
    whether an evaluation is due first.
    """
    path = restore_states(run)
    if path is None:
        run.record.rewind(0)
        return None, False
    like = dict(run.model.named_parameters())
    weights, moments, state = checkpoint.read_checkpoint(path, like)
    run.model.load_state(weights)
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    restore_optimizer(optimizer, moments, names, state.get("optimizer"))
    run.schedule.step, run.schedule.round = state["step"], state["round"]
    run.states.shared = state["plugins"]  # a former plugin's `alignzoo_start` may have set some
    run.schedule.stopped = state.get("stopped")
    run.ledger.restore(state["ledger"])
    run.record.rewind(run.step)
    run.ui.note(f"resumed at step {run.step}")
    if "current" not in state:
        return None, state["evaluate"]
    left = state["current"]
    if left["processes"] != run.world.size:
        raise BadInput(
            f"this checkpoint is of the middle of a round of {left['processes']} processes",
            where=str(path),
            hint="resume the run with as many",
        )
    run.round_metrics.restore(left["metrics"])
    batch = checkpoint.read_batch(path, run.world.rank)
    rows = left["rows"] if "rows" in left else run.order.batch(run.round)  # an older checkpoint
    return Round(batch, rows, left["began"], left["done"]), False


def is_due(run: Run, every: int, since: int) -> bool:
    """Return whether a multiple of `every` steps has passed after step `since`."""
    return every > 0 and run.step // every > since // every


def gather_signal(run: Run) -> int:
    """Return the number of a signal that any process has received; 0 if none has."""
    if run.world.size == 1:
        return signals.received()
    return max(run.world.gather_each(signals.received()))


@contextmanager
def saved_if_interrupted(
    run: Run, optimizer: torch.optim.Optimizer, *, evaluate: bool = False
) -> Iterator[None]:
    """Let a signal end the block at once, and save a checkpoint of the run as it was before.

    Several processes must agree on where they stop: for them the signal waits until the next step.
    """
    ledger, states = run.ledger.as_dict(), run.states.snapshot().copied()
    try:
        with signals.deferred(run.world.size > 1):
            if signals.received() and run.world.size == 1:
                raise Interrupted(signals.received())
            yield
    except Interrupted:
        run.ledger.restore(ledger)
        run.states.restore(states, run.device)
        save_checkpoint(run, optimizer, evaluate=evaluate)
        raise
