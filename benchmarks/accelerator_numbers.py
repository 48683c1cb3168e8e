"""Numbers of an accelerator against those of the CPU, of float64 and of other ZeRO stages."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import get_args

import torch
import torch.distributed as dist
from accelerator_rows import Finding, Row, Setting, at_most, attempted, relative_difference, worst
from torch import Tensor
from torch.nn.attention import SDPBackend

from aimcore import Attention, Batch, LabelledFeatures, Objective, ObjectiveModule, Probe
from aimcore.contracts.assembly import assembled
from aimcore.engine import TrainingEngine
from aimcore.engine.distributed import start
from aimcore.experiment.training import Precision
from aimcore.modeling.attention import Mask, attend, attention_probabilities, mask_of
from aimcore.registry.plugins import installed
from aimcore.testing.cases import Case, installed_cases
from aimcore.testing.fixtures import as_float32, batch_for, draw_nonzero, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.short_training import settings
from aimcore_probes import AttentiveProbe, KNNProbe, LinearProbe
from aimcore_trunks import ViT

TRUNK = ViT(width=32, depth=2, num_heads=2, patch_size=4, mask_token=True)
STAGE_BOUNDS: Mapping[Precision, float] = {"fp32": 1e-4, "autocast": 3e-2, "bf16": 3e-2}
"""Largest relative difference of two steps' losses from those of float32 at ZeRO stage 0."""
LOSS_BOUND, GRADIENT_BOUND = 1e-5, 1e-4
"""Largest relative differences between the accelerator and the CPU, in float32 without TF32."""
ATTENTION_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest relative differences from the explicit form in float64, of outputs and gradients."""


def stage_rows(setting: Setting) -> Iterator[Row]:
    """Every installed objective takes two steps at each ZeRO stage and precision."""
    for number, objective in _objectives(setting.quick):
        for precision in get_args(Precision):
            stages = [
                stage for stage in ((0, 1) if setting.quick else (0, 1, 2, 3)) if (stage, precision) != (0, "bf16")
            ]
            yield attempted(
                "stages",
                f"{objective.name} {number}, {precision}, stages {stages[0]}-{stages[-1]}",
                lambda objective=objective, precision=precision, stages=stages: _stages(objective, precision, stages),
            )


def _objectives(quick: bool) -> Iterator[tuple[int, Objective]]:
    for cls in (cls for _, cls in installed().registries["objectives"].items()):
        examples = cls.examples()[:1] if quick else cls.examples()
        for number, example in enumerate(examples, 1):
            assert isinstance(example, Objective)
            yield number, example


def _stages(objective: Objective, precision: Precision, stages: list[int]) -> Finding:
    reference = _losses(objective, "fp32", 0)
    differences = [relative_difference(_losses(objective, precision, stage), reference) for stage in stages]
    return at_most(worst(differences), STAGE_BOUNDS[precision])


def _losses(objective: Objective, precision: Precision, stage: int) -> Tensor:
    with seeded():
        module = assembled(TRUNK, objective)
    batch = as_float32(batch_for(objective, random_images(number=4)))
    with seeded(), TrainingEngine(settings(zero_stage=stage, precision=precision), module) as engine:
        return torch.tensor([sum(engine.step([batch]).losses.values()) for _ in range(2)])


def agreement_rows(setting: Setting) -> Iterator[Row]:
    """Losses and gradients of every objective, with every part that fits, equal those of the CPU."""
    by_objective: dict[str, list[Case]] = {}
    for case in installed_cases():
        by_objective.setdefault(case.objective.name, []).append(case)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name, cases in by_objective.items():
        chosen = cases[:2] if setting.quick else cases
        check = f"{name}, {len(chosen)} combinations"
        yield attempted("agreement", check, lambda chosen=chosen: _agreement(chosen, setting.device))


def _agreement(cases: list[Case], device: torch.device) -> Finding:
    losses, gradients = [], []
    for case in cases:
        with seeded():
            module = assembled(case.trunk, case.objective)
        draw_nonzero(module)
        images = random_images(case.grid, patch_size=module.trunk.patch_size, num_channels=module.trunk.num_channels)
        batch = as_float32(batch_for(case.objective, images))
        expected = _losses_and_gradients(copy.deepcopy(module), batch)
        found = _losses_and_gradients(module.to(device), batch.to(device))
        for differences, one, other in zip((losses, gradients), found, expected, strict=True):
            differences.append(relative_difference(one, other))
    loss, gradient = worst(losses), worst(gradients)
    return Finding(
        loss <= LOSS_BOUND and gradient <= GRADIENT_BOUND,
        f"losses {loss:.1e}, gradients {gradient:.1e}",
        f"<= {LOSS_BOUND:.0e}, {GRADIENT_BOUND:.0e}",
        {"losses": loss, "gradients": gradient},
    )


def _losses_and_gradients(module: ObjectiveModule, batch: Batch) -> tuple[Tensor, Tensor]:
    module.train()
    losses = module(batch)
    torch.stack([loss.sum * loss.weight for loss in losses.values()]).sum().backward()
    gradients = [
        (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in module.parameters()
    ]
    return torch.stack([loss.sum.detach() for loss in losses.values()]), torch.cat(gradients)


def attention_rows(setting: Setting) -> Iterator[Row]:
    """Attention with every kind of mask equals the explicit form in float64, forward and backward."""
    shapes = [(2, 2, 9, 16)] if setting.quick else [(2, 2, 9, 16), (8, 12, 256, 128), (4, 8, 333, 64)]
    for dtype in ATTENTION_BOUNDS:
        for name in ("bidirectional", "causal", "prefix", "padded", "padded prefix", "cached prefix"):
            yield attempted(
                "attention",
                f"{name}, {str(dtype).removeprefix('torch.')}",
                lambda name=name, dtype=dtype: _attention(name, dtype, shapes, setting.device),
            )


def _attention(name: str, dtype: torch.dtype, shapes: list[tuple[int, int, int, int]], device: torch.device) -> Finding:
    differences, kernels = [], set()
    for shape in shapes:
        generator = torch.Generator().manual_seed(0)
        *inputs, upstream = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4))
        mask = _mask(name, shape, generator, device)
        if name.startswith("cached"):  # the last queries only, as when captions are written token by token
            inputs[0], upstream = inputs[0][:, :, -3:], upstream[:, :, -3:]
        found = _outputs_and_gradients(attend, inputs, upstream, mask)
        expected = _outputs_and_gradients(_explicit, [tensor.double() for tensor in inputs], upstream.double(), mask)
        differences += [relative_difference(one, other) for one, other in zip(found, expected, strict=True)]
        kernels.add(_kernel(inputs, mask))
    return at_most(worst(differences), ATTENTION_BOUNDS[dtype], f" ({', '.join(sorted(kernels))})")


def _mask(name: str, shape: tuple[int, int, int, int], generator: torch.Generator, device: torch.device) -> Mask:
    number, _, tokens, _ = shape
    lengths_B = torch.randint(1, tokens, (2, number), generator=generator)
    valid_BN = torch.arange(tokens) < lengths_B[0][:, None]
    attention = Attention(
        causal=name not in ("bidirectional", "padded"),
        prefix_length_B=lengths_B[1].to(device) if "prefix" in name else None,
        valid_BN=valid_BN.to(device) if "padded" in name else None,
    )
    mask = mask_of(attention, tokens, device)
    if name.startswith("cached"):
        assert mask.allowed is not None
        return Mask(mask.allowed[:, :, -3:])
    return mask


def _explicit(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    return attention_probabilities(query, key, mask) @ value


def _outputs_and_gradients(form, inputs: list[Tensor], upstream: Tensor, mask: Mask) -> list[Tensor]:  # type: ignore[no-untyped-def]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = form(*leaves, mask)
    output.backward(upstream)
    return [output, *(leaf.grad for leaf in leaves)]


def _kernel(inputs: list[Tensor], mask: Mask) -> str:
    """Name the kernel that torch chooses for these inputs when gradients are needed."""
    query, key, value = (tensor.detach().requires_grad_() for tensor in inputs)
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return "explicit"
    allowed = None if mask.is_causal else mask.allowed
    chosen = torch._fused_sdp_choice(query, key, value, attn_mask=allowed, is_causal=mask.is_causal)
    return SDPBackend(chosen).name.removesuffix("_ATTENTION").lower()


def collective_rows(setting: Setting) -> Iterator[Row]:
    """The collectives of a run work in a group of one process."""
    wanted = "nccl" if setting.device.type == "cuda" else "gloo"
    yield attempted("collectives", f"five collectives of one process over {wanted}", lambda: _collectives(wanted))


def _collectives(wanted: str) -> Finding:
    world = start(torch.get_num_threads())
    values = torch.arange(4.0, device=world.device)
    total, gathered = values.clone(), [torch.zeros_like(values)]
    dist.all_reduce(total)
    dist.all_gather(gathered, values)
    box: list[object] = [{"rank": 0}]
    dist.broadcast_object_list(box, src=0, device=world.device)
    everyone: list[object] = [None]
    dist.all_gather_object(everyone, "here")
    dist.barrier()
    is_right = torch.equal(total, values) and torch.equal(gathered[0], values)
    is_right = is_right and box == [{"rank": 0}] and everyone == ["here"] and wanted in dist.get_backend()
    return Finding(is_right, dist.get_backend(), wanted)


def probe_rows(setting: Setting) -> Iterator[Row]:
    """Probes learn classes that are separable, on the device."""
    for probe in (LinearProbe(epochs=10), AttentiveProbe(epochs=10, batch_size=64), KNNProbe()):
        yield attempted("probes", probe.name, lambda probe=probe: _probe(probe, setting.device))


def _probe(probe: Probe, device: torch.device) -> Finding:
    train, held_out, test = (_separable(probe, number, seed) for seed, number in enumerate((300, 60, 100)))
    fitted = probe.fit(train, held_out, 0)
    share = float((fitted.predict(test.features) == test.labels).double().mean())
    module = getattr(fitted, "module", None)
    trained_on = device.type if module is None else next(module.parameters()).device.type
    is_right = share >= 0.95 and trained_on == device.type
    return Finding(is_right, f"{share:.1%} right, trained on {trained_on}", f">= 95%, {device.type}", {"top1": share})


def _separable(probe: Probe, number: int, seed: int) -> LabelledFeatures:
    """Return features around one random centre per class, as one vector or as 9 tokens per image."""
    generator = torch.Generator().manual_seed(seed)
    centres_CD = torch.randn(5, 32, generator=torch.Generator().manual_seed(100))
    labels = torch.arange(number) % 5
    shape = (number, 9, 32) if probe.reads == "tokens" else (number, 32)
    centres = centres_CD[labels] if probe.reads != "tokens" else centres_CD[labels][:, None]
    return LabelledFeatures(centres + 0.3 * torch.randn(shape, generator=generator), labels, 5)
