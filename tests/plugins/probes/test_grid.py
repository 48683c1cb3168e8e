"""A grid whose settings are known beforehand: setting g always says class g."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from aimcore import LabelledFeatures
from aimcore_probes.grid import GridModule, Training, fit_grid

# Rates so small that nothing changes.
HOW = Training(
    learning_rates=(1e-9, 2e-9, 3e-9),
    min_lr=0.0,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    epochs=1,
    warmup_epochs=0,
    batch_size=4,
    gradient_clipping=None,
)


class Stubborn(GridModule):
    def __init__(self) -> None:
        super().__init__()
        self.bias_GC = nn.Parameter(torch.eye(3))
        self.batches: list[tuple[bool, list[float]]] = []

    def forward(self, features: Tensor) -> Tensor:
        self.batches.append((self.training, features[:, 0].tolist()))
        return self.bias_GC.expand(len(features), 3, 3)


def _labelled(labels: list[int]) -> LabelledFeatures:
    return LabelledFeatures(torch.arange(float(len(labels)))[:, None], torch.tensor(labels), num_classes=3)


TRAIN = _labelled([0, 0, 0, 0, 0, 0, 1, 2, 1, 2])
HELD_OUT = _labelled([2, 2, 0, 1, 2])


def test_the_best_setting_on_held_out_samples_is_chosen_though_another_is_best_on_training_samples() -> None:
    fitted = fit_grid(Stubborn(), TRAIN, HELD_OUT, HOW, torch.Generator())
    assert fitted.choice == {
        "learning_rate": 3e-9,
        "held_out_top1": 0.6,
        "grid": {"1e-09": 0.2, "2e-09": 0.2, "3e-09": 0.6},
    }
    assert fitted.predict(torch.zeros(2, 1)).tolist() == [2, 2]


def test_of_equally_good_settings_the_first_is_chosen() -> None:
    fitted = fit_grid(Stubborn(), TRAIN, _labelled([0, 1]), HOW, torch.Generator())
    assert fitted.choice["learning_rate"] == 1e-9


def test_an_epoch_shows_whole_batches_of_different_samples_each_time() -> None:
    module = Stubborn()
    fit_grid(module, TRAIN, HELD_OUT, attrs.evolve(HOW, epochs=2), torch.Generator().manual_seed(0))
    batches = [samples for training, samples in module.batches if training]
    assert [len(samples) for samples in batches] == [4, 4, 4, 4]
    first, second = {*batches[0], *batches[1]}, {*batches[2], *batches[3]}
    assert (len(first), len(second)) == (8, 8)
    assert batches[0] != batches[2]


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    module = Stubborn()
    fit_grid(module, _labelled([0, 1, 2]), HELD_OUT, HOW, torch.Generator())
    assert [len(samples) for training, samples in module.batches if training] == [3]


def test_predictions_are_made_in_evaluation_mode() -> None:
    module = Stubborn()
    fit_grid(module, TRAIN, HELD_OUT, HOW, torch.Generator())
    assert module.batches[-1] == (False, [0.0, 1.0, 2.0, 3.0, 4.0])
