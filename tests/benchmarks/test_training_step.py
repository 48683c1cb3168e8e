"""``benchmarks/training_step.py`` in tiny sizes: the plain form is the same model, and the arithmetic is counted right.

The measured numbers: ``python benchmarks/training_step.py``.
"""

import sys
from pathlib import Path

import attrs
import pytest
import torch

from aimcore import Engine
from aimcore.engine import build_module
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives.steps import first_targets
from aimcore_trunks import ViT

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def sizes():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import step_sizes

        yield step_sizes
    finally:
        sys.path.remove(str(BENCHMARKS))


def tiny(sizes, name):
    """The experiment of a size with narrow parts and images of 4 x 4 patches."""
    experiment = sizes.SIZES[name].experiment()
    side = 4 * experiment.trunk.patch_size
    parts = {"head": MLPHead(width=16, depth=2)} if name != "multimodal" else {}
    if name == "multimodal":
        tokenizer = attrs.evolve(experiment.objective.tokenizer, size=40)
        parts = {"decoder": JointDecoder(width=16, depth=2, num_heads=2), "context_length": 6, "tokenizer": tokenizer}
    grid = None if experiment.trunk.grid is None else (4, 4)
    return attrs.evolve(
        experiment,
        data=attrs.evolve(experiment.data, batch_size=2, image_size=side),
        trunk=attrs.evolve(experiment.trunk, width=16, depth=2, num_heads=2, grid=grid),
        objective=attrs.evolve(experiment.objective, **parts),
    )


@pytest.mark.parametrize("name", ["small", "medium", "multimodal"])
def test_the_plain_form_has_the_same_loss_and_gradients(sizes, name):
    import plain_models
    import training_step

    experiment = tiny(sizes, name)
    module = build_module(experiment).double()
    plain = plain_models.plain_of(module).double()
    batch = sizes.SIZES[name].batch(experiment, 0)
    images = attrs.evolve(batch.images, patches_BNF=batch.images.patches_BNF.double())
    batch = attrs.evolve(batch, images=images)
    expected, found = training_step.total(module, batch), plain(batch)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    expected.backward()
    found.backward()
    block, other = module.trunk.blocks[0], plain.trunk.blocks[0]
    parts = [getattr(block.attention, part).weight.grad for part in ("query", "key", "value")]
    torch.testing.assert_close(other.attention.qkv.weight.grad, torch.cat(parts), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(other.fc2.weight.grad, block.ffn.fc2.weight.grad, rtol=1e-5, atol=1e-8)


def test_the_needed_arithmetic_equals_a_count_by_hand(sizes):
    import needed_flops

    experiment = tiny(sizes, "medium")
    experiment = attrs.evolve(
        experiment,
        data=attrs.evolve(experiment.data, batch_size=1, image_size=8),
        trunk=ViT(width=8, depth=1, num_heads=1, patch_size=4, num_channels=1),
        objective=attrs.evolve(experiment.objective, head=MLPHead(width=8, depth=1)),
    )
    batches = (sizes.SIZES["medium"].batch(experiment, number) for number in range(50))
    batch = next(one for one in batches if first_targets(one, "uniform", training=True).tolist() == [2])
    # Of four patches the last two are predicted, from the second and third. Three are read; they see 2, 2 and 3 keys.
    embedding = 2 * 3 * 16 * 8
    keys_and_values, queries = 2 * (2 * 3 * 8 * 8), 2 * 2 * (2 * 8 * 8 + 2 * 8 * 32)
    pairs = 2 * 2 * 8 * (2 + 3)
    head = 2 * 2 * (8 * 8 + 2 * 8 * 32 + 8 * 16)
    expected = 2 * embedding + 3 * (keys_and_values + queries + pairs + head)
    assert needed_flops.needed_flops(experiment, batch) == expected


def test_a_row_holds_the_forms_side_by_side(sizes, monkeypatch):
    import training_step

    monkeypatch.setattr(training_step, "peak_of", lambda *_: 1e4)

    size = attrs.evolve(sizes.SIZES["multimodal"], experiment=lambda: tiny(sizes, "multimodal"))
    row = training_step.measured(size, Engine(zero_stage=0, num_threads=torch.get_num_threads()), 1, is_profiled=False)
    assert row.milliseconds.keys() == {"plain", "module", "aimcore"}
    assert 0 < row.share_of_peak < 1
    assert row.ratio == row.milliseconds["plain"] / row.milliseconds["aimcore"]
    assert "plain / aimcore" in training_step.text_of(row)


def test_forms_that_compute_something_else_are_refused():
    import training_step

    with pytest.raises(RuntimeError, match="the same loss"):
        training_step.require_equal({"aimcore": 1.0, "module": 1.0, "plain": 1.1})
