"""Columns and messages that carry meaning: read as other tools read them, or named."""

import json

import pytest

from alignzoo.data import VIEWS, Codec, load_data
from alignzoo.data.views import Dialogues
from alignzoo.errors import BadInput

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"x": None}}}]
WITH_TOOLS = (
    "{% if tools %}<|im_start|>TOOLS {{ tools | tojson }}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}"
    "{% if m.tool_calls %}CALL {{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if mood is defined %}({{ mood }})\n{% endif %}{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load(view, codec, path):
    options = {"max_length": 400, "strict": False, "seed": 0, "holdout": 0}
    return load_data(VIEWS.get(view, view), codec, data=path, **options)


def written(codec, data):
    """The text of each example: its prompt, then its completions."""
    decode = codec.tokenizer.decode
    return [[decode(x.prompt), *map(decode, x.completions)] for x in data.train]


def chat(*turns):
    """A dialogue in ChatML, up to where the assistant answers."""
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{said}<|im_start|>assistant\n"


@pytest.fixture
def tooled(make_tokenizer):
    return Codec(make_tokenizer(WITH_TOOLS, bos=False))


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_column_is_a_message_before_the_prompt(chatml, jsonl, column):
    rows = [
        {column: "Be brief.", "question": "q", "chosen": "x", "rejected": "y"},
        {column: "", "question": "q", "chosen": "x", "rejected": "y"},
    ]
    data = load("preferences", chatml, jsonl(rows))
    ends = ["x<|im_end|>", "y<|im_end|>"]
    assert written(chatml, data) == [
        [chat(("system", "Be brief."), ("user", "q")), *ends],
        [chat(("user", "q")), *ends],
    ]
    assert f"column {column!r} was read as a system message before the prompt" in data.report.notes


def test_a_system_column_beside_messages(chatml, jsonl, user, assistant):
    system = {"role": "system", "content": "own"}
    rows = [
        {"system": "s", "messages": [user("q"), assistant("x")]},
        {"system": "s", "messages": [system, user("q"), assistant("x")]},
    ]
    got = written(chatml, load("demonstrations", chatml, jsonl(rows)))
    assert got[0][0] == chat(("system", "s"), ("user", "q"))
    assert got[1][0] == chat(("system", "own"), ("user", "q"))


def test_context_follows_the_question_and_history_precedes_it(chatml, jsonl):
    rows = [{"instruction": "q", "context": "c", "response": "x"}]
    assert written(chatml, load("demonstrations", chatml, jsonl(rows))) == [["q\n\nc", "x</s>"]]
    rows = [{"instruction": "q", "output": "x", "history": [["a", "b"]], "system": "s"}]
    data = load("demonstrations", chatml, jsonl(rows))
    before = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "q")]
    assert written(chatml, data) == [[chat(*before), "x<|im_end|>"]]


@pytest.mark.parametrize("context", [{"a": 1}, ["a"], 3])
def test_context_that_is_no_text_is_named_as_unread(plain, jsonl, context):
    rows = [{"question": "q", "context": context, "answer": "x"}]
    data = load("demonstrations", plain, jsonl(rows))
    assert data.report.notes[-1] == "column not read: 'context'"


def test_every_column_that_is_not_read_is_named(plain, chatml, jsonl, user, assistant):
    rows = [{"prompt": "p", "chosen": "x", "rejected": "y", "margin": 1, "score": 2, "id": "a"}]
    assert load("preferences", plain, jsonl(rows)).report.notes == [
        "columns not read: 'score', 'id'"
    ]
    data = load("prompts", plain, jsonl([{"prompt": "p", "gold": "1", "none": None}]))
    assert data.report.notes == ["column read by rewards alone, if at all: 'gold'"]
    data = load(
        "demonstrations", plain, jsonl([{"prompt": "p", "completion": "c", "tools": TOOLS}])
    )
    assert data.report.notes == ["column not read: 'tools'"]  # there is no dialogue
    many = {f"c{i}" * 40: i for i in range(100)}
    note = load("text", plain, jsonl([{"text": "t", **many}])).report.notes[0]
    assert note.endswith("and 70 more columns") and len(note) < 3000
    weighted = [{"messages": [user("q"), {**assistant("x"), "weight": 0}]}]
    notes = load("demonstrations", chatml, jsonl(weighted)).report.notes
    assert "keys of messages that only a chat template reads: 'weight'" in notes


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
@pytest.mark.parametrize("view", ["demonstrations", "prompts", "text", Dialogues])
def test_tools_are_given_to_the_template(tooled, jsonl, user, assistant, tools, view):
    rows = [{"messages": [user("q"), assistant("x")], "tools": tools}]
    data = load(view, tooled, jsonl(rows))
    text = "".join(written(tooled, data)[0])
    assert text.startswith('<|im_start|>TOOLS [{"type": "function", "function": {"name": "weather"')
    assert "null" not in text and not any("tools" in note for note in data.report.notes)


