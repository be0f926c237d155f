"""One export: the reference, the files, the proofs, the card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from alignzoo import BadInput
from alignzoo.files import hash_file, whole_folder, write_json, write_text
from alignzoo.policy import default_device, locate_model
from alignzoo.ui import UI
from alignzoo_export import llama
from alignzoo_export.card import describe_earlier, render_card
from alignzoo_export.items import Reference, make_reference
from alignzoo_export.ollama import render_modelfile
from alignzoo_export.plain import PlainModel
from alignzoo_export.proof import BOUNDS, Proof, Subject, prove
from alignzoo_export.write import write_adapter, write_model, write_tokenizer

REPORT = "export.json"
PACKAGES = ("alignzoo", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Settings:
    """What to export, and how: see the options of the command."""

    merge: bool
    gguf: Literal["f16", "q8_0", "q4_k_m"] | None
    dtype: str
    items: int
    trust_remote_code: bool


class Export:
    """An export in the making: a folder that is not in its place yet, and what is proved of it."""

    def __init__(self, run: Path, out: Path, settings: Settings, ui: UI):
        self.run, self.name, self.settings, self.ui = str(run), out.name, settings, ui
        self.source = locate_model(self.run)
        if self.source.score_head is not None:
            raise BadInput(
                "the run's result is a reward model, which answers no prompts",
                where=self.run,
                hint=f"use it as it is: --reward {run}",
            )
        self.merges = settings.merge or settings.gguf is not None or not self.source.adapters
        if settings.dtype != "base" and not self.merges:
            raise BadInput(
                "option --dtype: an adapter is written in the precision that it has",
                hint="add --merge",
            )
        self.trust = {"trust_remote_code": settings.trust_remote_code}
        self.device = default_device()
        self.reference = self.make_reference(run)
        score = self.reference.score([item.answer for item in self.reference.items])
        self.proofs: list[Proof] = []
        self.report: dict[str, Any] = {
            "run": run.name,
            "run_score": None if score is None else asdict(score),
            "four_bit_gap": self.reference.four_bit_gap,
            "packages": {name: version(name) for name in PACKAGES},
            "notes": [],
        }

    def make_reference(self, run: Path) -> Reference:
        """Return the reference, computed on the CPU if the model does not fit the accelerator."""
        count = self.settings.items
        with self.ui.phase(f"loading {run}"):
            try:
                return make_reference(run, count, device=self.device, ui=self.ui, **self.trust)
            except torch.OutOfMemoryError:
                if self.device.type == "cpu":
                    raise
        self.ui.note(f"in float32 the model does not fit {self.device.type}: the CPU computes it")
        self.device = torch.device("cpu")
        return self.make_reference(run)

    def prove(self, subject: Subject, kind: str, compared_with: str) -> None:
        """Prove what was written in a precision; what is made from it is compared with it."""
        bound = BOUNDS[kind]
        proof, self.reference = prove(subject, self.reference, bound, compared_with, self.ui)
        self.proofs.append(proof)

    def write_adapter(self, folder: Path) -> None:
        """Write an adapter, and prove it."""
        with self.ui.phase("writing the adapter"):
            kind = write_adapter(self.run, folder, **self.trust)
            write_tokenizer(self.reference.codec, folder)
        self.report |= {"what": "adapter", "kind": kind}
        self.prove_plain(folder, "float32")

    def write_model(self, folder: Path) -> None:
        """Write a model with all adapters merged, and prove it."""
        with self.ui.phase("writing the model"):
            kind = write_model(self.run, folder, self.settings.dtype, **self.trust)
            write_tokenizer(self.reference.codec, folder)
        self.report |= {"what": "model", "kind": kind}
        self.prove_plain(folder, kind)

    def prove_plain(self, folder: Path, kind: str) -> None:
        """Prove what was written for transformers or peft."""
        with self.ui.phase("loading what was written"):
            subject = PlainModel(folder, device=self.device, **self.trust)
        self.prove(subject, kind, "the run")
        subject.close()

    def write_gguf(self, model: Path, folder: Path, quantisation: str) -> None:
        """Write a model's folder as a GGUF file with its Modelfile, and prove it."""
        path = folder / f"{self.name}-{quantisation.upper()}.gguf"
        with self.ui.phase(f"converting to {quantisation}"):
            llama.convert(model, path, quantisation, **self.trust)
        types = llama.count_types(path)
        self.report["gguf"] = {"file": path.name, "tensors": dict(types)}
        if not self.settings.merge:
            self.report |= {"what": "gguf", "kind": quantisation}
        self.note(llama.describe_fallback(types, quantisation))
        codec, name = self.reference.codec, f"llama.cpp {quantisation}"
        subject = llama.LlamaCpp(path, name, codec.tokenizer, llama.context_for(self.reference))
        adds_bos = subject.adds_bos
        self.prove(subject, quantisation, "the model")
        subject.close()
        modelfile, note = render_modelfile(codec, path.name, adds_bos=adds_bos)
        write_text(folder / "Modelfile", modelfile)
        self.note(note)

    def note(self, text: str | None) -> None:
        """Show something that the user should know, and keep it in the report."""
        if text is not None:
            self.report["notes"].append(text)
            self.ui.note(text)

    def finish(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write the card and the report."""
        adapters = self.source.adapters
        self.report |= {
            "base": self.source.base if adapters else facts["recipe"]["model"],
            "merged": self.report["what"] != "adapter" and bool(adapters),
            "earlier": [describe_earlier(adapter.path.parent) for adapter in adapters[:-1]],
            "proofs": [proof.as_dict() for proof in self.proofs],
        }
        write_text(folder / "README.md", render_card(self.name, facts, self.report))
        self.report["files"] = {
            str(path.relative_to(folder)): hash_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        write_json(folder / REPORT, self.report)


def export(
    run: Path, out: Path, facts: dict[str, Any], settings: Settings, ui: UI
) -> dict[str, Any]:
    """Write the export of a run to `out`, prove it, and return the report in `export.json`."""
    if settings.gguf is not None:
        llama.check_installed()
    made = Export(run, out, settings, ui)
    with whole_folder(out) as folder:
        if not made.merges:
            made.write_adapter(folder)
        elif settings.gguf is None:
            made.write_model(folder)
        else:
            with TemporaryDirectory(dir=folder) as scratch:
                model = folder if settings.merge else Path(scratch)
                made.write_model(model)
                made.write_gguf(model, folder, settings.gguf)
        made.finish(folder, facts)
    return made.report
