"""Losses over large vocabularies in chunks: equal losses and gradients, and a bound on what is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from core.engine.toys import experiment
from core.testing.mutants.targets import RandomCodes
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Engine, Text
from aimcore.engine import TrainingEngine, build_module
from aimcore.modeling import chunked_outputs
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.testing.fixtures import as_float32, batch_for, random_images
from aimcore_decoders import CrossAttentionDecoder, JointDecoder, SeparateDecoder
from aimcore_heads import LinearHead, MLPHead, TransformerHead
from aimcore_objectives import CapPa, Captioning, Multimodal, NextPatch
from aimcore_trunks import ViT

VOCABULARY, TOKENS, WIDTH = 49_408, 40, 8
SMALL = {"width": 16, "depth": 1, "num_heads": 2}
OBJECTIVES: dict[str, Any] = {
    "captioning": Captioning(decoder=JointDecoder(**SMALL), context_length=6),
    "cappa": CapPa(decoder=CrossAttentionDecoder(**SMALL), context_length=6),
    "multimodal": Multimodal(decoder=SeparateDecoder(**SMALL), context_length=6),
    "codes, linear": NextPatch(target=RandomCodes(), head=LinearHead(), prefix=None),
    "codes, mlp": NextPatch(target=RandomCodes(), head=MLPHead(width=16, depth=1), prefix=None),
    "codes, transformer": NextPatch(
        target=RandomCodes(), head=TransformerHead(width=16, depth=1, num_heads=2), prefix=None
    ),
}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every output is large, and few are held at once."""
    monkeypatch.setattr(chunked_outputs, "LARGE_OUTPUT", 2)
    monkeypatch.setattr(chunked_outputs, "VALUES_AT_ONCE", 700)


def layer_and_tokens(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=dtype)
    tokens_MD = torch.randn(TOKENS, WIDTH, dtype=dtype, requires_grad=True)
    return layer, tokens_MD, torch.randint(VOCABULARY, (TOKENS,))


def cross_entropies(targets_M: Tensor) -> Callable[[Tensor, slice], Tensor]:
    return lambda logits_mV, rows: functional.cross_entropy(logits_mV, targets_M[rows], reduction="none")


def held(run: Callable[[], Tensor], layer: nn.Linear) -> int:
    """Bytes that a forward pass holds for the backward pass, without the layer's weights."""
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    own = layer.weight.untyped_storage().data_ptr()
    return sum(storage.nbytes() for address, storage in storages.items() if address != own)


def test_losses_and_gradients_equal_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_outputs, "VALUES_AT_ONCE", 7 * VOCABULARY)  # six chunks, the last one smaller
    layer, tokens_MD, targets_M = layer_and_tokens()
    weights_M = torch.linspace(1, 2, TOKENS, dtype=torch.float64)
    plain_M = cross_entropies(targets_M)(layer(tokens_MD), slice(None))
    plain = torch.autograd.grad((plain_M * weights_M).sum(), [tokens_MD, layer.weight])
    chunked_M = losses_in_chunks(layer, tokens_MD, VOCABULARY, cross_entropies(targets_M))
    chunked = torch.autograd.grad((chunked_M * weights_M).sum(), [tokens_MD, layer.weight])
    torch.testing.assert_close(chunked_M, plain_M, rtol=0, atol=1e-12)
    for one, other in zip(chunked, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_no_logits_are_held_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens alone are held, of which autograd saves each chunk; the plain form holds all logits."""
    monkeypatch.setattr(chunked_outputs, "VALUES_AT_ONCE", 8 * VOCABULARY)
    layer, tokens_MD, targets_M = layer_and_tokens(torch.float32)
    losses = cross_entropies(targets_M)
    plain = held(lambda: losses(layer(tokens_MD), slice(None)), layer)
    chunked = held(lambda: losses_in_chunks(layer, tokens_MD, VOCABULARY, losses), layer)
    assert plain >= 4 * TOKENS * VOCABULARY
    assert chunked <= 4 * TOKENS * WIDTH + 100


def test_a_chunk_has_at_most_the_values_that_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_outputs, "VALUES_AT_ONCE", 8 * VOCABULARY + 5)
    layer, tokens_MD, targets_M = layer_and_tokens(torch.float32)
    rows: list[int] = []
    layer.register_forward_hook(lambda _layer, _given, output: rows.append(len(output)))
    losses_in_chunks(layer, tokens_MD, VOCABULARY, cross_entropies(targets_M)).sum().backward()
    assert rows == [8] * 5 * 2


def test_few_outputs_and_few_tokens_are_computed_once() -> None:
    rows: list[int] = []
    for width, number in ((100, 64), (VOCABULARY, 3)):
        layer = nn.Linear(WIDTH, width)
        layer.register_forward_hook(lambda _layer, _given, output: rows.append(len(output)))
        targets_M = torch.zeros(number, dtype=torch.int64)
        losses_in_chunks(layer, torch.randn(number, WIDTH), width, cross_entropies(targets_M)).sum().backward()
    assert rows == [64, 3]


def losses_and_norm(name: str, stage: int) -> tuple[dict[str, float], float]:
    objective = OBJECTIVES[name]
    engine = Engine(zero_stage=stage, precision="fp32", num_threads=1)  # type: ignore[arg-type]
    trunk = ViT(width=16, depth=1, num_heads=2, patch_size=4)
    with TrainingEngine(experiment(trunk=trunk, objective=objective, engine=engine, batch_size=4)) as training:
        result = training.step([as_float32(batch_for(objective, random_images(number=4)))])
    return dict(result.losses), result.gradient_norm


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_train_alike_in_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, norm = losses_and_norm(name, 0)
    monkeypatch.setattr(chunked_outputs, "LARGE_OUTPUT", 2)
    monkeypatch.setattr(chunked_outputs, "VALUES_AT_ONCE", 700)
    for stage in (0, 3):
        chunked, chunked_norm = losses_and_norm(name, stage)
        assert chunked == pytest.approx(losses, rel=1e-6)
        assert chunked_norm == pytest.approx(norm, rel=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_a_decoder_gives_the_losses_of_its_logits() -> None:
    objective = OBJECTIVES["captioning"]
    made = experiment(trunk=ViT(width=16, depth=1, num_heads=2, patch_size=4), objective=objective)
    module = build_module(made).double()
    batch = batch_for(objective, random_images(number=4))
    found = module(batch)["text"].per_position_BN
    logits: list[Tensor] = []
    module.decoder.to_tokens.register_forward_hook(lambda _layer, _given, output: logits.append(output))  # type: ignore[union-attr]
    assert isinstance(batch.text, Text)
    module(batch)
    assert len(logits) > 1
    valid_BT = batch.text.valid_BT
    expected_M = functional.cross_entropy(torch.cat(logits), batch.text.ids_BT[valid_BT], reduction="none")
    torch.testing.assert_close(found[valid_BT], expected_M, rtol=0, atol=1e-12)
