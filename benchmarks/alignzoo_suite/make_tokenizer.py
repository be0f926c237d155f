"""Train a tokenizer on the suite's own text and write the folder of an untrained model with it.

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
from alignzoo_suite.zoo import Scout, Zoo

VOCABULARY = 1024
MAX_POSITIONS = 512
BOS, EOS, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
ROWS = 20_000  # of each task; more rows give the same vocabulary

# The template writes the one BOS itself and the tokenizer adds none, so that a rendered chat never
# has two. Every turn ends with the EOS and nothing follows it, so that the end of the assistant's
# turn is learned with it. The `generation` markers give the mask of the assistant's tokens.
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


def read_texts(name: str) -> Iterator[str]:
    """Yield the texts that the model will be trained on."""
    tasks = {
        "zoo-tiny": lambda: Zoo(text=ROWS).rows("text", "train"),
        "zoo-scout": lambda: Scout(text=ROWS).rows("text", "train"),
        "zoo-critic": lambda: Critic(demonstrations=2 * ROWS).rows("demonstrations", "train"),
    }
    for row in tasks[name]():
        for message in row["messages"]:
            yield message["content"]


def make_tokenizer(
    name: str, texts: Iterable[str], vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which can encode any text; each digit is a token.

    `name` is the model's, for the error of its chat template about unknown roles.
    """
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
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the configuration of the suite's models: 0.9 million parameters with 1,024 tokens."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def write_model_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write all files of a model folder except the weights."""
    config = make_config(tokenizer)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=True,
        temperature=1.0,
        top_k=0,  # the default of transformers is 50
        max_new_tokens=96,
    ).save_pretrained(folder)


if __name__ == "__main__":
    name, *folder = sys.argv[1:]
    write_model_folder(
        Path(folder[0]) if folder else MODELS[name], make_tokenizer(name, read_texts(name))
    )
