"""A policy as lm-evaluation-harness sees a model: it scores texts and continues them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from alignzoo import BadInput, Example, collate
from alignzoo.policy import Policy
from alignzoo.rollout import Sampling, generate

LONGEST = 2048  # tokens of a text, for a model that does not state its limit
NEW_TOKENS = 256  # lm_eval's own default for a task that states none
KNOWN = {"do_sample", "temperature", "top_k", "top_p", "min_p", "until", "max_gen_toks"}

Request = tuple[tuple[str, str], list[int], list[int]]  # texts, and ids of context and continuation


class PolicyLM(TemplateLM):
    """A policy in evaluation mode, as a model of lm_eval.

    Texts become ids as under lm_eval's own `hf` model, so that numbers are comparable.

    Args:
        batch_size: texts at once.
    """

    def __init__(self, policy: Policy, batch_size: int):
        super().__init__()
        self.policy, self.batch_size = policy, batch_size
        self.tokenizer = policy.tokenizer
        config = policy.model.config.get_text_config()
        self.max_length = int(getattr(config, "max_position_embeddings", None) or LONGEST)

    @property
    def eot_token_id(self) -> int:
        """Return the id that ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Return the id that the first token of a text without a context is conditioned on."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """Return the name of the tokenizer, a part of the keys of lm_eval's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a dialogue as the text that the model's chat template makes of it."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of a text, with a BOS if the tokenizer adds one and the text has none."""
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos and string.startswith(bos):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **options)

    # --- log-probs

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: list[Request], **_: Any) -> list[tuple[float, bool]]:
        """Return for each request the log-prob of the continuation (nats), and whether it is what
        greedy decoding gives."""
        found: dict[int, tuple[float, bool]] = {}
        pairs = [(self._cut(context, ids), ids) for _, context, ids in requests]
        order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0]), pairs[i][0]))
        for part in cut(order, self.batch_size):
            batch = collate([Example(pairs[i][0], [pairs[i][1]]) for i in part])
            batch = batch.to(self.policy.device)
            outputs = self.policy(batch, log_sum_p2=True)
            # The largest of the probabilities p is at least sum(p^2), so a token with less is not
            # the likeliest one. That leaves few texts to decode.
            may_be = (outputs.logprobs >= outputs.log_sum_p2 - 1e-4).logical_or(~batch.mask).all(-1)
            totals = batch.total(outputs.logprobs).tolist()
            for row, i in enumerate(part):
                found[i] = totals[row], bool(may_be[row])
        for i, is_greedy in self._decode_greedily([(i, *pairs[i]) for i in order if found[i][1]]):
            found[i] = found[i][0], is_greedy
        return [found[i] for i in range(len(pairs))]

    def _cut(self, context: list[int], continuation: list[int]) -> list[int]:
        """Return the end of a context that fits before a continuation."""
        room = self.max_length + 1 - len(continuation)
        if room < 1:
            raise BadInput(
                f"a text of {len(continuation):,} tokens is longer than the {self.max_length:,} "
                "positions that the model has"
            )
        return context[-room:]

    def _decode_greedily(
        self, texts: Sequence[tuple[int, list[int], list[int]]]
    ) -> Iterator[tuple[int, bool]]:
        """Return for each numbered context and continuation whether decoding gives the latter."""
        for part in cut(texts, self.batch_size):
            longest = max(len(continuation) for _, _, continuation in part)
            sampling = Sampling(max_new_tokens=longest, stop_ids=(), temperature=0.0)
            drawn = generate(self.policy, [c for _, c, _ in part], [0] * len(part), sampling)
            for (i, _, continuation), one in zip(part, drawn, strict=True):
                yield i, one.tokens[: len(continuation)] == continuation

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-prob of each whole text (nats), in windows of the model's length."""
        windows: list[Request] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, 1
            ):
                windows.append((("", ""), *make_disjoint_window(window)))
                owners.append(place)
        totals = [0.0] * len(requests)
        for place, (total, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[place] += total
        return totals

    # --- texts

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each context, up to a text that ends it."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(place)
        texts: dict[int, str] = {}
        for places in groups.values():
            settings = normalize_gen_kwargs(dict(requests[places[0]].args[1]), NEW_TOKENS)
            contexts = [requests[place].args[0] for place in places]
            texts |= zip(places, self._continue(contexts, dict(settings)), strict=True)
        return [texts[place] for place in range(len(requests))]

    def _continue(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        """Return the continuations of contexts under one set of lm_eval's settings."""
        others = settings.keys() - KNOWN
        if others:
            raise BadInput(f"the task sets {min(others)!r}, which alignzoo does not sample with")
        until = handle_stop_sequences(
            settings.get("until"), eos=self.tokenizer.decode([self.eot_token_id])
        )
        new = int(settings["max_gen_toks"])
        if new >= self.max_length:
            raise BadInput(
                f"the task asks for {new:,} tokens, and the model has {self.max_length:,} positions"
            )
        sampling = Sampling(
            max_new_tokens=new,
            stop_ids=(self.eot_token_id, *getattr(self.tokenizer, "generation_stop_ids", ())),
            temperature=float(settings.get("temperature") or 0.0),
            top_k=int(settings.get("top_k") or 0),
            top_p=float(settings.get("top_p") or 1.0),
            min_p=float(settings.get("min_p") or 0.0),
            stop=[text for text in until if text],
            decode=self._decode,
        )
        prompts = [self.tok_encode(text)[-(self.max_length - new) :] for text in contexts]
        drawn = generate(
            self.policy, prompts, range(len(prompts)), sampling, batch_size=self.batch_size
        )
        return [postprocess_generated_text(self._decode(c.tokens), until, None) for c in drawn]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def cut(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Return the items in parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
