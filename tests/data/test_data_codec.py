"""Text to tokens, against ids written by hand: the ids of the test tokenizers are bytes."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignzoo.data.codec import Codec
from alignzoo.data.views import Demonstrations
from alignzoo.errors import BadInput

BOS, EOS, START, END = 256, 257, 258, 259


def b(text: str) -> list[int]:
    return list(text.encode())


def test_plain_text_is_tokenized_in_two_parts_and_ends_in_eos(plain):
    assert plain.prompt("Hi:") == b("Hi:")
    assert plain.completion("Hi:", " yes") == [*b(" yes"), EOS]
    assert plain.stop_ids == [EOS]


def test_border_of_plain_text_is_stable_where_bpe_would_merge(gpt2):
    # GPT-2 writes "hello" as one token (31373), and "hel", "lo" as two.
    assert gpt2.prompt("hello") == [31373]
    assert gpt2.prompt("hel") + gpt2.completion("hel", "lo") == [2978, 5439, 50256]


def test_one_bos_whether_or_not_the_text_brings_one(with_bos):
    assert with_bos.prompt("a") == [BOS, *b("a")]
    assert with_bos.prompt("<s>a") == [BOS, *b("a")]
    assert with_bos.prompt("") == [BOS]
    assert with_bos.completion("a", "x") == [*b("x"), EOS]  # none in the middle


def test_no_bos_for_a_tokenizer_that_has_one_but_does_not_use_it(make_tokenizer, gpt2):
    assert Codec(make_tokenizer()).bos is None
    assert gpt2.bos is None  # <|endoftext|> is its EOS as well


def test_template_writes_the_only_bos(llama, user, assistant):
    assert llama.prompt([user("hi")]) == [BOS, *b("[INST] hi [/INST]")]
    assert llama.completion([user("hi")], [assistant("yo")]) == [*b(" yo"), EOS]


def test_plain_text_gets_the_bos_that_the_template_writes(make_tokenizer, templates):
    codec = Codec(make_tokenizer(templates["llama"]))  # the tokenizer itself adds none
    assert codec.prompt("hi") == [BOS, *b("hi")]


def test_bos_is_added_where_the_tokenizer_adds_it_but_the_template_does_not(
    make_tokenizer, templates, user
):
    codec = Codec(make_tokenizer(templates["chatml"], adds_bos=True))
    assert codec.prompt([user("a")])[:2] == [BOS, START]


def test_chatml_turn_ends_in_its_own_token_and_the_newline_is_dropped(chatml, user, assistant):
    assert chatml.prompt([user("a")]) == (
        [START, *b("user\na"), END, *b("\n"), START, *b("assistant\n")]
    )
    assert chatml.completion([user("a")], [assistant("x")]) == [*b("x"), END]
    assert chatml.completion([user("a")], "x") == [*b("x"), END]
    assert chatml.stop_ids == [EOS, END]
    assert chatml.notes == []


def test_an_end_token_inside_the_answer_does_not_end_it(chatml, user, assistant):
    got = chatml.completion([user("a")], [assistant("x<|im_end|>y")])
    assert got == [*b("x"), END, *b("y"), END]


def test_template_that_never_stops_gets_an_eos(make_tokenizer, templates, user, assistant):
    codec = Codec(make_tokenizer(templates["endless"], bos=False))
    assert codec.prompt([user("a")]) == b("user: a\nassistant: ")
    assert codec.completion([user("a")], [assistant("x")]) == [*b("x"), EOS]


def test_template_that_is_no_continuation_falls_back_and_says_so(
    make_tokenizer, templates, user, assistant
):
    codec = Codec(make_tokenizer(templates["thinking"], bos=False))
    assert codec.prompt([user("a")])[-8:] == b("<think>\n")
    assert codec.completion([user("a")], [assistant("x")]) == [*b("x"), END]
    assert len(codec.notes) == 1 and "generation prompt" in codec.notes[0]


def test_answer_with_an_empty_think_block_is_encoded_as_written(make_tokenizer, user, assistant):
    qwen3 = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    codec = Codec(make_tokenizer(qwen3, bos=False))
    got = codec.completion([user("a")], [assistant("x")])
    assert got == [*b("<think>\n\n</think>\n\nx"), END]


def test_dialogue_without_template_is_written_plainly_and_said_once(
    make_tokenizer, user, assistant
):
    codec = Codec(make_tokenizer(bos=False))
    assert codec.notes == []
    dialogue = [{"role": "system", "content": "s"}, user("a")]
    assert codec.prompt(dialogue) == b("System: s\n\nUser: a\n\nAssistant:")
    assert codec.completion(dialogue, [assistant("x")]) == [*b(" x"), EOS]
    assert len(codec.notes) == 1 and "no chat template" in codec.notes[0]


@pytest.mark.parametrize("ending", ["</s>", "</s>\n", "</s></s>"])
def test_an_end_that_stands_in_the_text_is_not_added_again(chatml, user, assistant, ending):
    assert chatml.completion("a", f" x{ending}") == [*b(" x"), EOS]
    assert chatml.text(f"x{ending}") == [*b("x"), EOS]
    assert chatml.completion([user("a")], [assistant(f"x{ending}")]) == [*b("x"), END]
    assert chatml.text([user("a"), assistant(f"x{ending}")])[-3:] == [*b("\nx"), END]
    assert "not added again" in chatml.take_remarks()[0]
    assert chatml.completion("a", " x<|im_end|>\n") == [*b(" x"), END]  # rendered beforehand


def test_a_thought_that_the_generation_prompt_opens_is_opened_once(
    make_tokenizer, templates, user, assistant
):
    codec = Codec(make_tokenizer(templates["thinking"], bos=False))
    codec.take_remarks()
    got = codec.completion([user("a")], [assistant("<think>hm</think>x")])
    assert got == [*b("hm</think>x"), END]
    assert "trained on once" in codec.take_remarks()[0]
    assert codec.completion([user("a")], [assistant("x")]) == [*b("x"), END]
    assert "without reasoning" in codec.take_remarks()[0]


def test_the_header_of_an_answer_belongs_to_the_prompt(make_tokenizer, user, assistant):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    codec = Codec(make_tokenizer(template, bos=False))  # it has no generation prompt
    assert codec.prompt([user("a")])[-10:] == b("assistant\n")
    assert codec.completion([user("a")], [assistant("x")]) == [*b("x"), END]
    _, ids, mask = codec.turns([user("a"), assistant("x"), user("b"), assistant("y")])
    assert [token for token, learned in zip(ids, mask, strict=True) if learned] == [
        *b("x"), END, *b("y"), END,
    ]  # fmt: skip


def test_a_token_that_opens_turns_is_not_put_before_plain_text(make_tokenizer, templates, user):
    tokenizer = make_tokenizer(templates["chatml"], bos=False)
    tokenizer.bos_token = "<|im_start|>"
    codec = Codec(tokenizer)
    assert codec.bos is None and codec.prompt("a") == b("a")
    assert codec.prompt([user("a")])[:2] == [START, *b("u")]


def test_stop_ids_of_the_generation_config(make_tokenizer, templates):
    tokenizer = make_tokenizer(templates["chatml"], bos=False)
    tokenizer.generation_stop_ids = [b("!")[0], EOS]
    codec = Codec(tokenizer)
    assert codec.stop_ids == [EOS, END, b("!")[0]]
    assert codec.decode(b("no! yes")) == "no"
    assert codec.completion("a", " x!") == [*b(" x!"), EOS]  # "!" is text, no end of it


def test_whole_texts(with_bos, chatml, llama, user, assistant):
    assert with_bos.text("ab") == [BOS, *b("ab"), EOS]
    got = chatml.text([user("a"), assistant("x")])
    assert got == [START, *b("user\na"), END, *b("\n"), START, *b("assistant\nx"), END]
    assert llama.text([user("a"), assistant("x")])[-2:] == [*b("x"), EOS]
    assert llama.text([user("a")])[-2:] == [*b("]"), EOS]


def test_decode_stops_at_the_first_stop_and_leaves_special_tokens_out(chatml):
    assert chatml.decode([*b("x y"), END, *b("z")]) == "x y"
    assert chatml.decode([START, *b("x"), EOS]) == "x"
    assert chatml.decode([]) == ""
    assert chatml.decode(b(" it 's .")) == " it 's ."  # no clean-up


def test_what_is_trained_on_decodes_to_what_was_written(chatml, user, assistant):
    ids = chatml.completion([user("a")], [assistant("né 🙂\n")])
    assert chatml.decode(ids) == "né 🙂\n"


def sentencepiece_like(template: str | None = None) -> Codec:
    vocabulary = {t: i for i, t in enumerate(["<unk>", "</s>", "▁", "a", "b", ":"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    # As Llama 2 has it: a space is put in front of every text, of those with one too.
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Metaspace()
    return Codec(
        PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="</s>", unk_token="<unk>", chat_template=template
        )
    )


def test_sentencepiece_space_is_not_doubled():
    codec = sentencepiece_like()
    assert codec.completion("a:", " b") == [2, 4, 1]
    assert codec.completion("a:", "b") == [4, 1]  # nor is one put where there is none


def test_sentencepiece_space_is_not_put_inside_what_a_template_writes(user, assistant):
    codec = sentencepiece_like(
        "{% for m in messages %}{{ m.content }}"
        "{{ ':' if m.role == 'user' else '</s>' }}{% endfor %}"
    )
    assert codec.prompt([user("a")]) == [2, 3, 5]
    assert codec.completion([user("a")], [assistant("b")]) == [4, 1]


def test_tokenizer_without_eos_is_refused(make_tokenizer):
    with pytest.raises(BadInput, match="no end-of-sequence token") as error:
        Codec(make_tokenizer(eos=False))
    assert "eos_token" in error.value.hint


def test_a_prompt_of_no_tokens_is_left_out(plain, monkeypatch):
    """Some tokenizers drop spaces; the first token of a completion needs one before it."""
    monkeypatch.setattr(plain, "_ids", lambda text: list(text.strip().encode()))
    with pytest.raises(BadInput, match="the prompt has no tokens"):
        plain.prompt(" ")
    found = Demonstrations.encode({"prompt": " ", "completion": "x"}, plain, 64)
    assert found == (None, "the prompt has no tokens", ())


def test_what_the_template_refuses_is_bad_input(llama):
    with pytest.raises(BadInput, match="chat template refuses this dialogue: no system here"):
        llama.prompt([{"role": "system", "content": "s"}])


TEXTS = ["a", " a", "", "x<|im_end|>y", "<|im_start|>", "é 7\n\n", "<mark>w", "w<mark> ", "<s>"]


def tokenizer_with(pre, normalizer, **flags):
    """A tokenizer of characters with a token of its own, `<mark>`, beside those of ChatML."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789 ▁Ġ\n<>|_/:.,?!éĊÃ©"
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.normalizer = pre, normalizer
    tokenizer.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<mark>", **flags)])
    return tokenizer


