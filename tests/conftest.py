"""What the tests share: small models of random weights, and quick runs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # it says that its interface may change

# A launcher such as nohup, or a shell that runs tests in the background, leaves signals ignored.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("alignzoo", deadline=None)
settings.load_profile("alignzoo")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first, so that no process is left alone with one at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    long |= {item.path for item in items if {"e2e", "fuzz", "policy"} & set(item.path.parts)}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small matrices: a second thread costs more than it gives, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Any]:
    """`make_run("dpo", steps=3, options={...}) -> Run`, ready for its first round."""
    from alignzoo.session.session import Permissions, prepare, recipe_for
    from alignzoo.ui import Silent

    def make(algorithm: str, *, resume: bool = False, **settings: Any) -> Any:
        recipe = recipe_for(
            algorithm, {"output_dir": str(tmp_path / "runs"), "eval_size": 0, **settings}
        )
        return prepare(recipe, Permissions(), resume=resume, ui=Silent())

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`install("first", "addons", {"anneal": "first_mod:Anneal"}, {"first_mod.py": "..."})`.

    It puts a package with these entry points and files on Python's path, and returns its folder.
    """
    before = set(sys.modules)

    def put(package: str, kind: str, plugins: dict[str, str], files: dict[str, str]) -> Path:
        folder = tmp_path / "site" / package
        info = folder / f"{package}-1.0.dist-info"
        lines = [f"{name} = {value}" for name, value in plugins.items()]
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        files = {
            f"{info.name}/METADATA": metadata,
            f"{info.name}/entry_points.txt": "\n".join([f"[alignzoo.{kind}]", *lines, ""]),
            **files,
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    yield put
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and tmp_path in Path(file).parents:
            del sys.modules[name]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium without a window, with the logs of its console and of its requests."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()
