"""Every installed part that has weights trains two steps at every ZeRO stage, alike."""

from __future__ import annotations

import math

import attrs
import pytest
from core.engine.toys import experiment

from aimcore import Objective, Trunk
from aimcore.engine import TrainingEngine
from aimcore.testing import Case, installed_cases
from aimcore.testing.fixtures import as_float32, batch_for, random_images


def _cases() -> dict[str, Case]:
    """Every installed trunk, objective, head and decoder, each in one case at least, and by a name of its own."""
    chosen: dict[str, Case] = {}
    seen: set[object] = set()
    for case in installed_cases():
        parts = [getattr(case.objective, field.name) for field in attrs.fields(type(case.objective))]
        # By their texts: a component with a mapping, such as options of another library, has no hash.
        weighted = {repr(case.trunk), type(case.objective), *(repr(part) for part in parts if hasattr(part, "build"))}
        if not weighted <= seen:
            seen |= weighted
            chosen[f"{len(chosen)}-{case.name}"] = case
    return chosen


CASES = _cases()
WITHOUT_EXAMPLES = {"lora", "no_training", "pretrained", "torchvision", "transformers_towers"}
"""Components that give no examples: two need another library, one a file,
one trains nothing, one has large models only."""


def _losses(trunk: Trunk, objective: Objective, stage: int) -> list[float]:
    with TrainingEngine(experiment(stage, trunk=trunk, objective=objective, batch_size=4)) as engine:
        batches = [as_float32(batch_for(objective, random_images(number=4, seed=step), seed=step)) for step in (0, 1)]
        return [value for batch in batches for value in engine.step([batch]).losses.values()]


@pytest.fixture(scope="module")
def unpartitioned() -> dict[str, list[float]]:
    return {name: _losses(case.trunk, case.objective, 0) for name, case in CASES.items()}


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_part_trains_two_steps_at_every_stage_as_at_stage_0(
    name: str, stage: int, unpartitioned: dict[str, list[float]]
) -> None:
    found = _losses(CASES[name].trunk, CASES[name].objective, stage)
    assert all(math.isfinite(value) for value in found)
    assert found == pytest.approx(unpartitioned[name], rel=1e-5)


def test_every_installed_trunk_objective_head_and_decoder_is_among_them() -> None:
    from aimcore.registry.plugins import installed

    roles: dict[str, set[str]] = {"trunks": set(), "objectives": set(), "heads": set(), "decoders": set()}
    for case in CASES.values():
        parts = [getattr(case.objective, field.name) for field in attrs.fields(type(case.objective))]
        for part in (case.trunk, case.objective, *parts):
            if getattr(part, "role", None) in roles:
                roles[part.role].add(part.name)
    assert roles == {role: set(installed().registry(role).names()) - WITHOUT_EXAMPLES for role in roles}
