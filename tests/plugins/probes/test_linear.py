"""The linear probe: what it learns, chooses and refuses."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor, nn

from aimcore import InvalidValue, LabelledFeatures
from aimcore_probes import LinearProbe
from aimcore_probes.grid import FittedGrid, learning_rate
from aimcore_probes.linear_module import LinearGrid


def _samples(num_samples: int, seed: int, noise: float = 0.3, num_classes: int = 3) -> LabelledFeatures:
    """Clouds around one centre per class, off the origin and badly scaled."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % num_classes
    centers = torch.eye(num_classes, 8)
    features = centers[labels] + noise * torch.randn(num_samples, 8, generator=generator)
    return LabelledFeatures(features=100 * features + 1000, labels=labels, num_classes=num_classes)


def _fit(probe: LinearProbe, noise: float = 0.3, seed: int = 0) -> FittedGrid:
    fitted = probe.fit(_samples(90, 1, noise), _samples(60, 2, noise), seed)
    assert isinstance(fitted, FittedGrid)
    fitted.module.cpu()  # it trains on a GPU if there is one
    return fitted


def _parameters(fitted: FittedGrid, setting: int) -> list[Tensor]:
    return [parameter.detach()[setting] for parameter in fitted.module.parameters()]


def test_it_separates_what_is_separable() -> None:
    train, held_out, test = (
        _samples(num_samples, seed=seed, noise=0.05) for seed, num_samples in enumerate((600, 60, 60))
    )
    fitted = LinearProbe(batch_size=32, epochs=50).fit(train, held_out, 0)
    assert fitted.choice["held_out_top1"] == 1.0
    assert torch.equal(fitted.predict(test.features), test.labels)


@pytest.mark.parametrize("clipping", [None, 0.05])
def test_training_all_rates_in_one_pass_equals_training_each_alone(clipping: float | None) -> None:
    probe = LinearProbe(epochs=5, batch_size=16, gradient_clipping=clipping)
    together = _fit(probe)
    for setting, rate in enumerate(probe.learning_rates):
        alone = _fit(attrs.evolve(probe, learning_rates=(rate,)))
        torch.testing.assert_close(_parameters(together, setting), _parameters(alone, 0), rtol=0, atol=1e-6)


def test_it_trains_as_a_plain_torch_loop_does() -> None:
    probe = LinearProbe(learning_rates=(0.01,), epochs=3, warmup_epochs=1, batch_size=40, gradient_clipping=0.2)
    train = _samples(90, 1)
    generator = torch.Generator().manual_seed(7)
    norm, linear = nn.BatchNorm1d(8, eps=1e-6, affine=False), nn.Linear(8, 3)
    linear.weight.data, linear.bias.data = torch.zeros(3, 8), torch.zeros(3)
    groups = [{"params": [linear.weight]}, {"params": [linear.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=0.1)
    # Two whole batches of 40 per epoch; one epoch of warm-up, then half a cosine over four steps.
    rates = iter([0.005, 0.01, *(1e-5 + (0.01 - 1e-5) * share for share in (1.0, 0.8535534, 0.5, 0.1464466))])
    for _ in range(3):
        order = torch.randperm(90, generator=generator)
        for index in (order[:40], order[40:80]):
            for group in optimizer.param_groups:
                group["lr"] = next(rates) if group is optimizer.param_groups[0] else optimizer.param_groups[0]["lr"]
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(norm(train.features[index])), train.labels[index]).backward()
            nn.utils.clip_grad_norm_(linear.parameters(), 0.2)
            optimizer.step()
    fitted = _fit(probe, seed=7)
    torch.testing.assert_close(_parameters(fitted, 0), [linear.weight.data, linear.bias.data], rtol=0, atol=1e-6)
    norm.eval()
    held = _samples(60, 2).features
    torch.testing.assert_close(fitted.module(held)[:, 0], linear(norm(held)), rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_probe_and_another_seed_another() -> None:
    probe = LinearProbe(epochs=2, batch_size=16)
    one, same, other = _fit(probe), _fit(probe), _fit(probe, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(_parameters(one, 0), _parameters(same, 0), strict=True))
    assert not torch.equal(_parameters(one, 0)[0], _parameters(other, 0)[0])


def test_a_rate_warms_up_and_follows_half_a_cosine_to_the_minimum() -> None:
    rates = [learning_rate(1.0, step, num_steps=6, num_warmup=2, min_lr=0.2) for step in range(7)]
    # 0.2 + 0.8 (1 + cos(pi k / 4)) / 2 for k = 0 .. 4.
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.8828427, 0.6, 0.3171573, 0.2])


def test_each_setting_has_logits_of_its_own() -> None:
    module = LinearGrid(4, 2, 3).eval()
    with torch.no_grad():
        module.bias_GC += torch.arange(6.0).reshape(3, 2)
    logits = module(torch.zeros(5, 4))
    assert logits.shape == (5, 3, 2)
    assert torch.equal(logits[0], torch.arange(6.0).reshape(3, 2))


def test_it_reads_the_last_six_blocks_or_all_of_a_shallow_trunk() -> None:
    assert LinearProbe().layers_of(24) == (18, 19, 20, 21, 22, 23)
    assert LinearProbe().layers_of(4) == (0, 1, 2, 3)


def test_its_defaults_are_those_of_table_11() -> None:
    probe = LinearProbe()
    assert [round(rate * 1e4, 9) for rate in probe.learning_rates] == [1, 3, 5, 10, 15, 20, 40]
    assert (probe.min_lr, probe.weight_decay, probe.betas, probe.gradient_clipping) == (1e-5, 0.1, (0.9, 0.999), 3.0)
    assert (probe.epochs, probe.warmup_epochs, probe.batch_size) == (100, 0, 512)


def test_labels_beyond_the_classes_are_refused() -> None:
    wrong = attrs.evolve(_samples(9, 0), num_classes=2)
    with pytest.raises(InvalidValue, match=r"train: labels must lie in \[0, 1\], got 0 to 2"):
        LinearProbe().fit(wrong, _samples(9, 0), 0)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        LinearProbe().fit(_samples(1, 0), _samples(0, 0), 0)
    assert [path for path, _ in caught.value.problems] == ["train", "held_out"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rates", ()),
        ("learning_rates", (1e-3, 1e-3)),
        ("learning_rates", (1e-6,)),
        ("min_lr", -1.0),
        ("weight_decay", -0.1),
        ("betas", (0.9, 1.0)),
        ("epochs", 0),
        ("warmup_epochs", 100),
        ("batch_size", 1),
        ("gradient_clipping", 0.0),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        LinearProbe(**{field: value})  # type: ignore[arg-type]
    assert field in [path for path, _ in caught.value.problems]
