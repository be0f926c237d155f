"""The sweep over architectures: its configurations, one whole check, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

ARCHITECTURES = Path(__file__).parents[2] / "benchmarks" / "architectures"


@pytest.fixture(autouse=True)
def _sweep(monkeypatch):
    monkeypatch.syspath_prepend(ARCHITECTURES)


def test_a_configuration_is_small_and_has_what_its_type_needs():
    from configs import model_types, tiny_config

    assert {"llama", "gpt2", "mamba2"} < set(model_types())
    assert "gemma3" not in model_types()  # images; its language model is gemma3_text
    config = tiny_config("gpt2")
    assert (config.n_embd, config.n_layer, config.vocab_size) == (32, 2, 97)
    assert tiny_config("mamba2").num_heads == 8
    assert tiny_config("deepseek_v3").num_key_value_heads == 4


def test_a_right_model_is_right(tmp_path):
    from check import check_model
    from configs import tiny_config

    row = check_model(tiny_config("llama"), tmp_path)
    assert row["status"] == "right", row
    assert row["generate"] == "equal"
    assert row["FLOPs ratio"] == pytest.approx(1.0, rel=1e-3)


def test_a_wrong_completion_and_a_wrong_log_prob_are_noticed(tmp_path, monkeypatch):
    import check
    from configs import tiny_config

    monkeypatch.setattr(check, "generate", lambda policy, prompts, *_: [Wrong()] * len(prompts))
    own = check.textbook_logprobs
    monkeypatch.setattr(check, "textbook_logprobs", lambda *args: own(*args) + 0.01)
    row = check.check_model(tiny_config("llama"), tmp_path)
    assert row["status"] == "wrong"
    assert row["failed"] == ["log-probs", "generation", "gradient"]


class Wrong:
    tokens = [3] * 8


def test_a_model_that_alignzoo_refuses_is_no_error(tmp_path):
    from check import check_model
    from configs import tiny_config

    row = check_model(tiny_config("rwkv"), tmp_path)
    assert row["status"] == "refused"
    assert "no gradient" in row["message"]


def test_the_table_counts_and_escapes():
    from sweep import format_table

    versions = {"torch": "2"}
    right = {"type": "a", "status": "right", "failed": [], "FLOPs ratio": 1.0, "versions": versions}
    refused = {"type": "b", "status": "refused", "message": "<x> | y", "versions": versions}
    wrong = {"type": "c", "status": "wrong", "failed": ["DPO", "reload"], "versions": versions}
    text = format_table([wrong, refused, right])
    assert "3 model types, 1 right, 1 wrong, 1 refused, 0 not built" in text
    assert "| `c` | wrong: DPO, reload |" in text
    assert "| `b` | refused | &lt;x> \\| y |" in text
