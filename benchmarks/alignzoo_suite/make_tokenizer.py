"""Train a tokenizer on the suite's own text and write the folder of an untrained model with it.

    python -m alignzoo_suite.make_tokenizer zoo-tiny [FOLDER]

Writes the tokenizer, `config.json` and `generation_config.json`. The weights come from pretraining.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from alignzoo_suite import MODELS
from alignzoo_suite.abacus import Abacus
from alignzoo_suite.critic import Critic
from alignzoo_suite.zoo import Scout, Zoo

MAX_POSITIONS = 512
BOS, EOS, PAD = "<|bos|>", "<|end|>", "<|pad|>"
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
  {%- elif message.role in GIVEN -%}
    {{- '<|' + message.role + '|>' + message.content + eos_token -}}
  {%- else -%}
    {{- raise_exception('NAME knows the roles ROLES') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class Form:
    """How the text of a model is cut into tokens, and who speaks in it.

    Args:
        vocabulary: the most tokens.
        digits: the expression of the digits that are a token.
        words: no token spans two words.
        roles: of the chat template; the last one is the assistant.
    """

    vocabulary: int = 1024
    digits: str = r"\d"
    words: bool = True
    roles: tuple[str, ...] = ("system", "user", "assistant")


# A number below 1,000 is a token, so that copying it is copying a token. The JSON of a call is
# always the same, and is a few tokens instead of twenty.
CALLING = Form(
    vocabulary=2048,
    digits=r"\d{1,3}(?=(\d{3})*(?!\d))",  # three from the right
    words=False,
    roles=("system", "user", "tool", "assistant"),
)
FORMS = {"zoo-tiny": Form(), "zoo-critic": Form(), "zoo-scout": Form(), "zoo-abacus": CALLING}


def read_texts(name: str) -> Iterator[str]:
    """Yield the texts that the model will be trained on."""
    tasks = {
        "zoo-tiny": lambda: Zoo(text=ROWS).rows("text", "train"),
        "zoo-scout": lambda: Scout(text=ROWS).rows("text", "train"),
        "zoo-critic": lambda: Critic(demonstrations=2 * ROWS).rows("demonstrations", "train"),
        "zoo-abacus": lambda: Abacus(demonstrations=2 * ROWS).rows("demonstrations", "train"),
    }
    for row in tasks[name]():
        for message in row.get("messages") or row["prompt"] + row["completion"]:
            yield message["content"]


def make_tokenizer(name: str, texts: Iterable[str], form: Form) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which can encode any text.

    `name` is the model's, for the error of its chat template about unknown roles.
    """
    role_tokens = [f"<|{role}|>" for role in form.roles]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(form.digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=form.words),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=form.vocabulary,
            special_tokens=[PAD, BOS, EOS, *role_tokens],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=role_tokens,
        chat_template=write_chat_template(name, form.roles),
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def write_chat_template(name: str, roles: Sequence[str]) -> str:
    """Return the chat template of a model, for messages of these roles."""
    values = {
        "NAME": name,
        "GIVEN": str(list(roles[:-1])),
        "ROLES": f"{', '.join(roles[:-1])} and {roles[-1]}",
    }
    template = CHAT_TEMPLATE
    for key, value in values.items():
        template = template.replace(key, value)
    return template


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
        Path(folder[0]) if folder else MODELS[name],
        make_tokenizer(name, read_texts(name), FORMS[name]),
    )
