"""Every command, flag, hook, name and link in the documents exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import warnings
from pathlib import Path

import pytest

import alignzoo
from alignzoo import deprecated, discovery, hooks
from alignzoo.algorithm import Traits
from alignzoo.cli import status
from alignzoo.options import options_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs/design.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
READING = (ROOT / "docs/reading.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("plugins/**/*.md")),
    *sorted(ROOT.glob("benchmarks/**/*.md")),
    *sorted(ROOT.glob("examples/hooks/*.md")),
]
HOOKS = [name for name in vars(hooks) if name.startswith("alignzoo_")]
PACKAGES = [path.name for path in ROOT.glob("*/alignzoo_*")]
MADE_UP = "alignzoo_my_"  # modules of packages that pages write about as examples
ALGORITHMS = list(discovery.discover("algorithms"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """The text of a page, without its section "Planned"."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^## Planned\n.*?(?=^## |\Z)", "", text, flags=re.DOTALL | re.MULTILINE)


def commands_in(page: Path) -> list[list[str]]:
    """The words after `alignzoo` of each command in the code blocks and inline code of a page."""
    text = text_of(page)
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(alignzoo .*)$", text, flags=re.MULTILINE)
    joined = [re.sub(r"\\\n|\n +\[", " [", block) for block in blocks]  # continued lines
    lines = [line for block in joined for line in block.splitlines()]
    inline = re.findall(r"`(alignzoo [^`]+)`", text)
    found = [line.strip().removeprefix("$ ") for line in [*lines, *indented, *inline]]
    return [
        re.split(r"\s#", line)[0].split()[1:]
        for line in found
        if re.match(r"alignzoo [a-z]", line) and not re.match(r"alignzoo +[a-z]+ *=", line)
    ]


COMMANDS = [(name_of(page), words) for page in PAGES for words in commands_in(page)]
COMMANDS += [  # in the first lines of examples
    (name_of(path), command.split())
    for path in sorted(ROOT.glob("examples/**/*.py"))
    for command in re.findall(r"alignzoo (run [^\n\"]+)", ast.get_docstring(parse(path)) or "")
]
COMMANDS += [
    ("README.md", ["run", "ALGO", flag]) for flag in re.findall(r"^\| `(--[^`]+)", README, re.M)
]


def help_words(words: list[str]) -> list[str]:
    """The command whose help lists the flags of these words."""
    if words[0] != "run":
        return [words[0], "--help"]
    algorithm = words[1] if len(words) > 1 else "ALGO"
    if algorithm in ALGORITHMS or algorithm in WRITTEN or (ROOT / algorithm).is_file():
        return ["run", algorithm, "--help"]
    return ["run", "--help"]


# Files that a page tells the reader to write: the path that its commands name, and the code.
WRITTEN = {
    f"./{name}": code
    for page in PAGES
    for name, code in re.findall(
        r'^```python title="([^"]+)"\n(.*?)^```', text_of(page), flags=re.DOTALL | re.MULTILINE
    )
}
HELPED = sorted({tuple(help_words(words)) for _, words in COMMANDS})


@pytest.mark.parametrize("helped", HELPED, ids=" ".join)
def test_every_command_and_flag_exists(helped, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    call = list(helped)
    if helped[1] in WRITTEN:
        call[1] = str(tmp_path / helped[1])
        Path(call[1]).write_text(WRITTEN[helped[1]], encoding="utf-8")
    assert status(call) == 0
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capfd.readouterr().out)) | {"--help"}
    for page, words in COMMANDS:
        if tuple(help_words(words)) == helped:
            used = {flag for word in words for flag in re.findall(r"--[a-z][a-z0-9-]*", word)}
            assert used <= known, (page, " ".join(words))


