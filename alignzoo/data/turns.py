"""What stands between two answers of a dialogue, as token ids, and who wrote which part.

The ids of an answer are kept as they were drawn. What follows it is encoded apart: the end of the
answer if it has none, what others say, and the header of the next answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.data.codec import Codec, TemplateValues
from alignzoo.data.dialogue import Content, Message
from alignzoo.data.template import PROBE
from alignzoo.errors import BadInput

TURN_REWARDS = "turn_rewards"  # column `[N, T]`: of a turn, at its last token; 0 elsewhere
MODEL, ENVIRONMENT = "model", "environment"  # who wrote a turn
ASKED = "alignzoo asks"  # what stands before an observation while it is written
ANSWERED = "alignzoo answers"
RESPONSE = "<tool_response>\n{}\n</tool_response>"
LONGEST_TOKEN = 16  # characters: of a text that is cut, no more of them are tokenized per token
NO_TOOLS = "the chat template takes no messages of tools: they are written as the user's"


class Turns:
    """Encode what follows an answer, in the form of a prompt: messages, or plain text.

    Args:
        codec: of the model.
        chat: False if the prompt is plain text. What follows an answer is then the bare text.
        template: variables of the chat template beside the messages.
    """

    def __init__(self, codec: Codec, *, chat: bool, template: TemplateValues = None):
        self.codec, self.chat, self.template = codec, chat, template

    def after(self, answer: Sequence[int], said: Content, most: int) -> list[int]:
        """Return the ids that follow an answer, up to where the next one begins.

        `said` is a message of the user's as text, or messages. Of each, `most` tokens are kept, and
        the rest is cut.
        """
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        messages = [self._cut(message, most) for message in messages]
        if not self.chat:
            return self.codec.following("".join(message["content"] for message in messages))
        ended = bool(answer) and answer[-1] in self.codec.stop_ids
        closing = [] if ended else self.codec.closing_ids
        between = self._write(messages if self._takes_tools else as_users(messages))
        end = self.codec.closing_text
        return [*closing, *self.codec.following(between.removeprefix(end), end)]

    def _cut(self, message: Message, most: int) -> Message:
        """Return a message with at most `most` tokens of text."""
        text = message["content"]
        beginning = text[: most * LONGEST_TOKEN]
        ids = self.codec.following(beginning)
        if len(ids) <= most and len(beginning) == len(text):
            return message
        kept = self.codec.tokenizer.decode(ids[:most], clean_up_tokenization_spaces=False)
        return {**message, "content": f"{kept}\n[cut: it had {len(text):,} characters]"}

    @cached_property
    def _takes_tools(self) -> bool:
        """Return whether the chat template writes messages of tools."""
        try:
            takes = PROBE in self._write([{"role": "tool", "name": "probe", "content": PROBE}])
        except BadInput:
            takes = False
        if not takes:
            self.codec.note(NO_TOOLS)
        return takes

    def _write(self, messages: Sequence[Message]) -> str:
        """Return the text that follows an answer in a dialogue with these messages after it."""
        asked = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]
        text = self.codec.head([*asked, *messages], self.template)
        before, _, rest = text.partition(ANSWERED)
        if ASKED not in before or not rest:
            raise BadInput(
                "the chat template writes no answer that is followed by another turn",
                hint="an episode of several turns needs a template that keeps earlier answers",
            )
        return rest


def as_users(messages: Sequence[Message]) -> list[Message]:
    """Return messages with those of tools as the user's; several in a row become one."""
    written = [
        RESPONSE.format(message["content"]) if message["role"] == "tool" else message["content"]
        for message in messages
    ]
    roles = ["user" if message["role"] == "tool" else message["role"] for message in messages]
    return [
        {"role": role, "content": "\n".join(text for _, text in group)}
        for role, group in groupby(zip(roles, written, strict=True), key=lambda pair: pair[0])
    ]


def split_turns(codec: Codec, ids: Sequence[int], written: Sequence[bool]) -> list[tuple[str, str]]:
    """Return the turns of a completion: who wrote each, the model or the environment, and what.

    Args:
        ids: of the completion.
        written: whether the model wrote it, for each id.
    """
    found, start = [], 0
    for own, group in groupby(written):
        end = start + len(list(group))
        text = codec.tokenizer.decode(
            ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        found.append((MODEL if own else ENVIRONMENT, codec.decode(ids[start:end]) if own else text))
        start = end
    return found


def join_turns(turns: Sequence[tuple[str, str]]) -> str:
    """Return the turns of a completion as one text: each on a line of its own."""
    return "\n".join(text.strip("\n") for _, text in turns)


def episode_texts(codec: Codec, batch: Batch) -> list[str]:
    """Return the completions of a batch of episodes as text, N of them."""
    rows = zip(batch.completions(), batch.mask.tolist(), strict=True)
    return [join_turns(split_turns(codec, ids, mask[: len(ids)])) for ids, mask in rows]


def count_turns(written: Tensor) -> Tensor:
    """Return how many turns of each completion the model wrote, `[N]`.

    `written [N, T]` (bool) marks the tokens that it wrote.
    """
    before = torch.nn.functional.pad(written, (1, -1))  # [N, T]
    return (written & ~before).sum(-1)
