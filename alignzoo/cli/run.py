"""`alignzoo run`: a command whose options are the recipe's and those of the chosen algorithm."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.cli.app import SETTINGS
from alignzoo.cli.options import (
    checked,
    extra,
    flags,
    is_switch,
    parameters,
    show_deprecations,
    with_parameters,
)
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import lines, samples, summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput, nearest
from alignzoo.ledger import CALLS, Ledger
from alignzoo.options import MISSING, Option, options_of, rename_options
from alignzoo.recipe import Recipe, read_recipe, resolve
from alignzoo.remote import Unanswered
from alignzoo.ui import UI, Silent

OWN_PANEL = "Algorithm"
PANELS = {
    "Model": "model adapter lora_rank lora_alpha lora_dropout virtual_tokens "
    "gradient_checkpointing precision random_init",
    "Data": "task data reward max_length fail_on_bad_rows",
    "Training": "steps epochs budget batch_size micro_tokens learning_rate warmup schedule "
    "weight_decay max_grad_norm cache_reference",
    "Evaluation": "eval_size eval_every stop_on_alarm",
    "Generation": "sampler importance_cap max_new_tokens temperature top_k top_p min_p stop_text",
    "Run": "",  # and whatever is in none of the others
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}
FLAGS = {"addons": "--with"}
HELP_FLAGS = ("-h", "--help")
SWITCHES = ("--qlora", "--resume", "--trust-remote-code", "--allow-code")


def recipe_options() -> list[Option]:
    """The recipe's options that are flags, in the order of the help."""
    order = list(PANELS)
    found = [option for option in options_of(Recipe) if option.name not in ("algorithm", "options")]
    return sorted(found, key=lambda option: order.index(panel_of(option)))


def panel_of(option: Option) -> str:
    return PANEL_OF.get(option.name, "Run")


EXTRAS = [
    extra("qlora", bool, "--qlora", "short for --adapter qlora", panel="Model"),
    extra(
        "recipe",
        str,
        "--recipe",
        "YAML file with the same keys as the flags",
        metavar="<file>",
        panel="Run",
    ),
    extra("resume", bool, "--resume", "go on with an interrupted run", panel="Run"),
    extra(
        "trust_remote_code",
        bool,
        "--trust-remote-code",
        "run code that comes with the model",
        panel="Run",
    ),
    extra(
        "allow_code",
        bool,
        "--allow-code",
        "let a reward run what the model writes, as programs on this machine",
        panel="Run",
    ),
]


def split_algorithm(words: list[str]) -> tuple[str | None, list[str]]:
    """The algorithm and the other words. Flags may stand before it.

    The options of an algorithm are not known before it is: an unknown flag is taken to have a
    value unless another flag follows.
    """
    alone, valued = {*HELP_FLAGS, *SWITCHES}, {"--recipe"}
    for option in recipe_options():
        (alone if is_switch(option) else valued).update(flags(option, FLAGS.get(option.name)))
    i = 0
    while i < len(words):
        word = words[i]
        if not word.startswith("-"):
            return word, words[:i] + words[i + 1 :]
        flag_follows = i + 1 < len(words) and words[i + 1].startswith("--")
        single = "=" in word or word in alone or (word not in valued and flag_follows)
        i += 1 if single else 2
    return None, words


def value_of(flag: str, words: list[str]) -> str | None:
    """The value of the last such flag, for what must be known before the words can be parsed."""
    found = None
    for word, following in zip_longest(words, words[1:]):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def run_command(words: list[str]) -> Any:
    """Find the algorithm, build the command for it, and give it the words that were typed."""
    name, rest = split_algorithm(words)
    file = value_of("--recipe", words)
    if name is None and file:
        name = read_recipe(Path(file)).get("algorithm")
        if name is not None and not isinstance(name, str):
            raise BadInput(f"algorithm: {name!r} is not a name", where=file)
    if name is None:
        if any(flag in words for flag in HELP_FLAGS):
            return overview()(args=["--help"], prog_name="alignzoo run", standalone_mode=False)
        known = ", ".join(discovery.discover("algorithms")) or "none"
        raise BadInput(
            "no algorithm is named" + (f", nor does {file} name one" if file else ""),
            hint=f"write it first: alignzoo run ALGO [options]. Installed: {known}.",
        )
    # Importing an algorithm imports torch, which may have things to say.
    with quiet():
        algorithm = discovery.load("algorithms", name)
    command = command_for(name, algorithm, words)
    return command(args=rest, prog_name=f"alignzoo run {name}", standalone_mode=False)


