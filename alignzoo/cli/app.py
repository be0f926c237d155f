"""The root command. A command is imported when it is called, so that help answers at once."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption

from alignzoo.cli.options import SETTINGS, DeferredCommand, descriptor
from alignzoo.discovery import Found, discover
from alignzoo.errors import AlignzooError


def build_app() -> TyperGroup:
    """Return the root command, with the commands of plugins that are installed."""
    commands = [
        DeferredCommand("run", "Train a model with an algorithm.", run),
        DeferredCommand("eval", "Evaluate a run or a model on tasks.", evaluate),
        DeferredCommand(
            "chat", "Chat with a model, or with a run side by side with its base.", chat
        ),
        DeferredCommand(
            "plugins",
            "List what is installed: algorithms, tasks, rewards, judges, samplers, add-ons and "
            "commands.",
            plugins,
        ),
    ]
    # Two packages that claim one command break nothing else; `alignzoo plugins` reports them.
    with suppress(AlignzooError):
        commands += [
            DeferredCommand(found.name, found.summary, partial(plugin, found))
            for found in discover("commands").values()
        ]
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
            )
        ],
        context_settings=SETTINGS,
        rich_markup_mode="rich",
    )


def run(words: list[str]) -> Any:
    from alignzoo.cli.run import run_command

    return run_command(words)


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


def plugin(found: Found, words: list[str]) -> Any:
    from alignzoo.cli.plugins import plugin_command

    return plugin_command(found, words)


def print_version(context: Any, parameter: Any, wanted: bool) -> None:
    """Print the version and leave, if `--version` was typed."""
    if not wanted:
        return
    try:
        print(f"alignzoo {version('alignzoo')}")
    except PackageNotFoundError:
        print("alignzoo (not installed)")
    raise typer.Exit
