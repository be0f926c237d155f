"""One export: the reference, the files, the proofs, the card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignzoo import BadInput
from alignzoo.files import hash_file, whole_folder, write_json, write_text
from alignzoo.policy import locate_model
from alignzoo.ui import UI
from alignzoo_export.card import render_card
from alignzoo_export.items import make_reference
from alignzoo_export.plain import PlainModel
from alignzoo_export.proof import BOUNDS, prove
from alignzoo_export.write import write_adapter, write_model, write_tokenizer

REPORT = "export.json"
PACKAGES = ("alignzoo", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Settings:
    """What to export, and how: see the options of the command."""

    merge: bool
    dtype: str
    items: int
    trust_remote_code: bool


def export(
    run: Path, out: Path, facts: dict[str, Any], settings: Settings, ui: UI
) -> dict[str, Any]:
    """Write the export of a run to `out`, prove it, and return the report in `export.json`."""
    source = locate_model(str(run))
    if source.score_head is not None:
        raise BadInput(
            "the run's result is a reward model, which answers no prompts",
            where=str(run),
            hint=f"use it as it is: --reward {run}",
        )
    trust = {"trust_remote_code": settings.trust_remote_code}
    merged = settings.merge or not source.adapters
    with ui.phase(f"loading {run}"):
        reference = make_reference(run, settings.items, ui=ui, **trust)
    bound = BOUNDS["float32"]
    with whole_folder(out) as folder:
        with ui.phase("writing the model" if merged else "writing the adapter"):
            if merged:
                kind = write_model(str(run), folder, settings.dtype, **trust)
                bound = BOUNDS[kind]
            else:
                kind = write_adapter(str(run), folder, **trust)
            write_tokenizer(reference.codec, folder)
        with ui.phase("loading what was written"):
            subject = PlainModel(folder, **trust)
        run_score = reference.score([item.answer for item in reference.items])
        proof, reference = prove(subject, reference, bound, "the run", ui)
        subject.close()
        report = {
            "run": run.name,
            "base": source.base if source.adapters else facts["recipe"]["model"],
            "what": "model" if merged else "adapter",
            "merged": merged and bool(source.adapters),
            "kind": kind,
            "run_score": None if run_score is None else asdict(run_score),
            "four_bit_gap": reference.four_bit_gap,
            "proofs": [proof.as_dict()],
            "packages": {name: version(name) for name in PACKAGES},
        }
        write_text(folder / "README.md", render_card(out.name, facts, report))
        report["files"] = {
            str(path.relative_to(folder)): hash_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        write_json(folder / REPORT, report)
    return report
