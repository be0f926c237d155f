"""What stands between two turns, under chat templates as models have them."""

from __future__ import annotations

import copy

import pytest
from test_episodes import CHAT, Calculator, ids_of, play_one, told

from alignzoo import load_policy
from alignzoo.data import Codec, Turns, split_turns
from alignzoo.data.turns import NO_TOOLS
from alignzoo.environments import Step
from alignzoo.errors import BadInput
from alignzoo.rollout import telling_notes
from alignzoo.rollout.episodes import UNSEEN_TOOLS

# Hermes and Qwen: tools in the system turn, answers of tools together in a turn of the user's.
HERMES = """
{%- if tools %}{{ '<|system|>tools:' }}
{%- for tool in tools %}{{ ' ' + (tool | tojson) }}{% endfor %}
{{- '<|end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|user|>' }}{% endif %}
{{- '<tool_response>\\n' + m.content + '\\n</tool_response>\\n' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|end|>\\n' }}{% endif %}
{%- else %}{{ '<|' + m.role + '|>' + m.content + '<|end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
# Reasoning models: an answer that is not the last is written without what it thought first.
FORGETS = """
{%- for m in messages %}{{ '<|' + m.role + '|>' }}
{%- if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}
{{- m.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|><think>' }}{% endif %}
"""
SILENT = "{{ messages[-1].content }}<|end|>{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="module")
def tokenizer():
    return load_policy("zoo-tiny").tokenizer


def codec_of(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template.strip()
    return Codec(tokenizer)


def test_a_template_with_tools_writes_them_and_their_answers(tokenizer):
    codec = codec_of(tokenizer, HERMES)
    call = '<tool_call>{"name": "twice", "arguments": {"a": 21}}</tool_call>'
    found, _ = play_one(codec, Calculator(), [f"{call}{call}<|end|>", "42<|end|>"], 400, CHAT)
    prompt = codec.tokenizer.decode(found.prompt)
    assert '"name": "twice"' in prompt and prompt.endswith("<|assistant|>")
    answer = "<tool_response>\n42\n</tool_response>\n"
    said = f"\n<|user|>{answer}{answer}<|end|>\n<|assistant|>"
    own = len(ids_of(codec, f"{call}{call}<|end|>"))
    assert found.mask[:own] == [True] * own
    between = [t for t, mine in zip(found.tokens, found.mask, strict=True) if not mine]
    assert codec.tokenizer.decode(between) == said
    assert NO_TOOLS not in codec.notes and UNSEEN_TOOLS not in codec.notes


def test_an_answer_that_the_template_would_rewrite_keeps_its_tokens(tokenizer):
    codec = codec_of(tokenizer, FORGETS)
    environment = told(Step("Go on."), Step(done=True))
    found, _ = play_one(codec, environment, ["hm</think>old<|end|>", "so<|end|>"], 200, CHAT)
    assert split_turns(codec, found.tokens, found.written)[0][1] == "hm</think>old"
    between = [t for t, mine in zip(found.tokens, found.mask, strict=True) if not mine]
    assert codec.tokenizer.decode(between) == "\n<|user|>Go on.<|end|>\n<|assistant|><think>"


def test_a_template_that_drops_earlier_answers_is_refused(tokenizer):
    codec = codec_of(tokenizer, SILENT)
    with pytest.raises(BadInput, match="writes no answer that is followed by another turn"):
        Turns(codec, chat=True).after([codec.eos], "Go on.", 10)


def test_a_run_says_that_its_template_knows_no_tools(tokenizer, make_run):
    codec = Codec(copy.deepcopy(tokenizer))
    call = '<tool_call>{"name": "twice", "arguments": {"a": 21}}</tool_call><|end|>'
    play_one(codec, Calculator(), [call, "42<|end|>"], 400, CHAT)
    assert codec.notes == [UNSEEN_TOOLS, NO_TOOLS]
    run, told = make_run("grpo", task="style"), []
    run.ui.note = told.append
    for _ in range(2):
        with telling_notes(run):
            run.codec.note(NO_TOOLS)
    assert told == [NO_TOOLS]
