"""Shared checks of components that build torch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aimcore.contracts.component import Component
from aimcore.testing.field_changes import bad_numbers, changed_or_refused
from aimcore.testing.fixtures import draw_nonzero
from aimcore.testing.requirements import differs, explained, require, seeded

Build = Callable[[], nn.Module]
_PLAIN = (Tensor, bool, int, float, str)


def ready(module: nn.Module) -> Any:
    """Convert the module to float64 and eval mode, with nonzero weights."""
    module.double().eval()
    draw_nonzero(module)
    return module


def weights_follow_torchs_seed(build: Build) -> None:
    """Fresh weights are drawn only from torch's global generator."""
    with seeded(1):
        first = build().state_dict()
        after_first = torch.get_rng_state()
    with seeded(1):
        again = build().state_dict()
    with seeded(2):
        build()
        after_other = torch.get_rng_state()
    different = [name for name in first if differs(first[name], again[name]).any()]
    require(
        not different,
        f"two modules built under the same torch.manual_seed differ in {different[:3]}: draw weights with torch's "
        "global generator (nn.init), not with another source",
    )
    require(
        not torch.equal(after_first, after_other),
        "build() seeds torch's global generator: experiments of different seeds would start from the same weights",
    )


def what_is_accepted_can_be_built(component: Component, build: Callable[[Any], nn.Module]) -> None:
    """Zero and negative numbers are reported as problems, or the module can be built with them."""
    for change in bad_numbers(component):
        changed = changed_or_refused(component, change)
        if changed is not None:
            with explained(f"accepts {change}, and then cannot be built: refuse it in problems()"), seeded():
                build(changed)


def nothing_is_random_in_evaluation(forward: Callable[[], Tensor]) -> None:
    """Two forward passes in eval mode return the same."""
    with torch.no_grad(), seeded(1):
        first = forward()
    with torch.no_grad(), seeded(2):
        again = forward()
    require(not differs(first, again).any(), "evaluation mode is random: switch dropout and the like off by .eval()")


def every_weight_is_trained(module: nn.Module, loss: Tensor) -> None:
    """Each weight that requires a gradient receives one."""
    require(loss.requires_grad, "the outputs carry no gradient: is something detached, or under torch.no_grad()?")
    loss.backward()  # type: ignore[no-untyped-call]
    idle = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    require(not idle, f"weights that no output depends on: {idle[:5]}. Leave them out, or set requires_grad=False")


@contextmanager
def collect_opaque_outputs(module: nn.Module) -> Iterator[dict[str, str]]:
    """Collect the parts of ``module`` whose outputs ZeRO stage 3 cannot see, with the type of each."""
    unseen: dict[str, str] = {}
    handles = [part.register_forward_hook(_noting(name or "itself", unseen)) for name, part in module.named_modules()]
    try:
        yield unseen
    finally:
        for handle in handles:
            handle.remove()


def _noting(name: str, unseen: dict[str, str]) -> Callable[[nn.Module, Any, Any], None]:
    def note(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        found = _unseen_type(outputs)
        if found:
            unseen[name] = found

    return note


def _unseen_type(outputs: Any) -> str:
    """The type of the first value that is neither a tensor nor a container of tensors; empty if there is none."""
    if outputs is None or isinstance(outputs, _PLAIN):
        return ""
    if not isinstance(outputs, tuple | list | dict):
        return type(outputs).__name__
    inside = outputs.values() if isinstance(outputs, dict) else outputs
    return next((found for part in inside if (found := _unseen_type(part))), "")


def require_visible_outputs(unseen: Mapping[str, str]) -> None:
    """Fail where :func:`collect_opaque_outputs` found something."""
    said = ", ".join(f"{name} returns {kind}" for name, kind in unseen.items())
    require(not unseen, f"{said}: modules return tensors, NamedTuples or dicts, or ZeRO stage 3 misses their tensors")
