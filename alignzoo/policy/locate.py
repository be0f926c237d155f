"""Resolve `--model`: an embedded model, a folder, an earlier run, an adapter, or a name on the hub.

Whatever looks like a path is never tried on the hub, so a mistyped folder gives a message at once
and not a network error.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from alignzoo.errors import LONGEST, BadInput, first_line
from alignzoo.files import looks_like_path, nearest_path, require_regular
from alignzoo.policy.heads import CLASSIFIER_HEAD, SCORE_HEAD_FILE, is_classifier
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.policy.weight_files import stored_tensors, weight_files

EMBEDDED = {  # name -> folder
    "zoo-tiny": "zoo_tiny",
    "zoo-critic": "zoo_critic",
    "zoo-scout": "zoo_scout",
    "zoo-abacus": "zoo_abacus",
}
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
VIRTUAL_TYPES = {kind.virtual_type: kind.name for kind in ADAPTERS.values() if kind.virtual}


@dataclass(frozen=True)
class Adapter:
    """A folder in PEFT's layout; `four_bit` if it was trained on, and fits, a base in 4 bits.

    `trained_on` is the fingerprint of the files of the model under it, if its run recorded one.
    """

    path: Path
    four_bit: bool = False
    trained_on: str | None = None

    @property
    def virtual(self) -> str | None:
        """The kind of its virtual tokens ("prompt" or "prefix"); None if it can be merged."""
        return VIRTUAL_TYPES.get(str(_json(self.path / "adapter_config.json").get("peft_type")))


@dataclass(frozen=True)
class ModelSource:
    """A base model (a folder, or a name on the hub) and the adapters on it, the earliest first.

    `tokenizer` is the folder or hub name of the tokenizer.
    """

    base: str
    tokenizer: str
    adapters: list[Adapter] = field(default_factory=list)

    @property
    def on_hub(self) -> bool:
        """True if the base is a name on the hub, not a folder."""
        return not Path(self.base).is_dir()

    @property
    def folder(self) -> Path | None:
        """The folder of the base's files, the downloaded ones of a name on the hub, if known."""
        if not self.on_hub:
            return Path(self.base)
        config = try_to_load_from_cache(self.base, "config.json")
        return Path(config).parent if isinstance(config, str) else None

    @property
    def four_bit(self) -> bool:
        """True if one of the adapters was trained on a base in 4 bits."""
        return any(adapter.four_bit for adapter in self.adapters)

    def in_full_precision(self) -> ModelSource:
        """Return this source with all adapters on the base as it is stored, none on 4 bits."""
        return replace(self, adapters=[replace(one, four_bit=False) for one in self.adapters])

    @property
    def score_head(self) -> Path | None:
        """The file with the score head: its own, or a classifier's weights; None if absent.

        Its own is beside the last adapter, or beside the weights.
        """
        folder = self.adapters[-1].path if self.adapters else Path(self.base)
        path = folder / SCORE_HEAD_FILE
        if path.is_file() or self.adapters or not (folder / "config.json").is_file():
            return path if path.is_file() else None
        if not is_classifier(_json(folder / "config.json").get("architectures")):
            return None
        head = stored_tensors(weight_files(folder)).get(CLASSIFIER_HEAD)
        return head.file if head is not None else None


def locate_model(model: str) -> ModelSource:
    """Return the source that `model` names; BadInput if there is nothing to load."""
    return _locate(model, seen=())


def _locate(model: str, seen: tuple[Path, ...]) -> ModelSource:
    if model in EMBEDDED:
        folder = str(_embedded(model))
        return ModelSource(folder, folder)
    path = Path(model).expanduser()
    if path.is_dir():
        path = path.resolve()
        if path in seen:
            raise BadInput("circular base: this run is its own ancestor", where=str(path))
        seen = (*seen, path)
        if (path / "run.json").is_file():
            return _run(path, seen)
        if (path / "adapter_config.json").is_file():
            return _adapter(Adapter(path), _base_of(path), seen)
        return _folder(path)
    if path.exists():
        raise BadInput("expected the folder of a model, got a file", where=model)
    if looks_like_path(model):
        raise BadInput(f"there is no folder {model!r}", hint=nearest_path(path, folders=True))
    if not HUB_NAME.match(model):
        raise BadInput(
            f"{model!r} is neither a folder nor a name on the hub",
            hint="use zoo-tiny, a name such as Qwen/Qwen2.5-0.5B, a folder, or an earlier run",
        )
    return ModelSource(model, model)


def _embedded(model: str) -> Path:
    spec = importlib.util.find_spec("alignzoo_suite")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"{model} is not installed: it comes with the package alignzoo_suite",
            hint="reinstall alignzoo, or name a model with --model",
        )
    return Path(next(iter(spec.submodule_search_locations))) / EMBEDDED[model]


def _run(path: Path, seen: tuple[Path, ...]) -> ModelSource:
    record = _json(path / "run.json")
    recipe = record.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("model"), str):
        raise BadInput(
            "run.json does not name the model that the run started from", where=str(path)
        )
    if (path / "adapter" / "adapter_config.json").is_file():
        base = recipe["model"]
        # A run made elsewhere names its base relative to the folder it was started in.
        if looks_like_path(base) and not Path(base).expanduser().is_dir():
            base = _base_of(path / "adapter")
        if recipe.get("random_init", recipe.get("scratch")):
            raise BadInput(
                "the adapter was trained on random weights, which were not saved",
                where=str(path),
                hint="train all of them with --random-init --adapter none: these are saved",
            )
        prints = record.get("fingerprints")
        trained_on = prints.get("weights") if isinstance(prints, dict) else None
        adapter = Adapter(path / "adapter", _is_four_bit(recipe), trained_on)
        return _adapter(adapter, base, seen)
    if (path / "model").is_dir():
        return _folder(path / "model")
    if record.get("status") == "finished":
        raise BadInput(
            "this run trained nothing, so it has no model",
            where=str(path),
            hint=f"use the model that it answered with: {recipe['model']}",
        )
    raise BadInput(
        f"this run has no result (its status is {record.get('status', 'unknown')!r})",
        where=str(path),
        hint="finish it with --resume, or use another run",
    )


