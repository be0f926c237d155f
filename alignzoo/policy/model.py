"""A language model with its heads: log-probs, scores and values of batches, and what they cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.ledger import Cost
from alignzoo.policy.adapters import VALUE, PeftModel, use_value_adapter
from alignzoo.policy.flops import FlopsProfile
from alignzoo.policy.forward import ForwardOptions, Outputs, scatter_tokens
from alignzoo.policy.heads import ScoreHead, ValueHead
from alignzoo.policy.layout import HiddenState, Work, count_generation, count_work
from alignzoo.policy.lm_head import LMHead
from alignzoo.policy.meter import Meter
from alignzoo.policy.rotary import score_apart, states_apart
from alignzoo.policy.scoring import NO_LINEAR_HEAD, Scorer, backbone_of
from alignzoo.policy.virtual import NO_VIRTUAL, Virtual, virtual_of


@dataclass(frozen=True)
class ModelParts:
    """The parts of a `LanguageModel`, loaded.

    `half` is the dtype of products under autocast; None: float32. `fingerprint` is that of the base
    weights, and `parameter_count` their number. `trained_on` is the fingerprint of the files that
    they were read from; None: from none, or unknown. `notes` are for the user.
    `rotary_limit`: see `alignzoo.policy.rotary`.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: Any
    name: str
    device: torch.device
    scorer: Scorer
    score_head: ScoreHead | None
    value_head: ValueHead | None
    half: torch.dtype | None
    flops: FlopsProfile
    parameter_count: int
    fingerprint: str
    trained_on: str | None = None
    notes: tuple[str, ...] = ()
    rotary_limit: int | None = None


