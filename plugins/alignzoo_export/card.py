"""The model card: what the run's record says, as a page of the Hub."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from alignzoo import discovery
from alignzoo.files import looks_like_path
from alignzoo.record import read_run

MARKDOWN = re.compile(r"([\\`*_{}\[\]()#|!~$])")
LINK = re.compile(r"https?://[^\s)]+")


def render_card(name: str, facts: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Return the README of an export, from `run.json` and the report of the export."""
    templates = Environment(
        loader=PackageLoader("alignzoo_export"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"escape": escape, "estimate": estimate}
    recipe = facts["recipe"]
    base = report["base"]
    return templates.get_template("card.md.j2").render(
        name=name,
        metadata=yaml.safe_dump(metadata(facts, report), sort_keys=False, allow_unicode=True),
        base=Path(base).name if looks_like_path(base) else base,
        recipe=recipe,
        settings=changed_settings(recipe),
        algorithm=describe_algorithm(recipe["algorithm"]),
        facts=facts,
        report=report,
        changes=list(before_and_after(facts["results"])),
        spent=dict(describe_cost(facts["ledger"])),
    )


def metadata(facts: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's front matter, by which the Hub files a model."""
    recipe, base = facts["recipe"], report["base"]
    libraries = {"adapter": "peft", "model": "transformers", "gguf": "gguf"}
    relations = {"adapter": "adapter", "model": "finetune", "gguf": "quantized"}
    found: dict[str, Any] = {
        "library_name": libraries[report["what"]],
        "pipeline_tag": "text-generation",
        "tags": ["alignzoo", recipe["algorithm"]],
    }
    if not looks_like_path(base):
        found["base_model"] = base
        found["base_model_relation"] = relations[report["what"]]
    data = recipe.get("data")
    sources = list(data) if isinstance(data, Mapping) else [data] if isinstance(data, str) else []
    if hub := [one.split(":")[0].split("@")[0] for one in sources if not looks_like_path(one)]:
        found["datasets"] = hub
    return found


def describe_algorithm(name: str) -> tuple[str, str]:
    """Return the first line of an installed algorithm's docstring, and the link to its paper.

    It is read from the source: nothing that the record of a run names is imported.
    """
    found = discovery.discover("algorithms").get(name)
    summary = found.summary if found is not None else ""
    link = LINK.search(summary)
    text = re.sub(r"\s*\(?https?://[^\s)]+\)?", "", summary)
    return text, link[0] if link else ""


def describe_earlier(folder: Path) -> str:
    """Return the algorithm and the data of a run that an exported one went on from."""
    if not (folder / "run.json").is_file():  # an adapter that is no run's
        return folder.name
    recipe = read_run(folder)["recipe"]
    return f"{recipe['algorithm']} on {recipe.get('data') or recipe.get('task')}"


def changed_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of training that a reader wants to know, with the algorithm's options."""
    names = "adapter lora_rank lora_alpha steps epochs budget batch_size max_length seed".split()
    found = {name: recipe[name] for name in names if recipe.get(name) is not None}
    return found | dict(recipe.get("options") or {})


def before_and_after(results: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each estimate of the run's evaluations, with its values by phase."""
    before, after = results.get("before", {}), results.get("after", {})
    for name in dict.fromkeys([*before, *after]):
        yield name, before.get(name), after.get(name)


def describe_cost(ledger: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the run spent, in words, with its amount."""
    yield "compute", f"{sum(ledger['flops'].values()):.3g} FLOPs"
    yield "tokens computed", f"{sum(ledger['tokens'].values()):,}"
    for name, amount in ledger["feedback"].items():
        if amount:
            yield name.replace("_", " "), f"{amount:,}"
    if ledger["money"]:
        yield "money for judges", f"{ledger['money']:.4g}"
    yield "time", f"{ledger['seconds']:,.0f} s"
    yield "peak memory", f"{ledger['peak_memory_bytes'] / 1e9:.2f} GB"


def estimate(value: Any) -> str:
    """Return a mean with its 95% interval, or a dash."""
    if value is None:
        return "-"
    mean, low, high = (value.get(name) for name in ("mean", "low", "high"))
    if low is None or high is None:
        return f"{mean:.4g}"
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]"


def escape(value: Any) -> str:
    """Return a value as Markdown that shows it as it is: a run's record may be a stranger's."""
    return MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(value).split())))
