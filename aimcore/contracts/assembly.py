"""Build the modules of a trunk, an objective, a target and a tokenizer, and check that they keep their contracts.

A plugin's module is checked where it enters the core: the attributes that it sets when it is built, and the values that
each call returns. Both checks only compare types and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Batch
from aimcore.contracts.component import Component
from aimcore.contracts.decoders import Decoded, DecoderModule
from aimcore.contracts.errors import AimcoreError, BrokenContract
from aimcore.contracts.features import Features
from aimcore.contracts.frozen import with_frozen_weights
from aimcore.contracts.heads import HeadModule
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.messages import unexpected
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.results import Loss
from aimcore.contracts.targets import Target, TargetModule, WeightlessTarget
from aimcore.contracts.tokenizers import ImageTokenizer, ImageTokenizerModule, WeightlessTokenizer
from aimcore.contracts.trunks import Trunk, TrunkModule

_SIZES = {
    "width": "D of its tokens",
    "depth": "the number of blocks whose outputs a reading can request",
    "patch_size": "the side of a patch in pixels",
    "num_channels": "the colour channels of an image",
}


def assembled(trunk: Trunk, objective: Objective) -> ObjectiveModule:
    """Build the trunk and the objective on it, with fresh weights drawn from torch's global generator.

    Raises:
        BrokenContract: a module does not keep its contract.
    """
    module = built_trunk(trunk)
    if module.patch_size != trunk.patch_size:
        raise BrokenContract(
            f"trunk {trunk.name!r} has patches of {trunk.patch_size} px, and its module of {module.patch_size} px: "
            "both are read, and must be the same"
        )
    return built_objective(objective, module)


class ContractCheck:
    """A hook that checks what a trunk returns. It only looks: reading with a faster copy of the trunk may skip it."""

    def __init__(self, check: Callable[[Any, Any, Any], None]) -> None:
        self._check = check

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Check the output.

        Raises:
            BrokenContract: it breaks the contract.
        """
        self._check(module, inputs, output)


def built_trunk(trunk: Trunk) -> TrunkModule:
    """Build the module of ``trunk``. Each call of the module checks what it returns.

    Raises:
        BrokenContract: its constructor raises an error of its own, or it is not a TrunkModule, or it lacks a size.
    """
    owner = f"trunk {trunk.name!r}"
    with _Building(owner, trunk):
        module: Any = trunk.build()
    if not isinstance(module, TrunkModule):
        raise BrokenContract(f"{owner}: build() must give a TrunkModule, got {_kind(module)}")
    for name, meaning in _SIZES.items():
        size = getattr(module, name, None)
        if not isinstance(size, int) or size < 1:
            raise BrokenContract(
                f"{owner}: {_kind(module)} must set self.{name} in its constructor to {meaning}, got {size!r}"
            )
    num_extra = trunk.num_extra
    module.register_forward_hook(
        ContractCheck(lambda called, _, features: _check_features(owner, called, features, num_extra))
    )
    return module


def built_objective(objective: Objective, trunk: TrunkModule) -> ObjectiveModule:
    """Build the module of ``objective`` on ``trunk``. Each call of the module checks what it returns.

    Raises:
        BrokenContract: its constructor raises an error of its own, or it is not an ObjectiveModule, or it has no trunk.
    """
    owner = f"objective {objective.name!r}"
    with _Building(owner, objective):
        module: Any = objective.build(trunk)
    if not isinstance(module, ObjectiveModule):
        raise BrokenContract(f"{owner}: build(trunk) must give an ObjectiveModule, got {_kind(module)}")
    own = getattr(module, "trunk", None)
    if not isinstance(own, TrunkModule):
        raise BrokenContract(
            f"{owner}: {_kind(module)} must set self.trunk in its constructor to the trunk that build(trunk) was given "
            f"(probes read it, and weights are found by this name), got {_kind(own)}"
        )
    module.register_forward_hook(lambda _, __, losses: _check_losses(owner, losses))
    for part in module.modules():
        if isinstance(part, HeadModule | DecoderModule):
            part.register_forward_hook(lambda called, _, outputs: _check_outputs(owner, called, outputs))
    return module


