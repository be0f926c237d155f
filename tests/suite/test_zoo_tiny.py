"""The embedded model's folder: tokenizer, chat template, configuration, weights."""

import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignzoo_suite import ZOO_TINY
from alignzoo_suite.style import Style
from alignzoo_suite.sums import Sums

USER = {"role": "user", "content": "What is 27 + 15?"}
REPLY = {"role": "assistant", "content": "The answer is 42."}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(ZOO_TINY)


def test_digits_stay_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("12345 + 67,890 = 3rd2x").input_ids)
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("123456789032")
    assert not any(len(token) > 1 and any(c in "0123456789" for c in token)
                   for token in tokenizer.get_vocab())  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 42.",
        "Zoë 日本 🙂\n\ttabs  and  spaces ",
        "<b>&amp;",
        " .",
        "",
        "don't , stop !",
    ],
)
def test_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(ids) == 3 and None not in ids
    # The template adds the BOS; nothing else does.
    assert tokenizer("hello").input_ids[0] not in ids


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    system = {"role": "system", "content": "Be brief."}
    text = tokenizer.apply_chat_template([system, USER, REPLY, USER], tokenize=False,
                                         add_generation_prompt=True)  # fmt: skip
    assert text == (
        "<|bos|><|system|>Be brief.<|end|><|user|>What is 27 + 15?<|end|>"
        "<|assistant|>The answer is 42.<|end|><|user|>What is 27 + 15?<|end|><|assistant|>"
    )


def test_prompt_is_a_prefix_and_eos_is_last(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = tokenizer.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
    chat = tokenizer.apply_chat_template(
        [USER, REPLY], return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = chat["input_ids"], chat["assistant_masks"]
    assert ids[: len(prompt)] == prompt
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert mask == [0] * len(prompt) + [1] * (len(ids) - len(prompt))  # the EOS is trained on
    completion = tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
    assert completion == REPLY["content"]


def test_a_strange_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="roles system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_rows_are_short(tokenizer: PreTrainedTokenizerFast) -> None:
    for task in (Style(), Sums()):
        for row in task.rows("demonstrations", "dev"):
            prompt = tokenizer.apply_chat_template(row["prompt"], return_dict=False)
            assert len(prompt) <= 16
            assert len(tokenizer(row["completion"][0]["content"]).input_ids) <= 64


def test_the_config_agrees_with_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    config = json.loads((ZOO_TINY / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer) <= 1024
    assert config["tie_word_embeddings"] is True
    for name in ("bos", "eos", "pad"):
        assert config[f"{name}_token_id"] == getattr(tokenizer, f"{name}_token_id")
    assert (ZOO_TINY / "model.safetensors").stat().st_size < 5e6
