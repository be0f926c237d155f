"""The Modelfile has what the chat template writes, or no template at all."""

from __future__ import annotations

import pytest

from alignzoo import load_policy
from alignzoo.data import Codec
from alignzoo_export.ollama import find_affixes, render_modelfile

CHATML = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|system|>\nBe kind.<|end|>\n' }}{% endif %}"
    "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SYSTEM_IN_QUESTION = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' }}"
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content + ' ' }}"
    "{% endif %}{{ m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
)


@pytest.fixture
def codec_of():
    def codec(template):
        tokenizer = load_policy("zoo-tiny").tokenizer
        tokenizer.chat_template = template or tokenizer.chat_template
        return Codec(tokenizer)

    return codec


def test_the_default_system_message_and_the_stops_are_in_it(codec_of):
    text, note = render_modelfile(codec_of(CHATML), "m.gguf", adds_bos=False)
    assert note is None
    assert text.startswith("FROM ./m.gguf\nTEMPLATE ")
    assert '{{ "<|user|>\\n" }}{{ .Content }}{{ "<|end|>\\n" }}' in text
    assert 'SYSTEM """Be kind."""' in text
    assert 'PARAMETER stop "<|end|>"' in text


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_bos_is_written_once(codec_of, adds_bos):
    text, _ = render_modelfile(codec_of(WITH_BOS), "m.gguf", adds_bos=adds_bos)
    assert text.count("<|bos|>") == (not adds_bos)
    assert "SYSTEM" not in text


def test_the_template_of_zoo_tiny_is_found(codec_of):
    assert find_affixes(codec_of(None)) is not None


def test_a_template_that_is_no_texts_around_messages_is_left_out(codec_of):
    text, note = render_modelfile(codec_of(SYSTEM_IN_QUESTION), "m.gguf", adds_bos=False)
    assert "TEMPLATE" not in text and "PARAMETER stop" in text
    assert "has no TEMPLATE" in note
