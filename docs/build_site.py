"""Hooks of mkdocs: which files of the repository are the pages of the site.

Pages keep the paths that they have in the repository, so that links work in both. A file of code
that a page links to becomes a page as well. docs/hooks.md and docs/options.md are made here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from alignzoo import discovery, hooks
from alignzoo.discovery.installed import OWN
from alignzoo.options import MISSING, Option, options_of
from alignzoo.recipe import Recipe

ROOT = Path(__file__).parents[1]
PATTERNS = (
    "*.md", "docs/*.md", "plugins/**/*.md", "benchmarks/**/*.md", "examples/**/*.md"
)  # fmt: skip
LINK = re.compile(r"(\]\()(?!https?:|#)([^)#]+)((?:#[^)]*)?\))")
PICTURES = (".png",)
KINDS = ("algorithms", "rewards", "tasks", "samplers", "judges", "addons")


def pages() -> list[Path]:
    """Return the files of the repository that are pages."""
    return sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})


def linked_files(page: Path) -> set[Path]:
    """Return the files that a page links to and that are no pages themselves."""
    targets = {(page.parent / target).resolve() for _, target, _ in LINK.findall(read(page))}
    return {path for path in targets if path.is_file() and path.suffix != ".md"}


def is_code(path: Path) -> bool:
    """Return whether a file becomes a page: all but pictures, which stay as they are."""
    return path.is_file() and path.suffix not in (".md", *PICTURES)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def own_plugins(kind: str) -> list[discovery.Found]:
    """Return the plugins of a kind that alignzoo itself provides."""
    return [found for found in discovery.discover(kind).values() if found.package == OWN]


# What mkdocs calls.


def on_config(config: MkDocsConfig) -> None:
    """Add the pages of the algorithms to the navigation, and give headings GitHub's anchors."""
    [section] = [part["Algorithms"] for part in config.nav or [] if "Algorithms" in part]
    for found in own_plugins("algorithms"):
        assert found.source is not None
        section.append(str((found.source.parent / "README.md").relative_to(ROOT)))
    config.mdx_configs["toc"]["slugify"] = anchor_of


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Replace the files of docs/ by the pages, under their paths in the repository."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in pages():
        source = str(path.relative_to(ROOT))
        files.append(File.generated(config, source, abs_src_path=str(path)))
    for path in sorted(set().union(*map(linked_files, pages()))):
        source = str(path.relative_to(ROOT))
        if is_code(path):
            files.append(File.generated(config, f"{source}.md", content=code_page(path)))
        else:
            files.append(File.generated(config, source, abs_src_path=str(path)))
    files.append(File.generated(config, "docs/hooks.md", content=hook_reference()))
    files.append(File.generated(config, "docs/options.md", content=option_reference()))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files of code to their pages."""
    folder = (ROOT / page.file.src_uri).parent

    def lead(match: re.Match[str]) -> str:
        start, target, end = match.groups()
        path = (folder / target).resolve()
        return f"{start}{target}.md{end}" if is_code(path) else match[0]

    return LINK.sub(lead, markdown)


def anchor_of(heading: str, separator: str = "-") -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


# The pages that are made from code.


def code_page(path: Path) -> str:
    """Return a page that shows a file."""
    return f"# {path.relative_to(ROOT)}\n\n{code_block(path)}"


def code_block(path: Path) -> str:
    """Return a file as a block of code."""
    return f"```{path.suffix.removeprefix('.')}\n{read(path).rstrip()}\n```\n"


def hook_reference() -> str:
    """Return the page of all hooks, in the order of a run, with an example of each."""
    introduction = inspect.cleandoc(hooks.__doc__ or "")
    return "\n".join(["# Hooks", "", introduction, "", *map(describe_hook, hook_names())])


def hook_names() -> list[str]:
    """Return the names of the hooks, in the order of a run."""
    return [name for name in vars(hooks) if name.startswith("alignzoo_")]


def describe_hook(name: str) -> str:
    """Return the section of a hook: its signature, its docstring and its example."""
    hook = getattr(hooks, name)
    signature = inspect.signature(hook)
    options = getattr(hook, "alignzoo_spec", {})
    results = "the first result counts" if options.get("firstresult") else "all plugins are called"
    example = ROOT / f"examples/hooks/{name.removeprefix('alignzoo_')}.py"
    returns = str(signature.return_annotation)
    arguments = [f"    {p.name}: {p.annotation}," for p in signature.parameters.values()]
    return "\n".join(
        [
            f"## {name}",
            "",
            "```python",
            f"def {name}(",
            *arguments,
            f") -> {returns}: ...  # {results}",
            "```",
            "",
            inspect.cleandoc(hook.__doc__),
            "",
            code_block(example),
        ]
    )


def option_reference() -> str:
    """Return the page of the options of all plugins, and of the settings of a run."""
    parts = [
        "# Options",
        "",
        "Options of an algorithm are flags of `alignzoo run NAME`, and keys under `options` in a "
        "recipe file. Those of other plugins follow their name: `NAME,OPTION=VALUE`. What each "
        "means is on the page of its plugin.",
    ]
    for kind in KINDS:
        parts += [f"\n## {kind.capitalize()}\n", *describe_plugins(kind)]
    parts += ["\n## Settings of every run\n", option_table(options_of(Recipe))]
    return "\n".join(parts)


def describe_plugins(kind: str) -> Iterator[str]:
    """Yield a section for each plugin of a kind that has options."""
    for found in own_plugins(kind):
        cls = discovery.load_plugin(kind, found.name)
        options = options_of(cls) if dataclasses.is_dataclass(cls) else []
        if options:
            yield f"### {found.name}\n\n{found.summary}\n\n{option_table(options)}\n"


def option_table(options: list[Option]) -> str:
    """Return a table of options: flag, default, values and help."""
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    rows += [
        " | ".join(
            [
                f"| `{option.flag}`",
                cell(default_of(option)),
                cell(values_of(option)),
                f"{cell(option.help)} |",
            ]
        )
        for option in options
    ]
    return "\n".join(rows)


def cell(text: str) -> str:
    """Return a text as a cell of a table holds it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def default_of(option: Option) -> str:
    """Return the default of an option in words."""
    if option.default is MISSING:
        return "required"
    return "" if option.default in (None, "", []) else str(option.default)


def values_of(option: Option) -> str:
    """Return the type and the bounds of an option, or its choices."""
    kinds = [option.bare_type, *get_args(option.bare_type)]
    choices = [str(c) for kind in kinds if get_origin(kind) is not None for c in get_args(kind)]
    named = [c for c in choices if "Literal" in str(option.bare_type) and "Literal" not in c]
    if named:
        return ", ".join(c for c in named if c != "<class 'NoneType'>")
    name = getattr(option.bare_type, "__name__", str(option.bare_type))
    return f"{name} {option.bounds}".strip()
