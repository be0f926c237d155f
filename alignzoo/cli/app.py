"""The root command. A command is imported when it is called, so that help answers at once."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption

from alignzoo.cli.options import SETTINGS, DeferredCommand, descriptor
from alignzoo.discovery import discover


def build_app() -> TyperGroup:
    """Return the root command, with the commands of plugins that are installed."""
    commands = [
        DeferredCommand("run", "Train a model with an algorithm.", run),
        DeferredCommand(
            "estimate", "Estimate the memory and the time of a run, without its weights.", predict
        ),
        DeferredCommand("eval", "Evaluate a run or a model on tasks.", evaluate),
        DeferredCommand(
            "chat", "Chat with a model, or with a run side by side with its base.", chat
        ),
        DeferredCommand(
            "plugins",
            "List what is installed: algorithms, tasks, environments, rewards, judges, samplers, "
            "optimizers, add-ons and commands.",
            plugins,
        ),
    ]
    commands += plugin_commands({command.name for command in commands})
    return TyperGroup(
        name="alignzoo",
        help="Align language models: one training loop, every algorithm a plugin.",
        commands=commands,
        params=[
            TyperOption(
                param_decls=["version", "--version"],
                help="Show the version.",
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=print_version,
                metavar="",
                **descriptor(bool),
            ),
            # `alignzoo.cli.status` reads it, before the commands of plugins are looked up.
            TyperOption(
                param_decls=["blocked", "-p"],
                help="Leave out a plugin, or all of a package, before it is imported: -p no:NAME.",
                multiple=True,
                expose_value=False,
                metavar="no:NAME ...",
                **descriptor(list[str]),
            ),
        ],
        context_settings=SETTINGS,
        rich_markup_mode="rich",
    )


def plugin_commands(taken: set[str | None]) -> list[DeferredCommand]:
    """Return the commands of plugins. One whose name is taken, by a command of the core or of
    another package, is PACKAGE:NAME."""
    found = discover("commands")
    names = {one.full_name if name in taken else name: one for name, one in found.items()}
    commands = [
        DeferredCommand(name, one.summary, partial(plugin, name)) for name, one in names.items()
    ]
    # The name that several packages claim says so when it is called.
    for name in {one.name for one in found.values()} - taken - names.keys():
        commands.append(DeferredCommand(name, "", partial(plugin, name)))
        commands[-1].hidden = True
    return commands


def run(words: list[str]) -> Any:
    from alignzoo.cli.run import run_command

    return run_command(words)


def predict(words: list[str]) -> Any:
    from alignzoo.cli.estimate import estimate_command

    return estimate_command(words)


def evaluate(words: list[str]) -> Any:
    from alignzoo.cli.evaluate import Evaluate
    from alignzoo.cli.options import run_class

    return run_class(Evaluate, words, "alignzoo eval", argument="model")


def chat(words: list[str]) -> Any:
    from alignzoo.cli.chat import Chat
    from alignzoo.cli.options import run_class

    return run_class(Chat, words, "alignzoo chat", argument="model")


def plugins(words: list[str]) -> Any:
    from alignzoo.cli.options import run_class
    from alignzoo.cli.plugins import Plugins

    return run_class(Plugins, words, "alignzoo plugins")


def plugin(name: str, words: list[str]) -> Any:
    from alignzoo.cli.plugins import plugin_command

    return plugin_command(name, words)


def print_version(context: Any, parameter: Any, wanted: bool) -> None:
    """Print the version and leave, if `--version` was typed."""
    if not wanted:
        return
    try:
        print(f"alignzoo {version('alignzoo')}")
    except PackageNotFoundError:
        print("alignzoo (not installed)")
    raise typer.Exit
