"""The model being trained, its reference, and how both are saved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.batch import Batch
from alignzoo.errors import BadInput, RunFailed
from alignzoo.files import whole_folder
from alignzoo.policy.adapters import PeftModel, adapter_parameters, base_parameters, keep_trainable
from alignzoo.policy.forward import Outputs
from alignzoo.policy.locate import quiet_libraries
from alignzoo.policy.model import LanguageModel, ModelParts
from alignzoo.policy.probe import decoding_batch
from alignzoo.policy.sharding import WITHOUT_SHARD, Sharding, shares_weights, whole_state
from alignzoo.policy.stopping import write_stop_ids

REFERENCE = "reference."  # prefix of a moved reference's tensors in the state


class Policy(LanguageModel):
    """A language model with the reference that it is trained against; made by `load_policy`.

    The reference is the model as it was loaded, until `move_reference`: the base with the adapter
    off, or a `frozen` copy, or the virtual tokens of an earlier run, whose weights are in `start`.
    For other adapters `start` holds weights with which the adapter does nothing, unless that is
    known to be a `lora_B` of zero.
    """

    def __init__(
        self,
        parts: ModelParts,
        *,
        frozen: PreTrainedModel | None = None,
        start: dict[str, Tensor] | None = None,
    ):
        super().__init__(parts)
        self._frozen, self._start = frozen, start
        self._frozen_scorer = type(parts.scorer)(frozen) if frozen is not None else parts.scorer
        self._moved: dict[str, Tensor] | None = None
        self.sharding = Sharding()
        self.is_reference = False  # True inside `as_reference`

    @torch.no_grad()
    def reference(self, batch: Batch, **wanted: Any) -> Outputs:
        """Compute log-probs `[N, T]` of the completions under the reference, without gradient.

        `wanted` are options of `__call__`.
        """
        with self.as_reference():
            return self(batch, **wanted)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Turn the policy into the reference, in evaluation mode, to score with and generate from.

        RunFailed if no reference is in memory.
        """
        self._check_reference()
        moved = self._moved if self._frozen is None else None
        was, self.is_reference = self.is_reference, True
        try:
            with self.evaluating(self._with_weights(moved) if moved else self._untrained()):
                yield
        finally:
            self.is_reference = was

    @contextmanager
    def base(self) -> Iterator[Any]:
        """Turn `model`, which it yields, into the model before training, in evaluation mode.

        RunFailed if that is not in memory; see `has_base`.
        """
        if not self.has_base:
            raise RunFailed("the model before training is not in memory")
        with self.evaluating(self._untrained()):
            yield self.model

    @property
    def has_reference(self) -> bool:
        """True if a reference is in memory."""
        return self._frozen is not None or isinstance(self.model, PeftModel)

    @property
    def has_base(self) -> bool:
        """True if the model before training is in memory; a frozen copy is not it once moved."""
        return isinstance(self.model, PeftModel) or (
            self._frozen is not None and self._moved is None
        )

    @property
    def starts_as_base(self) -> bool:
        """True if the model before training is in memory, and was the policy when it was loaded.

        New virtual tokens change what a model says from the start.
        """
        return self.has_base and not (self._virtual.count and self._start is None)

    @property
    def reference_moved(self) -> bool:
        """True after `move_reference`."""
        return self._moved is not None

    def reference_facts(self) -> dict[str, str]:
        """Return everything that the values of the reference depend on, before it is moved.

        New adapters are left out: whatever their kind and seed, they are off in the reference.
        """
        base = self._frozen if self._frozen is not None else self.model
        facts = {
            "fingerprint": self.fingerprint,
            "weights": checksum(base),
            "precision": str(self._half),
            "device": self.device.type,
            "scorer": type(self._scorer).__name__,
        }
        if self._virtual.count and self._start is not None:
            facts["virtual tokens"] = checksum_of(self._start)
        return facts

    def _is_bare(self, reference: bool) -> bool:
        starts_virtual = self._virtual.count > 0 and self._start is not None
        is_base = self._moved is None and not starts_virtual
        return self._adapter_is_off or (reference and is_base)

    def _networks(self) -> list[Any]:
        return [self.model, *([self._frozen] if self._frozen is not None else [])]

    def _untrained(self) -> AbstractContextManager[None]:
        """Switch the adapter off or to its start, or put the frozen copy in the model's place."""
        if self._frozen is not None:
            return self._frozen_copy()
        if self._virtual.count and self._start is not None:
            return self._with_weights(self._start)
        return self._adapter_off()

    @contextmanager
    def _adapter_off(self) -> Iterator[None]:
        was, self._adapter_is_off = self._adapter_is_off, True
        trainable = keep_trainable(self.model) if self.values_apart else nullcontext()
        try:
            with trainable, self.model.disable_adapter():
                yield
        finally:
            self._adapter_is_off = was

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
        # Through .data, so a graph whose backward pass is still to come does not notice.
        parameters = dict(self._all_parameters())
        now = {name: parameters[name].data for name in weights}
        try:
            for name, weight in weights.items():
                parameters[name].data = weight
            yield
        finally:
            for name, weight in now.items():
                parameters[name].data = weight

    @property
    def weight_bytes(self) -> int:
        """The size of all weights in memory, with those of a frozen copy."""
        return sum(p.nbytes for network in self._networks() for p in network.parameters())

    def find_shard_obstacle(self) -> str | None:
        """Return what keeps the weights from being split over processes, None if nothing does."""
        if self.score_head is not None or self.value_head is not None:
            return "a model with a score head or a value head"
        if self._virtual.count:
            return "virtual tokens"
        if getattr(self.network, "is_quantized", False):
            return "weights in 4 bits"
        if self.rotary_limit is not None:
            return "a model that computes short and long texts in passes of their own"
        if shares_weights(self.model):
            return "a model whose layers share weights"
        return None

    @torch.no_grad()
    def shard(self, processes: int) -> None:
        """Split the weights over so many processes, all of which call this; see `Sharding`.

        Raise `BadInput` if the log-probs are others then.
        """
        batch = decoding_batch(self.model)
        with self.evaluating():
            expected = self(batch).logprobs
            self._scorer = self.sharding.add(self.model, self._scorer, processes)
            same = torch.allclose(self(batch).logprobs, expected, rtol=1e-3, atol=1e-3)
        if not same:
            raise BadInput(
                "option --shard: split over processes, the model gives other log-probabilities",
                hint=WITHOUT_SHARD,
            )
        if self._frozen is not None:
            self._frozen_scorer = self.sharding.add(self._frozen, self._frozen_scorer, processes)
            self.reference(batch)

    @torch.no_grad()
    def move_reference(self, mix: float = 1.0) -> None:
        """Move the reference to mix * policy + (1 - mix) * reference, weight by weight.

        With 1, the default, it becomes the policy as it is now. The factors of an adapter are mixed
        one by one: to first order that mixes their products, and for LoRA exactly if the reference
        was still the base. RunFailed if the policy has virtual tokens, the reference none, and mix
        is below 1.
        """
        self._check_reference()
        if self.sharding.active:
            problem = "option --shard: a reference that moves cannot be split over processes"
            raise BadInput(problem, hint=WITHOUT_SHARD)
        if self._moved is None:
            if mix < 1 and not self.mixes_reference:
                raise RunFailed(
                    "a reference without virtual tokens cannot be mixed with a policy of them",
                    hint="declare the need: needs = Needs(reference=True, mixed_reference=True)",
                )
            self._moved = self._reference_weights()
        for name, p in self.named_parameters():
            self._moved[name].lerp_(p, mix)

    @property
    def mixes_reference(self) -> bool:
        """True if the reference can move part of the way: not from no virtual tokens to some."""
        return not self._virtual.count or self._start is not None

    def _reference_weights(self) -> dict[str, Tensor]:
        """Return the reference before it is moved, under the names of what is trained.

        These are the frozen copy's own tensors, or the adapter's at the start; for LoRA, any A with
        a B of zero.
        """
        if self._frozen is not None:
            return {name: p.detach() for name, p in self._frozen.named_parameters()}
        if self._start is not None:
            return {name: weight.clone() for name, weight in self._start.items()}
        return {
            name: torch.zeros_like(p) if "lora_B" in name else p.detach().clone()
            for name, p in self.named_parameters()
        }

    def _check_reference(self) -> None:
        if not self.has_reference:
            raise RunFailed(
                "no reference is in memory",
                hint="an algorithm that uses one declares it: needs = Needs(reference=True)",
            )

    def state(self) -> dict[str, Tensor]:
        """Return the trained weights, and the reference if it was moved, for checkpoints.

        The tensors are the live ones, not copies.
        """
        tensors = {name: p.detach() for name, p in self.named_parameters()}
        return tensors | {REFERENCE + name: t for name, t in (self._moved or {}).items()}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned; RunFailed if the names do not match."""
        own = {name: t for name, t in tensors.items() if not name.startswith(REFERENCE)}
        parameters = dict(self.named_parameters())
        if own.keys() != parameters.keys():
            odd = sorted(own.keys() ^ parameters.keys())
            raise RunFailed(
                f"checkpoint does not match the model: unexpected or missing {odd[0]} "
                f"(+{len(odd) - 1})"
            )
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

    def save(self, folder: Path, stop_ids: Sequence[int] = ()) -> str:
        """Write `folder/adapter` in PEFT's layout or `folder/model` in transformers'.

        Returns "adapter" or "model". Both hold the tokenizer, and the score head if there is one;
        weights are safetensors. A value head is not saved: only training needs it. `stop_ids` end
        a completion, by the generation config that is saved.
        """
        which = "adapter" if isinstance(self.model, PeftModel) else "model"
        # "auto" would look up on the hub whether the vocabulary has grown; it never does here.
        options: dict[str, Any] = {}
        if which == "adapter":
            options = {"save_embedding_layers": False, "selected_adapters": ["default"]}
        if self.sharding.active:  # torch's own state dict has only the parts of this process
            options["state_dict"] = whole_state(self.model)
        saved: Mapping[str, Tensor] = adapter_parameters(self.model)
        if which == "model":
            saved = options.get("state_dict") or self.model.state_dict()
        size = sum(weight.nbytes for weight in saved.values())
        with quiet_libraries(), whole_folder(folder / which, size) as beside:
            self.model.save_pretrained(beside, **options)
            self.tokenizer.save_pretrained(beside)
            if self.score_head is not None:
                self.score_head.save(beside)
            if stop_ids:
                write_stop_ids(beside, stop_ids)
        return which


def checksum(model: nn.Module) -> str:
    """Return sha256 of the weights of a model, whatever adapters it has; see `checksum_of`."""
    return checksum_of(base_parameters(model))


INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


@torch.no_grad()
def checksum_of(weights: Mapping[str, Tensor]) -> str:
    """Return sha256 over names, shapes, dtypes and sums of weights, read as integers.

    Sums of integers are exact in any order; a weight that changed almost never keeps its sum.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        values = weight.detach().flatten()
        total = int(values.view(INTEGERS[values.element_size()]).sum(dtype=torch.int64))
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {total}\n".encode())
    return digest.hexdigest()
