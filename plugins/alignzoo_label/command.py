"""`alignzoo label`: a page on this machine, on which people compare or rate completions."""

from __future__ import annotations

import getpass
import ipaddress
import os
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from alignzoo import BadInput
from alignzoo.cli.quiet import quiet
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import NotAvailable, RunFailed, first_line
from alignzoo.ui import UI

CANDIDATES = 8  # completions for each prompt that --next undecided chooses from


@dataclass
class LabelCommand:
    """Compare or rate completions on a local web page, and train on the answers.

    The completions of MODEL are drawn as the run does that it comes from. Every answer is on the
    disk before the next pair is shown. Stop with Finish or Ctrl-C, and go on with the same command.
    """

    model: Annotated[
        str | None, "folder of a run, or a model: zoo-tiny, a name on the Hub, a folder"
    ] = None
    out: Annotated[str, "file of the answers, .jsonl; more are appended"] = "prefs.jsonl"
    prompts: Annotated[str | None, "prompts: a file, or a name on the Hub"] = None
    task: Annotated[str | None, "task whose training prompts are answered"] = None
    completions: Annotated[
        str | None,
        "file of prompts with completions: a list completions, chosen and rejected, or rows with "
        "one completion each",
    ] = None
    ratings: Annotated[bool, "rate single completions, good or bad"] = False
    next: Annotated[
        Literal["random", "undecided"],
        "which pair comes next: at random, or the one on which an ensemble of score heads on the "
        "model, trained on the answers so far, is undecided",
    ] = "random"
    pairs: Annotated[int, "prompts to label", Ge(1), Le(10**6)] = 100
    repeat: Annotated[
        float, "fraction of the pairs that come back with sides swapped", Ge(0), Le(1)
    ] = 0.1
    who: Annotated[str | None, "your name in the answers [default: your login]"] = None
    host: Annotated[str, "address to listen on, the name by which the page is called"] = "127.0.0.1"
    port: Annotated[int, "port to listen on (0: any free one)", Ge(0), Le(65535)] = 0
    browser: Annotated[bool, "open the page in a browser"] = True
    seed: Annotated[int, "random seed of completions, order and sides", Ge(0), Le(2**63 - 1)] = 0
    temperature: Annotated[
        float | None, "sampling temperature [default: the run's]", Ge(0), Le(100)
    ] = None
    max_new_tokens: Annotated[
        int | None,
        "maximum length of a completion in tokens [default: the run's]",
        Gt(0),
        Le(10**6),
    ] = None
    trust_remote_code: Annotated[bool, "run custom code that the model ships"] = False

    positional: ClassVar[str] = "model"

    def main(self) -> None:
        """Show the page until everything is answered or the user stops."""
        check_options(self)
        check_packages()
        from alignzoo_label.answers import AnswerFile

        answers = AnswerFile(Path(self.out).expanduser(), "ratings" if self.ratings else "pairs")
        answers.check()
        with quiet() as log:
            ui = Terminal(log.out, log)
            with ui.phase("starting"):
                from alignzoo_label.server import Page, listen, make_server, url_of
                from alignzoo_label.summary import describe, next_commands, summarise
            listening = listen(self.host, self.port)
            port = listening.getsockname()[1]
            session = make_session(self, answers, ui)

            def commands() -> list[str]:
                rows = answers.rows()
                return next_commands(answers.path, rows, answers.mode, self.model, self.task)

            who = self.who or login()
            page = Page(session, who=who, commands=commands, host=self.host)
            session.source.start()
            session.source.wait_for(1)
            url = url_of(page, port)
            ui.note("Finish on the page, or Ctrl-C here, ends it; every answer is saved at once:")
            ui.console.print(url, soft_wrap=True)  # in one piece, to be clicked or copied
            if self.browser and log.out.isatty() and has_screen():
                webbrowser.open(url)
            with suppress(KeyboardInterrupt):
                make_server(page, port).run(sockets=[listening])
            session.source.stop()
            rows = answers.rows()
            if session.source.unusable:
                ui.note(f"left out, all completions alike: {session.source.unusable}")
        console = console_for(sys.stdout)
        for line in [*describe(summarise(rows)), f"in {answers.path}; to go on:"]:
            console.print(line, soft_wrap=True)
        for command in commands():
            console.print(f"  {command}", soft_wrap=True)
        if session.source.error is not None:
            error = session.source.error
            raise RunFailed(f"drawing ended early: {first_line(error)}") from error


def check_options(options: LabelCommand) -> None:
    """Raise `BadInput` for options that do not go together."""
    sources = {"prompts": options.prompts, "task": options.task, "completions": options.completions}
    given = [f"--{name}" for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise BadInput(
            f"{' and '.join(given)} contradict each other" if given else "nothing to label",
            hint="name one of --prompts FILE, --task NAME and --completions FILE",
        )
    if options.model is None and options.completions is None:
        raise BadInput(
            "no model that answers the prompts",
            hint="name one: alignzoo label zoo-tiny ...; or a file of --completions",
        )
    if options.next == "undecided" and options.model is None:
        raise BadInput("--next undecided reads the states of a model", hint="name a model")
    if options.next == "undecided" and options.ratings:
        raise BadInput("--next undecided chooses pairs, and --ratings shows none")
    with suppress(ValueError):
        if ipaddress.ip_address(options.host).is_unspecified:
            raise BadInput(
                f"--host {options.host} is no name by which a browser calls this machine",
                hint="name its address or host name, such as --host 192.168.1.5",
            )


def check_packages() -> None:
    """Raise `NotAvailable` if the packages of the page are not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise NotAvailable(
            f"not installed: {', '.join(missing)}", hint="pip install 'alignzoo[label]'"
        )


def make_session(options: LabelCommand, answers: Any, ui: UI) -> Any:
    """Return the session of these options, with its model loaded."""
    from alignzoo_label.candidates import Candidates, read_candidates, read_prompts
    from alignzoo_label.choice import AtRandom, Undecided
    from alignzoo_label.session import Session
    from alignzoo_label.source import Source

    size = 1 if options.ratings else 2
    undecided = options.next == "undecided"
    writer = None
    if options.model is not None:
        with ui.phase(f"loading {options.model}"):
            from alignzoo_label.writer import Writer

            writer = Writer(
                options.model,
                temperature=options.temperature,
                max_new_tokens=options.max_new_tokens,
                trust_remote_code=options.trust_remote_code,
            )
    made: Iterator[Candidates]
    if options.completions is not None:
        read = read_candidates(options.completions, size, ui)
        if options.ratings:  # every completion is one of its own
            read = [replace(one, completions=(text,)) for one in read for text in one.completions]
        Random(options.seed).shuffle(read)
        kept = read[: options.pairs]
        made = map(writer.with_states, kept) if writer and undecided else iter(kept)
    else:
        assert writer is not None
        prompts = read_prompts(options.prompts, options.task, ui)
        drawn = CANDIDATES if undecided else size
        made = writer.draw(prompts, options.seed, options.pairs, drawn, states=undecided)
    choice = Undecided(options.seed) if undecided else AtRandom()
    return Session(answers, Source(made, size), choice, repeat=options.repeat, seed=options.seed)


def has_screen() -> bool:
    """Return whether a browser has a window to open: else it might be one for the terminal."""
    windows = {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    return sys.platform in ("darwin", "win32") or bool(windows)


def login() -> str:
    """Return the name of the user, `someone` if the system does not know it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "someone"
