"""`alignzoo judge`: how well a judge agrees with people, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import typer
from annotated_types import Ge, Le

from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import shell_command, summary_table, to_plain
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput
from alignzoo.options import options_of

CONTINUE = "answers so far are saved; to get the rest, run again:"


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
        "pairs with chosen and rejected, or prompts with a label: a file, or a name on the Hub",
    ] = None
    task: Annotated[
        str | None, "task whose score is gold, and whose pairs are used without --data"
    ] = None
    question: Annotated[
        str | None,
        "question to the judge [default: Which response is better? or: Which label fits it?]",
    ] = None
    think: Annotated[
        int, "let the judge reason for up to N tokens first (0: off)", Ge(0), Le(10**6)
    ] = 0
    limit: Annotated[int, "maximum number of pairs or prompts", Ge(1)] = 200
    json: Annotated[bool, "print machine-readable JSON"] = False
    trust_remote_code: Annotated[bool, "run custom code that a model ships"] = False

    def main(self) -> None:
        """Run the command."""
        if self.data is None and self.task is None:
            raise BadInput("nothing to judge", hint="add --data FILE or --task NAME")
        command = format_command(self)
        try:
            with quiet() as log:
                # With --json, standard output holds nothing else.
                ui = Terminal(log.err if self.json else log.out, log)
                with ui.phase("starting"):
                    from alignzoo.remote import NoAnswer
                    from alignzoo_judges.agreement import evaluate_judge
                try:
                    evaluation = evaluate_judge(
                        self.judge,
                        question=self.question,
                        think=self.think,
                        limit=self.limit,
                        data=self.data,
                        task=self.task,
                        trust_remote_code=self.trust_remote_code,
                        ui=ui,
                    )
                except NoAnswer as error:
                    raise error.with_hint(f"{CONTINUE}\n  {command}") from None
        except KeyboardInterrupt:
            print(f"alignzoo: interrupted; {CONTINUE}\n  {command}", file=sys.stderr)
            raise typer.Exit(130) from None
        if self.json:
            print(
                json.dumps({"judge": self.judge, **to_plain(evaluation)}, indent=2, allow_nan=False)
            )
            return
        console_for(sys.stdout).print(summary_table({self.judge: evaluation.summary}))


def format_command(options: JudgeCommand) -> str:
    """Return the command line of these options, without those at their defaults."""
    words = ["alignzoo", "judge"]
    for option in options_of(type(options)):
        value = getattr(options, option.name)
        if value != option.default:
            words += [option.flag] if value is True else [option.flag, str(value)]
    return shell_command(words)
