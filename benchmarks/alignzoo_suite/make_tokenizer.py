"""Train a tokenizer on the suite's own text and lay out an untrained model of the suite with it.

    python -m alignzoo_suite.make_tokenizer zoo-tiny [FOLDER]

Writes the tokenizer, `config.json` and `generation_config.json`. The weights come from pretraining.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from alignzoo_suite import MODELS
from alignzoo_suite.critic import Critic
from alignzoo_suite.zoo import Zoo

VOCABULARY = 1024
LONGEST = 512  # positions
BOS, EOS, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
ROWS = 20_000  # of each task; more changes nothing

# The template writes the one BOS itself, and the tokenizer adds none: whoever tokenizes a rendered
# chat cannot end up with two. Every turn ends with the EOS, and nothing follows it, so that the end
# of the assistant's turn is learnt as part of it. The markers say which tokens those are.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- '<|assistant|>' -}}
    {%- generation -%}
      {{- message.content + eos_token -}}
    {%- endgeneration -%}
  {%- elif message.role in ['system', 'user'] -%}
    {{- '<|' + message.role + '|>' + message.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('NAME knows the roles system, user and assistant') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""


def texts(name: str) -> Iterator[str]:
    """What the model will read, and the demonstrations' words with it."""
    tasks = {
        "zoo-tiny": lambda: Zoo(text=ROWS).rows("text", "train"),
        "zoo-critic": lambda: Critic(demonstrations=2 * ROWS).rows("demonstrations", "train"),
    }
    for row in tasks[name]():
        for message in row["messages"]:
            yield message["content"]


def make_tokenizer(
    name: str, texts: Iterable[str], vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text can be encoded; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PAD, BOS, EOS, *ROLES],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE.replace("NAME", name),
        model_max_length=LONGEST,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """About 0.9 million parameters with such a vocabulary."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def lay_out(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write everything of a model folder but the weights."""
    config = make_config(tokenizer)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,  # Transformers keeps the best 50 unless told otherwise
        max_new_tokens=96,
    ).save_pretrained(folder)


if __name__ == "__main__":
    name, *folder = sys.argv[1:]
    lay_out(Path(folder[0]) if folder else MODELS[name], make_tokenizer(name, texts(name)))
