"""The attentive probe: the released numbers, the plain form it equals, what it learns and chooses."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from golden_files import assert_golden, tensors
from torch import Tensor
from torch.nn import functional

from aimcore import InvalidValue, LabelledFeatures
from aimcore_probes import AttentiveProbe
from aimcore_probes.attentive_module import AttentiveGrid, released_attentive
from aimcore_probes.grid import FittedGrid


def _marked(num_samples: int, seed: int) -> LabelledFeatures:
    """Noise, but for one token at a random place: it is marked, and tells the class. Their mean tells little."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(num_samples, 6, 16, generator=generator)
    labels = torch.arange(num_samples) % 3
    place = torch.randint(6, (num_samples,), generator=generator)
    tokens[torch.arange(num_samples), place] = 0.1 * tokens[:, 0] + 4 * torch.eye(16)[labels] + 4 * torch.eye(16)[9]
    return LabelledFeatures(features=tokens, labels=labels, num_classes=3)


def _fit(probe: AttentiveProbe, seed: int = 0) -> FittedGrid:
    fitted = probe.fit(_marked(90, 1), _marked(60, 2), seed)
    assert isinstance(fitted, FittedGrid)
    fitted.module.cpu()  # it trains on a GPU if there is one
    return fitted


def _plain(module: AttentiveGrid, tokens_bND: Tensor) -> Tensor:
    """Equation 4 as it is written, setting by setting: keys and values of every token, then attention."""
    normed_bND = module.norm(tokens_bND.transpose(1, 2)).transpose(1, 2)
    logits = []
    for query_D, key_DD, value_DD, classifier_CD in zip(*module.parameters(), strict=True):
        heads = (*normed_bND.shape[:2], module.num_heads, -1)
        key_bHNE, value_bHNE = (
            functional.linear(normed_bND, weight).reshape(heads).transpose(1, 2) for weight in (key_DD, value_DD)
        )
        query_bH1E = query_D.reshape(1, module.num_heads, 1, -1).expand(len(tokens_bND), -1, -1, -1)
        pooled_bH1E = functional.scaled_dot_product_attention(query_bH1E, key_bHNE, value_bHNE)
        logits.append(functional.linear(pooled_bH1E.flatten(1), classifier_CD))
    return torch.stack(logits, 1)


