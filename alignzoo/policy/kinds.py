"""The kinds of adapter that `--adapter` names: what they are called, what can be set of them, and
how much faster than LoRA they learn.

Here are those that begin as the model itself (the exact identity, but for virtual tokens), are the
model again when they are switched off, and need nothing of the loop but an optimizer. So PiSSA and
OLoRA, which change the base weights, and AdaLoRA, which prunes between steps, are not among them.
"""

from __future__ import annotations

from dataclasses import dataclass

LORA = frozenset({"lora_rank", "lora_alpha", "lora_dropout"})
VIRTUAL = frozenset({"virtual_tokens"})


@dataclass(frozen=True)
class Kind:
    """`trains`, what is trained of the parameters, and how many; `options` of the recipe that apply
    to it; `rate`, its peak learning rate over LoRA's."""

    trains: str
    options: frozenset[str] = frozenset()
    rate: float = 1.0

    @property
    def virtual(self) -> bool:
        """Whether it is tokens before the prompt, where the others sit in linear layers."""
        return self.options == VIRTUAL


KINDS = {
    "lora": Kind("a LoRA adapter of {:,}", LORA),
    "qlora": Kind("a LoRA adapter of {:,} on a 4-bit base", LORA),
    "dora": Kind("a DoRA adapter of {:,}", LORA),
    "rslora": Kind("a rank-stabilised LoRA adapter of {:,}", LORA, rate=0.25),
    "loha": Kind("a LoHa adapter of {:,}", LORA - {"lora_dropout"}, rate=5.0),
    "lokr": Kind("a LoKr adapter of {:,}", LORA - {"lora_dropout"}, rate=10.0),
    "vera": Kind("a VeRA adapter of {:,}", rate=30.0),
    "oft": Kind("an OFT adapter of {:,}"),
    "ia3": Kind("an IA3 adapter of {:,}", rate=30.0),
    "prompt": Kind("a soft prompt of {:,}", VIRTUAL, rate=10.0),
    "prefix": Kind("a prefix of {:,}", VIRTUAL, rate=10.0),
    "none": Kind("all of them"),
}
OPTIONS = LORA | VIRTUAL
