"""Checks of the skills of objectives: embed and caption."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.decoders import CaptionStart, log_probabilities
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.testing.cases import Case
from aimcore.testing.fixtures import GRID
from aimcore.testing.instrumented import InstrumentedObjective
from aimcore.testing.requirements import explained, require, require_names, shape_of
from aimcore.testing.small_parts import StandInTrunk

_SKILLS = frozenset({"embed", "caption"})


def check_it_has_its_skills(objective: Objective) -> None:
    """With ``embed``, images and texts are unit vectors of one width; with ``caption``, all likelihoods agree."""
    require_names("skills", objective.skills, _SKILLS, "the skills")
    if not objective.skills:
        return
    instrumented = InstrumentedObjective.of(Case(objective.name, StandInTrunk(), objective, GRID))
    module, batch = instrumented.module.eval(), instrumented.batch
    known = sorted(_SKILLS & objective.skills)
    require(
        batch.text is not None or not known,
        f"it has the skills {known} but reads no text: return its tokenizer in text",
    )
    for skill, check in (("embed", _embeds), ("caption", _captions)):
        if skill in objective.skills:
            with explained(f"it has the skill {skill!r}, but fails to {skill}"), torch.no_grad():
                check(module, batch)


def _embeds(module: ObjectiveModule, batch: Batch) -> None:
    assert batch.text is not None
    image_BE, text_BE = module.embed_images(batch.images), module.embed_texts(batch.text)
    good = image_BE.dim() == 2 and image_BE.shape == text_BE.shape and len(image_BE) == len(batch.images.grids)
    require(good, f"embeddings must be [B, E], images' and texts' alike, got {shape_of(image_BE)}, {shape_of(text_BE)}")
    for embedded_BE, what in ((image_BE, "images"), (text_BE, "texts")):
        norm_B = embedded_BE.double().norm(dim=-1)
        require(
            bool((norm_B - 1).abs().max() < 1e-5), f"embeddings of {what} must have length 1, got {norm_B.tolist()}"
        )


def _captions(module: ObjectiveModule, batch: Batch) -> None:
    assert batch.text is not None
    start = module.caption_start(batch)
    found_B = module.caption_log_likelihoods(start, batch.text)
    stepwise_B = ObjectiveModule.caption_log_likelihoods(module, start, batch.text)
    require(
        _near(found_B, stepwise_B),
        f"caption_log_likelihoods are {found_B.tolist()}, and the tokens' log-probabilities by caption_start and "
        f"next_token add up to {stepwise_B.tolist()}",
    )
    if batch.text.ids_BT.shape[1] > 1:
        _goes_on_from_a_prompt(module, start, batch.text, found_B)
    last = torch.tensor([len(batch.images.grids) - 1])
    text = type(batch.text)(ids_BT=batch.text.ids_BT[last], valid_BT=batch.text.valid_BT[last])
    alone_B = module.caption_log_likelihoods(start.at(last), text)
    require(_near(alone_B, found_B[last]), "the likelihood of a caption depends on the other rows of the batch")


def _goes_on_from_a_prompt(module: ObjectiveModule, start: CaptionStart, text: Text, whole_B: Tensor) -> None:
    """Read the first token as a prompt: the rest of the caption has the rest of the likelihood."""
    first_B, valid_B = text.ids_BT[:, 0], text.valid_BT[:, 0]
    of_first_B = torch.where(valid_B, log_probabilities(start.logits_BV, first_B).double(), 0.0)
    after = CaptionStart(*module.next_token(first_B, start.state))
    rest = Text(ids_BT=text.ids_BT[:, 1:], valid_BT=text.valid_BT[:, 1:])
    rest_B = module.caption_log_likelihoods(after, rest)
    require(
        _near(of_first_B + rest_B, whole_B),
        f"captions whose first token is read as a prompt have the likelihoods {(of_first_B + rest_B).tolist()}, and "
        f"otherwise {whole_B.tolist()}: caption_log_likelihoods must continue from the given state",
    )


def _near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one.double() - other.double()).abs().max() < 1e-5)
