"""What a run costs, against counts made by hand."""

import math

import attrs
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from aimcore import Batch, Data, Engine, Experiment, NativeResolution
from aimcore.contracts.images import images_of
from aimcore.data.native import NativeSteps
from aimcore.engine.cost import cost_of, state_memory
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT, aim

WIDTH, TOKENS, VALUES = 8, 4, 48


def experiment(**engine: object) -> Experiment:
    """Four patches of 48 values, one block of width 8 with an FFN of 32, a linear head, no prefix."""
    source = BundledFashionMNIST()
    return Experiment(
        name="tiny",
        data=Data(train=source, validation=source, batch_size=6, image_size=8),
        trunk=ViT(width=WIDTH, depth=1, num_heads=2, patch_size=4),
        objective=NextPatch(head=LinearHead(), prefix=None),
        num_steps=10,
        engine=Engine(**engine),  # type: ignore[arg-type]
    )


def forward_by_hand() -> int:
    embedding = 2 * TOKENS * VALUES * WIDTH
    projections = 4 * 2 * TOKENS * WIDTH * WIDTH
    attention = 2 * 2 * TOKENS * TOKENS * WIDTH  # both products, the causal mask not discounted
    ffn = 2 * 2 * TOKENS * WIDTH * 4 * WIDTH
    head = 2 * (TOKENS - 1) * WIDTH * VALUES  # the first patch is never predicted
    return embedding + projections + attention + ffn + head


def test_forward_flops_equal_the_count_by_hand() -> None:
    assert cost_of(experiment(precision="fp32")).forward_flops_per_image == forward_by_hand()


def test_backward_costs_twice_the_forward_but_for_the_gradient_of_the_pixels() -> None:
    cost = cost_of(experiment())
    embedding = 2 * TOKENS * VALUES * WIDTH
    assert cost.flops_per_image == 3 * forward_by_hand() - embedding
    assert cost.flops_per_run == cost.flops_per_image * 6 * 10


def test_parameters_are_those_of_the_module_with_weights() -> None:
    one = experiment()
    module = one.objective.build(one.trunk.build())
    cost = cost_of(one)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert cost.trunk_parameters == sum(parameter.numel() for parameter in module.trunk.parameters())


def test_the_trunk_of_aim_has_its_published_number_of_parameters() -> None:
    source = BundledFashionMNIST()
    cost = cost_of(
        Experiment(
            name="aim",
            data=Data(train=source, validation=source, batch_size=4096),
            trunk=aim("0.6B"),
            objective=NextPatch(),
            num_steps=1,
        )
    )
    assert cost.trunk_parameters == 680_535_552
    assert cost.patches_per_image == 256


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"),
    [(0, 400, 400, 800), (1, 400, 400, 300), (2, 400, 100, 300), (3, 100, 100, 300)],
)
def test_zero_shares_state_among_processes_stage_by_stage(
    stage: int, weights: int, gradients: int, optimizer: int
) -> None:
    engine = Engine(zero_stage=stage, precision="fp32")  # type: ignore[arg-type]
    assert tuple(state_memory(100, engine, world_size=4)) == (weights, gradients, optimizer)


@pytest.mark.parametrize(("stage", "gradients"), [(1, 200), (2, 400), (3, 400)])
def test_bf16_halves_weights_but_not_the_masters_and_where_partitioned_not_the_gradients(
    stage: int, gradients: int
) -> None:
    state = state_memory(100, Engine(zero_stage=stage, precision="bf16"), world_size=1)  # type: ignore[arg-type]
    assert tuple(state) == (200, gradients, 1200)
    assert state.total == 1400 + gradients


def test_activations_are_what_autograd_keeps_for_a_real_image() -> None:
    one = experiment(precision="fp32")
    module = one.objective.build(one.trunk.build())
    kept = [_bytes_kept(one, module, num_images) for num_images in (2, 4)]
    assert cost_of(one).activation_bytes_per_image == (kept[1] - kept[0]) // 2


