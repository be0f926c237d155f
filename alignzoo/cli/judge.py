"""`alignzoo judge`: how far a judge agrees with those who chose, as a table or as JSON."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

import typer

from alignzoo.cli.evaluate import plain
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.options import options_of

if TYPE_CHECKING:
    from alignzoo.cli.app import Judging

KEPT = "what was answered is kept, and this asks for the rest:"


def judge_command(options: Judging, *, as_json: bool, trust_remote_code: bool) -> None:
    if options.data is None and options.task is None:
        raise BadInput("there is nothing to judge", hint="add --data FILE or --task NAME")
    command = command_of(options, as_json=as_json, trust_remote_code=trust_remote_code)
    try:
        with quiet() as log:
            # Standard output is for a program then, and holds nothing but JSON.
            ui = Terminal(log.err if as_json else log.out)
            with ui.phase("starting"):
                from alignzoo.evaluation import Asking, evaluate_judge
                from alignzoo.remote import Unanswered
            try:
                found = evaluate_judge(
                    options.judge,
                    Asking(options.question, options.think, options.limit),
                    data=options.data,
                    task=options.task,
                    trust_remote_code=trust_remote_code,
                    ui=ui,
                )
            except Unanswered as error:
                raise error.with_hint(f"{KEPT}\n  {command}") from None
    except KeyboardInterrupt:
        print(f"alignzoo: interrupted; {KEPT}\n  {command}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps({"judge": options.judge, **plain(found)}, indent=2, allow_nan=False))
        return
    console_for(sys.stdout).print(summary_table({options.judge: found.summary}))


def command_of(options: Judging, *, as_json: bool, trust_remote_code: bool) -> str:
    """The command as it would be typed."""
    words = ["alignzoo", "judge"]
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if value != option.default:
            words += [option.flag, str(value)]
    words += ["--json"] * as_json + ["--trust-remote-code"] * trust_remote_code
    return shlex.join(words)
