"""An export is uploaded only with --push, and by a login that is checked first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from alignzoo import BadInput, RunFailed
from alignzoo_export import hub


def test_an_export_is_uploaded_whole(runs, export, tmp_path, monkeypatch):
    calls = []
    api = SimpleNamespace(
        whoami=lambda: calls.append("login"),
        create_repo=lambda name, **options: calls.append((name, options)) or f"https://hub/{name}",
        upload_folder=lambda **options: calls.append(
            sorted(path.name for path in options["folder_path"].iterdir())
        ),
    )
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    flags = ("--push", "me/mine", "--private", "--json")
    report = json.loads(export(runs("first"), tmp_path / "out", *flags))
    assert report["pushed"] == "https://hub/me/mine"
    assert calls[:2] == ["login", ("me/mine", {"private": True, "exist_ok": True})]
    assert {"README.md", "adapter_model.safetensors", "export.json"} <= set(calls[2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--push", "mine"), "'mine' is not OWNER/NAME"),
        (("--push", "me/mine"), "the(re is no login| Hub cannot be reached)"),
        (("--private",), "there is no --push"),
    ],
)
def test_nothing_is_exported_if_it_cannot_be_uploaded(runs, export, tmp_path, flags, message):
    with pytest.raises(BadInput, match=message):
        export(runs("first"), tmp_path / "out", *flags)
    assert not list(tmp_path.iterdir())


def test_an_upload_that_fails_says_where_the_export_is(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("reset")

    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(create_repo=fail))
    with pytest.raises(RunFailed, match=f"hf upload me/mine {tmp_path}"):
        hub.upload(tmp_path, "me/mine", private=False)
