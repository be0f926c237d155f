"""`alignzoo run`: a command with the options of the recipe and of the chosen algorithm."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.cli.options import (
    SETTINGS,
    Parameter,
    doc_of,
    flags,
    is_switch,
    parameters,
    run_words,
    show_deprecations,
    switch,
    typed_values,
)
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import change_table, clean, lines, samples, shell_command, summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import LONGEST, BadInput, count, nearest
from alignzoo.ledger import Ledger
from alignzoo.options import MISSING, Option, options_of, rename_options
from alignzoo.recipe import Recipe, find_code, read_recipe, resolve
from alignzoo.remote import NoAnswer
from alignzoo.signals import catch_signals
from alignzoo.ui import UI, Silent

OWN_PANEL = "Algorithm"
PANELS = {
    "Model": "model teacher teacher_four_bit adapter lora_rank lora_alpha lora_dropout "
    "virtual_tokens gradient_checkpointing precision random_init",
    "Data": "task environment data reward max_length fail_on_bad_rows",
    "Training": "steps epochs budget batch_size micro_tokens learning_rate warmup schedule "
    "optimizer weight_decay max_grad_norm cache_reference",
    "Evaluation": "eval_size eval_split eval_every stop_on_alarm",
    "Generation": "sampler importance_cap importance_mode max_new_tokens temperature top_k top_p "
    "min_p stop_text",
    "Run": "",  # and every option that is in no other panel
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names.split()}
FLAGS = {"addons": "--with"}
HELP_FLAGS = ("-h", "--help")
RUN_HELP = (
    "Train a model with an algorithm: an installed one, or a Python file.\n\n"
    "alignzoo run ALGO --help adds the options of that algorithm. A switch that a recipe file "
    "turns on, such as --fail-on-bad-rows, is turned off by --no-fail-on-bad-rows."
)
SWITCHES = ("--qlora", "--resume", "--trust-remote-code", "--allow-code", "--allow-changes")


def recipe_options() -> list[Option]:
    """Return the options of the recipe that are flags, in the order of the help."""
    order = list(PANELS)
    found = [option for option in options_of(Recipe) if option.name not in ("algorithm", "options")]
    return sorted(found, key=lambda option: order.index(panel_of(option)))


def panel_of(option: Option) -> str:
    """Return the panel of the help that shows an option."""
    return PANEL_OF.get(option.name, "Run")


def split_algorithm(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the algorithm, or None, and the other words. Flags may come before it.

    The options of an algorithm are unknown until it is found: an unknown flag is taken to have a
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
    """Return the value of the last such flag, when the words cannot be parsed yet."""
    found = None
    for word, following in zip_longest(words, words[1:]):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def run_command(words: list[str]) -> Any:
    """Find the algorithm among the words, and run the command that has its options."""
    found = find_algorithm(words, "run")
    if found is None:
        return show_overview("run", RUN_HELP)
    name, rest, algorithm = found

    def run(**values: Any) -> None:
        start(
            compose(name, algorithm, values),
            words,
            resume=bool(values["resume"]),
            trust_remote_code=bool(values["trust_remote_code"]),
            allow_code=bool(values["allow_code"]),
            allow_changes=bool(values["allow_changes"]),
        )

    program = f"alignzoo run {name}"
    return run_words(rest, program, doc_of(algorithm), parameters_for(name, algorithm), run)


def find_algorithm(words: list[str], command: str) -> tuple[str, list[str], type] | None:
    """Return the name of the algorithm among the words, the other words, and its class.

    Return None if there is none, and help is asked for; raise `BadInput` otherwise.
    """
    name, rest = split_algorithm(words)
    file = value_of("--recipe", words)
    if name is None and file:
        name = read_recipe(Path(file)).get("algorithm")
        if "--allow-code" not in words:
            refuse_code({"algorithm": name}, file)
        if name is not None and not isinstance(name, str):
            raise BadInput(f"algorithm: {name!r} is not a name", where=file)
    if name is None:
        if any(flag in words for flag in HELP_FLAGS):
            return None
        known = ", ".join(discovery.discover("algorithms")) or "none"
        also = f"{file} has no key `algorithm`. " if file else ""
        raise BadInput(
            f"missing ALGO; usage: alignzoo {command} ALGO [options]",
            hint=f"{also}Installed: {known}.",
        )
    return name, rest, load_algorithm(name)


def load_algorithm(name: str) -> type:
    """Import an algorithm, and with it torch and transformers, which may print warnings.

    Their million objects stay for good. To look for garbage among them while they are made, and
    again in every collection of the run, would take a second and more.
    """
    first = "torch" not in sys.modules
    if first:
        gc.disable()
    try:
        with catch_signals(), quiet():
            return discovery.load_plugin("algorithms", name)
    finally:
        if first:
            gc.freeze()
            gc.enable()


def show_overview(command: str, help: str, own: Sequence[Parameter] = ()) -> Any:
    """Print the help without an algorithm: options of every run, and the algorithms in a list.

    `own` are options of the command itself.
    """
    for clash in discovery.find_clashes("algorithms"):
        print(f"alignzoo: {clean(clash)}", file=sys.stderr)
    group = TyperGroup(
        name=command,
        help=help,
        subcommand_metavar="ALGO [ALGO OPTIONS]",
        params=[*own, *common_parameters({})],
        commands=[
            TyperCommand(shown, help=escape(found.summary), rich_help_panel="Algorithms")
            for shown, found in discovery.discover("algorithms").items()
        ],
        context_settings=SETTINGS,
        rich_markup_mode="rich",
    )
    return group(args=["--help"], prog_name=f"alignzoo {command}", standalone_mode=False)


def parameters_for(name: str, algorithm: type) -> list[Parameter]:
    """Return the options of `alignzoo run NAME`, the algorithm's before the recipe's."""
    own = options_of(algorithm)
    refuse_clashes(name, own)
    found = [p for option in own for p in parameters(option, panel=OWN_PANEL)]
    return found + common_parameters(Traits.of(algorithm).defaults)


def common_parameters(defaults: Mapping[str, Any]) -> list[Parameter]:
    """Return the options of every run, shown with an algorithm's defaults."""
    found: list[Parameter] = [switch("qlora", "short for --adapter qlora", "Model")]
    for option in recipe_options():
        default, flag = defaults.get(option.name, MISSING), FLAGS.get(option.name)
        found += parameters(option, panel=panel_of(option), default=default, flag=flag)
    file = Option("recipe", str | None, None, "YAML file with the same keys as the flags")
    return [
        *found,
        *parameters(file, panel="Run"),
        switch("resume", "resume an interrupted run", "Run"),
        switch("allow_changes", "resume with plugins or processes that have changed", "Run"),
        switch("trust_remote_code", "run custom code that the model ships", "Run"),
        switch(
            "allow_code",
            "let the Python files and functions that a recipe file names run, and a reward execute "
            "programs that the model writes",
            "Run",
        ),
    ]