def overview() -> typer.Typer:
    """Help without an algorithm: what every run takes, and the algorithms as if subcommands."""
    app = _app(subcommand_metavar="ALGO [ALGO OPTIONS]")
    app.callback(
        help="Train a model with an algorithm, an installed one or a Python file.\n\n"
        "alignzoo run ALGO --help adds the options of that algorithm. A switch that a recipe file "
        "turns on, such as --fail-on-bad-rows, is turned off by --no-fail-on-bad-rows."
    )(with_parameters(lambda **values: None, _common_parameters({})))
    for found in discovery.discover("algorithms").values():
        app.command(found.name, help=escape(found.summary), rich_help_panel="Algorithms")(
            lambda: None
        )
    return app


def command_for(name: str, algorithm: type, words: list[str]) -> typer.Typer:
    """The command `alignzoo run NAME`, with the algorithm's options before the recipe's."""
    own = options_of(algorithm)
    refuse_clashes(name, own)

    def command(**values: Any) -> None:
        recipe = compose(name, algorithm, values)
        start(
            recipe,
            words,
            resume=bool(values["resume"]),
            trust_remote_code=bool(values["trust_remote_code"]),
            allow_code=bool(values["allow_code"]),
        )

    all_of_them = [p for option in own for p in parameters(option, panel=OWN_PANEL)]
    all_of_them += _common_parameters(Traits.of(algorithm).defaults)
    app = _app()
    app.command(help=escape(doc_of(algorithm)))(with_parameters(command, all_of_them))
    return app


def refuse_clashes(name: str, own: list[Option]) -> None:
    """An option of an algorithm may not be one that every run has: no flag can mean two things."""
    taken = {flag for option in recipe_options() for flag in flags(option, FLAGS.get(option.name))}
    taken.update(HELP_FLAGS, SWITCHES, ("--recipe", "--algorithm", "--options"))
    for option in own:
        for flag in flags(option):
            if flag in taken:
                raise BadInput(
                    f"algorithm {name!r} has an option {option.name!r}, but every run has {flag}",
                    hint="give the algorithm's option another name, or only another default "
                    f"to the run's: defaults = {{{option.name!r}: ...}}",
                )


def compose(algorithm: str, plugin: type, values: Mapping[str, Any]) -> Recipe:
    """The recipe: the algorithm's defaults, then the recipe file, then what was typed."""
    own = options_of(plugin)
    file = values.get("recipe")
    with show_deprecations():
        from_file = read_checked(Path(file), own) if file else {}
    from_flags = checked(recipe_options(), values)
    if values.get("qlora") and from_flags.setdefault("adapter", "qlora") != "qlora":
        raise BadInput(f"--qlora and --adapter {from_flags['adapter']} contradict each other")
    from_flags |= {"algorithm": algorithm, "options": checked(own, values)}
    return resolve(Traits.of(plugin).defaults, from_file, from_flags)


def read_checked(path: Path, own: list[Option]) -> dict[str, Any]:
    """A recipe file with every value checked here, where the message can name the file."""
    where = str(path)
    loaded = read_recipe(path)
    options = loaded.pop("options", None) or {}
    if not isinstance(options, dict):
        raise BadInput("options: not a mapping of names to values", where=where)
    options = rename_options(own, options, where)
    known = {option.name: option for option in own}
    for key in options:
        if key not in known:
            raise BadInput(
                f"options: unknown option {key!r}", where=where, hint=nearest(str(key), known)
            )
    common = {option.name: option for option in options_of(Recipe)}
    return {
        **{key: common[key].check(value, where) for key, value in loaded.items()},
        "options": {key: known[key].check(value, where) for key, value in options.items()},
    }


