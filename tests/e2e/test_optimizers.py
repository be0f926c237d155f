"""Optimizers by name: their first steps by hand, rates of groups, exact resume, and refusals."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for
from alignzoo.testing.runs import compare_resumed
from alignzoo.testing.stage import Stage
from alignzoo.training.optimizer import flatten_optimizer, restore_optimizer, set_learning_rate
from alignzoo_optimizers.adafactor import Adafactor
from alignzoo_optimizers.adamw import AdamW, AdamW8bit, PagedAdamW8bit
from alignzoo_optimizers.muon import Muon

RATE, DECAY = 0.01, 0.1
EVERY = [AdamW(), AdamW8bit(min_8bit_size=1), Muon(), Adafactor()]
NAMES = ["adamw", "adamw-8bit,min_8bit_size=16", "muon", "adafactor"]


def parameters() -> list[tuple[str, nn.Parameter]]:
    """A matrix in a layer, a vector in it, and an embedding, with gradients."""
    torch.manual_seed(0)
    shapes = {"layers.0.weight": (4, 6), "layers.0.bias": (6,), "embed.weight": (5, 4)}
    named = [(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]
    for _, p in named:
        p.grad = torch.randn_like(p)
    return named


def make(plugin, named, device="cpu"):
    recipe = SimpleNamespace(weight_decay=DECAY, adapter="lora")
    run = SimpleNamespace(recipe=recipe, learning_rate=RATE, device=torch.device(device))
    return plugin.alignzoo_optimizer(run, named)


def moves(plugin) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Take one step; return each parameter before, its gradient, and the parameter after it."""
    named = parameters()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in named}
    make(plugin, named).step()
    return {name: (*before[name], p.detach()) for name, p in named}


def decayed(name, before):
    return before if "bias" in name else (1 - RATE * DECAY) * before


@pytest.mark.parametrize("plugin", [AdamW(), AdamW8bit(), AdamW8bit(min_8bit_size=1)], ids=repr)
def test_the_first_step_of_adamw_goes_by_the_signs_of_the_gradient(plugin):
    for name, (before, gradient, after) in moves(plugin).items():
        expected = decayed(name, before) - RATE * gradient.sign()
        assert torch.allclose(after, expected, atol=1e-6), name


def test_states_are_in_8_bits_if_they_are_large_enough():
    named = parameters()
    optimizer = make(AdamW8bit(min_8bit_size=20), named)
    optimizer.step()
    kinds = [optimizer.state[p]["state1"].dtype for _, p in named]
    assert kinds == [torch.uint8, torch.float32, torch.uint8]


def test_muon_makes_matrices_of_layers_orthogonal_and_leaves_the_rest_to_adamw():
    for name, (before, gradient, after) in moves(Muon()).items():
        step = (decayed(name, before) - after) / RATE
        if name == "layers.0.weight":
            step = step / (0.2 * max(step.shape) ** 0.5)  # as large as AdamW's, by its authors
            left, _, right = torch.linalg.svd(gradient, full_matrices=False)
            found = torch.diagonal(left.T @ step @ right.T)  # in its own directions, all about 1
            assert (found > 0.6).all() and (found < 1.3).all()
            assert torch.allclose(left @ torch.diag(found) @ right, step, atol=0.02)
        else:
            assert torch.allclose(step, gradient.sign(), atol=1e-4), name


def test_the_first_step_of_adafactor_divides_by_rows_and_columns():
    for name, (before, gradient, after) in moves(Adafactor()).items():
        squares = gradient.square()
        if gradient.ndim == 2:
            rows, columns = squares.mean(1, keepdim=True), squares.mean(0, keepdim=True)
            squares = rows * columns / rows.mean()
        update = gradient / squares.sqrt()
        update = update / max(1.0, update.square().mean().sqrt())
        scale = max(1.0, before.square().mean().sqrt())
        expected = decayed(name, before) - RATE * scale * update
        assert torch.allclose(after, expected, atol=1e-5), name


@pytest.mark.parametrize("plugin", EVERY, ids=lambda plugin: type(plugin).__name__)
def test_a_group_has_a_rate_of_its_own_and_a_state_that_can_be_restored(plugin):
    ours, theirs = parameters(), parameters()
    one, other = make(plugin, ours), make(plugin, theirs)
    for named, optimizer in ((ours, one), (theirs, other)):
        optimizer.param_groups[0]["lr_scale"] = 0.0
        still = optimizer.param_groups[0]["params"][0]
        before = [p.detach().clone() for _, p in named]
        set_learning_rate(optimizer, RATE)
        optimizer.step()
        moved = [p for (_, p), old in zip(named, before, strict=True) if not torch.equal(p, old)]
        assert moved and all(p is not still for p in moved)
    names = {p: name for name, p in theirs}
    tensors, others = flatten_optimizer(one, {p: name for name, p in ours})
    fresh = make(plugin, theirs)
    restore_optimizer(fresh, {name: t.clone() for name, t in tensors.items()}, names, others)
    for optimizer in (one, fresh):
        optimizer.step()
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(name):
    compare_resumed(Stage("sft", settings={"optimizer": name, "weight_decay": 0.1}))


def test_adamw_by_name_is_the_default_bit_for_bit(tmp_path):
    settings = {"task": "sums", "steps": 3, "batch_size": 4, "eval_size": 0, "weight_decay": 0.1}
    runs = [
        execute(recipe_for("dpo", {**settings, "optimizer": name, "output_dir": str(tmp_path)}))
        for name in (None, "adamw")
    ]
    one, other = (load_file(run.folder / "adapter/adapter_model.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_paged_optimizer_needs_a_gpu(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = ["--optimizer", "paged-adamw-8bit", "--output-dir", str(tmp_path / "runs")]
    assert status(["run", "sft", *words]) == 2
    assert "--optimizer adamw-8bit" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_an_optimizer_cannot_train_is_refused():
    with pytest.raises(BadInput, match="do not work on mps"):
        make(AdamW8bit(), parameters(), device="mps")
    with pytest.raises(BadInput, match="--adapter lora has none"):
        make(Muon(), parameters()[1:])
    assert set(PagedAdamW8bit.devices) < set(AdamW8bit.devices)


def test_a_file_is_an_optimizer_if_it_has_the_hook(tmp_path, make_run):
    file = tmp_path / "own.py"
    file.write_text("class Own:\n    def alignzoo_optimizer(self, run, parameters): ...\n")
    with pytest.raises(BadInput, match="no hook method"):
        make_run("sft", optimizer=str(file))
