"""From a recipe to a finished run: what `alignzoo run` does, callable from Python as well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from alignzoo import discovery, record
from alignzoo.algorithm import (
    Needs,
    defaults_of,
    generates_of,
    learning_rate_of,
    needs_of,
    splits_of,
    trains_of,
)
from alignzoo.data import Codec, Data, Prompts, load_data, parse_data
from alignzoo.errors import BadInput
from alignzoo.evaluation import Estimate, Evaluation, evaluate
from alignzoo.functional import learning_rate_for_width
from alignzoo.ledger import Ledger
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.recipe import Recipe, resolve
from alignzoo.record import check_trackers, settings_for_trackers
from alignzoo.rewards import LEARNED, Named
from alignzoo.run.run import Run
from alignzoo.session.assemble import cast_for
from alignzoo.session.learned import charge, learned_reward
from alignzoo.training.loop import spend_time, train
from alignzoo.training.reference_cache import cache_reference
from alignzoo.ui import UI, Silent

# Products this small are over before a second thread has begun, and where another program has
# that core, waiting for it costs far more than it gives: measured, a demo of 30 s took 10 minutes.
ONE_THREAD_BELOW = 5_000_000  # parameters


@dataclass
class Result:
    """What a run came to. `generates`: whether its model answers prompts; `trains`: whether there
    is one."""

    folder: Path
    before: Evaluation | None
    after: Evaluation | None
    status: str
    ledger: Ledger
    generates: bool = True
    trains: bool = True


def recipe_for(algorithm: str, *layers: Mapping[str, Any]) -> Recipe:
    """The recipe of a run: the algorithm's defaults, then `layers`, the later ones winning."""
    cls = discovery.load("algorithms", algorithm)
    return resolve(defaults_of(cls), *layers, {"algorithm": algorithm})


def execute(
    recipe: Recipe,
    *,
    resume: bool = False,
    trust_remote_code: bool = False,
    allow_code: bool = False,
    ui: UI | None = None,
) -> Result:
    """Run a recipe: evaluate, train, evaluate, save. Raises what went wrong, after recording it."""
    run = prepare(
        recipe,
        resume=resume,
        trust_remote_code=trust_remote_code,
        allow_code=allow_code,
        ui=ui or Silent(),
    )
    try:
        started = time.perf_counter()
        run.hook.alignzoo_start(run=run)
        if recipe.cache_reference and needs_of(run.algorithm).reference:
            cache_reference(run)
        spend_time(run, started)
        before = evaluate_once(run, "before")
        train(run)
        after = evaluate_once(run, "after")
        saves = run.record.writes and trains_of(run.algorithm)
        kind = run.model.save(run.record.folder) if saves else ""
        run.record.set_status("finished", run.ledger, result=kind)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = None if interrupted else f"{type(error).__name__}: {error}"
        run.record.set_status("interrupted" if interrupted else "failed", run.ledger, error=reason)
        # For whoever reports the error: where the run can be looked at and taken up again.
        error.folder = run.record.folder  # type: ignore[attr-defined]
        if isinstance(error, BadInput) and not resume:
            run.record.withdraw()
        raise
    finally:
        run.accelerator.end_training()
    return Result(
        run.record.folder,
        before,
        after,
        "finished",
        run.ledger,
        generates=generates_of(run.algorithm),
        trains=trains_of(run.algorithm),
    )


def prepare(
    recipe: Recipe, *, resume: bool, trust_remote_code: bool, ui: UI, allow_code: bool = False
) -> Run:
    """Everything up to the first round. Whatever is wrong with the input is found here, and the
    folder of the run is made last, so that a refused run leaves nothing behind."""
    check_trackers(recipe.track)
    folder = choose_folder(recipe, resume)

    def learned(named: Named) -> Path:
        def train_it(wanted: Recipe, resume: bool, ui: UI) -> Result:
            return execute(wanted, resume=resume, trust_remote_code=trust_remote_code, ui=ui)

        return learned_reward(named, recipe, ui, train_it)

    cast = cast_for(recipe, learned, trust_remote_code=trust_remote_code, allow_code=allow_code)
    algorithm = cast.algorithm
    accelerator = Accelerator(log_with=recipe.track or None, project_dir=str(folder))
    if accelerator.num_processes > 1 and not splits_of(algorithm):
        raise BadInput(
            f"{recipe.algorithm}: this loss couples all rows of a batch, which are dealt out to "
            f"{accelerator.num_processes} processes",
            hint="run it in one process",
        )
    # Processes may start at different times; the main one's choice of a free name is everybody's.
    folder = broadcast_object_list([folder])[0]
    with ui.phase(f"loading {recipe.model}"):
        model = policy_for(recipe, needs_of(algorithm), accelerator.device, trust_remote_code)
    if model.device.type == "cpu" and model.parameter_count < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    codec = Codec(model.tokenizer)
    with ui.phase("reading the data"):
        data = load_data(
            algorithm.data,
            codec,
            task=cast.task,
            data=recipe.data,
            max_length=room_for(algorithm, recipe),
            strict=recipe.strict,
            seed=recipe.seed,
            holdout=recipe.eval_size,
        )
    cast.plugins.hook.alignzoo_check(recipe=recipe, data=data)
    rate = recipe.learning_rate or ADAPTERS[recipe.adapter].rate * learning_rate_for_width(
        learning_rate_of(algorithm), width_of(model), adapter=recipe.adapter != "none"
    )
    facts = facts_of(recipe, model, data)
    facts["environment"]["processes"] = accelerator.num_processes
    run = Run(
        recipe=recipe,
        algorithm=algorithm,
        plugins=cast.plugins,
        model=model,
        codec=codec,
        data=data,
        task=cast.task,
        record=record.open_folder(folder, facts, resume, writes=accelerator.is_main_process),
        accelerator=accelerator,
        ui=ui,
        learning_rate=rate,
        sampler=cast.sampler,
        reward_weights={named.label: named.weight for named, _ in cast.rewards},
        trust_remote_code=trust_remote_code,
    )

    def learn_reward(data: Path) -> Path:
        started = time.perf_counter()
        trained = learned(Named(LEARNED, options={"data": str(data)}))
        # Its own ledger says how long it took, whenever that was: it is not counted twice.
        run.ledger.seconds -= time.perf_counter() - started
        charge(run.ledger, trained, feedback=False)  # the run made the pairs itself
        return trained

    run.learn_reward = learn_reward
    for named, reward in cast.rewards:
        if named.name == LEARNED:
            charge(run.ledger, Path(reward.folder))
    if recipe.track:
        accelerator.init_trackers("alignzoo", config=settings_for_trackers(recipe.as_dict()))
    ui.opened(folder)
    for line in describe(run):
        ui.note(line)
    return run


