"""Checks of decoders: what predictions depend on, and generation.

Shape suffixes: B batch, N patches, D width, M scored positions, K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.decoders import Decoded, Decoder, DecoderModule
from aimcore.contracts.features import CAUSAL, Features
from aimcore.testing.checks import Check, modules
from aimcore.testing.fixtures import GRID, NUM_IMAGES, random_features
from aimcore.testing.requirements import differs, require, seeded, shape_of

_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT = 16, 10, 32, 6
_PATCHES = torch.arange(NUM_IMAGES * GRID.num_patches)
_TOKENS = torch.arange(NUM_IMAGES * _CONTEXT)


def check_predictions_are_one_row_per_position(decoder: Decoder) -> None:
    """Patch predictions are ``[M, K]`` and token logits ``[M, V]``, at the requested positions, in their order."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    tokens_M = torch.tensor([7, 2])
    with seeded():
        logits_MV = module(features, CAUSAL, text, None, tokens_M).logits_MV
    good = logits_MV is not None and logits_MV.shape == (2, _VOCABULARY)
    require(good, f"token logits must be [2, {_VOCABULARY}], got {shape_of(logits_MV)}")
    same = not differs(logits_MV, _logits(module, decoder, features, text).flatten(0, 1)[tokens_M]).any()
    require(same, "token logits are not those of the requested positions, in their order")
    if decoder.predicts_patches:
        patches_MK = module(features, CAUSAL, text, torch.tensor([5]), tokens_M).patches_MK
        good = patches_MK is not None and patches_MK.shape == (1, _OUTPUTS)
        require(good, f"patch predictions must be [1, {_OUTPUTS}], got {shape_of(patches_MK)}")


def check_no_token_sees_itself_or_a_later_one(decoder: Decoder) -> None:
    """Logits of token t depend on earlier tokens, but not on token t or later ones."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    before_BTV = _logits(module, decoder, features, text)
    for position in range(_CONTEXT):
        ids_BT = text.ids_BT.clone()
        ids_BT[:, position] = (ids_BT[:, position] + 1) % _VOCABULARY
        after_BTV = _logits(module, decoder, features, attrs.evolve(text, ids_BT=ids_BT))
        changed_T = differs(before_BTV, after_BTV).any(-1).any(0)
        seen = changed_T[: position + 1].nonzero().flatten().tolist()
        require(not seen, f"logits of tokens {seen} change with token {position}: they see their answer")
        blind = position + 1 < _CONTEXT and not changed_T[position + 1 :].any()
        require(not blind, f"no logits after token {position} change with it: the caption is not read")


def check_patches_see_no_text_and_no_later_patch(decoder: Decoder) -> None:
    """The prediction at a step depends only on image features up to that step."""
    if not decoder.predicts_patches:
        return
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    before_BNK = _patches(module, decoder, features, text)
    other = attrs.evolve(text, ids_BT=(text.ids_BT + 1) % _VOCABULARY)
    require(not differs(before_BNK, _patches(module, decoder, features, other)).any(), "patch predictions see text")
    for step in range(1, GRID.num_patches):
        changed = differs(before_BNK, _patches(module, decoder, _changed(features, step), text))
        require(not changed[:, :step].any(), f"predictions at earlier steps change with the features at step {step}")


def check_captions_read_their_own_image(decoder: Decoder) -> None:
    """Logits depend on the features of their image."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    before_BTV = _logits(module, decoder, features, text)
    after_BTV = _logits(module, decoder, _with_another_image(features, 0), text)
    require(bool(differs(before_BTV, after_BTV)[0].any()), "logits do not depend on the image")


def check_samples_never_mix(decoder: Decoder) -> None:
    """Predictions of a sample do not depend on other images or captions, in training, ``step`` and ``follow``."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    # The sample in the middle changes: this reveals a decoder that reads the sample before or after.
    ids_BT = text.ids_BT.clone()
    ids_BT[1] = (ids_BT[1] + 1) % _VOCABULARY
    other = (_with_another_image(features, 1), attrs.evolve(text, ids_BT=ids_BT))
    before, after = _all_predictions(module, decoder, features, text), _all_predictions(module, decoder, *other)
    for name in before:
        changed_B = differs(before[name], after[name]).flatten(1).any(1)
        require(not changed_B[[0, 2]].any(), f"{name} of a sample change with another sample's image and caption")


def check_generation_agrees_with_training(decoder: Decoder) -> None:
    """``start`` and ``step`` return the logits of the whole caption; a decoder may implement neither."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    whole_BTV = _logits(module, decoder, features, text)
    try:
        logits_BV, state = module.start(features, CAUSAL)
    except NotImplementedError:
        return
    for position in range(_CONTEXT):
        wrong = differs(logits_BV, whole_BTV[:, position]).any()
        require(not wrong, f"generating token {position} has other logits than training")
        if position + 1 < _CONTEXT:
            logits_BV, state = module.step(text.ids_BT[:, position], state)


