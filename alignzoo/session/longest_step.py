"""Try the longest step that a run can have before its first, so that it cannot fail at its 120th.

On a GPU the passes are made, and what they leave is thrown away. On a CPU, where a process that
takes too much is killed, they are predicted.
"""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch
from alignzoo.data import Prompts
from alignzoo.errors import BadInput
from alignzoo.ledger import reset_peak_memory
from alignzoo.memory.fit import advice, fit_step
from alignzoo.memory.longest import longest_micro_batch
from alignzoo.memory.machine import Machine, free_memory, resident_memory, return_freed_memory
from alignzoo.memory.sizes import MOMENTS, STEP, RunEstimate, gigabytes
from alignzoo.memory.tracker import storage_bytes
from alignzoo.rollout import Sampling
from alignzoo.run import Run
from alignzoo.run.teacher import Teacher
from alignzoo.session.inputs import spec_of

# Bytes of activations of a token in a layer, per value of its hidden state: more than any model
# takes. Measured, a Llama of 135M parameters under LoRA takes 86.
MOST_PER_VALUE = 400
MOST_KEPT = 2  # times what tensors take, the most that a process was measured to take


def try_longest_step(run: Run, *, trust_remote_code: bool = False) -> None:
    """Lower the micro-tokens of a new run until its longest step fits the memory, and say so.

    Weights, optimizer, ledger and random numbers stay as they are. Raise `BadInput` with advice if
    not even one row fits. All processes call it, and end with the same number. Weights that are
    split over processes are left out: a pass needs all processes, also one that is out of memory.
    """
    begun = run.states.source is not None  # a checkpoint: its steps have fitted
    trains = Traits.of(run.algorithm).trains and len(run.data.train) > 0
    if begun or not trains or run.model.sharding.active:
        return
    before, refusal = run.micro_tokens, None
    try:
        on_cpu = run.device.type == "cpu"
        chosen = predict_on_cpu(run, trust_remote_code) if on_cpu else try_on_device(run)
    except BadInput as error:
        chosen, refusal = 0, error
    chosen, refusal = min(run.world.gather_each((chosen, refusal)), key=lambda found: found[0])
    if refusal is not None:
        raise refusal
    if chosen < before:
        run.record.set_fact("micro_tokens", chosen)
        run.ui.note(
            f"--micro-tokens {chosen} instead of {before}: the longest step does not fit the "
            "memory otherwise"
        )


def try_on_device(run: Run) -> int:
    """Return the most tokens per pass, halved until a pass over the longest rows fits."""
    micro_tokens = run.micro_tokens
    while True:
        longest = longest_micro_batch(run.data.train, run.algorithm, run.recipe, micro_tokens)
        if fits_device(run, longest.batch):
            return micro_tokens
        if len(longest.batch) == 1 or Traits.of(run.algorithm).couples_rows:
            raise BadInput(
                f"a step on the longest row ({sum(longest.batch.sizes()):,} tokens) does not fit "
                f"the memory of {run.device}",
                hint=advice(run.recipe),
            )
        micro_tokens //= 2


def fits_device(run: Run, batch: Batch) -> bool:
    """Make the passes of a step over a batch beside room for the optimizer's state.

    Return False if the device runs out of memory.
    """
    parameters = run.model.parameters()
    training = run.model.model.training
    run.model.train()
    try:
        # Random numbers are drawn by dropout.
        with torch.random.fork_rng(), run.free_of_charge():
            room = [torch.empty_like(p) for p in parameters for _ in range(MOMENTS)]
            make_passes(run, batch.to(run.device))
            del room
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        for parameter in parameters:
            parameter.grad = None
        run.model.train(training)
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        reset_peak_memory(run.device)


def make_passes(run: Run, batch: Batch) -> None:
    """Make the forward and backward passes that a loss makes, by what the algorithm needs."""
    needs = Traits.of(run.algorithm).needs
    if needs.score_head:
        run.scores(batch, per_token=True).sum().backward()
        return
    drawn = run.algorithm.data is Prompts
    outputs = run.policy(
        batch, entropy=drawn, values=needs.values is not None, temperature=run.temperature
    )
    total = outputs.logprobs.sum()
    if needs.values is not None:
        total = total + outputs.values.sum()
    if needs.reference and not drawn:
        run.reference(batch)
    if isinstance(run.forwards.loaded_teacher, Teacher):
        run.teacher(batch, hidden=True)
    total.backward()


def predict_on_cpu(run: Run, trust_remote_code: bool) -> int:
    """Return the most tokens per pass for which a step is predicted to fit.

    A bound that costs nothing comes first: most runs take a small part of the memory.
    """
    free = free_memory(run.device)
    if 2 * upper_bound(run) < free:
        return run.micro_tokens
    estimator = estimator_of(run, free, trust_remote_code)
    found: RunEstimate = fit_step(estimator.at, run.micro_tokens, run.recipe)
    growth = found.phases[STEP] - resident_memory()
    if MOST_KEPT * growth > free and return_freed_memory():
        run.ui.note(
            f"{gigabytes(free)} are free and a step takes {gigabytes(growth)}: freed memory goes "
            "back to the system at once, which takes time"
        )
    return found.micro_tokens


def upper_bound(run: Run) -> int:
    """Return more bytes than a step can take beside the weights."""
    longest = longest_micro_batch(run.data.train, run.algorithm, run.recipe, run.micro_tokens)
    config = run.model.model.config.get_text_config()
    tokens = run.model.work(longest.batch, shared=False).tokens
    values = tokens * config.num_hidden_layers * config.hidden_size
    logits = tokens * config.vocab_size
    trained = storage_bytes(run.model.parameters())
    return MOST_PER_VALUE * values + 4 * logits + 4 * trained


def estimator_of(run: Run, free: int, trust_remote_code: bool) -> Any:
    """Return the `RunEstimator` of a run whose weights are in memory already."""
    # Slow to import, and few runs come here.
    from alignzoo.memory.estimate import RunEstimator
    from alignzoo.policy.weightless import load_weightless

    needs = Traits.of(run.algorithm).needs
    spec = spec_of(run.recipe, needs, run.device, trust_remote_code)
    model = load_weightless(spec, None if run.recipe.precision != "bf16" else torch.bfloat16)
    resident = resident_memory()
    machine = Machine(
        name="this machine",
        device=run.device,
        memory=free + resident,
        base=max(resident - storage_bytes(model.tensors), 0),
        bf16=False,
        flops=1.0,
        bandwidth=1.0,
        source="",
    )
    return RunEstimator(
        model, run.data, run.algorithm, run.recipe, machine, Sampling.of(run.recipe, run.codec)
    )
