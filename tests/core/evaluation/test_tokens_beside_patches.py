"""Class and register tokens in probes, and trunks whose tokens have another grid than the patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core.engine.toys import experiment
from core.testing.mutants.trunks import Classed, ClassedModule, Merging

from aimcore import BIDIRECTIONAL, InvalidValue, Reading, TrunkModule
from aimcore.contracts.assembly import built_trunk
from aimcore.contracts.errors import BrokenContract
from aimcore.evaluation import extract_all
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.testing.fixtures import as_float32, batch_of, random_images
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, NextPatch
from aimcore_probes import LinearProbe


def with_parts(**parts: Any) -> Any:
    return experiment(**{"objective": Classification(num_classes=2), **parts})


def test_each_kind_of_features_is_taken_from_the_tokens_it_names() -> None:
    trunk, batch = built_trunk(Classed()), as_float32(batch_of(random_images()))
    with torch.no_grad():
        tokens_BND = trunk(batch.images, Reading(attention=BIDIRECTIONAL)).tokens_BND
    mean_BD = tokens_BND.mean(1)
    expected = {
        FeatureKind("pooled", ()): mean_BD,
        FeatureKind("pooled", (), "class"): mean_BD,
        FeatureKind("pooled", (), "class_and_mean"): torch.cat([mean_BD, mean_BD], dim=1),
        FeatureKind("extra", ()): torch.stack([mean_BD, 2 * mean_BD], dim=1),
    }
    objective = Classification(num_classes=2)
    found = extract_all(trunk, [batch], list(expected), objective=objective, attention="bidirectional", num_classes=2)
    for kind, features in expected.items():
        torch.testing.assert_close(found[kind].features, features)


def test_a_probe_of_a_class_token_reads_the_trunks_own_output() -> None:
    assert FeatureKind.of(LinearProbe(), 8) == FeatureKind("pooled", (2, 3, 4, 5, 6, 7), "mean")
    assert FeatureKind.of(LinearProbe(pool="class"), 8) == FeatureKind("pooled", (), "class")
    with pytest.raises(InvalidValue, match="layers: must be null with pool='class'"):
        LinearProbe(pool="class", layers=(0,))


def test_a_probe_of_tokens_that_a_trunk_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"probes\.0: probe 'linear' reads a class token, and trunk 'toy_trunk' has"):
        with_parts(probes=(LinearProbe(pool="class"),))
    assert with_parts(trunk=Classed(), probes=(LinearProbe(pool="class"),))


def test_a_trunk_of_another_grid_is_refused_by_objectives_that_score_patches() -> None:
    said = r"trunk: 'merging' makes 2 x 1 tokens of 2 x 2 patches, and objective 'next_patch' treats every token as a"
    trunk = Merging(abilities=("causal", "order"))
    with pytest.raises(InvalidValue, match=said):
        with_parts(trunk=trunk, objective=NextPatch(head=LinearHead(), prefix=None))
    assert with_parts(trunk=Merging())


def test_a_trunk_of_another_grid_is_refused_where_tokens_are_probed_at_native_resolution() -> None:
    from aimcore_probes import AttentiveProbe

    trunk = Merging(abilities=("native",))
    with pytest.raises(InvalidValue, match=r"probe_native_area: 'merging' makes 16 x 8 tokens of 16 x 16 patches"):
        with_parts(trunk=trunk, probes=(AttentiveProbe(),), probe_native_area=16)
    assert with_parts(trunk=trunk, probes=(LinearProbe(),), probe_native_area=16)


class Silent(Classed):
    def build(self) -> TrunkModule:
        module = ClassedModule()
        module.register_forward_hook(lambda _, __, features: features._replace(extra_BRD=None))
        return module


def test_a_trunk_that_gives_other_tokens_than_it_states_is_named() -> None:
    batch = as_float32(batch_of(random_images()))
    with pytest.raises(BrokenContract, match=r"extra_BRD must be a tensor \[3, 2, 16\], as num_extra is 2, got None"):
        built_trunk(Silent())(batch.images, Reading())
