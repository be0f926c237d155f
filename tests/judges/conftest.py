from __future__ import annotations

import pytest

from alignzoo import remote
from alignzoo_judges import server


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    """Give each test an empty cache, no API key, no proxy, and no waiting between attempts."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(server.KEY_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "MAX_BACKOFF", 0.0)