def refuse_clashes(name: str, own: list[Option]) -> None:
    """Raise `BadInput` if an option of an algorithm is a flag of every run, or a former one."""
    taken = {flag for option in recipe_options() for flag in flags(option, FLAGS.get(option.name))}
    taken.update(HELP_FLAGS, SWITCHES, ("--recipe", "--algorithm", "--options"))
    for option in own:
        for flag in flags(option):
            if flag in taken:
                raise BadInput(
                    f"algorithm {name!r} has an option {option.name!r}, but every run has {flag}",
                    hint="rename the algorithm's option, or change only the default of the run's: "
                    f"defaults = {{{option.name!r}: ...}}",
                )


def compose(algorithm: str, plugin: type, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe: the algorithm's defaults, then the recipe file, then the flags."""
    own = options_of(plugin)
    file = values.get("recipe")
    with show_deprecations():
        from_file = read_checked(Path(file), own) if file else {}
    from_flags = typed_values(recipe_options(), values)
    if values.get("qlora") and from_flags.setdefault("adapter", "qlora") != "qlora":
        raise BadInput(f"--qlora and --adapter {from_flags['adapter']} contradict each other")
    from_flags |= {"algorithm": algorithm, "options": typed_values(own, values)}
    if file and not values.get("allow_code"):
        refuse_code(drop_overridden(from_file, from_flags), file)
    return resolve(Traits.of(plugin).defaults, from_file, from_flags)


def read_checked(path: Path, own: list[Option]) -> dict[str, Any]:
    """Read a recipe file and check every value here, so that messages can name the file."""
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


def drop_overridden(from_file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe file, and its options, that no flag overrides."""
    kept = {key: value for key, value in from_file.items() if key not in flags}
    options = from_file.get("options", {}).items()
    return {**kept, "options": {k: v for k, v in options if k not in flags["options"]}}


def refuse_code(from_file: Mapping[str, Any], file: str) -> None:
    """Raise `BadInput` if values of a recipe file name Python code, which was not allowed."""
    found = find_code(from_file)
    if found is not None:
        key, text = found
        raise BadInput(
            f"{key}: {text[:LONGEST]!r} is Python code, which a recipe file cannot run by itself",
            where=file,
            hint="read it; to run it, add --allow-code, or type this value on the command line",
        )


def start(recipe: Recipe, words: list[str], **allowed: bool) -> None:
    """Run a recipe with the output of libraries in the log, and print the result.

    `allowed` are permissions that only the command line can give, never a recipe.
    """
    folder: Path | None = None
    try:
        with catch_signals(), quiet() as log:
            ui: UI = Terminal(log.out, log) if speaks() else Silent()
            try:
                with ui.phase("starting"):
                    from alignzoo.session import execute
                result = execute(recipe, ui=ui, **allowed)
            except KeyboardInterrupt as error:
                folder = getattr(error, "folder", None)
                raise
    except KeyboardInterrupt as error:
        name = getattr(error, "name", "SIGINT")
        how = "interrupted" if name == "SIGINT" else f"interrupted by {name}"
        if folder is None:
            print(f"alignzoo: {how} before the run began", file=sys.stderr)
        else:
            command = resume_command(words, None if recipe.name else folder.name)
            named = shell_command([str(folder)])
            print(f"alignzoo: {how}; {named} can be resumed:\n  {command}", file=sys.stderr)
        raise typer.Exit(getattr(error, "exit_code", 130)) from None
    except NoAnswer as error:
        folder = getattr(error, "folder", None)
        if folder is None:
            raise
        command = resume_command(words, None if recipe.name else folder.name)
        named = shell_command([str(folder)])
        raise error.with_hint(f"{named} can be resumed:\n  {command}") from None
    if speaks():
        report(result)


def speaks() -> bool:
    """Return whether this process prints: the first of those that a launcher started does."""
    return os.environ.get("RANK", "0") == "0"


def resume_command(words: list[str], name: str | None) -> str:
    """Return the command as it was typed, with what it takes to resume the run."""
    added = ["--name", name] if name else []
    if "--resume" not in words:
        added.append("--resume")
    blocked = [word for name in discovery.list_blocked() for word in ("-p", f"no:{name}")]
    return shell_command(["alignzoo", *blocked, "run", *words, *added])


def report(result: Any) -> None:
    """Print the evaluations before and after, sample completions, and what to do next."""
    console = console_for(sys.stdout)
    if result.before and result.after:
        from alignzoo.evaluation import compare_evaluations

        changes = compare_evaluations(result.before, result.after)
        summaries = result.before.summary, result.after.summary
        console.print(change_table(*summaries, changes, console.width))
        samples(console, result.before, result.after)
    elif result.after:
        console.print(summary_table({"after": result.after.summary}))
    if result.ledger.feedback["judge_calls"]:
        lines(console, [judge_line(result.ledger)])
    lines(console, [f"{result.status}: {result.folder}", *list_next(result)])


def list_next(result: Any) -> list[str]:
    """Return a line for each command that may come next."""
    folder = shell_command([str(result.folder)])
    if not result.trains:
        return ["  nothing was trained; completions are in its evals.jsonl"]
    if not result.generates:
        return [f"  alignzoo run ALGO --reward {folder}   use it as a reward"]
    found = [
        f"  alignzoo chat {folder}   chat with it next to its base",
        f"  alignzoo eval {folder}   evaluate it on other tasks",
        f"  alignzoo run ALGO --model {folder}   continue training",
    ]
    if (result.folder / "rollouts.jsonl").exists():
        found.insert(0, f"  alignzoo view {folder}   see what it drew in training")
    return found


def judge_line(ledger: Ledger) -> str:
    """Return the judge's calls, tokens and cost as a line, and what the cache has saved of them."""
    calls, retries = ledger.feedback["judge_calls"], ledger.feedback["judge_retries"]
    cached, saved = int(ledger.saved["judge_calls"]), ledger.saved["money"]
    made = f"{count(calls, 'judge call')} ({cached:,} cached, {retries:,} retried)"
    cost = f", cost {ledger.money:.4g}" if ledger.money else ""
    cost += f" ({saved:.4g} of it saved by the cache)" if saved else ""
    return f"{made}; {ledger.tokens['judge']:,} tokens{cost}"
