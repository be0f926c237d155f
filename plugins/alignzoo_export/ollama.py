"""A Modelfile for Ollama: the chat template in Go's language, the system message, the stops.

What stands around each message is read off the tokenizer's chat template, and is right if dialogues
that are put together from it are those that the template writes. A template that cannot be put
together so gets none here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from alignzoo.data import Codec, Message

Render = Callable[[Sequence[Message], bool], str]

SYSTEM: Message = {"role": "system", "content": "Answer briefly."}
QUESTION: Message = {"role": "user", "content": "Where is the museum?"}
ANSWER: Message = {"role": "assistant", "content": "It is behind the park."}
OTHER: Message = {"role": "user", "content": "Is it open?\n\nAnd free?"}
DIALOGUES = (
    [QUESTION],
    [SYSTEM, QUESTION],
    [QUESTION, ANSWER, OTHER],
    [SYSTEM, QUESTION, ANSWER, OTHER],
)


class Around(NamedTuple):
    """The texts before and after the content of a message."""

    before: str
    after: str


class Affixes(NamedTuple):
    """What a chat template writes around messages, at the start, and before the next answer.

    `default` is the system message of a dialogue without one; None if there is none.
    """

    start: str
    system: Around
    user: Around
    assistant: Around
    answer_next: str
    default: str | None

    def render(self, messages: Sequence[Message]) -> str:
        """Return a dialogue up to the next answer, put together from these texts."""
        if self.default is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        turns = [
            around[m["role"]].before + m["content"] + around[m["role"]].after for m in messages
        ]
        return self.start + "".join(turns) + self.answer_next


def render_modelfile(codec: Codec, file: str, *, adds_bos: bool) -> tuple[str, str | None]:
    """Return the Modelfile for a GGUF file beside it, and a note if it has no template.

    `adds_bos`: llama.cpp puts a BOS in front by itself, so the template must not.
    """
    stops = [codec.tokenizer.convert_ids_to_tokens(token) for token in codec.stop_ids]
    lines = [f"FROM ./{file}"]
    affixes, note = find_affixes(codec), None
    template = go_template(affixes, adds_bos=adds_bos) if affixes is not None else '"""'
    if affixes is None or '"""' in template + (affixes.default or ""):
        note = (
            "the Modelfile has no TEMPLATE: the chat template is not plain texts around messages. "
            "Ollama takes the template in the GGUF file, if it knows it: compare its answers"
        )
    else:
        lines.append(f'TEMPLATE """{template}"""')
        if affixes.default is not None:
            lines.append(f'SYSTEM """{affixes.default}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    return "\n".join(lines) + "\n", note


def find_affixes(codec: Codec) -> Affixes | None:
    """Return what a tokenizer's chat template writes around messages; None if it is not so plain.

    It is plain if the dialogues in `DIALOGUES` can be put together from what is found.
    """
    tokenizer = codec.tokenizer

    def render(messages: Sequence[Message], answer_next: bool = False) -> str:
        text: str = tokenizer.apply_chat_template(
            messages, add_generation_prompt=answer_next, tokenize=False
        )
        return text

    if not tokenizer.chat_template:
        return None
    try:
        found = read_affixes(render, tokenizer.bos_token or "")
        same = all(found.render(one) == render(one, True) for one in DIALOGUES)
    except Exception:  # a template is a program, and may refuse a dialogue in any way
        return None
    return found if same else None


def read_affixes(render: Any, bos: str) -> Affixes:
    """Return what a template writes around messages; raise `ValueError` if it is not so plain."""
    one = render([SYSTEM, QUESTION])
    two = render([SYSTEM, QUESTION, ANSWER])
    three = render([SYSTEM, QUESTION, ANSWER, OTHER])
    assistant = split(rest(two, one), ANSWER)
    user = split(rest(three, two), OTHER)
    asked = user.before + QUESTION["content"] + user.after
    start = bos if bos and one.startswith(bos) and not one.startswith(bos * 2) else ""
    if start and bos in one[len(bos) :]:
        start = ""  # a token that opens every turn
    system = split(rest(one, start).removesuffix(asked), SYSTEM)
    alone = rest(render([QUESTION]), start).removesuffix(asked)
    default = None
    if alone:
        default = rest(alone, system.before).removesuffix(system.after)
    answer_next = rest(render([SYSTEM, QUESTION], True), one)
    return Affixes(start, system, user, assistant, answer_next, default)


def rest(text: str, start: str) -> str:
    """Return what follows the start of a text; raise `ValueError` if it begins otherwise."""
    if not text.startswith(start):
        raise ValueError("the text begins otherwise")
    return text[len(start) :]


def split(text: str, message: Message) -> Around:
    """Return what stands around a message; raise `ValueError` if it is not there once."""
    before, after = text.split(message["content"])
    return Around(before, after)


def go_template(affixes: Affixes, *, adds_bos: bool) -> str:
    """Return the template in Go's language, as Ollama reads it."""

    def write(text: str) -> str:
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""

    def turn(around: Around) -> str:
        return f"{write(around.before)}{{{{ .Content }}}}{write(around.after)}"

    assistant = affixes.assistant
    return (
        ("" if adds_bos else write(affixes.start))
        + "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        + '{{ if eq .Role "system" }}'
        + turn(affixes.system)
        + '{{ else if eq .Role "user" }}'
        + turn(affixes.user)
        + '{{ else if eq .Role "assistant" }}'
        + f"{write(assistant.before)}{{{{ .Content }}}}"
        + f"{{{{ if not $last }}}}{write(assistant.after)}{{{{ end }}}}"
        + "{{ end }}"
        + '{{ if and $last (ne .Role "assistant") }}'
        + write(affixes.answer_next)
        + "{{ end }}{{ end }}"
    )