def _adapter(adapter: Adapter, base: str, seen: tuple[Path, ...]) -> ModelSource:
    path = adapter.path
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise BadInput(f"the adapter has no {ADAPTER_WEIGHTS}", where=str(path))
    if _json(path / "adapter_config.json").get("megatron_config"):
        # PEFT would import the module `megatron_core` that the file names.
        raise BadInput("the adapter is for Megatron's layers, not for this model", where=str(path))
    refuse_endless(path)
    under = _locate(base, seen)
    tokenizer = str(path) if _has_tokenizer(path) else under.tokenizer
    return ModelSource(under.base, tokenizer, [*under.adapters, adapter])


def _is_four_bit(recipe: dict[str, Any]) -> bool:
    kind = ADAPTERS.get(str(recipe.get("adapter")))
    return kind is not None and kind.four_bit


def _base_of(adapter: Path) -> str:
    base = _json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise BadInput("the adapter does not name its base model", where=str(adapter))
    return base


def _folder(path: Path) -> ModelSource:
    if not (path / "config.json").is_file():
        held = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
        raise BadInput(
            f"not a model: no config.json (the folder holds {', '.join(held[:8]) or 'nothing'})",
            where=str(path),
            hint="a model has config.json, *.safetensors and a tokenizer; a run has run.json",
        )
    if not _has_tokenizer(path):
        raise BadInput(
            "the model has no tokenizer (tokenizer.json or tokenizer_config.json)",
            where=str(path),
            hint="save it beside the model: tokenizer.save_pretrained(folder)",
        )
    refuse_endless(path)
    return ModelSource(str(path), str(path))


def refuse_endless(folder: Path) -> None:
    """Raise BadInput for a pipe or a device among the files of a model: reading would not end."""
    for path in folder.iterdir():
        if path.exists():
            require_regular(path)


def _has_tokenizer(path: Path) -> bool:
    return any((path / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json"))


def _json(path: Path) -> dict[str, Any]:
    try:
        require_regular(path)
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(loaded, dict):
        raise BadInput("not a JSON object", where=str(path))
    return loaded


TIMEOUT = 10.0  # seconds; the libraries' own retries take half a minute


def reach_hub(name: str) -> bool:
    """Look a model up on the hub; False if the hub cannot be reached, so only downloads count.

    BadInput if the hub has no such model, or none that can be loaded.
    """
    try:
        info = HfApi().model_info(name, timeout=TIMEOUT)
    except RepositoryNotFoundError:
        raise BadInput(
            "there is no such folder, and no such model on the hub (or it is private)",
            where=name,
            hint="check the spelling; a private model needs a login: hf auth login",
        ) from None
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise BadInput(f"the hub refused: {first_line(error)}", where=name) from None
        return False
    except Exception:  # no network, no name server, a proxy that refuses, HF_HUB_OFFLINE
        return False
    files = {sibling.rfilename for sibling in info.siblings or []}
    if "config.json" not in files:
        kind = "an adapter" if "adapter_config.json" in files else "not a transformers model"
        raise BadInput(
            f"this is {kind}: the repository has no config.json",
            where=name,
            hint="if it is an adapter, download it with `hf download` and name the folder",
        )
    if not any(file.endswith(".safetensors") for file in files):
        raise BadInput(
            "the model has no safetensors weights, and pickles can run code when opened",
            where=name,
            hint="use a repository that has them, or convert it: model.save_pretrained(folder)",
        )
    return True


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Turn errors of loading from a folder or the hub into BadInput."""
    try:
        yield
    except (BadInput, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the libraries raise whatever a damaged file leads them to
        raise _translate(name, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of tokenizers, which is written in Rust
            raise
        raise _translate(name, error) from error


def _translate(name: str, error: BaseException) -> BadInput:
    if "trust_remote_code" in str(error):
        return BadInput(
            "this model ships custom code; add --trust-remote-code to run it", where=name
        )
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(c, GatedRepoError) for c in causes):
        return BadInput(
            "the model's licence must be accepted on the hub",
            where=name,
            hint="accept it on the model's page, then log in: hf auth login",
        )
    if isinstance(error, ImportError):
        return BadInput(
            f"the model needs a package that is not installed: {first_line(error)}",
            where=name,
            hint="install it, or use the model as it was before it was quantised or converted",
        )
    if isinstance(error, OSError) and not os.path.isdir(name):
        return BadInput(
            "not a folder, not downloaded yet, and the hub cannot be reached",
            where=name,
            hint="offline, use zoo-tiny, a folder, or a model that is already downloaded",
        )
    return BadInput(f"the model cannot be loaded: {_reason(error)}", where=name)


def _reason(error: BaseException) -> str:
    """Return the first two lines of a message, after the type of an error that is less usual."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not isinstance(error, (OSError, ValueError, RuntimeError)) or not lines:
        lines.insert(0, type(error).__name__ + ":" * bool(lines))
    return " ".join(lines[:3])[:LONGEST]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence progress bars for local files and the libraries' advice to programmers."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.logging.enable_progress_bar()
