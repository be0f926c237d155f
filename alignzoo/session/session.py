"""Execute a recipe: the implementation of `alignzoo run`, which Python can call as well."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from alignzoo import discovery, record
from alignzoo.algorithm import Traits
from alignzoo.changes import describe_platform
from alignzoo.data import Codec, Data, Prompts, parse_data
from alignzoo.errors import BadInput, count
from alignzoo.evaluation import Evaluation, estimates_of, evaluate_run
from alignzoo.fingerprints import core_hash
from alignzoo.functional import learning_rate_for_width
from alignzoo.ledger import Ledger, reset_peak_memory
from alignzoo.named import label_of
from alignzoo.policy import ModelSpec, Policy
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.recipe import Recipe, resolve, update_stored
from alignzoo.remote import is_url
from alignzoo.run import Run
from alignzoo.run.schedule import Schedule
from alignzoo.run.server_teacher import ServerTeacher
from alignzoo.run.teacher import BASE, AnyTeacher, Teacher
from alignzoo.run.world import World
from alignzoo.session.assemble import Participants, assemble
from alignzoo.session.inputs import fit_length, load_run_policy, read_data
from alignzoo.session.learned import RewardTrainer, charge_reward_model
from alignzoo.session.longest_step import try_longest_step
from alignzoo.session.processes import naming_lost_processes, shard_model
from alignzoo.session.trackers import check_trackers, start_trackers
from alignzoo.training.accounts import charge_time
from alignzoo.training.evaluations import share_scores
from alignzoo.training.loop import train
from alignzoo.training.reference_cache import cache_reference
from alignzoo.training.resume import restore_states
from alignzoo.ui import UI, Silent

# Below this number of parameters, one thread is used on a CPU. A second one does not pay off, and
# slows down a lot if another program uses that core: measured, a demo of 30 s took 10 minutes.
ONE_THREAD_BELOW = 5_000_000


@dataclass
class Result:
    """The result of a run.

    Args:
        folder: where it is saved.
        before, after: its evaluations; None without --eval-size, and in all processes but one.
        status: as in `run.json`.
        ledger: what it has spent.
        generates: False if its model answers no prompts (a reward model).
        trains: False if it has saved no model (a baseline).
    """

    folder: Path
    before: Evaluation | None
    after: Evaluation | None
    status: str
    ledger: Ledger
    generates: bool = True
    trains: bool = True


@dataclass(frozen=True)
class Permissions:
    """Permissions that only the command line can give, never a recipe.

    Args:
        trust_remote_code: run code that a model ships.
        allow_code: run programs that a model writes, in a sandbox.
        allow_changes: resume a run whose plugins or number of processes have changed.
    """

    trust_remote_code: bool = False
    allow_code: bool = False
    allow_changes: bool = False


def recipe_for(algorithm: str, *layers: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a run: the algorithm's defaults, then `layers`, later ones winning."""
    cls = discovery.load_plugin("algorithms", algorithm)
    return resolve(Traits.of(cls).defaults, *layers, {"algorithm": algorithm})


def execute(
    recipe: Recipe,
    *,
    resume: bool = False,
    trust_remote_code: bool = False,
    allow_code: bool = False,
    allow_changes: bool = False,
    ui: UI | None = None,
) -> Result:
    """Run a recipe: evaluate, train, evaluate, save.

    Raise `BadInput` if the recipe or its input is wrong, `RunFailed` if the run cannot go on. An
    error is recorded in `run.json` before it is raised, with the folder as its attribute `folder`.
    """
    permissions = Permissions(trust_remote_code, allow_code, allow_changes)
    # The run of a reward model inside this one leaves the processes connected.
    is_outermost = not torch.distributed.is_initialized()
    run = prepare(recipe, permissions, resume=resume, ui=ui or Silent())
    traits = Traits.of(run.algorithm)
    try:
        with naming_lost_processes(run.world.size):
            before, after = train_and_evaluate(run, permissions)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = None if interrupted else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk may be the error: what it holds can be resumed
            status: record.Status = "interrupted" if interrupted else "failed"
            run.record.set_status(status, run.ledger, error=reason)
        # The command line says where the run can be inspected and resumed.
        error.folder = run.record.folder  # type: ignore[attr-defined]
        if isinstance(error, BadInput) and not resume:
            run.record.discard_if_empty()
        raise
    finally:
        run.record.close()
        if is_outermost:
            run.accelerator.end_training()
    folder = run.record.folder
    return Result(folder, before, after, "finished", run.ledger, traits.generates, traits.trains)


def train_and_evaluate(
    run: Run, permissions: Permissions
) -> tuple[Evaluation | None, Evaluation | None]:
    """Start the plugins, evaluate, train, evaluate and save; return both evaluations."""
    traits = Traits.of(run.algorithm)
    started = time.perf_counter()
    start_plugins(run, allow_changes=permissions.allow_changes)
    try_longest_step(run, trust_remote_code=permissions.trust_remote_code)
    if run.recipe.cache_reference and traits.needs.reference:
        with run.model.sharding.whole():
            cache_reference(run)
    charge_time(run, started)
    before = evaluate_phase(run, "before")
    train(run)
    after = evaluate_phase(run, "after")
    saves = run.record.is_writer and traits.trains
    with run.model.sharding.whole():
        kind = run.model.save(run.record.folder, run.codec.stop_ids) if saves else ""
    run.record.finish(run.ledger, result=kind)
    return before, after


