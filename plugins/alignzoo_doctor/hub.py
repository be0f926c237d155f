"""Check that the Hub can be reached, and who is logged in."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import HfApi, constants

from alignzoo_doctor.finding import Finding


def check_hub() -> Iterator[Finding]:
    """Ask the Hub for one model, and for the name of who is logged in."""
    api = HfApi()
    try:
        next(iter(api.list_models(limit=1)))
    except Exception as error:  # no network, a proxy that refuses, HF_HUB_OFFLINE
        yield Finding(
            "problem",
            "Hub",
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})",
            "only zoo-tiny, folders and what is downloaded can be used; see HF_ENDPOINT, "
            "HTTPS_PROXY and HF_HUB_OFFLINE",
        )
        return
    try:
        text = f"{constants.ENDPOINT} answers, logged in as {api.whoami()['name']}"
        yield Finding("ok", "Hub", text)
    except Exception:  # no token, or one that has expired
        yield Finding(
            "note",
            "Hub",
            f"{constants.ENDPOINT} answers, without a login",
            "private and gated models need one: hf auth login",
        )
