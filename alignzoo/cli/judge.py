"""`alignzoo judge`: how far a judge agrees with those who chose, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from alignzoo.cli.evaluate import plain
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import summary_table
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput

if TYPE_CHECKING:
    from alignzoo.cli.app import Judging


def judge_command(options: Judging, *, as_json: bool, trust_remote_code: bool) -> None:
    if options.data is None and options.task is None:
        raise BadInput("there is nothing to judge", hint="add --data FILE or --task NAME")
    with quiet() as log:
        # Standard output is for a program then, and holds nothing but JSON.
        ui = Terminal(log.err if as_json else log.out)
        with ui.phase("starting"):
            from alignzoo.evaluation import evaluate_judge
        found = evaluate_judge(
            options.judge,
            data=options.data,
            task=options.task,
            question=options.question,
            limit=options.limit,
            trust_remote_code=trust_remote_code,
            ui=ui,
        )
    if as_json:
        print(json.dumps({"judge": options.judge, **plain(found)}, indent=2, allow_nan=False))
        return
    console_for(sys.stdout).print(summary_table({options.judge: found.summary}))
