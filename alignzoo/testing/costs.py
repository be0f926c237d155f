"""Laws on what a plugin costs, and on whether its page says what it logs."""

from __future__ import annotations

import ast
import re
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import alignzoo
from alignzoo import discovery
from alignzoo.reserved import METRICS
from alignzoo.run.forwards import Forwards
from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.stage import Stage, clone

DEAREST_LOSS = 0.5  # of the time of a forward and a backward pass of zoo-tiny
REPEATS = 5
LINK = re.compile(r"\]\(([^)#:]+\.md)")  # of Markdown, to a page of the same repository
PAGES = ("README.md", "README.rst", "README.txt")


@law(
    "algorithms",
    "overhead of the loss",
    says="a loss takes less than half the time of a forward and a backward pass of zoo-tiny",
    cause="a loop over tokens or rows in Python, where a tensor operation would do",
    hook="alignzoo_loss",
)
def check_overhead_of_loss(stage: Stage) -> None:
    """Time the loss without its forward passes, and compare the fastest of a few with a model's."""
    run, forwards = stage.run, stage.forwards
    model = Forwards(run.model, run.ledger)
    shares = []
    for _ in range(REPEATS):
        batch = clone(stage.batch)
        forwards.seconds, began = 0.0, time.perf_counter()
        with forwards.recorded():
            run.hook.alignzoo_loss(run=run, batch=batch)
        own = time.perf_counter() - began - forwards.seconds
        began = time.perf_counter()
        model.policy(batch).logprobs.sum().backward()
        shares.append(own / (time.perf_counter() - began))
    if min(shares) > DEAREST_LOSS:
        raise Broken(f"the loss takes {min(shares):.2f} times as long as the passes of a model")


@law(
    "algorithms",
    "documented metrics",
    says="each metric that the plugin logs is named on its page, on one that this links to, or in "
    "its docstrings",
    cause="a metric that is missing in the README.md beside the plugin",
    hook="alignzoo_loss",
)
def check_documented(stage: Stage) -> None:
    """Look for the name of each metric in the plugin's page and docstrings, and in the core."""
    names = {*stage.measure().totals.means(), *stage.run.round_metrics.numbers}
    names -= {name for name in names if METRICS.fullmatch(name)}  # the core's own
    page, absent = page_of(stage.name)
    missing = sorted(name for name in names if name not in core_text() + page)
    if missing and absent:
        raise NotApplicable(f"its page links to {absent[0]}, which is not here")
    if missing:
        raise Broken(f"no page names {', '.join(missing)}")


@cache
def core_text() -> str:
    """Return the source of the core, whose metrics `docs/metrics.md` lists."""
    folder = Path(alignzoo.__file__).parent
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def page_of(name: str) -> tuple[str, list[Path]]:
    """Return what an algorithm's page says, and the pages that it links to and that are missing.

    Its page is the README of its folder, of the one above, or of its package, with the docstrings
    of its files.
    """
    package, _, source = discovery.plugin_source("algorithms", name)
    if source is None:
        return "", []
    folder = source.parent if source.is_file() else source
    pages = [place / page for place in (folder, folder.parent) for page in PAGES]
    pages = [page for page in pages if page.is_file()]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    links = {
        page.parent / link for page, text in zip(pages, texts, strict=True)
        for link in LINK.findall(text)
    }  # fmt: skip
    texts += [link.read_text(encoding="utf-8") for link in sorted(links) if link.is_file()]
    files = [source] if source.is_file() else sorted(folder.glob("*.py"))
    texts += [description_of(package), *map(docstrings, files)]
    return "\n".join(texts), [link for link in links if not link.is_file()]


def description_of(package: str) -> str:
    """Return the long description of an installed package, which is its README; "" of none."""
    try:
        description = metadata(package).get_payload()  # type: ignore[attr-defined]
    except PackageNotFoundError:
        return ""
    return str(description)


def docstrings(path: Path) -> str:
    """Return the docstrings of a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n".join(filter(None, found))