def test_low_precision_keeps_fewer_bytes() -> None:
    assert (
        cost_of(experiment(precision="autocast")).activation_bytes_per_image
        < cost_of(experiment(precision="fp32")).activation_bytes_per_image
    )


def test_a_frozen_trunk_costs_neither_backward_nor_optimiser() -> None:
    one = experiment(precision="fp32")
    cost = cost_of(attrs.evolve(one, frozen=("trunk",)))
    head_flops = 2 * (TOKENS - 1) * WIDTH * VALUES
    assert cost.flops_per_image == forward_by_hand() + head_flops
    assert tuple(cost.state) == (4 * cost.parameters, 4 * WIDTH * VALUES, 8 * WIDTH * VALUES)


def test_micro_batches_divide_by_processes_and_accumulation() -> None:
    one = cost_of(experiment(accumulation_steps=2), world_size=3)
    assert one.micro_batch == 1
    assert one.memory == one.state.total + one.fixed_activation_bytes + one.activation_bytes_per_image


def test_autocast_holds_a_copy_of_each_weight_that_a_gradient_passes_through() -> None:
    """The pixels need no gradient, so the weight of the patch embedding is not held."""
    fixed = {precision: cost_of(experiment(precision=precision)).fixed_activation_bytes for precision in PRECISIONS}
    weights = 4 * WIDTH * WIDTH + 2 * WIDTH * 4 * WIDTH + WIDTH * VALUES
    assert fixed["autocast"] - fixed["fp32"] == 2 * weights


def test_fused_attention_holds_what_a_fused_kernel_holds_for_a_real_image() -> None:
    one = experiment(precision="fp32")
    module = one.objective.build(one.trunk.build())
    kept = [_bytes_kept(one, module, num_images, SDPBackend.FLASH_ATTENTION) for num_images in (2, 4)]
    assert cost_of(one, fused_attention=True).activation_bytes_per_image == (kept[1] - kept[0]) // 2


PRECISIONS = ("autocast", "fp32")


def _bytes_kept(one: Experiment, module: torch.nn.Module, num_images: int, kernel: SDPBackend = SDPBackend.MATH) -> int:
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    images = images_of(torch.randn(num_images, 3, 8, 8), one.trunk.patch_size)
    # Counted as if attention kept its probabilities; a fused kernel keeps less.
    with sdpa_kernel(kernel), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(Batch(images=images, sample_numbers_B=torch.arange(num_images)))
    return sum(storage.nbytes() for address, storage in kept.items() if address not in parameters)


def native(low: float, high: float) -> Experiment:
    one = experiment(precision="fp32")
    resolution = NativeResolution(patches_per_step=64, log2_area=(low, high), images_multiple_of=2)
    return attrs.evolve(one, data=attrs.evolve(one.data, native=resolution))


def test_a_native_run_of_one_area_costs_what_square_images_do() -> None:
    cost, square = cost_of(native(2, 2)), cost_of(experiment(precision="fp32"))
    assert (cost.flops_per_image, cost.patches_per_image) == (square.flops_per_image, TOKENS)
    assert (cost.num_images, cost.micro_batch) == (10 * 16, 16)


def test_a_native_run_costs_the_sum_of_its_steps() -> None:
    mixed = native(2, 5)
    assert mixed.data.native is not None
    steps = NativeSteps.of(mixed.data.native, mixed.seed, mixed.num_steps)
    cost = cost_of(mixed)
    expected = sum(
        cost_of(native(math.log2(area + 0.5), math.log2(area + 0.5))).flops_per_image * number
        for area, number in zip(steps.area_S.tolist(), steps.num_images_S.tolist(), strict=True)
    )
    assert cost.flops_per_run == pytest.approx(expected, rel=1e-3)
    assert cost.num_images == steps.num_images_S.sum()
    assert cost.micro_batch == steps.num_images_S.min()