def test_variables_of_a_row_are_given_to_the_template(tooled, jsonl, user, assistant):
    row = {"prompt": [user("q")], "completion": [assistant("x")]}
    data = load("demonstrations", tooled, jsonl([{**row, "chat_template_kwargs": {"mood": "m"}}]))
    assert written(tooled, data)[0][0].endswith("assistant\n(m)\n")
    with pytest.raises(BadInput, match="row 1, column 'chat_template_kwargs': 'tokenize'"):
        load(
            "demonstrations",
            tooled,
            jsonl([{**row, "chat_template_kwargs": {"tokenize": True}}]),
        )
    with pytest.raises(BadInput, match="row 1, column 'tools': the text is not JSON"):
        load("demonstrations", tooled, jsonl([{**row, "tools": "[x"}]))


@pytest.mark.parametrize("content", [{"content": None}, {}, {"content": ""}])
def test_a_tool_call_needs_no_content(tooled, jsonl, user, assistant, content):
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    asks = {"role": "assistant", "tool_calls": [call], **content}
    rows = [
        {"messages": [user("q"), asks, {"role": "tool", "content": "r"}, assistant("x")]},
        {"messages": [user("q"), asks]},
    ]
    called = 'CALL [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]'
    data = load("demonstrations", tooled, jsonl(rows))
    assert written(tooled, data) == [
        [chat(("user", "q"), ("assistant", called), ("tool", "r")), "x<|im_end|>"],
        [chat(("user", "q")), f"{called}<|im_end|>"],
    ]


def test_rows_with_images_are_left_out(chatml, jsonl, user, assistant):
    messages = [user("<image>What?"), assistant("A cat.")]
    seen = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    rows = [
        {"messages": messages, "images": ["a.png"]},
        {"messages": [seen, assistant("A cat.")]},
        {"messages": messages, "images": []},
    ]
    data = load("demonstrations", chatml, jsonl(rows))
    assert len(data.train) == 1
    assert list(data.report.left_out.values()) == [[1], [2]]
    assert "'images', which are not read" in next(iter(data.report.left_out))
    with pytest.raises(BadInput, match="no usable rows"):
        load("prompts", chatml, jsonl([{"prompt": "What?", "image": "a.png"}]))


def test_a_template_that_wants_parts_gets_them(make_tokenizer, jsonl, user, assistant):
    codec = Codec(make_tokenizer(PARTS, bos=False))
    parted = {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}
    data = load("demonstrations", codec, jsonl([{"messages": [parted, assistant("x")]}]))
    assert written(codec, data) == [[chat(("user", "ab")), "x<|im_end|>"]]


def test_a_template_that_writes_nothing_is_refused(make_tokenizer):
    with pytest.raises(BadInput, match="writes nothing of what the messages say"):
        Codec(make_tokenizer("{% for m in messages %}{{ m.role }}{{ m.text }}{% endfor %}"))