class LanguageModel:
    """A causal language model that computes log-probs of batches.

    With a `score_head` on its backbone it computes scores as well; with a `value_head` values, from
    the same backbone or, if the model has a second adapter for them, from that one's.
    """

    def __init__(self, parts: ModelParts):
        self.model: Any = parts.model
        self.tokenizer, self.name, self.device = parts.tokenizer, parts.name, parts.device
        self.flops, self.parameter_count = parts.flops, parts.parameter_count
        self.fingerprint, self.trained_on = parts.fingerprint, parts.trained_on
        self.score_head, self.value_head = parts.score_head, parts.value_head
        self._scorer, self._half = parts.scorer, parts.half
        self.notes, self.rotary_limit = list(parts.notes), parts.rotary_limit
        self.decoder: Any = None  # the way of decoding; see `alignzoo.policy.decoder`
        self.meter = Meter()
        self._virtual, self._adapter_is_off = virtual_of(parts.model), False

    def __call__(
        self,
        batch: Batch,
        *,
        values: bool = False,
        collision: bool | None = None,
        **wanted: Any,
    ) -> Outputs:
        """Compute log-probs `[N, T]` of the completions, with gradient unless torch.no_grad is on.

        `entropy=True`, `log_sum_p2=True`, `hidden=True`, `top_k=K` or `top_ids` `[N, T, K]`, and
        `values` fill the other fields of `Outputs`. `temperature` divides the logits. `perturb`
        maps the input embeddings `[..., h]` and the length of each one's sequence `[...]` to the
        embeddings that the pass uses. `divergence`, a `DivergenceFrom`, fills the field of that
        name. `collision` is the deprecated name of `log_sum_p2`.
        """
        if collision is not None:
            warnings.warn("collision is now log_sum_p2", DeprecationWarning, stacklevel=2)
            wanted["log_sum_p2"] = collision
        head = None
        if values and not self.values_apart:
            head = require_head(self.value_head, "value head", 'values="shared"')
        options = ForwardOptions(**wanted, virtual=self.virtual, value_head=head)
        with self.autocast(), self.meter.covered():
            prepended = self.virtual.prepend_to(batch)
            found = score_apart(self._scorer, prepended, options, self.rotary_limit)
        heads, backward = options.head_passes, found.logprobs.requires_grad
        self.meter.add(lambda: self.cost(batch, backward=backward, head_passes=heads))
        if values and self.values_apart:
            found.values = self.values(batch)
        return found

    def values(self, batch: Batch) -> Tensor:
        """Compute the value of the state before every token, `[N, T]` float32, 0 for no token.

        It is the value head's estimate for the prompt and the completion up to, not including, that
        token. RunFailed without a value head.
        """
        head = require_head(self.value_head, "value head", 'values="shared"')
        adapter = use_value_adapter(self.model) if self.values_apart else nullcontext()
        with adapter:
            return self._apply_head(head, batch, HiddenState.PREDICTING)

    def scores(self, batch: Batch) -> Tensor:
        """Compute the score of every token, `[N, T]` float32, exactly 0 for no token.

        Each is of the prompt and the completion up to and including that token. RunFailed without a
        score head.
        """
        head = require_head(self.score_head, "score head", "score_head=True")
        return self._apply_head(head, batch, HiddenState.OF_TOKEN)

    def _apply_head(self, head: nn.Module, batch: Batch, which: HiddenState) -> Tensor:
        with self.autocast(), self.meter.covered():
            options = ForwardOptions(virtual=self.virtual)
            prepended = self.virtual.prepend_to(batch)
            # (n, h)
            states = states_apart(self._scorer, prepended, which, options, self.rotary_limit)
        backward = states.requires_grad
        self.meter.add(lambda: self.cost(batch, states=which, lm_head=False, backward=backward))
        return scatter_tokens(batch, head(states))

    @property
    def lm_head(self) -> LMHead:
        """The head that makes distributions over the vocabulary of `Outputs.hidden`.

        BadInput if that is not a plain linear layer.
        """
        head: LMHead | None = getattr(self._scorer, "head", None)
        if head is None:
            raise BadInput(NO_LINEAR_HEAD, where=self.name)
        return head

    @property
    def values_apart(self) -> bool:
        """True if values take a forward pass of their own, through an adapter of their own."""
        return isinstance(self.model, PeftModel) and VALUE in self.model.peft_config

    @property
    def virtual(self) -> Virtual:
        """The virtual tokens that precede every prompt now; none while the adapter is off."""
        return NO_VIRTUAL if self._adapter_is_off else self._virtual

    @property
    def positions(self) -> int | None:
        """The most tokens of a prompt with its completion; None if the model has no limit."""
        limit: int | None = self._scorer.limit
        return None if limit is None else limit - self._virtual.count

    @property
    def network(self) -> Any:
        """The model to generate with; the caller has to add the virtual tokens."""
        return self.model.get_base_model() if self._virtual.count else self.model

    def require_generative(self) -> None:
        """Raise BadInput for a reward model, whose text is of no use."""
        if self.score_head is not None:
            raise BadInput(
                "a reward model gives scores, not answers",
                where=self.name,
                hint=f"let it score another model's: alignzoo run ALGO --reward {self.name}",
            )

    @property
    def note(self) -> str | None:
        """Notes for the user on how this model was loaded and has to be computed, if any."""
        notes = [*self.notes, *([self._scorer.note] if self._scorer.note else [])]
        return "\n".join(notes) or None

    def autocast(self) -> AbstractContextManager:
        """Compute products in the run's precision; for code that calls `model` directly."""
        return torch.autocast(self.device.type, self._half, enabled=self._half is not None)

    @property
    def rounds(self) -> bool:
        """True if products or weights have less than single precision."""
        return self._half is not None or getattr(self.network, "is_quantized", False)

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return [p for _, p in self.named_parameters()]

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters that are trained, each with its name."""
        return [(name, p) for name, p in self._all_parameters() if p.requires_grad]

    def _all_parameters(self) -> list[tuple[str, nn.Parameter]]:
        named = list(self.model.named_parameters())
        if self.score_head is not None:
            named += self.score_head.named_parameters(prefix="score_head")
        if self.value_head is not None:
            named += self.value_head.named_parameters(prefix="value_head")
        return named

    @property
    def trainable_count(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    def work(
        self,
        batch: Batch,
        *,
        shared: bool = True,
        states: HiddenState = HiddenState.PREDICTING,
        lm_head: bool = True,
        reference: bool = False,
    ) -> Work:
        """Count what one forward pass over the batch computes.

        With `shared`, prompts are computed once per group if the model allows it. `OF_TOKEN` states
        go through the score head, others through the LM head, or without `lm_head` through the
        value head alone. A `reference` has virtual tokens unless it is the base.
        """
        prepended = self._virtual_of(reference).prepend_to(batch)
        return count_work(prepended, shared and self._scorer.shared, states, lm_head)

    def _virtual_of(self, reference: bool) -> Virtual:
        """Return the virtual tokens of a pass, or of one of the reference."""
        return NO_VIRTUAL if self._is_bare(reference) else self._virtual

    def _flops_of(self, reference: bool) -> FlopsProfile:
        """Return the sizes of a pass, or of one of the reference."""
        return self.flops.without_adapter if self._is_bare(reference) else self.flops

    def _is_bare(self, reference: bool) -> bool:
        """Return True if a pass, or one of the reference, leaves the adapter out."""
        return self._adapter_is_off or reference

    def cost(
        self,
        batch: Batch,
        *,
        states: HiddenState = HiddenState.PREDICTING,
        lm_head: bool = True,
        reference: bool = False,
        shared: bool = True,
        backward: bool = False,
        head_passes: int = 1,
    ) -> Cost:
        """Return the cost of a forward pass over the batch, and of the `backward` pass if asked.

        Tokens go through the LM head `head_passes` times. The other arguments are those of `work`;
        a `reference` that is the base has no adapter.
        """
        work = self.work(batch, shared=shared, states=states, lm_head=lm_head, reference=reference)
        work = work._replace(scored=work.scored * head_passes)
        flops = self._flops_of(reference)
        count = flops.update if backward else flops.forward
        return Cost(count(*work), work.tokens)

    def generation_cost(self, batch: Batch, passes: int, *, reference: bool = False) -> Cost:
        """Return the cost of drawing the completions of a batch in so many forward passes.

        A `reference` that is the base has no adapter.
        """
        virtual = self._virtual_of(reference)
        cached = virtual.count - virtual.placeholders
        work = count_generation(virtual.prepend_to(batch), cached)
        return Cost(self._flops_of(reference).forward(*work, passes), work.tokens)

    def charge_to(self, charge: Callable[[Cost], None]) -> None:
        """Charge every forward pass from now on, by whatever code it is made."""
        self.meter.charge = charge
        for network in self._networks():
            base: Any = network.get_base_model() if isinstance(network, PeftModel) else network
            try:
                backbone = backbone_of(base)
            except NotImplementedError:
                backbone = base
            self.meter.watch(backbone, base.get_output_embeddings(), lambda: self._flops_of(False))

    def _networks(self) -> list[Any]:
        """Return the networks that this model computes with."""
        return [self.model]

    @contextmanager
    def evaluating(self, other: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Switch the model to evaluation mode (no dropout), and enter `other` inside it."""
        trained, training = self.model, self.model.training
        trained.eval()
        try:
            with other or nullcontext():
                yield
        finally:
            trained.train(training)

    def train(self, mode: bool = True) -> None:
        """Switch to training mode, or with False to evaluation mode."""
        self.model.train(mode)

    def eval(self) -> None:
        """Switch to evaluation mode."""
        self.train(False)


_Head = TypeVar("_Head", ScoreHead, ValueHead)


def require_head(head: _Head | None, name: str, need: str) -> _Head:
    """Return the head of a model; RunFailed if it has none."""
    if head is None:
        raise RunFailed(
            f"the model has no {name}",
            hint=f"an algorithm that trains one declares it: needs = Needs({need})",
        )
    return head
