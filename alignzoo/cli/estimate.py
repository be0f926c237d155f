"""`alignzoo estimate`: what `alignzoo run` with the same words will take, before it is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from alignzoo.cli.options import Parameter, parameters, run_words, switch
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import clean, lines
from alignzoo.cli.run import compose, find_algorithm, parameters_for, show_overview
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import count
from alignzoo.memory.sizes import SAMPLING, gigabytes
from alignzoo.options import Option
from alignzoo.signals import catch_signals

PANEL = "Estimate"
VALUED, SWITCH = "--card", "--json"
HELP = (
    "Estimate the memory and the time of a run, from its configuration and its data alone.\n\n"
    "It takes the words of alignzoo run. No weights are read, and nothing is written."
)


def estimate_command(words: list[str]) -> Any:
    """Find the algorithm among the words, and estimate a run with its options."""
    own, rest = split_own(words)
    found = find_algorithm(rest, "estimate")
    if found is None:
        return show_overview("estimate", HELP, own_parameters())
    name, rest, algorithm = found

    def estimate(**values: Any) -> None:
        card, as_json = values.pop("card"), bool(values.pop("json"))
        recipe = compose(name, algorithm, values)
        with catch_signals(), quiet() as log:
            ui = Terminal(log.err if as_json else log.out, log)
            with ui.phase("starting"):
                from alignzoo.session.estimate import estimate_run
            result = estimate_run(
                recipe,
                card=card,
                trust_remote_code=bool(values["trust_remote_code"]),
                allow_code=bool(values["allow_code"]),
                ui=ui,
            )
        if as_json:
            print(json.dumps(result.as_dict(), indent=2))
        else:
            show(result, recipe.micro_tokens)

    options = [*own_parameters(), *parameters_for(name, algorithm)]
    return run_words([*own, *rest], f"alignzoo estimate {name}", HELP, options, estimate)


def own_parameters() -> list[Parameter]:
    """Return the options that `alignzoo run` does not have."""
    card = Option(
        "card",
        str | None,
        None,
        "estimate for this card instead of this machine, such as rtx-3060-12gb, rtx-4090 or h100",
    )
    return [*parameters(card, panel=PANEL), switch("json", "print machine-readable JSON", PANEL)]


def split_own(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words that are this command's own, and those that are of `alignzoo run`."""
    own: list[str] = []
    others: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == VALUED:
            own += [word, *([value] if (value := next(waiting, None)) is not None else [])]
        else:
            (own if word == SWITCH or word.startswith(f"{VALUED}=") else others).append(word)
    return own, others


def show(estimate: Any, micro_tokens: int | None) -> None:
    """Print an estimate: parts of a training step, phases of the run, and time.

    `micro_tokens` are those that were asked for.
    """
    console = console_for(sys.stdout)
    lowered = micro_tokens is not None and micro_tokens > estimate.micro_tokens
    lines(
        console,
        [
            f"{clean(estimate.model)}: {estimate.parameters:,} parameters, {estimate.trained:,} "
            "trained",
            f"largest micro-batch: {count(estimate.groups, 'row')} of data, "
            f"{count(estimate.tokens, 'token')} (--micro-tokens {estimate.micro_tokens}"
            + f", lowered from {micro_tokens} to fit" * lowered
            + ")",
        ],
    )
    libraries = {"Python and libraries, or CUDA": estimate.base}
    console.print(table_of_sizes("training step", {**estimate.parts, **libraries}))
    phases = dict(estimate.phases)
    if estimate.cache:
        phases[f"{SAMPLING} ({gigabytes(estimate.cache)} of keys and values)"] = phases.pop(
            SAMPLING
        )
    console.print(table_of_sizes("peak of each phase", phases))
    lines(
        console,
        [
            f"peak {gigabytes(estimate.peak)} of {gigabytes(estimate.memory)} on "
            f"{clean(estimate.machine)}",
            f"about {estimate.seconds:,.2g} s a step: {estimate.flops / 1e12:,.3g} TFLOP at "
            f"{estimate.speed}",
            "An estimate, of one process and of the passes that the algorithm declares: add-ons, "
            "judges and the C library's own reserves are not in it.",
        ],
    )


def table_of_sizes(heading: str, sizes: Mapping[str, int]) -> Table:
    """Return a table of names and bytes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heading)
    table.add_column("memory", justify="right")
    for name, size in sizes.items():
        table.add_row(Text(name), gigabytes(size))
    return table