@pytest.mark.parametrize(
    "flags",
    [{}, *({name: True} for name in ("lstrip", "rstrip", "single_word", "normalized"))],
    ids=str,
)
@pytest.mark.parametrize("header", ["assistant<mark>", "assistant\\n<mark>", "<mark>assistant\\n"])
@pytest.mark.parametrize(
    ("pre", "normalizer"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), None),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), None),
        (pre_tokenizers.Metaspace(prepend_scheme="first"), None),
        (pre_tokenizers.Metaspace(prepend_scheme="always"), None),
        (None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
    ],
    ids=["bytes", "bytes after a space", "first space", "every space", "normalised space"],
)
def test_a_prompt_that_is_tokenized_once_leaves_completions_the_same(
    pre, normalizer, header, flags, templates, user, assistant
):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_with(pre, normalizer, **flags),
        eos_token="</s>",
        chat_template=templates["chatml"].replace("assistant\\n", header),
    )
    codec, whole = Codec(tokenizer), Codec(tokenizer)
    whole._separators = {}
    assert codec._split(f"{TEXTS[0]}<|im_start|>b").kept > 0
    for asked in TEXTS:
        for said in TEXTS:
            for prompt in ([user(asked)], [user("a"), assistant(said), user(asked)], asked):
                if prompt == "":
                    continue
                expected = whole.group(prompt, [said, "other"])
                assert codec.group(prompt, [said, "other"]) == expected
                assert codec.prompt(prompt) == expected[0]
                assert codec.completion(prompt, said) == expected[1][0]
