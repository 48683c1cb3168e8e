"""Nothing that is scored reads its own answer: proven for all that is installed, and each planted leak is caught."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core.testing.mutants import masking
from torch import Tensor

from aimcore import (
    Attention,
    Batch,
    Features,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    PatchGrid,
    Reading,
    TrunkModule,
    component,
)
from aimcore.modeling import attention as attention_room
from aimcore.modeling.attention import Mask, mask_of
from aimcore.testing import Case, findings_of, installed_cases
from aimcore.testing.causality import leaks_of
from aimcore.testing.fixtures import with_changed_patch
from aimcore.testing.instrumented import InstrumentedObjective
from aimcore.testing.runner import verdict_of
from aimcore.testing.small_parts import StandInTrunk
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, Multimodal, NextPatch
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_objectives.steps import Steps
from aimcore_orderings import Spiral
from aimcore_trunks import ViT, vit
from aimcore_trunks.vit import ViTModule

CASES = installed_cases()
GRID = PatchGrid(3, 4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_installed_combination_is_causal(case: Case) -> None:
    assert findings_of(case) == []


def test_every_ordering_target_and_head_is_among_the_cases() -> None:
    from aimcore.registry.plugins import installed

    objectives = [case.objective for case in CASES]
    for role, field in (("orderings", "ordering"), ("targets", "target"), ("heads", "head")):
        used = {getattr(objective, field).name for objective in objectives if isinstance(objective, NextPatch)}
        # Codes need the file of a tokenizer: tests of the target make one.
        assert used == set(installed().registries[role].names()) - {"codes"}


def _case(objective: NextPatch, trunk: ViT | None = None) -> Case:
    return Case("planted", trunk or ViT(width=16, depth=2, num_heads=2, patch_size=4), objective, GRID)


SPIRAL = NextPatch(ordering=Spiral(), head=LinearHead(), prefix=None)
PREFIX = NextPatch(head=LinearHead())


def _plant_mask(monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    def planted(attention: Attention, num_tokens: int, device: torch.device) -> Mask:
        allowed = mask_of(attention, num_tokens, device).allowed
        assert allowed is not None
        return Mask(change(allowed), is_causal=False)  # type: ignore[operator]

    monkeypatch.setattr(vit, "mask_of", planted)
    assert attention_room.mask_of is mask_of


@pytest.mark.parametrize("objective", [SPIRAL, PREFIX])
def test_a_mask_shifted_by_one_is_caught(monkeypatch: pytest.MonkeyPatch, objective: NextPatch) -> None:
    assert findings_of(_case(objective)) == []
    _plant_mask(monkeypatch, lambda allowed: allowed | allowed.roll(-1, dims=-2))
    findings = findings_of(_case(objective))
    assert any("reads its own target" in text and "by gradient" in text for text in findings)
    assert any("reads its own target" in text and "by perturbation" in text for text in findings)


@pytest.mark.parametrize("objective", [SPIRAL, PREFIX])
def test_a_mask_whose_true_means_blocked_is_caught(monkeypatch: pytest.MonkeyPatch, objective: NextPatch) -> None:
    _plant_mask(monkeypatch, lambda allowed: ~allowed | torch.eye(12, dtype=torch.bool))
    assert any("reads targets of later steps" in text for text in findings_of(_case(objective)))


class _DeafModule(ViTModule):
    """Ignores the order it is asked to read in."""

    def forward(self, images: Images, reading: Reading) -> Features:
        return super().forward(images, Reading(attention=reading.attention, layers=reading.layers))


@component("deaf")
class DeafViT(ViT):
    """A trunk that reads in raster order in spite of the requested one."""

    def build(self) -> ViTModule:
        return _DeafModule(self)


def test_targets_permuted_without_their_tokens_are_caught() -> None:
    findings = findings_of(_case(SPIRAL, DeafViT(width=16, depth=2, num_heads=2, patch_size=4)))
    assert any("reads its own target" in text for text in findings)
    assert any("reads targets of later steps" in text for text in findings)


class _UnshiftedModule(NextPatchModule):
    """Predicts each patch from the output at the patch itself."""

    def _read(self, batch: Batch) -> tuple[Features, Tensor, Steps]:
        features, where_M, steps = super()._read(batch)
        return features, where_M + 1, steps


@component("unshifted")
class Unshifted(NextPatch):
    """Next patch without the shift."""

    def build(self, trunk: TrunkModule) -> NextPatchModule:
        return _UnshiftedModule(self, trunk)


@pytest.mark.parametrize("prefix", [None, "uniform", 3])
def test_a_loss_without_the_shift_is_caught(prefix: str | int | None) -> None:
    findings = findings_of(_case(Unshifted(head=LinearHead(), prefix=prefix)))  # type: ignore[arg-type]
    assert any("reads its own target" in text for text in findings)


class _MeddlingModule(NextPatchModule):
    """Misreports or mixes, by ``kind``."""

    kind = ""

    def forward(self, batch: Batch) -> dict[str, Loss]:
        loss = super().forward(batch)["next_patch"]
        assert loss.per_position_BN is not None
        mean = loss.per_position_BN.nanmean()
        changed = {
            "silent": loss._replace(per_position_BN=None),
            "sum": loss._replace(sum=2 * loss.sum),
            "number": loss._replace(num_targets=loss.num_targets + 1),
            "mixed": loss._replace(per_position_BN=loss.per_position_BN + mean, sum=loss.sum + mean * loss.num_targets),
            "blind": loss._replace(
                per_position_BN=loss.per_position_BN * 0 + self._blind(batch),
                sum=(loss.per_position_BN * 0 + self._blind(batch)).nansum(),
            ),
        }
        return {"next_patch": changed[self.kind]}

    def _blind(self, batch: Batch) -> Tensor:
        """A loss of the target alone, at the right step: raster order, one step per patch."""
        return batch.images.patches_BNF.square().mean(-1)


@component("meddling")
class Meddling(NextPatch):
    """Next patch whose module misreports."""

    kind: str

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = _MeddlingModule(self, trunk)
        module.kind = self.kind
        return module


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        ("silent", "has no per_position_BN"),
        ("sum", "does not add up to sum"),
        ("number", "num_targets is not the number of scored steps"),
        ("mixed", "depends on another image"),
        ("blind", "is blind: its prediction depends on no patch"),
    ],
)
def test_losses_that_cannot_be_trusted_are_named(kind: str, finding: str) -> None:
    findings = findings_of(_case(Meddling(head=LinearHead(), prefix=None, kind=kind)))
    assert any(finding in text for text in findings)


def _found(objective: Objective) -> list[str]:
    return findings_of(Case("masked", StandInTrunk(), objective, GRID))


@pytest.mark.parametrize("objective", masking.SOUND, ids=lambda objective: type(objective).__name__)
def test_objectives_that_mask_pixels_before_the_trunk_reads_them_are_judged_by_what_it_reads(
    objective: Objective,
) -> None:
    assert _found(objective) == []


@pytest.mark.parametrize(
    ("objective", "finding"),
    [
        (masking.Peeking(), "image 0, step 1 reads its own target, patch (0, 1) (by gradient)"),
        (masking.PeekingCopy(), "image 0, step 1 reads its own target, patch (0, 1) (by perturbation)"),
        (masking.Misplaced(), "image 0, step 1 reads its own target, patch (0, 0) (by gradient)"),
        (masking.Beyond(), "scored_patch_BN: it holds 12, and there are 12 patches"),
    ],
)
def test_what_reads_its_own_answer_is_named_whatever_it_asks_of_the_trunk(objective: Objective, finding: str) -> None:
    assert any(text.endswith(finding) for text in _found(objective))


class NextEmbeddingModule(ObjectiveModule):
    def __init__(self, trunk: TrunkModule, ahead: int) -> None:
        super().__init__()
        self.trunk, self.ahead = trunk, ahead

    def counts(self, batch: Batch) -> dict[str, int]:
        number, length = batch.images.patches_BNF.shape[:2]
        return {"next_embedding": number * (length - 1)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        predicted_BND = self.trunk(batch.images, Reading(attention=Attention(causal=True))).tokens_BND
        target_BND = self.trunk.embed_patches(batch.images).detach()
        loss_BN = (predicted_BND.roll(self.ahead, 1) - target_BND).square().mean(-1)
        loss_BN = torch.where(torch.arange(loss_BN.shape[1]) > 0, loss_BN, torch.nan)
        return {"next_embedding": Loss(loss_BN.nansum(), (~loss_BN.isnan()).sum(), 1.0, loss_BN)}


@component("next_embedding")
class NextEmbedding(Objective):
    """Embeddings of patches, which the trunk itself makes, from the tokens ``ahead`` steps before them."""

    ahead: int = 1
    needs = frozenset({"causal", "embeddings"})

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return NextEmbeddingModule(trunk, self.ahead)


def test_targets_that_the_trunk_itself_embeds_are_no_part_of_what_it_reads() -> None:
    assert _found(NextEmbedding()) == []
    unshifted = _found(NextEmbedding(ahead=0))
    assert "image 0, step 1 reads its own target, patch (0, 1) (by gradient)" in unshifted[0]


def test_a_next_patch_objective_on_a_trunk_without_causal_attention_is_no_case() -> None:
    assert not any(case.objective.requires - case.trunk.capabilities for case in CASES)


class UnsaidModule(masking.MaskingModule):
    def forward(self, batch: Batch) -> dict[str, Loss]:
        return {name: loss._replace(per_position_BN=None) for name, loss in super().forward(batch).items()}


@component("unsaid")
class Unsaid(masking.Sound):
    """Gives no losses per step, so that nobody knows what each of them reads."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return UnsaidModule(trunk)