class _Building:
    """A context that converts an error of a plugin's constructor into one that names component, plugin and cause."""

    def __init__(self, owner: str, component: Component) -> None:
        cls = type(component)
        self._builder = f"{owner} of {cls.__module__.partition('.')[0]}"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, AimcoreError):
            raise BrokenContract(f"{self._builder} cannot be built: {unexpected(error)}") from error


def built_target(target: Target, patch_size: int, num_channels: int) -> TargetModule:
    """Build the frozen module of ``target``, in the constructor of an objective's module.

    ``module(batch)`` returns the values and ``module.loss(predictions_MK, values_M)`` the losses, for targets with and
    without weights. Each call of the module checks what it returns.

    Raises:
        BrokenContract: ``build`` fails, or returns neither a TargetModule nor None.
    """
    owner = f"target {target.name!r}"
    with _Building(owner, target):
        built: Any = target.build(patch_size, num_channels)
    if built is None and type(target).values is Target.values:
        raise BrokenContract(f"{owner} must define values(batch), or build() a TargetModule that returns the values")
    module = WeightlessTarget() if built is None else built
    if not isinstance(module, TargetModule):
        raise BrokenContract(f"{owner}: build() must give a TargetModule or None, got {_kind(module)}")
    module.target = target
    with_frozen_weights(module.eval(), in_checkpoints=module.in_checkpoints)
    module.register_forward_hook(lambda _, batches, values: _check_values(owner, batches[0], values))
    return module


def built_tokenizer(tokenizer: ImageTokenizer, patch_size: int, num_channels: int) -> ImageTokenizerModule:
    """Build the frozen module of an image tokenizer, with or without weights.

    Its weights become buffers, as those of targets do. Each call of the module checks what it returns.

    Raises:
        BrokenContract: ``build`` fails, or returns neither an ImageTokenizerModule nor None.
        AimcoreError: the tokenizer's file cannot be used, or not for these patches and channels.
    """
    owner = f"tokenizer {tokenizer.name!r}"
    with _Building(owner, tokenizer):
        built: Any = tokenizer.build(patch_size, num_channels)
    if built is None and type(tokenizer).encode is ImageTokenizer.encode:
        raise BrokenContract(
            f"{owner} must define encode(view, grid), or build() an ImageTokenizerModule that returns the codes"
        )
    module = WeightlessTokenizer() if built is None else built
    if not isinstance(module, ImageTokenizerModule):
        raise BrokenContract(f"{owner}: build() must give an ImageTokenizerModule or None, got {_kind(module)}")
    module.tokenizer = tokenizer
    with_frozen_weights(module.eval(), in_checkpoints=module.in_checkpoints)
    module.register_forward_hook(lambda _, given, codes: _check_codes(owner, given[0], given[1], codes))
    return module


def checked_counts(module: ObjectiveModule, counts: Any) -> Mapping[str, int]:
    """Return ``counts``, the result of ``counts(batch)``, after a check of its types.

    Raises:
        BrokenContract: it is not a mapping of names to whole numbers.
    """
    contract = f"{_kind(module)}.counts(batch) must give {{name of a loss: its number of targets}}"
    if not isinstance(counts, Mapping):
        raise BrokenContract(f"{contract}, got {_kind(counts)}")
    for name, count in counts.items():
        if not isinstance(count, Integral):
            raise BrokenContract(f"{contract} as ints, which are known without the device; {name!r} is {_kind(count)}")
    return counts


def require_names(module: ObjectiveModule, losses: Mapping[str, Loss], counts: Mapping[str, int]) -> None:
    """Refuse losses that ``counts(batch)`` does not name, or the other way round.

    Raises:
        BrokenContract: the names differ.
    """
    if losses.keys() != counts.keys():
        raise BrokenContract(
            f"{_kind(module)} gives the losses {sorted(losses)}, and counts(batch) names {sorted(counts)}: they must "
            "be the same for every batch; a loss without targets has a sum and a count of 0"
        )


