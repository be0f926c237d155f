"""`alignzoo judge`: how far a judge agrees with those who chose, as a table or as JSON."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

import typer
from annotated_types import Ge

from alignzoo.cli.evaluate import plain
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.options import options_of

KEPT = "what was answered is kept, and this asks for the rest:"


@dataclass
class JudgeCommand:
    """Measure how well a judge agrees with human preferences or labels."""

    judge: Annotated[
        str,
        "gold, a run, a model (NAME,four_bit=true: in 4 bits), or a server: "
        "http://HOST:PORT/v1[,OPTION=VALUE...] with the options model, timeout (60), retries (4), "
        "requests (16), per_minute (0), price_in (0), price_out (0)",
    ]
    data: Annotated[
        str | None,
        "pairs with chosen and rejected, or prompts with a label: a file, or a name on the hub",
    ] = None
    task: Annotated[str | None, "task whose score is gold, and its pairs if no --data"] = None
    question: Annotated[
        str | None, "what is asked [default: Which response is better? or: Which label fits it?]"
    ] = None
    think: Annotated[int, "tokens to explain in before each answer (0: none)", Ge(0)] = 0
    limit: Annotated[int, "most pairs or prompts", Ge(1)] = 200
    json: Annotated[bool, "print machine-readable JSON"] = False
    trust_remote_code: Annotated[bool, "run code that comes with the model"] = False

    def main(self) -> None:
        if self.data is None and self.task is None:
            raise BadInput("there is nothing to judge", hint="add --data FILE or --task NAME")
        command = command_of(self)
        try:
            with quiet() as log:
                # Standard output is for a program then, and holds nothing but JSON.
                ui = Terminal(log.err if self.json else log.out)
                with ui.phase("starting"):
                    from alignzoo.remote import Unanswered
                    from alignzoo_judges.agreement import Asking, evaluate_judge
                try:
                    found = evaluate_judge(
                        self.judge,
                        Asking(self.question, self.think, self.limit),
                        data=self.data,
                        task=self.task,
                        trust_remote_code=self.trust_remote_code,
                        ui=ui,
                    )
                except Unanswered as error:
                    raise error.with_hint(f"{KEPT}\n  {command}") from None
        except KeyboardInterrupt:
            print(f"alignzoo: interrupted; {KEPT}\n  {command}", file=sys.stderr)
            raise typer.Exit(130) from None
        if self.json:
            print(json.dumps({"judge": self.judge, **plain(found)}, indent=2, allow_nan=False))
            return
        console_for(sys.stdout).print(summary_table({self.judge: found.summary}))


def command_of(options: JudgeCommand) -> str:
    """The command as it would be typed."""
    words = ["alignzoo", "judge"]
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if value != option.default:
            words += [option.flag] if value is True else [option.flag, str(value)]
    return shlex.join(words)
