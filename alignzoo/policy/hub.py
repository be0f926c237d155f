"""The hub, asked once and briefly, and what transformers says on half a page as one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from alignzoo.errors import BadInput

TIMEOUT = 10.0  # seconds; the libraries' own retries take half a minute


def reachable(name: str) -> bool:
    """Whether the hub can be asked about this model; False leaves what is already downloaded.

    `BadInput` when it answers that there is no such model, or none that can be loaded.
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
            raise BadInput(f"the hub refuses: {_first_line(error)}", where=name) from None
        return False
    except Exception:  # no network, no name server, a proxy that refuses, HF_HUB_OFFLINE
        return False
    files = {sibling.rfilename for sibling in info.siblings or []}
    if "config.json" not in files:
        kind = "an adapter" if "adapter_config.json" in files else "no model of transformers"
        raise BadInput(
            f"this is {kind}: the repository has no config.json",
            where=name,
            hint="download it with `hf download` and give the folder, if it is an adapter",
        )
    if not any(file.endswith(".safetensors") for file in files):
        raise BadInput(
            "the model has no safetensors weights, and pickles can run code when opened",
            where=name,
            hint="use a repository that has them, or convert it: model.save_pretrained(folder)",
        )
    return True


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Errors of loading from a folder or the hub, as `BadInput`."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise _short(name, error) from error


def _short(name: str, error: BaseException) -> BadInput:
    if "trust_remote_code" in str(error):
        return BadInput(
            "the model comes with code of its own, which is not run unless you allow it", where=name
        )
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(c, GatedRepoError) for c in causes):
        return BadInput(
            "the model asks for a licence to be accepted on the hub",
            where=name,
            hint="accept it on the model's page, then log in: hf auth login",
        )
    if isinstance(error, OSError) and not os.path.isdir(name):
        return BadInput(
            "not a folder, not downloaded yet, and the hub cannot be reached",
            where=name,
            hint="offline, use zoo-tiny, a folder, or a model that is already downloaded",
        )
    return BadInput(f"the model cannot be loaded: {_first_line(error)}", where=name)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