def _check_features(owner: str, module: TrunkModule, features: Any, num_extra: int) -> None:
    expected = "forward must return Features(tokens_BND, positions_BN2, valid_BN, layers)"
    if not isinstance(features, Features):
        raise BrokenContract(f"{owner}: {expected}, got {_kind(features)}")
    if not isinstance(features.tokens_BND, Tensor) or features.tokens_BND.dim() != 3:
        raise BrokenContract(f"{owner}: {expected}, got {_kind(features.tokens_BND)} as tokens_BND")
    if features.tokens_BND.shape[-1] != module.width:
        raise BrokenContract(
            f"{owner}: tokens must have the module's width, {module.width}, got {_kind(features.tokens_BND)}"
        )
    extra_BRD, shape = features.extra_BRD, [len(features.tokens_BND), num_extra, module.width]
    if list(getattr(extra_BRD, "shape", [])) != (shape if num_extra else []):
        expected = f"a tensor {shape}, as num_extra is {num_extra}" if num_extra else "None, as num_extra is 0"
        raise BrokenContract(f"{owner}: extra_BRD must be {expected}, got {_kind(extra_BRD)}")


def _check_values(owner: str, batch: Batch, values: Any) -> None:
    shape = tuple(batch.images.patches_BNF.shape[:2])
    contract = (
        f"{owner}: values must be [B, N, F] floats or [B, N] int64 codes without a gradient, with [B, N] {[*shape]}"
    )
    # The causality check gives pixels a gradient, which values may pass on. Frozen weights have no gradient.
    has_own_gradient = (
        isinstance(values, Tensor) and values.requires_grad and not batch.images.patches_BNF.requires_grad
    )
    if not isinstance(values, Tensor) or has_own_gradient:
        raise BrokenContract(f"{contract}, got {_kind(values)}{' with one' * isinstance(values, Tensor)}")
    is_right = values.is_floating_point() if values.dim() == 3 else values.dim() == 2 and values.dtype == torch.int64
    if not is_right or tuple(values.shape[:2]) != shape:
        raise BrokenContract(f"{contract}, got {_kind(values)}")


def _check_codes(owner: str, view_BCHW: Tensor, grid: PatchGrid, codes: Any) -> None:
    shape = [len(view_BCHW), grid.num_patches]
    if not isinstance(codes, Tensor) or list(codes.shape) != shape or codes.dtype != torch.int64:
        raise BrokenContract(f"{owner}: encode must return {shape} int64 codes, got {_kind(codes)}")


def _check_outputs(owner: str, module: HeadModule | DecoderModule, outputs: Any) -> None:
    contract = f"{owner}: {type(module).__name__}.forward must return"
    if isinstance(module, DecoderModule) and not isinstance(outputs, Decoded):
        raise BrokenContract(f"{contract} Decoded(patches_MK, logits_MV), got {_kind(outputs)}")
    if isinstance(module, HeadModule) and (not isinstance(outputs, Tensor) or outputs.dim() != 2):
        raise BrokenContract(f"{contract} predictions, a tensor [M, K], got {_kind(outputs)}")


def _check_losses(owner: str, losses: Any) -> None:
    if not isinstance(losses, dict) or not losses:
        raise BrokenContract(
            f"{owner}: forward must return a dict {{name: Loss(sum, num_targets)}}, got {_kind(losses)}"
        )
    for name, loss in losses.items():
        for problem in _problems_of(loss):
            raise BrokenContract(f"{owner}, loss {name!r}: {problem}")


def _problems_of(loss: Any) -> Iterator[str]:
    if not isinstance(loss, Loss):
        yield f"must be Loss(sum, num_targets), got {_kind(loss)}"
        return
    if not isinstance(loss.sum, Tensor) or loss.sum.dim() or not loss.sum.is_floating_point():
        yield f"its sum must be a scalar tensor of floats, the sum over all targets, got {_kind(loss.sum)}"
    if not isinstance(loss.num_targets, Tensor) or loss.num_targets.dim():
        yield (
            f"its num_targets must be a scalar tensor, as in torch.tensor(len(loss_M)), got {_kind(loss.num_targets)}"
        )
    weight: Any = loss.weight
    if not isinstance(weight, int | float):
        yield f"its weight must be a number, got {_kind(weight)}"
    per_position_BN = loss.per_position_BN
    if per_position_BN is not None and (not isinstance(per_position_BN, Tensor) or per_position_BN.dim() != 2):
        yield f"its per_position_BN must be a tensor [B, N], got {_kind(per_position_BN)}"


def _kind(given: Any) -> str:
    """Describe a value in a message: a tensor by shape and type, a plain value by repr, others by class name."""
    if isinstance(given, Tensor):
        return f"a tensor {list(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
    if given is None or isinstance(given, bool | int | float | str):
        return repr(given)
    return "an empty dict" if given == {} else type(given).__name__