def test_a_role_that_the_template_leaves_out_is_said(make_tokenizer, jsonl, user, assistant):
    template = (
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    codec = Codec(make_tokenizer(template, bos=False))
    system = {"role": "system", "content": "s-s"}
    rows = [{"messages": [user("q"), assistant("x")]}] * 2
    rows += [{"messages": [system, user("q"), assistant("x")]}] * 7
    lines = load("demonstrations", codec, jsonl(rows)).report.lines()
    expected = "the chat template does not write all of what system messages say"
    assert f"{expected} (7 rows: 3, 4, 5, 6, 7, ...)" in lines


def test_a_prompt_that_both_answers_repeat_is_taken_off(plain, jsonl):
    rows = [{"prompt": f"Q: {i} A:", "chosen": f"Q: {i} A: x", "rejected": f"Q: {i} A: y"}
            for i in range(3)]  # fmt: skip
    data = load("preferences", plain, jsonl(rows))
    assert written(plain, data)[0] == ["Q: 0 A:", " x</s>", " y</s>"]
    assert data.report.notes == [
        "'chosen' and 'rejected' began with the prompt in every row: it was taken off"
    ]
    rows.append({"prompt": "Go on.", "chosen": "Go on. x", "rejected": "y"})
    assert written(plain, load("preferences", plain, jsonl(rows)))[0][1] == "Q: 0 A: x</s>"
    short = [{"prompt": "Hi", "completion": "Hi there"}]
    assert written(plain, load("demonstrations", plain, jsonl(short))) == [["Hi", "Hi there</s>"]]


def test_messages_that_repeat_the_messages_of_their_prompt(chatml, jsonl, user, assistant):
    row = {"prompt": [user("q")], "chosen": [user("q"), assistant("x")]}
    row["rejected"] = [user("q"), assistant("y")]
    data = load("preferences", chatml, jsonl([row]))
    assert written(chatml, data) == [[chat(("user", "q")), "x<|im_end|>", "y<|im_end|>"]]


def test_sharegpt_is_read(chatml, jsonl):
    said = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]
    data = load("demonstrations", chatml, jsonl([{"conversations": said, "system": "s"}]))
    expected = chat(("system", "s"), ("user", "q"))
    assert written(chatml, data) == [[expected, "x<|im_end|>"]]
    assert "column 'conversations' was read as 'messages'" in data.report.notes
    pair = {"conversations": said[:1], "chosen": said[1], "rejected": {**said[1], "value": "y"}}
    data = load("preferences", chatml, jsonl([pair]))
    assert written(chatml, data) == [[chat(("user", "q")), "x<|im_end|>", "y<|im_end|>"]]


def test_an_answer_that_the_prompt_begins_is_continued(chatml, jsonl, user, assistant):
    row = {"prompt": [user("q"), assistant("It is")], "completion": " x"}
    data = load("demonstrations", chatml, jsonl([row]))
    begun = chat(("user", "q")) + "It is"
    assert written(chatml, data) == [[begun, " x<|im_end|>"]]
    assert written(chatml, load("prompts", chatml, jsonl([row]))) == [[begun]]
    two = {"messages": [user("q"), assistant("a"), assistant("b")]}  # two answers are two turns
    data = load("demonstrations", chatml, jsonl([two]))
    assert written(chatml, data) == [[chat(("user", "q"), ("assistant", "a")), "b<|im_end|>"]]


def test_all_turns_that_cannot_be_learned_are_counted(make_tokenizer, jsonl, user, assistant):
    codec = Codec(make_tokenizer(bos=False))
    rows = [{"messages": [user("a"), assistant("x")]}]
    rows += [{"messages": [user("a"), assistant("x"), user("b"), assistant("y")]}] * 2
    lines = load(Dialogues, codec, jsonl(rows)).report.lines()
    told = next(line for line in lines if "only the last answer" in line)
    assert told.endswith(" (2 rows: 2, 3)")


def test_tables_as_pandas_writes_them(plain, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",prompt,completion\n0,Hi,Ho\n1,Hu,Ha\n")
    data = load("demonstrations", plain, str(path))
    assert written(plain, data) == [["Hi", "Ho</s>"], ["Hu", "Ha</s>"]]
    assert data.report.notes == ["column not read: 'Unnamed: 0'"]
    for sign, name in (";", "semicolons"), ("\t", "tabs"):
        path.write_text(f"prompt{sign}completion\nHi{sign}Ho\n")
        with pytest.raises(BadInput, match=f"separated by {name}") as error:
            load("demonstrations", plain, str(path))
        assert "to_csv" in error.value.hint
