"""Tokenizers made on the spot. Their ids are the bytes of the text, to be written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from alignzoo.data.codec import Codec

BOS, EOS, START, END = 256, 257, 258, 259
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
SHARED = Path(__file__).parents[3] / "shared" / "data"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Writes the BOS itself, ends a turn with EOS, strips, and knows no system role.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content.strip() }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no ' + m.role + ' here') }}{% endif %}{% endfor %}"
)
# An answer is not written as the continuation of the generation prompt.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# Ends a turn with nothing that could stop generation.
ENDLESS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_characters() -> list[str]:
    """The character by which byte-level BPE writes each byte: printable ones as they are."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) if b in plain else chr(256 + rest.index(b)) for b in range(256)]


def byte_tokenizer(template: str | None = None, *, adds_bos=False, bos=True, eos=True):
    vocabulary = {character: i for i, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>" if eos else None,
        chat_template=template,
    )


@pytest.fixture(scope="session")
def plain() -> Codec:
    """No chat template, no BOS."""
    return Codec(byte_tokenizer(bos=False))


@pytest.fixture(scope="session")
def with_bos() -> Codec:
    """No chat template; the tokenizer adds a BOS."""
    return Codec(byte_tokenizer(adds_bos=True))


@pytest.fixture(scope="session")
def chatml() -> Codec:
    return Codec(byte_tokenizer(CHATML, bos=False))


@pytest.fixture(scope="session")
def llama() -> Codec:
    """The template writes a BOS, and the tokenizer adds one too."""
    return Codec(byte_tokenizer(LLAMA, adds_bos=True))


@pytest.fixture(scope="session")
def gpt2() -> Codec:
    folder = SHARED / "gpt2-bpe"
    if not folder.is_dir():
        pytest.skip("../shared/data/gpt2-bpe is not here")
    return Codec(GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")))


@pytest.fixture(scope="session")
def shared():
    """The path of a file of real data, or a skip."""

    def path(name: str) -> str:
        if not (SHARED / name).exists():
            pytest.skip(f"../shared/data/{name} is not here")
        return str(SHARED / name)

    return path


@pytest.fixture
def jsonl(tmp_path):
    """Writes rows as a JSON Lines file and gives its path."""

    def write(rows: list[dict], name: str = "data.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


@pytest.fixture(name="user")
def user_fixture():
    return user


@pytest.fixture(name="assistant")
def assistant_fixture():
    return assistant


@pytest.fixture(scope="session")
def make_tokenizer():
    return byte_tokenizer


@pytest.fixture(scope="session")
def templates():
    return {"chatml": CHATML, "llama": LLAMA, "thinking": THINKING, "endless": ENDLESS}
