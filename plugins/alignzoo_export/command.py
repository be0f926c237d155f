"""`alignzoo export`: write the result of a run for other programs, and prove what was written."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from alignzoo import BadInput
from alignzoo.cli.quiet import quiet
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.record import read_run

Dtype = Literal["base", "fp32", "bf16", "fp16"]
Quantisation = Literal["f16", "q8_0", "q4_k_m"]


@dataclass
class ExportCommand:
    """Export the result of a run as an adapter or a model that other programs load.

    An export is loaded again by the program that it is for. It appears only if its tokens and its
    log-probs are those of the run, on held-out prompts of the run.
    """

    run: Annotated[str, "folder of a finished run"]
    dir: Annotated[str, "folder to write, new or empty"]
    merge: Annotated[bool, "write a model with all adapters merged into the base"] = False
    gguf: Annotated[
        Quantisation | None, "write the merged model for llama.cpp and Ollama, in this precision"
    ] = None
    dtype: Annotated[Dtype, "precision of a merged model; base: as the base is stored"] = "base"
    items: Annotated[int, "held-out prompts that the proof answers", Ge(1), Le(1000)] = 16
    push: Annotated[str | None, "upload the export to the Hub as OWNER/NAME"] = None
    private: Annotated[bool, "make the repository of --push private"] = False
    json: Annotated[bool, "print what was proved as JSON"] = False
    trust_remote_code: Annotated[bool, "run custom code that the model ships"] = False

    positional: ClassVar[tuple[str, ...]] = ("run", "dir")

    def main(self) -> None:
        """Export, and print what was proved."""
        run, out = Path(self.run).expanduser(), Path(self.dir).expanduser().absolute()
        facts = read_run(run)
        check_run(run, facts)
        check_empty(out)
        if self.private and self.push is None:
            raise BadInput("option --private: there is no --push that it applies to")
        with quiet() as log:
            ui = Terminal(log.err if self.json else log.out, log)
            with ui.phase("starting"):
                from alignzoo_export import hub
                from alignzoo_export.export import Settings, export
            if self.push is not None:
                hub.check_name(self.push)
                hub.check_login()
            settings = Settings(
                merge=self.merge,
                gguf=self.gguf,
                dtype=self.dtype,
                items=self.items,
                trust_remote_code=self.trust_remote_code,
            )
            report = export(run, out, facts, settings, ui)
            if self.push is not None:
                with ui.phase(f"uploading to {self.push}"):
                    report["pushed"] = hub.upload(out, self.push, private=self.private)
        if self.json:
            print(json.dumps(report, indent=2))
        else:
            from alignzoo_export.show import show

            show(report, out, console_for(sys.stdout))


def check_run(run: Path, facts: dict[str, Any]) -> None:
    """Raise `BadInput` unless the run is finished and has a result."""
    if facts["status"] != "finished":
        raise BadInput(
            f"the run is not finished (its status is {facts['status']!r})",
            where=str(run),
            hint="finish it with --resume",
        )


def check_empty(out: Path) -> None:
    """Raise `BadInput` if the folder to write is a file, or holds anything."""
    if out.exists() and not out.is_dir():
        raise BadInput("a file is in the place of the folder to write", where=str(out))
    if out.is_dir() and (held := sorted(path.name for path in out.iterdir())):
        raise BadInput(
            f"the folder to write holds something else: {', '.join(held[:5])}",
            where=str(out),
            hint="choose a new or an empty folder",
        )
