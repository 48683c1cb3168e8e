"""The linear probe of all tokens, and how long probes train on few images."""

from __future__ import annotations

import pytest
import torch

from aimcore import InvalidValue, LabelledFeatures
from aimcore_probes import LinearProbe, LinearTokensProbe


def mirrored(num: int, seed: int) -> LabelledFeatures:
    """Two tokens per image: the first is large in class 0, the second in class 1, so that their means are equal."""
    labels = torch.arange(num) % 2
    tokens = 0.1 * torch.randn(num, 2, 3, generator=torch.Generator().manual_seed(seed))
    tokens[torch.arange(num), labels] += 1
    return LabelledFeatures(features=tokens, labels=labels, num_classes=2)


def test_it_separates_images_whose_mean_tokens_are_the_same() -> None:
    train, held_out, test = (mirrored(num, seed) for seed, num in enumerate((80, 20, 200)))
    fitted = LinearTokensProbe(epochs=20, batch_size=16).fit(train, held_out, 0)
    assert torch.equal(fitted.predict(test.features), test.labels)


def test_it_equals_the_linear_probe_on_flattened_tokens() -> None:
    train, held_out = mirrored(40, 0), mirrored(20, 1)
    flat = [LabelledFeatures(one.features.flatten(1), one.labels, 2) for one in (train, held_out)]
    tokens = LinearTokensProbe(epochs=3, batch_size=16).fit(train, held_out, 0)
    pooled = LinearProbe(epochs=3, batch_size=16).fit(*flat, 0)
    assert tokens.choice == pooled.choice
    assert torch.equal(tokens.predict(held_out.features), pooled.predict(flat[1].features))


@pytest.mark.parametrize(
    ("num_images", "epochs", "warmup"),
    [
        (64, 25, 5),  # four batches of 16 per epoch: 25 epochs are 100 steps
        (40, 50, 10),  # two whole batches per epoch
        (8, 100, 20),  # fewer images than a batch: one step per epoch
        (1600, 10, 2),  # 100 batches per epoch: as many epochs as without min_steps
    ],
)
def test_few_images_are_passed_over_more_often(num_images: int, epochs: int, warmup: int) -> None:
    how = LinearProbe(epochs=10, warmup_epochs=2, batch_size=16, min_steps=100).training_for(num_images)
    assert (how.epochs, how.warmup_epochs) == (epochs, warmup)


def test_without_a_least_number_of_steps_epochs_are_those_of_the_protocol() -> None:
    assert LinearProbe(epochs=10).training_for(8).epochs == 10


def test_few_images_are_learnt_only_with_enough_steps() -> None:
    train, held_out, test = (mirrored(num, seed) for seed, num in enumerate((8, 4, 200)))
    short, long = (
        LinearTokensProbe(learning_rates=(1e-3,), min_lr=0.0, epochs=1, min_steps=steps).fit(train, held_out, 0)
        for steps in (0, 500)
    )
    # One step of Adam moves every weight by 0.001; the loss is still about ln 2.
    weights = [fitted.module.weight_GCD.abs().max().item() for fitted in (short, long)]  # type: ignore[attr-defined]
    assert weights[0] == pytest.approx(1e-3, rel=1e-3)
    assert weights[1] > 0.05
    assert (long.predict(test.features) == test.labels).float().mean() > 0.95


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(InvalidValue, match="min_steps: must be at least 0"):
        LinearTokensProbe(min_steps=-1)