def test_an_algorithm_in_a_command_exists():
    for page, words in COMMANDS:
        if words[0] == "run" and len(words) > 1 and re.match("(?!my-)[a-z]", words[1]):
            assert words[1] in ALGORITHMS, (page, words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_hook_named_exists(page):
    named = set(re.findall(r"\balignzoo_[a-z_]+", text_of(page)))
    assert {name for name in named if not name.startswith(MADE_UP)} <= {*HOOKS, *PACKAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_named_exists(page):
    folders = "alignzoo|plugins|tests|docs|examples|benchmarks"
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text_of(page)):
        pattern = re.sub("[A-Z]{2,}", "*", path)  # STUDY.jsonl is any study
        assert list(ROOT.glob(pattern.rstrip("/"))), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_dotted_name_resolves_without_a_warning(page):
    groups = {f"alignzoo.{kind}" for kind in discovery.GROUPS}
    for name in set(re.findall(r"`(alignzoo\w*(?:\.\w+)+)[`(]", text_of(page))) - groups:
        if name.startswith(MADE_UP):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            resolve(name)


def resolve(name: str) -> object:
    """Import a dotted name, or look its last parts up in a module."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", text):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_in_the_design_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hooks, hook)).parameters)
    assert f"`{hook}({arguments})" in DESIGN


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def in_backticks(lines: list[str], cell: int = 1) -> list[str]:
    """The names in backticks in one column of a table."""
    rows = [line.split("|")[cell] for line in lines if line.startswith("|")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_design_lists_the_public_names():
    listed = in_backticks(section(DESIGN, "Public names").splitlines())
    assert sorted(listed) == sorted(alignzoo.__all__)


def test_the_design_draws_the_floors_that_hold():
    tree = parse(ROOT / "tests/core/test_floors.py")
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FLOORS"
    ]
    drawn = [
        set(in_backticks([line], 2))
        for line in section(DESIGN, "The house").splitlines()
        if re.match(r"\| \d+ \|", line)
    ]
    assert drawn == ast.literal_eval(value)[::-1]


@pytest.mark.parametrize("former", [*deprecated.MODULES, *deprecated.NAMES])
def test_the_changelog_lists_every_former_name(former):
    assert f"`{former}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_evening_path_is_short():
    files = re.findall(r"^\| \[`([^`]+)`\]", READING, flags=re.MULTILINE)
    lines = sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files)
    assert 0 < len(files) <= 12
    assert lines <= 2000, lines


def test_the_readme_shows_the_example_as_it_is():
    code = (ROOT / "examples/ipo.py").read_text(encoding="utf-8")
    assert code[code.index("from dataclasses") :].strip() in README


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_a_page_that_knows_its_options(name):
    found = discovery.find_plugin("algorithms", name)
    assert found.source is not None
    path = found.source.parent / "README.md"
    page = path.read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    assert f"]({path.relative_to(ROOT)})" in README
    algorithm = discovery.load_plugin("algorithms", name)
    for option in options_of(algorithm):
        assert f"`{option.flag}`" in page
    metric = Traits.of(algorithm).progress_metric
    assert metric is None or f"`{metric}`" in METRICS


def test_the_page_of_judges_knows_the_options_of_a_server():
    from alignzoo_judges import ServerOptions

    page = (ROOT / "docs/judges.md").read_text(encoding="utf-8")
    rewards = (ROOT / "plugins/alignzoo_rewards/README.md").read_text(encoding="utf-8")
    for option in options_of(ServerOptions):
        assert f"`{option.name}`" in page
        assert f"`{option.name}`" in rewards


@pytest.mark.parametrize("kind", ["rewards", "tasks", "samplers", "judges", "addons"])
def test_every_option_of_other_plugins_is_on_a_page(kind):
    text = "".join(text_of(page) for page in PAGES)
    missing = [
        f"{name},{option.name}"
        for name in discovery.discover(kind)
        for option in options_of(discovery.load_plugin(kind, name))
        if not re.search(rf"`{option.name}`|\b{option.name}=", text)
    ]
    assert missing == []


def test_every_make_target_named_exists():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for page in PAGES:
        blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
        code = [*blocks, *re.findall(r"`([^`\n]+)`", text_of(page))]
        named = {name for text in code for name in re.findall(r"\bmake ([a-z]+)", text)}
        assert named <= set(targets), page