def _module(num_settings: int = 3, num_heads: int = 4) -> AttentiveGrid:
    """Settings that differ, with queries large enough to attend unevenly."""
    generator = torch.Generator().manual_seed(0)
    module = AttentiveGrid(16, 5, num_settings, num_heads, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return module


def test_it_gives_the_released_logits() -> None:
    weights, known = tensors("aim_v1.weights"), tensors("aim_v1.io")
    probe = released_attentive(weights, num_heads=4)
    tokens_BND = (known["block_1"] + known["block_2"]) / 2
    with torch.no_grad():
        assert_golden(probe(tokens_BND)[:, 0], known["logits"])


@pytest.mark.parametrize("training", [True, False])
def test_folding_the_query_and_pooling_before_the_values_change_nothing(training: bool) -> None:
    module = _module().double().train(training)
    tokens_bND = 3 * torch.randn(7, 9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 5
    ours, plain = module(tokens_bND), _plain(module, tokens_bND)
    torch.testing.assert_close(ours, plain)
    gradients = (torch.autograd.grad(logits.sin().sum(), list(module.parameters())) for logits in (ours, plain))
    torch.testing.assert_close(*gradients)


def test_a_head_attends_by_softmax_over_the_root_of_its_width() -> None:
    module = AttentiveGrid(4, 1, 1, 1, torch.Generator()).eval()
    with torch.no_grad():
        module.query_GD.copy_(torch.tensor([[2.0, 0, 0, 0]]))
        for weight in (module.key_GDD, module.value_GDD):
            weight.copy_(torch.eye(4)[None])
        module.classifier_GCD.copy_(torch.tensor([[[0.0, 1, 0, 0]]]))
        # Scores (2 * 1, 2 * 0) / sqrt(4) = (1, 0); values 10 and 20. eps of the untrained norm: 1e-6.
        logits = module(torch.tensor([[[1.0, 10, 0, 0], [0.0, 20, 0, 0]]]))
    share = math.e / (math.e + 1)
    torch.testing.assert_close(logits, torch.tensor([[[10 * share + 20 * (1 - share)]]]), rtol=1e-5, atol=0)


def test_it_starts_as_released_with_all_settings_alike() -> None:
    module = AttentiveGrid(512, 10, 2, 4, torch.Generator().manual_seed(0))
    assert module.query_GD.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(torch.equal(parameter[0], parameter[1]) for parameter in module.parameters())


def test_it_finds_what_only_one_token_tells() -> None:
    train, held_out, test = (_marked(count, seed) for seed, count in enumerate((600, 60, 60)))
    fitted = AttentiveProbe(batch_size=64, epochs=30, num_heads=2).fit(train, held_out, 0)
    assert fitted.choice["held_out_top1"] == 1.0
    assert torch.equal(fitted.predict(test.features), test.labels)


@pytest.mark.parametrize("clipping", [None, 0.05])
def test_training_all_settings_in_one_pass_equals_training_each_alone(clipping: float | None) -> None:
    probe = AttentiveProbe(
        learning_rates=(1e-3, 4e-3), weight_decays=(0.1, 5.0), epochs=3, batch_size=16, gradient_clipping=clipping
    )
    together = _fit(probe)
    for setting, (rate, decay) in enumerate(probe.grid):
        alone = _fit(attrs.evolve(probe, learning_rates=(rate,), weight_decays=(decay,)))
        ours = [parameter.detach()[setting] for parameter in together.module.parameters()]
        torch.testing.assert_close(ours, [p.detach()[0] for p in alone.module.parameters()], rtol=0, atol=1e-5)


def test_the_query_is_not_decayed_and_the_matrices_are() -> None:
    probe = AttentiveProbe(learning_rates=(1e-9,), weight_decays=(1e8,), min_lr=0.0, epochs=1, batch_size=90)
    fitted, start = _fit(probe), AttentiveGrid(16, 3, 1, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted.module.get_parameter("query_GD"), start.query_GD, rtol=0, atol=1e-6)
    # One step: weights shrink by rate * decay = a tenth.
    torch.testing.assert_close(fitted.module.get_parameter("key_GDD"), 0.9 * start.key_GDD, rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_probe_and_another_seed_another() -> None:
    probe = AttentiveProbe(epochs=2, batch_size=16)
    one, same, other = (list(_fit(probe, seed).module.parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    ("num_heads", "width", "heads"),
    [(None, 1536, 12), (None, 128, 1), (None, 192, 2), (None, 48, 1), (4, 48, 4), (16, 588, 14), (64, 48, 48)],
)
def test_heads_are_those_asked_for_or_128_wide_and_fewer_where_they_do_not_divide(
    num_heads: int | None, width: int, heads: int
) -> None:
    assert AttentiveProbe(num_heads=num_heads).heads_of(width) == heads


def test_the_choice_names_setting_and_heads() -> None:
    choice = _fit(AttentiveProbe(learning_rates=(1e-3,), epochs=1, num_heads=2)).choice
    assert (choice["learning_rate"], choice["weight_decay"], choice["num_heads"]) == (1e-3, 0.1, 2)
    assert list(choice["grid"]) == ["0.001"]


def test_its_defaults_are_those_of_table_11() -> None:
    probe = AttentiveProbe()
    assert [round(rate * 1e4, 9) for rate in probe.learning_rates] == [1, 3, 5, 10, 15, 20, 40]
    assert (probe.min_lr, probe.decays, probe.betas, probe.gradient_clipping) == (1e-5, (0.1,), (0.9, 0.999), 3.0)
    assert (probe.epochs, probe.warmup_epochs, probe.batch_size) == (100, 0, 512)


def test_aimv2s_protocol_is_that_of_table_a2() -> None:
    probe = AttentiveProbe.aimv2(epochs=7)
    assert [round(rate * 1e4, 9) for rate in probe.learning_rates] == [0.5, 1, 2, 3, 5, 10, 20]
    assert (probe.decays, len(probe.grid), probe.layers_of(24), probe.epochs) == ((0.05, 0.1), 14, (), 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight_decays", ()),
        ("weight_decays", (0.1, 0.1)),
        ("weight_decays", (-0.1,)),
        ("num_heads", 0),
        ("max_train_images", 3),
        ("layers", (1, 1)),
        ("layers", (-1,)),
        ("learning_rates", ()),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        AttentiveProbe(**{field: value})  # type: ignore[arg-type]
    assert field in [path for path, _ in caught.value.problems]


def test_padded_tokens_are_neither_seen_nor_counted() -> None:
    """Tokens of NaN behind an image's own give the logits, gradients and statistics of the tokens without them."""
    torch.manual_seed(0)
    tokens_bND = torch.randn(6, 5, 8)
    padded_bND = torch.cat([tokens_bND, torch.full((6, 3, 8), torch.nan)], dim=1)
    found = []
    for features in (tokens_bND, padded_bND):
        probe = AttentiveGrid(8, 3, 2, 2, torch.Generator().manual_seed(1))
        logits_bGC = probe(features)
        logits_bGC.square().sum().backward()
        found.append((logits_bGC, probe.key_GDD.grad, probe.norm.running_var))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