def start_plugins(run: Run, *, allow_changes: bool) -> None:
    """Restore the states of the plugins of a resumed run, load the teacher, start all plugins.

    Raise `BadInput` if a plugin that is loaded only now, as judges are, was another one when the
    run began, unless `allow_changes`.
    """
    restore_states(run)
    if Traits.of(run.algorithm).needs.teacher:
        run.forwards.loaded_teacher = load_teacher(run)
    with discovery.recording() as loaded, run.model.sharding.whole():
        run.hook.alignzoo_start(run=run)
    run.record.add_plugins([asdict(one) for one in loaded.values()], allow_changes=allow_changes)


def load_teacher(run: Run) -> AnyTeacher:
    """Load the model that `--teacher` names, which `check_teacher` has made sure of.

    Raise `BadInput` if its vocabulary is another one, if it is a reward model, or if it is on a
    server that does not answer.
    """
    name, four_bit = str(run.recipe.teacher), run.recipe.teacher_four_bit
    if name == BASE:
        return Teacher(run.model, is_base=True)
    if is_url(name):
        return connect_to_teacher(run, name)
    with run.ui.phase(f"loading {name}"):
        model = run.load_model(name, four_bit=four_bit, same_tokens=True)
    model.require_generative()
    return Teacher(model)


def connect_to_teacher(run: Run, name: str) -> ServerTeacher:
    """Return the teacher on a server, whose tokens are those of the run."""
    server = ServerTeacher(name, run.charge)
    if not server.check_vocabulary(run.model.tokenizer, run.recipe.model):
        run.ui.note(f"{server.client.url} does not say what its tokens are: are they the model's?")
    run.record.add_model(server.client.url, f"{server.model} on a server")
    return server


def prepare(recipe: Recipe, permissions: Permissions, *, resume: bool, ui: UI) -> Run:
    """Do everything up to the first round.

    The input is checked before the folder of the run is made, so that a refused run leaves nothing
    behind. Raise `BadInput` if the recipe or its input is wrong.
    """
    check_trackers(recipe.report_to)
    folder = choose_folder(recipe, resume)
    accelerator = Accelerator(log_with=recipe.report_to or None, project_dir=str(folder))
    trainer = RewardTrainer(
        recipe, ui, partial(execute, trust_remote_code=permissions.trust_remote_code)
    )
    with discovery.recording() as loaded:
        parts = assemble(recipe, trainer, allow_code=permissions.allow_code)
    check_processes(recipe, parts.traits, accelerator.num_processes)
    reset_peak_memory(accelerator.device)
    # Processes may start at different times: all use the name that was free for the main one.
    folder = broadcast_object_list([folder])[0]
    model = load_model(recipe, parts, accelerator.device, permissions, ui)
    shard_model(recipe, parts, model, accelerator)
    recipe = fit_length(recipe, model)
    data = read_data(recipe, parts, model, ui)
    with discovery.recording() as checked:
        parts.plugins.hook.alignzoo_check(recipe=recipe, data=data)
    facts = first_facts(recipe, {**loaded, **checked}.values(), model, data, accelerator)
    run = Run(
        recipe=recipe,
        algorithm=parts.algorithm,
        plugins=parts.plugins,
        model=model,
        codec=Codec(model.tokenizer),
        data=data,
        task=parts.task,
        record=record.open_record(
            folder,
            facts,
            update_stored,
            resume=resume,
            is_writer=accelerator.is_main_process,
            allow_changes=permissions.allow_changes,
        ),
        world=World(accelerator),
        ui=ui,
        learning_rate=recipe.learning_rate or default_learning_rate(recipe, parts.traits, model),
        schedule=Schedule(recipe, parts.traits.rounds, len(data.train)),
        model_spec=ModelSpec(
            recipe.model,
            precision=recipe.precision,
            trust_remote_code=permissions.trust_remote_code,
            device=model.device,
        ),
        reward_trainer=trainer.train_for,
        reward_weights={spec.label: spec.weight for spec, _ in parts.rewards},
        external_logprobs=parts.sampler.external_logprobs,
        environment=parts.environment,
    )
    run.record.set_fact("learning_rate", run.learning_rate)
    for folder_of_reward in parts.trained_rewards:
        reused = folder_of_reward in trainer.reused
        charge_reward_model(run.ledger, folder_of_reward, saved=reused)
    start_trackers(accelerator, recipe)
    ui.opened(folder)
    run.record.note = ui.note
    for line in [*run.record.notes, *describe_run(run)]:
        ui.note(line)
    return run


