"""A model that chats, and the base model it was trained from."""

from __future__ import annotations

from contextlib import nullcontext

from alignzoo.data import Codec
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.rollout import Sampling, generate


class ChatModel:
    """A model, folder or run that answers dialogues; with an adapter, its base can answer too."""

    def __init__(self, model: str, *, trust_remote_code: bool = False):
        self.policy = load_policy(ModelSpec(model, trust_remote_code=trust_remote_code))
        self.policy.require_generative()
        self.policy.eval()
        self.codec = Codec(self.policy.tokenizer)

    @property
    def has_base(self) -> bool:
        """Return whether there is a base model to compare with."""
        return self.policy.has_base

    def reply(
        self, messages: list[dict[str, str]], *, max_new_tokens: int, temperature: float, seed: int
    ) -> str:
        """Return the next turn of the dialogue."""
        return self._reply(messages, max_new_tokens, temperature, seed, base=False)

    def base_reply(
        self, messages: list[dict[str, str]], *, max_new_tokens: int, temperature: float, seed: int
    ) -> str:
        """Return the next turn of the base model, drawn with the random numbers of `reply`."""
        return self._reply(messages, max_new_tokens, temperature, seed, base=True)

    def _reply(
        self,
        messages: list[dict[str, str]],
        max_new_tokens: int,
        temperature: float,
        seed: int,
        *,
        base: bool,
    ) -> str:
        with self.policy.base() if base else nullcontext():
            (completion,) = generate(
                self.policy,
                [self.codec.prompt(messages)],
                [seed],
                Sampling(max_new_tokens, self.codec.stop_ids, temperature),
            )
        return self.codec.decode(completion.tokens)
