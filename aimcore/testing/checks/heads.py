"""Checks of heads: predictions at the requested positions, which see no more than attention allows.

Shape suffixes: B batch, N tokens in reading order, D width, M scored positions, K outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aimcore.contracts.features import CAUSAL, Attention, Features, Reading
from aimcore.contracts.heads import Head, HeadModule
from aimcore.modeling.attention import mask_of
from aimcore.testing.checks import Check, modules
from aimcore.testing.fixtures import GRID, NUM_IMAGES, batch_of, random_features, random_images
from aimcore.testing.requirements import TOLERANCE, explained, require, same, seeded, shape_of
from aimcore.testing.short_training import trains_alike_at_stages_0_and_3
from aimcore.testing.small_parts import StandInObjectiveModule, StandInTrunk

_WIDTH, _OUTPUTS = 16, 10
_EVERYWHERE = torch.arange(NUM_IMAGES * GRID.num_patches)


def check_predictions_are_one_row_per_scored_position(head: Head) -> None:
    """``[M, K]``, also where M is 0 or 1."""
    for where_M in (_EVERYWHERE, _EVERYWHERE[5:6], _EVERYWHERE[:0]):
        with explained(f"fails for {len(where_M)} scored positions"):
            found = _forward(_built(head), where_M)
        require(
            found.shape == (len(where_M), _OUTPUTS),
            f"predictions at {len(where_M)} positions must be [{len(where_M)}, {_OUTPUTS}], got {shape_of(found)}",
        )


def check_a_prediction_depends_on_its_own_position_alone(head: Head) -> None:
    """A position's prediction is independent of the other requested positions and their order."""
    module, few_M = _built(head), torch.tensor([17, 3, 30])
    everywhere, few = _forward(module, _EVERYWHERE).flatten(1), _forward(module, few_M).flatten(1)
    require(same(few, everywhere[few_M]), "the prediction at a position depends on what else is in where_M")


def check_a_prediction_reads_the_token_at_its_position(head: Head) -> None:
    """Row m is predicted from the token at ``where_M[m]``."""
    seen_BQN = _reads(_built(head), CAUSAL)
    own = seen_BQN.diagonal(dim1=1, dim2=2).all()
    require(bool(own), "the prediction at a position does not depend on the token there: use features.at(where_M)")


def check_it_sees_no_more_than_its_attention_allows(head: Head) -> None:
    """Causal, prefix-causal and padded attention restrict the head like the trunk."""
    valid_BN = torch.ones(NUM_IMAGES, GRID.num_patches, dtype=torch.bool)
    valid_BN[:, -2:] = False
    kinds = {
        "causal": CAUSAL,
        "prefix-causal": Attention(causal=True, prefix_length_B=torch.tensor([1, 5, 12])),
        "padded": Attention(valid_BN=valid_BN),
    }
    for name, attention in kinds.items():
        seen_BQN = _reads(_built(head), attention)
        allowed = mask_of(attention, GRID.num_patches, torch.device("cpu")).allowed
        assert allowed is not None
        if attention.valid_BN is not None:
            seen_BQN = seen_BQN & attention.valid_BN[..., None]  # nothing is predicted from padding
        leaks = (seen_BQN & ~allowed[:, 0]).nonzero().tolist()
        require(
            not leaks,
            f"under {name} attention the prediction at step {leaks[0][1] if leaks else ''} reads the token of step "
            f"{leaks[0][2] if leaks else ''}: mix tokens under aimcore.modeling.attention.mask_of(attention, ...) only",
        )


def check_images_do_not_mix(head: Head) -> None:
    """An image's predictions do not depend on the other images of its batch."""
    module, features = _built(head), random_features(_WIDTH)
    tokens_BND = features.tokens_BND.clone()
    tokens_BND[1:] = 2 * tokens_BND[1:].flip(-1) + 1
    first_M = _EVERYWHERE[: GRID.num_patches]
    alike = same(_forward(module, first_M), _forward(module, first_M, features._replace(tokens_BND=tokens_BND)))
    require(alike, "an image's predictions depend on the other images of its batch, in evaluation mode")


