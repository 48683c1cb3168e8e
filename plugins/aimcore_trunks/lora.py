"""Low-rank adaptation of any trunk, by peft."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Self, cast

import attrs
import torch
from torch import Tensor, nn

from aimcore import (
    AimcoreError,
    Capability,
    ExportedTrunk,
    InvalidValue,
    PatchGrid,
    Preprocessing,
    Problem,
    Trunk,
    TrunkModule,
    at_least,
    component,
    positive,
)
from aimcore.contracts import limits
from aimcore.contracts.trunks import PretrainedTrunk

LORA_WEIGHTS = ("*.lora_A", "*.lora_B")
"""Names for ``Weights.fresh``: the weights of LoRA, which a file of a plain trunk does not have."""
_ADAPTER = "default"
_BASE = ".base_layer"


class MissingPeft(AimcoreError):
    """The optional library peft is needed, and cannot be imported."""


@component("lora", paper="arXiv:2106.09685; arXiv:2401.08541, section 5.5 and Table 8")
class LoRA(Trunk):
    """Another trunk whose weights are frozen, with a trained low-rank update of some of its linear layers.

    A layer ``W x`` becomes ``W x + alpha / rank * B A x``, with A drawn as torch draws a linear layer's weights, and B
    zero: training begins with the plain trunk. Everything else in the trunk is frozen; heads and pools of the objective
    are trained as usual. Requires the extra ``lora``.

    A run begins with the weights of a plain trunk, and draws its own A and B: ``Weights(experiment="pretrained",
    fresh=LORA_WEIGHTS)``. ``aimcore export`` merges the update into a plain trunk. Departure: the paper publishes
    neither alpha nor a dropout; alpha is the rank by default, so that B A is added as it is, and there is no dropout.
    """

    trunk: Trunk
    """The trunk that is adapted."""
    rank: int = 8
    alpha: float | None = None
    """Scale of the update, divided by the rank; None is the rank."""
    targets: tuple[str, ...] = ("query", "value", "out")
    """Names of the linear layers: here those of the query, the value and the output projection of every block."""

    @property
    def capabilities(self) -> frozenset[Capability | str]:
        """The capabilities of the adapted trunk."""
        return self.trunk.capabilities

    @property
    def patch_size(self) -> int:
        """The patch size of the adapted trunk."""
        return self.trunk.patch_size

    @property
    def num_extra(self) -> int:
        """The number of extra tokens of the adapted trunk."""
        return self.trunk.num_extra

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """Return the grid of the adapted trunk's tokens."""
        return self.trunk.output_grid(grid)

    def problems(self) -> Iterable[Problem]:
        """Yield a rank below 1, an alpha that is not positive, no layers, or a trunk that is adapted already."""
        yield from at_least("rank", self.rank, 1, limits.WIDTH)
        if self.alpha is not None:
            yield from positive("alpha", self.alpha, limits.WIDTH)
        if not self.targets:
            yield Problem("targets", "must name at least one linear layer, got none")
        if isinstance(self.trunk, LoRA):
            yield Problem("trunk", "is adapted already: use one lora with a larger rank")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why the adapted trunk cannot read images of ``grid``."""
        return self.trunk.problems_with(grid)

    def build(self) -> TrunkModule:
        """Build the adapted trunk, and put LoRA layers in the place of its linear layers.

        Raises:
            MissingPeft: peft is not installed.
            InvalidValue: the trunk has no linear layer of some name in ``targets``, or one smaller than the rank.
        """
        peft, module = _peft(), self.trunk.build()
        self._require_targets(module)
        alpha = self.rank if self.alpha is None else self.alpha
        config = peft.LoraConfig(r=self.rank, lora_alpha=alpha, target_modules=list(self.targets))
        peft.inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
        return module

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the weights of a plain trunk, of a run with a plain trunk, or in a layout that the trunk converts.

        The result has no weights of LoRA.
        """
        with torch.device("meta"):
            adapted = self.build().state_dict()
        name_of = {_plain_name(name): name for name in adapted if not _is_lora(name)}
        of_run = {name.removeprefix("trunk."): value for name, value in state.items() if name.startswith("trunk.")}
        plain = max((state, of_run), key=lambda layout: len(name_of.keys() & layout.keys()))
        # The layout of released encoders has some of the names of a run's file, such as those of norms.
        if not name_of.keys() <= plain.keys():
            plain = self._converted(state, plain, name_of)
        return {name_of.get(name, name): value for name, value in plain.items()}

    def _converted(
        self, state: Mapping[str, Tensor], otherwise: Mapping[str, Tensor], known: Mapping[str, str]
    ) -> Mapping[str, Tensor]:
        """Convert as the adapted trunk does; return ``otherwise`` if it cannot, and some of its names are ``known``."""
        try:
            return self.trunk.convert(state)
        except (AimcoreError, NotImplementedError):
            if known.keys() & otherwise.keys():
                return otherwise
            raise

    def pretrained(self) -> PretrainedTrunk | None:
        """Return LoRA of the plain trunk, if the adapted trunk names a file. The file has no weights of LoRA."""
        found = self.trunk.pretrained()
        if found is None:
            return None
        adapted = attrs.evolve(cast(Any, self), trunk=found.trunk)
        return found._replace(trunk=adapted, fresh=(*found.fresh, *LORA_WEIGHTS))

    def resized(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Resize as the adapted trunk does."""
        return self.trunk.resized(state)

    def weights_advice(
        self, state: Mapping[str, Tensor], pixels: Preprocessing, read_sibling: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Yield the warnings of the adapted trunk."""
        return self.trunk.weights_advice(state, pixels, read_sibling)

    def export(self, module: TrunkModule) -> ExportedTrunk:
        """Return the plain trunk, with the updates merged into its weights."""
        merged = {}
        for name, value in module.state_dict().items():
            if not _is_lora(name):
                owner, is_adapted, local = name.rpartition(f"{_BASE}.")
                layer: Any = module.get_submodule(owner) if is_adapted and local == "weight" else None
                merged[_plain_name(name)] = value if layer is None else value + layer.get_delta_weight(_ADAPTER)
        return ExportedTrunk(self.trunk, merged)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples: the checks of other components, which enumerate them, do not require peft."""
        return ()

    def _require_targets(self, module: nn.Module) -> None:
        linear = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        names = {name.rpartition(".")[2] for name, _ in linear}
        missing = [target for target in self.targets if target not in names]
        if missing:
            known = f"it has {', '.join(sorted(names))}" if names else "it has none, so that nothing can be adapted"
            problem = f"trunk {self.trunk.name!r} has no linear layer {missing[0]!r}: {known}"
            raise InvalidValue("LoRA", [("targets", problem)])
        for name, part in linear:
            most = min(part.in_features, part.out_features)
            if name.rpartition(".")[2] in self.targets and self.rank > most:
                problem = f"must be at most {most}, the largest rank of a change of layer {name!r}, got {self.rank}"
                raise InvalidValue("LoRA", [("rank", problem)])


def _is_lora(name: str) -> bool:
    return ".lora_" in name


def _plain_name(name: str) -> str:
    """Return the name that a parameter has in the plain trunk."""
    return name.replace(f"{_BASE}.", ".")


def _peft() -> Any:
    try:
        return import_module("peft")
    except ImportError as cause:
        raise MissingPeft(f"trunk 'lora' needs the package peft ({cause}): pip install 'aimcore[lora]'") from cause
