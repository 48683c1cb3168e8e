"""The contrast's numbers: a temperature that finds its way back, and logits of full precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aimcore.testing.fixtures import batch_for, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_objectives import Contrastive
from aimcore_objectives.contrastive import ContrastiveModule
from aimcore_objectives.contrastive_loss import sigmoid_loss, softmax_loss
from aimcore_objectives.logit_scale import LogitScale

INSIDE, ABOVE, BELOW = math.log(10), math.log(100) + 0.5, -0.5


def module_of(objective: Contrastive) -> ContrastiveModule:
    with seeded():
        return objective.build(StandInTrunk().build())


def gradient_at(log_scale: float, wanted: float) -> float:
    """Of the log scale, where a similarity of 1/4 has a logit whose gradient is ``wanted``."""
    scale = LogitScale(log_scale, bounded=True)
    scale(torch.tensor([0.25])).backward(torch.tensor([wanted]))
    assert scale.log_scale.grad is not None
    return scale.log_scale.grad.item()


@pytest.mark.parametrize(("log_scale", "expected"), [(BELOW, 1.0), (0.0, 1.0), (ABOVE, 100.0), (1e3, 100.0)])
def test_the_scale_stays_between_one_and_a_hundred_to_the_last_bit(log_scale: float, expected: float) -> None:
    assert LogitScale(log_scale, bounded=True)(torch.ones(1)).item() == expected


def test_the_largest_scale_is_a_hundred_where_rounding_would_make_it_more() -> None:
    assert torch.tensor(math.log(100)).exp() > 100
    assert LogitScale(math.log(100), bounded=True)(torch.ones(1)).item() == 100.0


# d logit / d log scale is similarity times scale: 1/4 of 10, of 100, and of 1.
@pytest.mark.parametrize(
    ("log_scale", "wants_smaller", "wants_larger"), [(INSIDE, 2.5, -2.5), (ABOVE, 25.0, 0.0), (BELOW, 0.0, -0.25)]
)
def test_beyond_a_bound_the_gradients_that_lead_back_pass(
    log_scale: float, wants_smaller: float, wants_larger: float
) -> None:
    assert gradient_at(log_scale, 1.0) == pytest.approx(wants_smaller)
    assert gradient_at(log_scale, -1.0) == pytest.approx(wants_larger)


def test_one_step_too_far_does_not_fix_the_temperature() -> None:
    scale = LogitScale(ABOVE, bounded=True)
    optimizer = torch.optim.SGD(scale.parameters(), lr=1e-4)
    for _ in range(200):
        optimizer.zero_grad()
        (scale(torch.ones(1)) - 50).square().sum().backward()
        optimizer.step()
    assert scale(torch.ones(1)).item() == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("log_scale", [4.7215, -0.5])
def test_thesigmoid_loss_has_no_bound_on_its_scale(log_scale: float) -> None:
    module = module_of(Contrastive.examples()[1])
    with torch.no_grad():
        module.scale.log_scale.fill_(log_scale)
    # Two pairs: similarities 0.3 and 0.2 of those that belong together, 0.1 and 0 of the others.
    text_BE = torch.tensor([[0.3, 0.1], [0.0, 0.2]])
    total = sigmoid_loss(module.scale, torch.eye(2), text_BE, gather=False)
    total.backward()
    # By hand, with released SigLIP's scale of exp(4.7215) = 112.336 and with one below 1: the loss of a pair is
    # log(1 + exp(-z)) with z = sign * (scale * similarity + bias), and dz / d log scale = sign * scale * similarity.
    scale, signed = math.exp(log_scale), ((0.3, 1), (0.0, -1), (0.1, -1), (0.2, 1))
    margins = [sign * (scale * similarity - 10) for similarity, sign in signed]
    slopes = [sign * scale * similarity for similarity, sign in signed]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins)
    gradient = sum(-slope / (1 + math.exp(margin)) for margin, slope in zip(margins, slopes, strict=True))
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert module.scale.log_scale.grad is not None
    assert module.scale.log_scale.grad.item() == pytest.approx(gradient, rel=1e-4)


def wish(*margins: float) -> float:
    """A softmax's wish of the log scale, where the right logit lies so far above the only other one."""
    return -sum(margin / (1 + math.exp(margin)) for margin in margins)


# The images' margins are 1 and 1: they want the scale larger. The captions want it smaller, the more so at first.
@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (((0.0, -1.0), (-3.0, -2.0)), (wish(1, 1) + wish(3, -1)) / 2),
        (((0.0, -1.0), (-2.5, -1.5)), 0.0),
    ],
)
def test_both_directions_of_the_softmax_ask_the_temperature_together(logits: tuple, expected: float) -> None:
    scale = LogitScale(ABOVE, bounded=True)
    softmax_loss(scale, torch.eye(2), torch.tensor(logits).T / 100, gather=False).backward()
    assert scale.log_scale.grad is not None
    assert scale.log_scale.grad.item() == pytest.approx(expected, abs=1e-6)
    assert wish(1, 1) < 0 < wish(2.5, -0.5) < wish(3, -1)


def loss_and_gradients(loss: Callable[..., Tensor], *, autocast: bool) -> list[Tensor]:
    """Of float32 embeddings, the loss itself first, and of the log scale, last."""
    with seeded(5):
        image_BE, text_BE = (functional.normalize(torch.randn(5, 8), dim=-1).requires_grad_() for _ in range(2))
    scale = LogitScale(math.log(50), bounded=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = loss(scale, image_BE, text_BE, gather=False)
    return [total.detach(), *torch.autograd.grad(total, (image_BE, text_BE, scale.log_scale))]


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_logits_are_not_rounded_under_autocast(loss: Callable[..., Tensor]) -> None:
    found, expected = (loss_and_gradients(loss, autocast=autocast) for autocast in (True, False))
    assert {one.dtype for one in found} == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_bfloat16_weights_scale_in_float32() -> None:
    scale = LogitScale(2.0, -10.0, bounded=False).bfloat16()
    logits = scale(torch.full((1,), 0.3))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.tensor([0.3]) * math.exp(2.0) - 10)


@pytest.mark.parametrize("objective", Contrastive.examples())
def test_float64_stays_float64(objective: Contrastive) -> None:
    module, batch = module_of(objective).double(), batch_for(objective, random_images())
    assert batch.text is not None
    assert module.embed_images(batch.images).dtype == module.embed_texts(batch.text).dtype == torch.float64
    assert module(batch)["contrastive"].sum.dtype == torch.float64