def check_weights_follow_torchs_seed(head: Head) -> None:
    """``build`` draws fresh weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(lambda: head.build(_WIDTH, _OUTPUTS))


def check_what_it_accepts_can_be_built(head: Head) -> None:
    """Numbers that ``problems()`` does not refuse do not fail later, when the module is built."""
    modules.what_is_accepted_can_be_built(head, lambda changed: changed.build(_WIDTH, _OUTPUTS))


def check_nothing_is_random_in_evaluation(head: Head) -> None:
    """In evaluation mode the same features give the same predictions."""
    module, features = _built(head), random_features(_WIDTH)
    modules.nothing_is_random_in_evaluation(lambda: module(features, CAUSAL, _EVERYWHERE))


def check_every_weight_is_trained(head: Head) -> None:
    """Every trainable weight gets a gradient."""
    module = _built(head).train()
    modules.every_weight_is_trained(module, _forward(module, _EVERYWHERE).sum())


def check_its_parts_return_tensors(head: Head) -> None:
    """Every part returns tensors, NamedTuples or dicts of them: ZeRO stage 3 sees no others."""
    module = _built(head)
    with modules.collect_opaque_outputs(module) as unseen:
        _forward(module, _EVERYWHERE)
    modules.require_visible_outputs(unseen)


def check_features_are_left_as_they_were(head: Head) -> None:
    """Nothing is changed in place: other heads read the same features."""
    features = random_features(_WIDTH)
    before = [part.clone() for part in features[:3]]
    _forward(_built(head), _EVERYWHERE, features)
    unchanged = all(torch.equal(one, other) for one, other in zip(features[:3], before, strict=True))
    require(unchanged, "forward changes the features in place: work on a copy")


def check_a_dry_run_can_count_it(head: Head) -> None:
    """It is built and run without numbers (on the meta device), as ``--dry-run`` needs."""
    features = random_features(_WIDTH)
    with explained("fails without numbers: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        with torch.device("meta"):
            module = head.build(_WIDTH, _OUTPUTS)
        tokens_BND, positions_BN2, valid_BN = (part.to("meta") for part in features[:3])
        module(Features(tokens_BND.float(), positions_BN2, valid_BN), CAUSAL, _EVERYWHERE.to("meta"))


def check_it_trains_alike_at_zero_stages_0_and_3(head: Head) -> None:
    """Two steps at ZeRO stage 3 give the losses of stage 0: its weights are used where stage 3 gathers them."""

    def build() -> StandInObjectiveModule:
        trunk = StandInTrunk().build()
        return StandInObjectiveModule(trunk, head.build(trunk.width, _OUTPUTS), Reading(attention=CAUSAL))

    trains_alike_at_stages_0_and_3(build, batch_of(random_images(number=4)))


CHECKS: tuple[Check, ...] = (
    check_predictions_are_one_row_per_scored_position,
    check_a_prediction_depends_on_its_own_position_alone,
    check_a_prediction_reads_the_token_at_its_position,
    check_it_sees_no_more_than_its_attention_allows,
    check_images_do_not_mix,
    check_weights_follow_torchs_seed,
    check_what_it_accepts_can_be_built,
    check_nothing_is_random_in_evaluation,
    check_every_weight_is_trained,
    check_its_parts_return_tensors,
    check_features_are_left_as_they_were,
    check_a_dry_run_can_count_it,
    check_it_trains_alike_at_zero_stages_0_and_3,
)


def _built(head: Head) -> HeadModule:
    with seeded():
        module: HeadModule = modules.ready(head.build(_WIDTH, _OUTPUTS))
    return module


def _forward(
    module: HeadModule, where_M: Tensor, features: Features | None = None, attention: Attention = CAUSAL
) -> Any:
    with seeded():
        return module(features or random_features(_WIDTH), attention, where_M)


def _reads(module: HeadModule, attention: Attention) -> Tensor:
    """``[B, Q, N]`` bool: whether the prediction at step q of an image has a gradient in its token n."""
    features = random_features(_WIDTH)
    leaf_BND = features.tokens_BND.requires_grad_()
    predictions_BQK = _forward(module, _EVERYWHERE, features, attention).reshape(NUM_IMAGES, GRID.num_patches, -1)
    rows = []
    for step in range(GRID.num_patches):
        # A fixed uneven weighting: plain sums of normalised outputs would have no gradient.
        weights_K = torch.arange(1.0, 1 + predictions_BQK.shape[-1], dtype=torch.float64)
        (gradient,) = torch.autograd.grad((predictions_BQK[:, step] * weights_K).sum(), leaf_BND, retain_graph=True)
        rows.append((gradient.abs() > TOLERANCE).any(-1))
    return torch.stack(rows, dim=1)
