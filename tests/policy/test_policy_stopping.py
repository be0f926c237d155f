"""One notion of the ids that end a completion: read with the model, used, and saved with it."""

import json

import pytest
from transformers import GenerationConfig

from alignzoo.data import Codec
from alignzoo.errors import BadInput
from alignzoo.policy import ModelSpec, load_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model, as a run with `--adapter none` saves it."""
    path = tmp_path_factory.mktemp("model")
    load_policy(ModelSpec("zoo-tiny", adapter="none")).save(path)
    return path / "model"


@pytest.fixture
def config(folder):
    path = folder / "generation_config.json"
    before = path.read_text()
    yield path
    path.write_text(before)


def test_all_ids_of_the_generation_config_stop(folder, config):
    eos = Codec(load_policy(str(folder)).tokenizer).stop_ids
    config.write_text(json.dumps({"eos_token_id": [5, eos[0], 10**6, -1, True]}))
    assert Codec(load_policy(str(folder)).tokenizer).stop_ids == [*eos, 5]
    config.write_text(json.dumps({"eos_token_id": 5}))
    assert Codec(load_policy(str(folder)).tokenizer).stop_ids == [*eos, 5]


def test_a_damaged_generation_config_is_one_message(folder, config):
    config.write_text('{"eos_token_id": [')
    with pytest.raises(BadInput) as error:
        load_policy(str(folder))
    assert str(config) in str(error.value)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_what_ended_completions_is_saved_and_read_again(folder, tmp_path, adapter):
    policy = load_policy(ModelSpec(str(folder), adapter=adapter))
    stop_ids = [*Codec(policy.tokenizer).stop_ids, 7]
    kind = policy.save(tmp_path, stop_ids)
    saved = tmp_path / kind
    assert GenerationConfig.from_pretrained(saved).eos_token_id == stop_ids
    again = load_policy(ModelSpec(str(saved)))
    assert Codec(again.tokenizer).stop_ids == stop_ids
