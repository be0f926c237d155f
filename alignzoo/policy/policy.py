"""The model being trained, its reference, and what is saved of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.files import whole_folder
from alignzoo.policy.adapters import VALUE, PeftModel, still_trained, value_adapter_on
from alignzoo.policy.flops import FlopsProfile
from alignzoo.policy.heads import ScoreHead, ValueHead
from alignzoo.policy.layout import States, Work, work
from alignzoo.policy.locate import quiet
from alignzoo.policy.scoring import Ask, Outputs, Perturb, Scorer, spread
from alignzoo.policy.virtual import NO_VIRTUAL, Virtual, virtual_of

REFERENCE = "reference."  # prefix of a moved reference's tensors in the state


class Policy:
    """A language model that gives log-probabilities of batches; made by `load_policy`.

    The reference is the model as it was loaded: the adapter switched off, or a frozen copy; or the
    virtual tokens of an earlier run, whose weights `start` holds. For other adapters `start` is
    what they are when they do nothing, unless `lora_B` of zero says it. With a `score_head` on its
    trunk it gives scores of batches too; with a `value_head` values, from the same trunk or, where
    the model has a second adapter for it, from that one's.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel | PeftModel,
        tokenizer: Any,
        name: str,
        device: torch.device,
        scorer: Scorer,
        frozen: PreTrainedModel | None,
        start: dict[str, Tensor] | None,
        score_head: ScoreHead | None,
        value_head: ValueHead | None,
        half: torch.dtype | None,
        flops: FlopsProfile,
        parameter_count: int,
        fingerprint: str,
    ):
        self.model: Any = model
        self.tokenizer, self.name, self.device = tokenizer, name, device
        self.flops, self.parameter_count, self.fingerprint = flops, parameter_count, fingerprint
        self.score_head, self.value_head = score_head, value_head
        self._scorer, self._frozen, self._half = scorer, frozen, half
        self._frozen_scorer = type(scorer)(frozen) if frozen is not None else scorer
        self._start = start
        self._moved: dict[str, Tensor] | None = None
        self._virtual, self._off = virtual_of(model), False
        self.is_reference = False  # True inside `as_reference`

    def __call__(
        self,
        batch: Batch,
        *,
        entropy: bool = False,
        temperature: float = 1.0,
        collision: bool = False,
        perturb: Perturb | None = None,
        values: bool = False,
    ) -> Outputs:
        """Log-probabilities of the completions, with gradient (but for `torch.no_grad`).

        `perturb(embeddings, lengths)` gives the input embeddings to go on with: `embeddings
        [..., h]`, and `lengths [...]`, how many tokens the sequence of each one has.
        """
        head = self._values_from() if values and not self.values_apart else None
        with self.autocast():
            found = self._scorer(
                self.virtual.before(batch),
                Ask(entropy, collision, temperature, perturb, self.virtual, head),
            )
        if values and self.values_apart:
            found.values = self.values(batch)
        return found

    def values(self, batch: Batch) -> Tensor:
        """The value head's number for the state before every token, `[N, T]` float32, 0 where
        there is none: what it expects of the prompt and the completion up to that token."""
        head = self._values_from()
        adapter = value_adapter_on(self.model) if self.values_apart else nullcontext()
        with self.autocast(), adapter:
            states = self._scorer.states(
                self.virtual.before(batch), States.BEFORE, Ask(virtual=self.virtual)
            )
        return spread(batch, head(states))

    @property
    def values_apart(self) -> bool:
        """Whether values take a pass of their own, through an adapter of their own."""
        return isinstance(self.model, PeftModel) and VALUE in self.model.peft_config

    def _values_from(self) -> ValueHead:
        if self.value_head is None:
            raise RunFailed(
                "the model has no value head",
                hint='an algorithm that trains one says so: needs = Needs(values="shared")',
            )
        return self.value_head

    @torch.no_grad()
    def reference(self, batch: Batch, *, temperature: float = 1.0) -> Outputs:
        """The same under the reference, without gradient: the base until it is moved."""
        with self.as_reference():
            return self(batch, temperature=temperature)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Inside it the policy is the reference, in evaluation mode: to score with and to generate
        from."""
        self._check_reference()
        moved = self._moved if self._frozen is None else None
        was, self.is_reference = self.is_reference, True
        try:
            with self.evaluating(self._with_weights(moved) if moved else self._untrained()):
                yield
        finally:
            self.is_reference = was

    def scores(self, batch: Batch) -> Tensor:
        """The score head's number for every token, `[N, T]` float32, exactly 0 where there is none.

        Each is of the prompt and the completion up to and including that token.
        """
        if self.score_head is None:
            raise RunFailed(
                "the model has no score head",
                hint="an algorithm that trains one says so: needs = Needs(score_head=True)",
            )
        with self.autocast():
            states = self._scorer.states(
                self.virtual.before(batch), States.OWN, Ask(virtual=self.virtual)
            )
        return spread(batch, self.score_head(states))

    @contextmanager
    def base(self) -> Iterator[Any]:
        """Inside it `model`, which it yields, is the model before training, in evaluation mode: to
        score with and to generate from."""
        if not self.has_base:
            raise RunFailed("the model before training is not in memory")
        with self.evaluating(self._untrained()):
            yield self.model

    @property
    def virtual(self) -> Virtual:
        """The learnt tokens that stand before every prompt at this moment."""
        return NO_VIRTUAL if self._off else self._virtual

    @property
    def network(self) -> Any:
        """What gives logits of tokens, for generation; it leaves virtual tokens to the caller."""
        return self.model.get_base_model() if self._virtual.count else self.model

    def must_answer(self) -> None:
        """`BadInput` for a reward model: what it would write is of no use."""
        if self.score_head is not None:
            raise BadInput(
                "a reward model gives scores, not answers",
                where=self.name,
                hint=f"let it judge another model's: alignzoo run ALGO --reward {self.name}",
            )

    @property
    def has_reference(self) -> bool:
        return self._frozen is not None or isinstance(self.model, PeftModel)

    @property
    def has_base(self) -> bool:
        """Whether the model before training is at hand; a frozen copy that was moved is not it."""
        return isinstance(self.model, PeftModel) or (
            self._frozen is not None and self._moved is None
        )

    @property
    def reference_moved(self) -> bool:
        return self._moved is not None

    def reference_facts(self) -> dict[str, str]:
        """What the values of the reference depend on, before it is moved."""
        base = self._frozen if self._frozen is not None else self.model
        return {
            "fingerprint": self.fingerprint,
            "weights": checksum(base),
            "precision": str(self._half),
            "device": self.device.type,
            "scorer": type(self._scorer).__name__,
        }

    @contextmanager
    def evaluating(self, other: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Inside it the model, or the `other` it is there, has no dropout."""
        trained, training = self.model, self.model.training
        trained.eval()
        try:
            with other or nullcontext():
                yield
        finally:
            trained.train(training)

    def _untrained(self) -> AbstractContextManager[None]:
        """The adapter off or as it was, or the frozen copy in place of the model."""
        if self._frozen is not None:
            return self._frozen_copy()
        if self._virtual.count and self._start is not None:
            return self._with_weights(self._start)
        return self._adapter_off()

    @contextmanager
    def _adapter_off(self) -> Iterator[None]:
        was, self._off = self._off, True
        kept = still_trained(self.model) if self.values_apart else nullcontext()
        try:
            with kept, self.model.disable_adapter():
                yield
        finally:
            self._off = was

    @contextmanager
    def _frozen_copy(self) -> Iterator[None]:
        trained = self.model, self._scorer
        self.model, self._scorer = self._frozen, self._frozen_scorer
        try:
            yield
        finally:
            self.model, self._scorer = trained

    @contextmanager
    def _with_weights(self, weights: dict[str, Tensor]) -> Iterator[None]:
        # Through .data, so that a graph that is still to run backward does not notice.
        parameters = dict(self._named())
        now = {name: parameters[name].data for name in weights}
        try:
            for name, weight in weights.items():
                parameters[name].data = weight
            yield
        finally:
            for name, weight in now.items():
                parameters[name].data = weight

    @torch.no_grad()
    def move_reference(self, mix: float = 1.0) -> None:
        """Move the reference to mix * policy + (1 - mix) * reference, weight by weight.

        With 1, the default, it is the policy as it is at this moment. The factors of an adapter
        are mixed one by one: to first order that mixes their products, and of LoRA exactly so
        where the reference was still the base.
        """
        self._check_reference()
        if self._moved is None:
            if mix < 1 and not self.mixes_reference:
                raise RunFailed(
                    "a reference without virtual tokens cannot be mixed with a policy of them",
                    hint="say so: needs = Needs(reference=True, mixed_reference=True)",
                )
            self._moved = self._reference_weights()
        for name, p in self.parameters():
            self._moved[name].lerp_(p, mix)

    @property
    def mixes_reference(self) -> bool:
        """Whether the reference can move a part of the way: not from no tokens to virtual ones."""
        return not self._virtual.count or self._start is not None

    def _reference_weights(self) -> dict[str, Tensor]:
        """The reference before it is moved, under the names of what is trained: the frozen copy's
        own tensors, or the adapter's at the start; of LoRA, any A with a B of zero."""
        if self._frozen is not None:
            return {name: p.detach() for name, p in self._frozen.named_parameters()}
        if self._start is not None:
            return {name: weight.clone() for name, weight in self._start.items()}
        return {
            name: torch.zeros_like(p) if "lora_B" in name else p.detach().clone()
            for name, p in self.parameters()
        }

    def _check_reference(self) -> None:
        if not self.has_reference:
            raise RunFailed(
                "no reference is in memory",
                hint="an algorithm that uses one says so: needs = Needs(reference=True)",
            )

    def autocast(self) -> AbstractContextManager:
        """bfloat16 products where the precision says so; for whoever calls `model` directly."""
        return torch.autocast(self.device.type, self._half, enabled=self._half is not None)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What is trained, by name."""
        return [(name, p) for name, p in self._named() if p.requires_grad]

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        named = list(self.model.named_parameters())
        if self.score_head is not None:
            named += self.score_head.named_parameters(prefix="score_head")
        if self.value_head is not None:
            named += self.value_head.named_parameters(prefix="value_head")
        return named

    @property
    def trainable_count(self) -> int:
        return sum(p.numel() for _, p in self.parameters())

    @property
    def note(self) -> str | None:
        """What the user should know about how this model has to be computed, if anything."""
        return self._scorer.note

    def work(
        self,
        batch: Batch,
        *,
        shared: bool = True,
        states: States = States.BEFORE,
        reference: bool = False,
    ) -> Work:
        """What one forward pass over the batch computes: `policy.flops.forward(*work)`.

        With `shared`, prompts are computed once per group where the model allows it. `States.OWN`
        is a pass through the score head, else it is one through the LM head. A `reference` has
        virtual tokens where it is not the base alone.
        """
        alone = reference and self._start is None and self._moved is None
        virtual = NO_VIRTUAL if alone else self.virtual
        return work(virtual.before(batch), shared and self._scorer.shared, states)

    @property
    def training(self) -> bool:
        return self.model.training

    def train(self, mode: bool = True) -> None:
        self.model.train(mode)

    def eval(self) -> None:
        self.train(False)

    def state(self) -> dict[str, Tensor]:
        """The trained weights, and the reference where it has been moved; for checkpoints.

        The tensors are the live ones, not copies.
        """
        tensors = {name: p.detach() for name, p in self.parameters()}
        return tensors | {REFERENCE + name: t for name, t in (self._moved or {}).items()}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        own = {name: t for name, t in tensors.items() if not name.startswith(REFERENCE)}
        parameters = dict(self.parameters())
        if own.keys() != parameters.keys():
            odd = sorted(own.keys() ^ parameters.keys())
            raise RunFailed(f"the checkpoint is of another model: {odd[0]} and {len(odd) - 1} more")
        for name, p in parameters.items():
            p.copy_(own[name])
        moved = {n.removeprefix(REFERENCE): t for n, t in tensors.items() if n not in own}
        self._moved = None
        if moved and self._frozen is None:
            self._moved = {name: t.to(self.device) for name, t in moved.items()}
        elif moved:
            self._moved = self._reference_weights()
            for name, weight in self._moved.items():
                weight.copy_(moved[name])

    def save(self, folder: Path) -> str:
        """Write `folder/adapter` in PEFT's layout or `folder/model` in transformers'; says which.

        Both hold the tokenizer, and the score head where there is one; weights are safetensors. A
        value head has served its purpose.
        """
        which = "adapter" if isinstance(self.model, PeftModel) else "model"
        # "auto" would ask the hub whether the vocabulary has grown; it never does here.
        options: dict[str, Any] = {}
        if which == "adapter":
            options = {"save_embedding_layers": False, "selected_adapters": ["default"]}
        with quiet(), whole_folder(folder / which) as beside:
            self.model.save_pretrained(beside, **options)
            self.tokenizer.save_pretrained(beside)
            if self.score_head is not None:
                self.score_head.save(beside)
        return which


WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def checksum(model: nn.Module) -> str:
    """sha256 over the names, shapes, types and sums of the weights, read as whole numbers.

    Whatever LoRA has added is left out, so that a base is known with and without an adapter. Sums
    of whole numbers are exact in any order; a weight that is changed almost never keeps its sum.
    """
    digest = hashlib.sha256()
    named = ((base_name(name), weight) for name, weight in model.named_parameters())
    for name, weight in sorted((n, w) for n, w in named if "lora_" not in n):
        values = weight.detach().flatten()
        total = int(values.view(WHOLE[values.element_size()]).sum(dtype=torch.int64))
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {total}\n".encode())
    return digest.hexdigest()


def base_name(name: str) -> str:
    """The name that a weight has without the adapter around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