def start(recipe: Recipe, words: list[str], **allowed: bool) -> None:
    """Run it, quietly but for our own words, and show what came of it. `allowed`: what is only
    ever said on the command line, never by a recipe."""
    folder: Path | None = None
    try:
        with quiet() as log:
            ui: UI = Terminal(log.out, log) if speaks() else Silent()
            try:
                with ui.phase("starting"):
                    from alignzoo.session import execute
                result = execute(recipe, ui=ui, **allowed)
            except KeyboardInterrupt as error:
                folder = getattr(error, "folder", None)
                raise
    except KeyboardInterrupt:
        if folder is None:
            print("alignzoo: interrupted before the run began", file=sys.stderr)
        else:
            command = resume_command(words, None if recipe.name else folder.name)
            print(f"alignzoo: interrupted; {folder} can be resumed:\n  {command}", file=sys.stderr)
        raise typer.Exit(130) from None
    except Unanswered as error:
        folder = getattr(error, "folder", None)
        if folder is None:
            raise
        command = resume_command(words, None if recipe.name else folder.name)
        raise error.with_hint(f"{folder} can be resumed:\n  {command}") from None
    if speaks():
        report(result)


def speaks() -> bool:
    """Whether this is the process that talks, of the several that a launcher may have started."""
    return os.environ.get("RANK", "0") == "0"


def resume_command(words: list[str], name: str | None) -> str:
    """The command as it was typed, and what makes it go on with that same run."""
    added = ["--name", name] if name else []
    if "--resume" not in words:
        added.append("--resume")
    return shlex.join(["alignzoo", "run", *words, *added])


def report(result: Any) -> None:
    """Before and after, two samples of each, and where to go from here."""
    console = console_for(sys.stdout)
    columns = {"before": result.before, "after": result.after}
    if any(columns.values()):
        console.print(summary_table({name: one and one.summary for name, one in columns.items()}))
    if result.before and result.after:
        samples(console, result.before, result.after)
    if result.ledger.feedback["judge_calls"]:
        lines(console, [judging(result.ledger)])
    folder = shlex.quote(str(result.folder))
    if not result.trains:
        told = f"{result.status}: {result.folder}"
        lines(console, [told, "  nothing was trained; the answers are in its evals.jsonl"])
        return
    lines(
        console,
        [
            f"{result.status}: {result.folder}",
            *(
                [
                    f"  alignzoo chat {folder}   talk to it, beside its base",
                    f"  alignzoo eval {folder}   judge it by other tasks",
                    f"  alignzoo run ALGO --model {folder}   train it further",
                ]
                if result.generates
                else [f"  alignzoo run ALGO --reward {folder}   let it judge completions"]
            ),
        ],
    )


def judging(ledger: Ledger) -> str:
    """What the judge was asked, and what that took."""
    calls, cached, retries = (ledger.feedback[kind] for kind in CALLS)
    told = f"judge: {calls:,} answers asked for, {cached:,} known already, {retries:,} asked again"
    price = f", price {ledger.money:.4g}" if ledger.money else ""
    return f"{told}; {ledger.tokens['judge']:,} tokens{price}"


def doc_of(algorithm: type) -> str:
    """Its docstring, unless that is the signature that `dataclass` puts where there is none."""
    doc = inspect.cleandoc(vars(algorithm).get("__doc__") or "")
    return "" if doc.startswith(f"{algorithm.__name__}(") else doc


def _common_parameters(defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    found: list[inspect.Parameter] = []
    for option in recipe_options():
        default, flag = defaults.get(option.name, MISSING), FLAGS.get(option.name)
        found += parameters(option, panel=panel_of(option), default=default, flag=flag)
    return found + EXTRAS


def _app(**more: Any) -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=SETTINGS,
        **more,
    )