def policy_for(
    recipe: Recipe, needs: Needs, device: torch.device, trust_remote_code: bool
) -> Policy:
    """The recipe's model, with what the algorithm needs of it."""
    spec = ModelSpec(
        recipe.model,
        adapter=recipe.adapter,
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        virtual_tokens=recipe.virtual_tokens,
        precision=recipe.precision,
        gradient_checkpointing=recipe.gradient_checkpointing,
        random_init=recipe.scratch,
        reference=needs.reference,
        score_head=needs.score_head,
        values=needs.values,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    model = load_policy(spec)
    if needs.mixed_reference and not model.mixes_reference:
        raise BadInput(
            f"the reference is the model without --adapter {recipe.adapter}, and cannot move a "
            "part of the way to one with it",
            hint="let it move all the way, or use --adapter lora",
        )
    return model


def choose_folder(recipe: Recipe, resume: bool) -> Path:
    """The folder of the run: the one named, or one made from what the run is."""
    sources = parse_data(recipe.data) if recipe.data is not None else []
    data = [source.stem for source in sources] or [recipe.task or ""]
    stem = "-".join(
        [Path(recipe.algorithm).name.removesuffix(".py"), Path(recipe.model).name, *data]
    )
    if recipe.name is not None:
        return record.folder_for(recipe.out, recipe.name)
    if not resume:
        return record.folder_for(recipe.out, record.free_name(recipe.out, stem))
    return record.folder_for(recipe.out, record.newest_name(recipe.out, stem))


def facts_of(recipe: Recipe, model: Policy, data: Data) -> dict[str, Any]:
    """What `run.json` says of a run before it starts."""
    package, version, source = discovery.source_of("algorithms", recipe.algorithm)
    return {
        "recipe": recipe.as_dict(),
        "plugin": {"package": package, "version": version, "sha256": record.hash_sources(source)},
        "fingerprints": {
            "model": model.fingerprint,
            "data": data.fingerprint,
            "code": record.hash_sources(Path(__file__).parents[1]),
        },
        "environment": record.environment(),
        "data": data.report.lines(),
        "results": {},
    }


def describe(run: Run) -> list[str]:
    """What the user should know before the first step."""
    model = run.model
    trained = ADAPTERS[run.recipe.adapter].description.format(model.trainable_count)
    trains = trains_of(run.algorithm)
    head = " with a score head" * (model.score_head is not None)
    head += " with a value head" * (model.value_head is not None)
    training = f"training {trained}{head}" if trains else "training none of them"
    size = f"{model.parameter_count:,} parameters, {training}"
    chosen = "" if run.recipe.learning_rate else f", the default for a model {width_of(model)} wide"
    steps = (
        f"{run.total_steps} steps of {run.recipe.batch_size}"
        if run.total_steps
        else "until the budget is spent"
    )
    return [
        f"{run.recipe.model}: {size}",
        *run.codec.notes,
        *([model.note] if model.note else []),
        *run.data.report.lines(),
        *([f"{steps}, learning rate {run.learning_rate:.2g}{chosen}"] if trains else []),
    ]


def room_for(algorithm: Any, recipe: Recipe) -> int:
    """Most tokens of a row as it is read: where the completion is generated, it needs room too."""
    if algorithm.data is not Prompts:
        return recipe.max_length
    if recipe.max_new_tokens >= recipe.max_length:
        raise BadInput(
            f"option --max-new-tokens: {recipe.max_new_tokens} leaves no room for a prompt "
            f"in --max-length {recipe.max_length}"
        )
    return recipe.max_length - recipe.max_new_tokens


def width_of(model: Policy) -> int:
    return model.model.config.get_text_config().hidden_size


def evaluate_once(run: Run, phase: str) -> Evaluation | None:
    """Evaluate, unless the run was interrupted after this evaluation and has it on disk."""
    results = run.record.facts["results"]
    if run.recipe.eval_size == 0 or not run.record.writes:
        return None
    if phase in results:
        summary = {name: Estimate(**value) for name, value in results[phase].items()}
        return Evaluation(summary, run.record.read_evals(phase))
    return evaluate(run, phase)