def check_weights_follow_torchs_seed(decoder: Decoder) -> None:
    """``build`` draws fresh weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(lambda: decoder.build(_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT))


def check_nothing_is_random_in_evaluation(decoder: Decoder) -> None:
    """In evaluation mode the same features and captions give the same logits."""
    module, features, text = _built(decoder), random_features(_WIDTH), _text()
    modules.nothing_is_random_in_evaluation(lambda: module(features, CAUSAL, text, None, _TOKENS).logits_MV)


CHECKS: tuple[Check, ...] = (
    check_predictions_are_one_row_per_position,
    check_no_token_sees_itself_or_a_later_one,
    check_patches_see_no_text_and_no_later_patch,
    check_captions_read_their_own_image,
    check_samples_never_mix,
    check_generation_agrees_with_training,
    check_weights_follow_torchs_seed,
    check_nothing_is_random_in_evaluation,
)


def _built(decoder: Decoder) -> DecoderModule:
    with seeded():
        module: DecoderModule = modules.ready(decoder.build(_WIDTH, _OUTPUTS, _VOCABULARY, _CONTEXT))
    return module


def _text() -> Text:
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(_VOCABULARY, (NUM_IMAGES, _CONTEXT), generator=generator)
    return Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool))


@torch.no_grad()
def _decoded(module: DecoderModule, decoder: Decoder, features: Features, text: Text) -> Decoded:
    with seeded():
        decoded: Decoded = module(features, CAUSAL, text, _PATCHES if decoder.predicts_patches else None, _TOKENS)
    return decoded


def _logits(module: DecoderModule, decoder: Decoder, features: Features, text: Text) -> Tensor:
    logits_MV = _decoded(module, decoder, features, text).logits_MV
    assert logits_MV is not None
    return logits_MV.reshape(NUM_IMAGES, _CONTEXT, -1)


def _patches(module: DecoderModule, decoder: Decoder, features: Features, text: Text) -> Tensor:
    patches_MK = _decoded(module, decoder, features, text).patches_MK
    assert patches_MK is not None
    return patches_MK.reshape(NUM_IMAGES, GRID.num_patches, -1)


def _all_predictions(module: DecoderModule, decoder: Decoder, features: Features, text: Text) -> dict[str, Tensor]:
    """All predictions by their names in messages; the first axis is samples."""
    found = {"token logits": _logits(module, decoder, features, text)}
    if decoder.predicts_patches:
        found["patch predictions"] = _patches(module, decoder, features, text)
    return found | _generated(module, features, text)


@torch.no_grad()
def _generated(module: DecoderModule, features: Features, text: Text) -> dict[str, Tensor]:
    """Logits token by token, and of all tokens after the first at once; empty if the decoder generates no text."""
    with seeded():
        try:
            logits_BV, state = module.start(features, CAUSAL)
        except NotImplementedError:
            return {}
        follow_BMV = module.follow(text.ids_BT[:, :-1], state)
        found = [logits_BV]
        for ids_B in text.ids_BT[:, :-1].unbind(1):
            logits_BV, state = module.step(ids_B, state)
            found.append(logits_BV)
    return {"logits of start and step": torch.stack(found, dim=1), "logits of follow": follow_BMV}


def _with_another_image(features: Features, sample: int) -> Features:
    tokens_BND = features.tokens_BND.clone()
    tokens_BND[sample] += 1 + tokens_BND[sample].square()
    return features._replace(tokens_BND=tokens_BND)


def _changed(features: Features, step: int) -> Features:
    tokens_BND = features.tokens_BND.clone()
    tokens_BND[:, step] += 1 + tokens_BND[:, step].square()
    return features._replace(tokens_BND=tokens_BND)