def check_processes(recipe: Recipe, traits: Traits, processes: int) -> None:
    """Raise `BadInput` if the algorithm cannot be split over several processes."""
    if processes > 1 and traits.couples_rows:
        raise BadInput(
            f"{recipe.algorithm}: this loss compares all rows of a batch and cannot be split over "
            f"{processes} processes",
            hint="run it in one process",
        )


def load_model(
    recipe: Recipe, parts: Participants, device: torch.device, permissions: Permissions, ui: UI
) -> Policy:
    """Load the recipe's model."""
    with ui.phase(f"loading {recipe.model}"):
        model = load_run_policy(recipe, parts.traits.needs, device, permissions.trust_remote_code)
    if model.device.type == "cpu" and model.parameter_count < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    return model


def choose_folder(recipe: Recipe, resume: bool) -> Path:
    """Return the folder of the run: `--name`, or a name made of algorithm, model and data."""
    sources = parse_data(recipe.data) if recipe.data is not None else []
    data = [source.stem for source in sources] or [label_of(recipe.task or "")]
    stem = "-".join([label_of(recipe.algorithm), Path(recipe.model).name, *data])
    if recipe.name is not None:
        return record.resolve_run_folder(recipe.output_dir, recipe.name)
    if not resume:
        return record.resolve_run_folder(
            recipe.output_dir, record.find_free_name(recipe.output_dir, stem)
        )
    return record.resolve_run_folder(
        recipe.output_dir, record.find_newest_name(recipe.output_dir, stem)
    )


def first_facts(
    recipe: Recipe,
    plugins: Iterable[discovery.Loaded],
    model: Policy,
    data: Data,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Return the first contents of `run.json`."""
    return {
        "recipe": recipe.as_dict(),
        "plugins": [asdict(one) for one in plugins],
        "fingerprints": {
            "model": model.fingerprint,
            **({"weights": model.trained_on} if model.trained_on else {}),
            "data": data.fingerprint,
            "code": core_hash(),
        },
        "environment": {**describe_platform(), "processes": accelerator.num_processes},
        "data": data.report.lines(),
        "results": {},
    }


def default_learning_rate(recipe: Recipe, traits: Traits, model: Policy) -> float:
    """Return the peak learning rate for a model and adapter if the recipe gives none."""
    rate = learning_rate_for_width(
        traits.learning_rate, hidden_size(model), adapter=recipe.adapter != "none"
    )
    return ADAPTERS[recipe.adapter].rate * rate


def describe_run(run: Run) -> list[str]:
    """Return the lines that are shown before the first step: model, data, steps, learning rate."""
    model, recipe = run.model, run.recipe
    trained = ADAPTERS[recipe.adapter].description.format(model.trainable_count)
    trains = Traits.of(run.algorithm).trains
    head = " with a score head" * (model.score_head is not None)
    head += " with a value head" * (model.value_head is not None)
    training = f"training {trained}{head}" if trains else "no training"
    width = hidden_size(model)
    chosen = "" if recipe.learning_rate else f", the default for a model {width} wide"
    steps = (
        f"{count(run.total_steps, 'step')} of {recipe.batch_size}"
        if run.total_steps
        else "until the budget is spent"
    )
    return [
        f"{recipe.model}: {model.parameter_count:,} parameters, {training}",
        *run.codec.notes,
        *(model.note.splitlines() if model.note else []),
        *run.data.report.lines(),
        *unused_length(run),
        *([f"{steps}, learning rate {run.learning_rate:.2g}{chosen}"] if trains else []),
    ]


def unused_length(run: Run) -> list[str]:
    """Return a note if `--max-new-tokens` is given and nothing is generated without evaluation."""
    default = Recipe("").max_new_tokens
    draws = run.algorithm.data is Prompts or hasattr(run.algorithm, "alignzoo_sample")
    given = run.recipe.max_new_tokens != default
    if draws or run.recipe.eval_size > 0 or not given:
        return []
    return ["--max-new-tokens has no effect: with --eval-size 0, nothing is generated"]


def hidden_size(model: Policy) -> int:
    """Return the width of the model's hidden states."""
    return model.model.config.get_text_config().hidden_size


def evaluate_phase(run: Run, phase: str) -> Evaluation | None:
    """Evaluate in the main process, or read the evaluation of a resumed run from disk.

    `phase` is "before" or "after". Return None in the other processes, without `--eval-size`, and
    before training with `--no-eval-before`.
    """
    if run.recipe.eval_size == 0 or (phase == "before" and not run.recipe.eval_before):
        return None
    with run.model.sharding.whole():
        found = find_evaluation(run, phase) if run.record.is_writer else None
    # What plugins made of the evaluation before training is in the state of a checkpoint.
    if phase == "after" or run.states.source is None:
        share_scores(run, phase, found.summary if found else None)
    return found


def find_evaluation(run: Run, phase: str) -> Evaluation:
    """Return the evaluation of a phase: that of a resumed run, or one that is made now."""
    if phase not in run.record.results:
        return evaluate_run(run, phase)
    if phase == "after":  # an answer may cost compute, which no checkpoint has
        run.record.restore_evaluated(run.ledger)
    return Evaluation(estimates_of(run, phase), run.record.read_evals(phase))
