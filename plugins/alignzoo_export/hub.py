"""Upload an export to the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from alignzoo import BadInput, RunFailed
from alignzoo.errors import first_line

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def check_name(name: str) -> None:
    """Raise `BadInput` unless a name is OWNER/NAME."""
    if not NAME.fullmatch(name):
        raise BadInput(f"option --push: {name[:80]!r} is not OWNER/NAME")


def check_login() -> None:
    """Raise `BadInput` unless the Hub can be reached with a valid token."""
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError:
        raise BadInput(
            "option --push: there is no login to the Hub", hint="hf auth login"
        ) from None
    except HfHubHTTPError as error:
        raise BadInput(f"option --push: the Hub refuses the login: {first_line(error)}") from None
    except Exception as error:  # no network, a proxy that refuses, HF_HUB_OFFLINE
        raise BadInput(
            f"option --push: the Hub cannot be reached ({type(error).__name__})",
            hint="export without --push",
        ) from None


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder as a model of the Hub, and return its address; raise `RunFailed`."""
    api = HfApi()
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from alignzoo")
    except Exception as error:  # whatever the network does in a long upload
        raise RunFailed(
            f"the upload failed: {first_line(error)}",
            where=name,
            hint=f"the export is complete in {folder}: hf upload {name} {folder}",
        ) from None
    return str(made)
