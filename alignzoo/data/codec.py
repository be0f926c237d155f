"""The one path from text to tokens, for training and for evaluation.

A prompt and a completion are tokenized separately if the tokenizer would merge across their
boundary, so that the ids of the prompt are those that generation will see. A prompt begins with
one BOS if the model is used to one; a completion ends in a token that stops generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.data.dialogue import Content, Message
from alignzoo.data.values import UnusableRow
from alignzoo.errors import BadInput

PROBE = "alignzoo"
PLAIN = (
    "no chat template in the tokenizer: dialogues are written as 'User: ...\\n\\nAssistant: ...'"
)
UNUSUAL = (
    "the chat template does not write an answer as a continuation of its generation prompt: "
    "answers are trained on as their plain content and the end of the turn"
)


class Codec:
    """Convert text and dialogues to token ids and back, by a tokenizer and its chat template.

    `bos` is the id that every prompt begins with, or None. `stop_ids` end a completion: EOS, and
    the end of a turn in the chat template. `notes` are remarks for the user about the tokenizer.
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
        self.eos: int = tokenizer.eos_token_id
        first = self._ids(PROBE)
        self._adds_space = bool(first) and tokenizer.convert_ids_to_tokens(first[0]).startswith(
            ("▁", "Ġ")
        )
        opening, self._close = self._probe_template()
        self.bos: int | None = self._find_bos(opening)
        self._end = self._end_of_turn()
        self.stop_ids: list[int] = list(dict.fromkeys([self.eos, self._end[-1]]))

    # --- text to tokens

    def prompt(self, prompt: Content) -> list[int]:
        """Encode a prompt: text as it is, messages with a generation prompt."""
        if isinstance(prompt, str):
            return self._one_bos(self._ids(prompt))
        return self._one_bos(self._ids(self._render(prompt, answer_next=True)))

    def completion(self, prompt: Content, completion: Content) -> list[int]:
        """Encode a completion: the ids after those of the prompt, up to one that stops."""
        answer = completion if isinstance(completion, str) else completion[-1]["content"]
        if isinstance(prompt, str):
            return [*self._continuation(answer), self.eos]
        head = self._render(prompt, answer_next=True)
        turn = [{"role": "assistant", "content": answer}]
        full = self._render([*prompt, *(turn if isinstance(completion, str) else completion)])
        if full.startswith(head) and full[len(head) :].endswith(self._close):
            body = full[len(head) : len(full) - len(self._close)]
        else:
            self._note(UNUSUAL)
            body = answer
        return [*self._after(head, body), *self._end]

    def turns(self, messages: list[Message]) -> tuple[list[int], list[int], list[bool]] | None:
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
            before = self.prompt(messages[:i])
            if before[: len(ids)] != ids:
                return None
            prompt = prompt or before
            said = self.completion(messages[:i], [message])
            mask += [False] * (len(before) - len(mask)) + [True] * len(said)
            ids = before + said
        return prompt, ids[len(prompt) :], mask[len(prompt) :]

    def text(self, text: Content) -> list[int]:
        """Encode a whole document or dialogue, from its BOS (if any) to an id that stops."""
        if isinstance(text, str):
            return [*self._one_bos(self._ids(text)), self.eos]
        rendered = self._render(text)
        answered = text[-1]["role"] == "assistant" and rendered.endswith(self._close)
        if answered:
            return [*self._one_bos(self._ids(rendered.removesuffix(self._close))), *self._end]
        ids = self._one_bos(self._ids(rendered))
        return ids if ids and ids[-1] in self.stop_ids else [*ids, self.eos]

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
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def _one_bos(self, ids: list[int]) -> list[int]:
        """Put exactly one BOS in front, however many the text or the template has."""
        if self.bos is None:
            return ids
        start = next((i for i, token in enumerate(ids) if token != self.bos), len(ids))
        return [self.bos, *ids[start:]]

    def _continuation(self, text: str) -> list[int]:
        """Encode a text that follows another; SentencePiece adds a space in front by itself."""
        return self._ids(text[1:] if self._adds_space and text.startswith(" ") else text)

    def _after(self, head: str, body: str) -> list[int]:
        """Encode `body` after `head`: as in the whole text, if no token spans the boundary."""
        whole, before = self._ids(head + body), self._ids(head)
        return whole[len(before) :] if whole[: len(before)] == before else self._continuation(body)

    # --- the chat template

    def _render(self, messages: list[Message], answer_next: bool = False) -> str:
        if not self.tokenizer.chat_template:
            self._note(PLAIN)
            return _plain(messages, answer_next)
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer_next
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise BadInput(f"the model's chat template refuses this dialogue: {error}") from None

    def _probe_template(self) -> tuple[str, str]:
        """Return what the template writes before a question and after an answer."""
        if not self.tokenizer.chat_template:
            return "", ""
        question = {"role": "user", "content": PROBE}
        text = self._render([question, {"role": "assistant", "content": PROBE}])
        before, _, rest = text.partition(PROBE)
        return before, rest.rpartition(PROBE)[2]

    def _find_bos(self, opening: str) -> int | None:
        """Return the BOS id if the tokenizer adds it by itself or the template writes it."""
        bos = self.tokenizer.bos_token_id
        added = self.tokenizer.encode(PROBE)[:1] == [bos]
        written = bos is not None and opening.startswith(self.tokenizer.bos_token)
        return bos if added or written else None

    def _end_of_turn(self) -> list[int]:
        """Return the ids that close an answer: the template's, up to the first that can stop.

        That is EOS or a special token such as `<|im_end|>`. A template that writes neither gets an
        EOS, because otherwise generation would never end.
        """
        added = self.tokenizer.get_added_vocab().values()
        own = {self.eos, *self.tokenizer.all_special_ids, *added}
        close = self._after(PROBE, self._close)
        for i, token in enumerate(close):
            if token in own:
                return close[: i + 1]
        return [*self._after(PROBE, self._close.rstrip()), self.eos]

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _plain(messages: list[Message], answer_next: bool) -> str:
    """Write a dialogue without a chat template: `User: ...\\n\\nAssistant: ...`."""
    turns = [f"{m['role'].capitalize()}: {m['content']}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"] if answer_next else turns)
