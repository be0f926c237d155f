"""The commands. Each is a few lines here; what it does is imported when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import typer
from annotated_types import Ge, Gt
from rich.markup import escape

from alignzoo.cli.options import argument, checked, extra, parameters, with_parameters
from alignzoo.discovery import Found, discover
from alignzoo.options import options_of

SETTINGS = {"help_option_names": ["-h", "--help"]}
# A command whose parameters are not known before it is called takes its words as they are.
RAW = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
}
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=SETTINGS,
    help="Align language models: one training loop, every algorithm a plugin.",
)


@dataclass
class Generation:
    """How completions are generated; the defaults are those of a run's own evaluation."""

    seed: Annotated[int, "seed of the sampling", Ge(0)] = 0
    temperature: Annotated[float, "temperature of generation (0: greedy)", Ge(0)] = 1.0
    max_new_tokens: Annotated[int, "longest completion that is generated", Gt(0)] = 64


@dataclass
class Evaluate(Generation):
    """Options of `alignzoo eval`."""

    tasks: Annotated[str | None, "tasks to judge by, a,b [default: the run's own, or style]"] = None
    limit: Annotated[int, "most items per task", Ge(1)] = 200


@dataclass
class Chat(Generation):
    """Options of `alignzoo chat`."""

    max_new_tokens: Annotated[int, "longest reply that is generated", Gt(0)] = 256
    system: Annotated[str | None, "a system message before the conversation"] = None
    prompt: Annotated[str | None, "answer this and leave"] = None


MODEL = argument("model", "folder of a run, or a model: zoo-tiny, a name on the hub, a folder")
TRUST = extra(
    "trust_remote_code", bool, "--trust-remote-code", "run code that comes with the model"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"alignzoo {version('alignzoo')}")
        except PackageNotFoundError:
            print("alignzoo (not installed)")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command(
    "run",
    help="Train a model with an algorithm.",
    add_help_option=False,
    context_settings=RAW,
)
def run(context: typer.Context) -> Any:
    from alignzoo.cli.run import run_command

    return run_command(context.args)


def evaluate(**values: Any) -> None:
    from alignzoo.cli.evaluate import evaluate_command

    options = Evaluate(**checked(options_of(Evaluate), values))
    evaluate_command(
        values["model"],
        options,
        as_json=bool(values["json"]),
        trust_remote_code=bool(values["trust_remote_code"]),
    )


def chat(**values: Any) -> None:
    from alignzoo.cli.chat import chat_command

    options = Chat(**checked(options_of(Chat), values))
    chat_command(values["model"], options, trust_remote_code=bool(values["trust_remote_code"]))


app.command("eval", help="Judge a run or a model by tasks.")(
    with_parameters(
        evaluate,
        [
            MODEL,
            *chain.from_iterable(map(parameters, options_of(Evaluate))),
            extra("json", bool, "--json", "print everything as JSON, for a program"),
            TRUST,
        ],
    )
)
app.command("chat", help="Talk to a run, beside its base, or to a model.")(
    with_parameters(chat, [MODEL, *chain.from_iterable(map(parameters, options_of(Chat))), TRUST])
)


@app.command(
    "plugins", help="List what is installed: algorithms, tasks, rewards, samplers, add-ons."
)
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    from alignzoo.cli.plugins import plugins_command

    plugins_command(as_json=as_json)


def _add_plugin_command(found: Found) -> None:
    """A command of another package; it is imported when it is called."""

    @app.command(
        found.name, help=escape(found.summary), add_help_option=False, context_settings=RAW
    )
    def command(context: typer.Context) -> Any:
        from alignzoo.cli.plugin_command import plugin_command

        return plugin_command(found, context.args)


for _found in discover("commands").values():
    _add_plugin_command(_found)