def test_a_loss_that_cannot_be_judged_is_not_called_causal() -> None:
    verdict = verdict_of(Case("unsaid", StandInTrunk(), Unsaid(), GRID))
    assert (verdict.word, verdict.findings) == (
        "NOT JUDGED",
        [
            f"{mode}: loss 'masked' has no per_position_BN: the check cannot decide whether it reads its own target"
            for mode in ("training", "evaluation")
        ],
    )
    for objective in (masking.Sound(), Classification(num_classes=2)):
        assert verdict_of(Case("judged", StandInTrunk(), objective, GRID)).word == "causal"


def test_a_loss_that_must_be_judged_and_cannot_is_not_called_a_leak() -> None:
    verdict = verdict_of(_case(Meddling(head=LinearHead(), prefix=None, kind="silent")))
    assert (verdict.word, verdict.is_fault) == ("NOT JUDGED", True)
    assert not verdict_of(Case("unsaid", StandInTrunk(), Unsaid(), GRID)).is_fault


def test_no_two_combinations_have_one_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.name.partition("-")[0] for case in CASES} >= {"vit.1", "vit.2"}


def _counting_forwards(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    forwards: list[object] = []
    forward = InstrumentedObjective._forward

    def counted(self: InstrumentedObjective, *args: Any) -> dict[str, Loss]:
        forwards.append(args)
        return forward(self, *args)

    monkeypatch.setattr(InstrumentedObjective, "_forward", counted)
    return forwards


def test_changed_copies_of_a_batch_go_through_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = _counting_forwards(monkeypatch)
    instrumented = InstrumentedObjective.of(next(case for case in CASES if isinstance(case.objective, Multimodal)))
    assert sorted(instrumented.losses()) == ["image", "text"]
    assert list(leaks_of(instrumented)) == []
    # The batch and the input that the trunk reads of it; for each of two losses the unchanged copies, 12 changed
    # targets, 12 changed inputs and a gradient; then the caption's tokens 1 to 5.
    assert len(forwards) == 1 + 1 + 2 * 4 + 1


class _UnevenModule(masking.MaskingModule):
    """Treats copies of a batch in one forward differently, by ``kind``."""

    kind = ""

    def forward(self, batch: Batch) -> dict[str, Loss]:
        loss = super().forward(batch)["masked"]
        assert loss.per_position_BN is not None
        number, means_B = len(loss.per_position_BN), loss.per_position_BN.nanmean(1)
        factor_B = {
            "draws per image": torch.rand(number),
            "mixes images": (means_B.square().mean() / means_B.mean().square()).expand(number),
            "counts images": torch.full((number,), float(number)),
            "favours a place": 1 + (torch.arange(number) == 4).double(),
        }[self.kind]
        scaled_BN = loss.per_position_BN * factor_B[:, None]
        return {"masked": loss._replace(per_position_BN=scaled_BN, sum=scaled_BN.nansum())}


@component("uneven")
class Uneven(masking.Sound):
    """Masks pixels, and scales the losses in a way that depends on the batch."""

    kind: str = ""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = _UnevenModule(trunk)
        module.kind = self.kind
        return module


@pytest.mark.parametrize("kind", ["draws per image", "mixes images", "counts images", "favours a place"])
@pytest.mark.parametrize("of_input", [False, True])
def test_changed_copies_that_one_forward_would_change_go_through_their_own(kind: str, of_input: bool) -> None:
    instrumented = InstrumentedObjective.of(Case("uneven", StandInTrunk(), Uneven(kind=kind), GRID))
    copies = [with_changed_patch(instrumented.batch, patch) for patch in range(12)]
    found_CBS = instrumented.losses_of_copies("masked", copies, of_input=of_input)
    for copy, found_BS in zip(copies, found_CBS, strict=True):
        read = instrumented.read_of(copy) if of_input else None
        alone_BS = instrumented.per_position("masked", None if of_input else copy, read)
        torch.testing.assert_close(found_BS, alone_BS, rtol=0, atol=0, equal_nan=True)


def test_the_cases_ask_each_component_for_its_examples_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[type] = []

    def examples(cls: type[LinearHead]) -> list[LinearHead]:
        asked.append(cls)
        return [LinearHead()]

    monkeypatch.setattr(LinearHead, "examples", classmethod(examples))
    assert [case.name for case in installed_cases()] == [case.name for case in CASES]
    assert asked == [LinearHead]
