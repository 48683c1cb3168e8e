"""A grid whose settings are known beforehand: setting g always says class g."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from aimcore import LabelledFeatures
from aimcore_probes import AttentiveProbe, LinearProbe
from aimcore_probes.grid import FittedGrid, GridModule, fit_grid
from aimcore_probes.grid_probe import GridProbe
from aimcore_probes.samples import samples_of

# Rates so small that nothing changes.
HOW = LinearProbe(
    learning_rates=(1e-9, 2e-9, 3e-9), min_lr=0.0, weight_decay=0.0, epochs=1, batch_size=4, gradient_clipping=None
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


def _fit(
    module: Stubborn, train: LabelledFeatures, held_out: LabelledFeatures, how: GridProbe = HOW, seed: int = 0
) -> FittedGrid:
    return fit_grid(
        how.training_for(len(train.labels)),
        module,
        samples_of(train),
        samples_of(held_out),
        torch.Generator().manual_seed(seed),
    )


TRAIN = _labelled([0, 0, 0, 0, 0, 0, 1, 2, 1, 2])
HELD_OUT = _labelled([2, 2, 0, 1, 2])


def test_the_best_setting_on_held_out_samples_is_chosen_though_another_is_best_on_training_samples() -> None:
    fitted = _fit(Stubborn(), TRAIN, HELD_OUT)
    assert fitted.choice == {
        "learning_rate": 3e-9,
        "weight_decay": 0.0,
        "held_out_top1": 0.6,
        "grid": {"1e-09": 0.2, "2e-09": 0.2, "3e-09": 0.6},
    }
    assert fitted.predict(torch.zeros(2, 1)).tolist() == [2, 2]


def test_of_equally_good_settings_the_first_is_chosen() -> None:
    fitted = _fit(Stubborn(), TRAIN, _labelled([0, 1]))
    assert fitted.choice["learning_rate"] == 1e-9


def test_an_epoch_shows_whole_batches_of_different_samples_each_time() -> None:
    module = Stubborn()
    _fit(module, TRAIN, HELD_OUT, attrs.evolve(HOW, epochs=2))
    batches = [samples for training, samples in module.batches if training]
    assert [len(samples) for samples in batches] == [4, 4, 4, 4]
    first, second = {*batches[0], *batches[1]}, {*batches[2], *batches[3]}
    assert (len(first), len(second)) == (8, 8)
    assert batches[0] != batches[2]


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    module = Stubborn()
    _fit(module, _labelled([0, 1, 2]), HELD_OUT)
    assert [len(samples) for training, samples in module.batches if training] == [3]


def test_predictions_are_made_in_evaluation_mode() -> None:
    module = Stubborn()
    _fit(module, TRAIN, HELD_OUT)
    assert module.batches[-1] == (False, [0.0, 1.0, 2.0, 3.0, 4.0])


def test_every_decay_is_tried_with_every_rate() -> None:
    how = AttentiveProbe(learning_rates=(1e-9, 2e-9), weight_decays=(0.0, 0.5), min_lr=0.0, batch_size=4, epochs=1)

    class Four(Stubborn):
        def __init__(self) -> None:
            super().__init__()
            self.bias_GC = nn.Parameter(torch.eye(3)[[0, 1, 2, 0]])

        def forward(self, features: Tensor) -> Tensor:
            return self.bias_GC.expand(len(features), 4, 3)

    choice = _fit(Four(), TRAIN, HELD_OUT, how).choice
    assert (choice["learning_rate"], choice["weight_decay"]) == (1e-9, 0.5)
    assert choice["grid"] == {
        "1e-09 (decay 0)": 0.2,
        "2e-09 (decay 0)": 0.2,
        "1e-09 (decay 0.5)": 0.6,
        "2e-09 (decay 0.5)": 0.2,
    }
