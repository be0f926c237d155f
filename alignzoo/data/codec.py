"""The one path from text to tokens, for training and for evaluation.

A prompt and a completion are tokenized separately if the tokenizer would merge across their
boundary, so that the ids of the prompt are those that generation will see. A prompt begins with
one BOS if the model is used to one; a completion ends in a token that stops generation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignzoo.data.dialogue import Content, Message
from alignzoo.data.template import PLAIN, PROBE, ChatTemplate, is_continued
from alignzoo.data.values import UnusableRow
from alignzoo.errors import BadInput

UNUSUAL = (
    "the chat template does not write an answer as a continuation of its generation prompt: "
    "answers are trained on as their plain content and the end of the turn"
)
ENDED = "an end of sequence that stands in the text already is not added again"
OPENED = "the answer begins as the generation prompt ends; it is trained on once"
UNREASONED = "an answer without reasoning is trained on inside the open {} of the generation prompt"

TemplateValues = Mapping[str, Any] | None  # variables of a chat template beside the messages
OPEN_TAG = re.compile(r"<(\w+)>\s*$")


class NoTokens(BadInput):
    """A prompt of no tokens: nothing predicts the first token of its completion."""

    def __init__(self) -> None:
        super().__init__("the prompt has no tokens")


class _Head(NamedTuple):
    """The text of a prompt, and its ids, of which the first `kept` are those of all but `rest`."""

    text: str
    ids: list[int]
    kept: int
    rest: str


class Codec:
    """Convert text and dialogues to token ids and back, by a tokenizer and its chat template.

    `bos` is the id that every prompt begins with, or None. `stop_ids` end a completion: EOS, the
    end of a turn in the chat template, and those of the model's `generation_config.json`, which the
    tokenizer of a loaded policy has as `generation_stop_ids`. `notes` are remarks for the user
    about the tokenizer.
    """

    def __init__(self, tokenizer: Any):
        if tokenizer.eos_token_id is None:
            raise BadInput(
                "the tokenizer has no end-of-sequence token: no completion could end",
                where=str(getattr(tokenizer, "name_or_path", "")) or None,
                hint="set eos_token in the model's tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self._remarks: dict[str, None] = {}
        self._separators = self._find_separators()
        self._last = _Head("", [], 0, "")
        self.eos: int = tokenizer.eos_token_id
        first = self._ids(PROBE)
        self._adds_space = bool(first) and tokenizer.convert_ids_to_tokens(first[0]).startswith(
            ("▁", "Ġ")
        )
        self._template = ChatTemplate(tokenizer, self.remark)
        self.bos: int | None = self._find_bos()
        self._end = self._end_of_turn()
        more = getattr(tokenizer, "generation_stop_ids", ())
        self.stop_ids: list[int] = list(dict.fromkeys([self.eos, self._end[-1], *more]))
        self._stops = self._stop_tokens()

    # --- text to tokens

    def prompt(self, prompt: Content, template: TemplateValues = None) -> list[int]:
        """Encode a prompt: text as it is, messages with a generation prompt.

        A last message of the assistant's whose `prefix` is true is continued instead. `template`
        are variables of the chat template beside the messages: see `template_values`. Raise
        `NoTokens` if nothing is left, as of spaces under some tokenizers.
        """
        return self._prompt(self._head(prompt, template))

    def completion(
        self, prompt: Content, completion: Content, template: TemplateValues = None
    ) -> list[int]:
        """Encode a completion: the ids after those of the prompt, up to one that stops."""
        return self._completion(self._head(prompt, template), prompt, completion, template)

    def group(
        self, prompt: Content, completions: Sequence[Content], template: TemplateValues = None
    ) -> tuple[list[int], list[list[int]]]:
        """Encode a prompt, and completions of it, as `prompt` and `completion` do."""
        head = self._head(prompt, template)
        ids = self._prompt(head)
        return ids, [self._completion(head, prompt, each, template) for each in completions]

    def _prompt(self, head: str) -> list[int]:
        ids = self._one_bos([*self._split(head).ids])
        if not ids:
            raise NoTokens
        return ids

    def _completion(
        self, head: str, prompt: Content, completion: Content, template: TemplateValues
    ) -> list[int]:
        if isinstance(prompt, str):
            answer = completion if isinstance(completion, str) else completion[-1]["content"]
            body, end = self._split_end(answer)
            # Without a space of the tokenizer's, a text has the same ids wherever it stands.
            ids = self._after(prompt, body) if self._adds_space else self._ids(body)
            return [*ids, self.eos if end is None else end]
        if isinstance(completion, str):
            completion = [{"role": "assistant", "content": completion}]
        answer = completion[-1]["content"]
        if is_continued(prompt):
            begun = {**prompt[-1], "content": prompt[-1]["content"] + answer}
            full = self._template.render([*prompt[:-1], begun], template)
        else:
            full = self._template.render([*prompt, *completion], template)
        close = self._template.close
        if full.startswith(head) and full[len(head) :].endswith(close):
            body = full[len(head) : len(full) - len(close)]
        else:
            self.note(UNUSUAL)
            body = answer
        if not is_continued(prompt):
            body = self._without_opening(head, body)
        body, _ = self._split_end(body)
        return [*self._after(head, body), *self._end]

    def turns(
        self, messages: list[Message], template: TemplateValues = None
    ) -> tuple[list[int], list[int], list[bool]] | None:
        """Encode a dialogue that ends in an answer, with all its answers marked.

        Return the ids of the prompt of the first answer, the ids of all that follows, and a mask
        of these that is True for what the assistant says. Return None if the template rewrites an
        answer once the dialogue goes on (drops its reasoning, say): its ids are then not those
        that were generated.
        """
        prompt: list[int] = []
        ids: list[int] = []
        mask: list[bool] = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or i == 0:  # the first message answers nothing
                continue
            before = self.prompt(messages[:i], template)
            if before[: len(ids)] != ids:
                return None
            prompt = prompt or before
            said = self.completion(messages[:i], [message], template)
            mask += [False] * (len(before) - len(mask)) + [True] * len(said)
            ids = before + said
        return prompt, ids[len(prompt) :], mask[len(prompt) :]

    def text(self, text: Content, template: TemplateValues = None) -> list[int]:
        """Encode a whole document or dialogue, from its BOS (if any) to an id that stops."""
        if isinstance(text, str):
            body, end = self._split_end(text)
            return [*self._one_bos(self._ids(body)), self.eos if end is None else end]
        rendered = self._render(text, template)
        close = self._template.close
        if text[-1]["role"] == "assistant" and rendered.endswith(close):
            body, _ = self._split_end(rendered.removesuffix(close))
            return [*self._one_bos(self._ids(body)), *self._end]
        ids = self._one_bos(self._ids(rendered))
        return ids if ids and ids[-1] in self.stop_ids else [*ids, self.eos]

    # --- between the answers of a dialogue: see `alignzoo.data.turns`

    @property
    def closing_ids(self) -> list[int]:
        """Return the ids that close an answer, up to the one that stops generation."""
        return self._end

    @property
    def closing_text(self) -> str:
        """Return what a dialogue as text has for `closing_ids`; "" if it has nothing."""
        token = self.tokenizer.convert_ids_to_tokens(self._end[-1])
        before, found, _ = self._template.close.partition(token)
        return before + found if found else before.rstrip()

    def head(self, prompt: Content | Sequence[Message], template: TemplateValues = None) -> str:
        """Render a prompt up to where the next answer begins."""
        return self._head(prompt, template)

    def following(self, text: str, end: str = "") -> list[int]:
        """Encode a text that follows other tokens, of which `end` are the last as text."""
        return self._after(end, text) if end else self._continuation(text)

    # --- remarks on rows, and notes on the tokenizer

    def remark(self, text: str) -> None:
        """Keep something that the user should know about the row that is being encoded."""
        self._remarks[text] = None

    def note(self, text: str) -> None:
        """Keep something that the user should know about the tokenizer, once."""
        if text not in self.notes:
            self.notes.append(text)

    def take_remarks(self) -> list[str]:
        """Return the remarks since the last call, each once."""
        found, self._remarks = list(self._remarks), {}
        return found

    # --- cutting to a length

    def fit(self, prompt: list[int], longest: int, max_length: int) -> tuple[list[int], int]:
        """Cut a prompt and make room for completions of which the longest has `longest` ids.

        Return what is kept of the prompt, and the room for each completion. A prompt loses its
        start. The completions are sure of half of `max_length`, or of what the longest one needs;
        all of them share the same truncated prompt. Raise `UnusableRow` if there is no room.
        """
        kept = self.cut_prompt(prompt, max_length - min(longest, max_length // 2))
        room = max_length - len(kept)
        if room < 1:
            raise UnusableRow("nothing of the completion fits")
        return kept, room

    def cut_prompt(self, ids: list[int], room: int) -> list[int]:
        """Return the last `room` ids of a prompt, with its BOS kept in front."""
        if len(ids) <= room:
            return ids
        keep = 1 if self.bos is not None and room > 0 else 0
        return ids[:keep] + ids[len(ids) - (room - keep) :]

    # --- tokens to text

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a completion up to the first id that stops, without special tokens."""
        ids = list(ids)
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self.tokenizer.decode(
            ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    # --- the tokenizer

    def _ids(self, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)
        except (TypeError, UnicodeEncodeError):
            if text.isascii() or text.encode(errors="replace").decode() == text:
                raise
            raise BadInput(
                "the text has half of a surrogate pair, which is no character",
                hint="it was not UTF-8 where it was typed or stored",
            ) from None

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Put exactly one BOS in front, however many the text or the template has."""
        if self.bos is None:
            return ids
        start = next((i for i, token in enumerate(ids) if token != self.bos), len(ids))
        return [self.bos, *ids[start:]]

    def _after(self, head: str, body: str) -> list[int]:
        """Encode `body` after `head`: as in the whole text, if no token spans the boundary."""
        begun = self._split(head)
        whole, before = self._ids(begun.rest + body), begun.ids[begun.kept :]
        return whole[len(before) :] if whole[: len(before)] == before else self._continuation(body)

    def _split(self, head: str) -> _Head:
        """Encode the text of a prompt, and split it before its last special token.

        Whatever follows, the ids before that token stay the same: a long prompt is tokenized once,
        not once again with each of its completions.
        """
        if self._last.text == head:
            return self._last
        ids = self._ids(head)
        self._last = _Head(head, ids, 0, head)
        kept = next((i for i in reversed(range(len(ids))) if ids[i] in self._separators), 0)
        if kept > 0:
            rest = head[head.rfind(self._separators[ids[kept]]) :]
            # A token may be written in another way: then it is found nowhere, or too early.
            if self._ids(rest) == ids[kept:]:
                self._last = _Head(head, ids, kept, rest)
        return self._last

    def _continuation(self, text: str) -> list[int]:
        """Encode a text that follows another; SentencePiece adds a space in front by itself."""
        if not self._adds_space:
            return self._ids(text)
        if text.startswith(" "):
            return self._ids(text[1:])
        whole, before = self._ids("\n" + text), self._ids("\n")
        return whole[len(before) :] if whole[: len(before)] == before else self._ids(text)

    def _find_bos(self) -> int | None:
        """Return the BOS id if the tokenizer adds it by itself or the template begins with it.

        A token that opens every turn, such as `<|im_start|>`, is part of the dialogue and is not
        put before plain text.
        """
        bos, token = self.tokenizer.bos_token_id, self.tokenizer.bos_token
        added = self.tokenizer.encode(PROBE)[:1] == [bos]
        written = bos is not None and self._template.before.startswith(token)
        return bos if added or (written and not self._template.repeats(token)) else None

    def _end_of_turn(self) -> list[int]:
        """Return the ids that close an answer: the template's, up to the first that can stop.

        That is EOS or a special token such as `<|im_end|>`. A template that writes neither gets an
        EOS, because otherwise generation would never end.
        """
        special, closing = self._special_ids(), self._template.close
        close = self._after(PROBE, closing)
        for i, token in enumerate(close):
            if token in special:
                return close[: i + 1]
        return [*self._after(PROBE, closing.rstrip()), self.eos]

    def _special_ids(self) -> set[int]:
        added = self.tokenizer.get_added_vocab().values()
        return {self.eos, *self.tokenizer.all_special_ids, *added}

    def _find_separators(self) -> dict[int, str]:
        """Return the tokens that a fast tokenizer splits every text at, by their ids.

        It encodes what stands before and after them apart.
        """
        if not self.tokenizer.is_fast:
            return {}
        return {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items()}

    def _stop_tokens(self) -> dict[str, int]:
        """Return the ids that stop and are special tokens, by their text."""
        ids = self._special_ids().intersection(self.stop_ids)
        return {self.tokenizer.convert_ids_to_tokens(token): token for token in ids}

    def _split_end(self, text: str) -> tuple[str, int | None]:
        """Split the tokens that stop off the end of a text; return the first of them as well."""
        rest, found = text, None
        while token := next((t for t in self._stops if rest.rstrip().endswith(t)), None):
            rest, found = rest.rstrip().removesuffix(token), self._stops[token]
        if found is not None:
            self.remark(ENDED)
        return rest, found

    # --- the chat template

    def _head(self, prompt: Content | Sequence[Message], template: TemplateValues) -> str:
        """Return the text of a prompt: as it is, or messages up to where the completion begins."""
        if isinstance(prompt, str):
            return prompt
        if not self._template.exists:
            self.note(PLAIN)
        return self._template.head(prompt, template)

    def _render(self, messages: Sequence[Message], template: TemplateValues) -> str:
        if not self._template.exists:
            self.note(PLAIN)
        return self._template.render(messages, template)

    def _without_opening(self, head: str, body: str) -> str:
        """Take off the front of an answer what the generation prompt has written already.

        Templates of reasoning models end it in `<think>`, and so do answers begin that have it.
        """
        tag = OPEN_TAG.search(head)
        if not tag:
            return body
        opening = head[tag.start() :].rstrip()
        if body.lstrip().startswith(opening):
            self.remark(OPENED)
            return body.lstrip().removeprefix(opening).removeprefix(head[len(head.rstrip()) :])
        if f"</{tag[1]}>" not in body:
            self.remark(UNREASONED.format(opening))
        return body
