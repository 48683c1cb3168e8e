"""Recall by hand: ties, duplicates, chance; and log-likelihoods of all pairs as of each alone."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from aimcore import Experiment
from aimcore.evaluation import OpenEvaluationData, chance_of_hits, hits, similarities
from aimcore.evaluation.similarity import NonFiniteSimilarity, caption_likelihoods
from aimcore.experiment import Data
from aimcore.testing.caption_stand_in import StandInCaptioned, StandInSpeaker
from aimcore.testing.fixtures import batch_of, draw_nonzero, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_decoders import CrossAttentionDecoder, JointDecoder
from aimcore_objectives import CapPa, Captioning
from aimcore_tokenizers import Bytes

TOKENIZER = Bytes(supervise_end=True)
TEXTS = ("a", "a longer one", "red shoes", "bag", "a", "")


def found(scores: list[list[float]], right: list[list[int]], k: int) -> list[bool]:
    return hits(torch.tensor(scores), torch.tensor(right).bool(), k).tolist()


def test_a_hit_is_a_right_candidate_among_the_first_k() -> None:
    scores, right = [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], [[0, 1, 0], [0, 0, 1]]
    assert [found(scores, right, k) for k in (1, 2, 3)] == [[False, False], [True, False], [True, True]]


def test_any_right_candidate_is_a_hit() -> None:
    assert found([[0.1, 0.5, 0.9]], [[1, 0, 1]], 1) == [True]
    assert found([[0.9, 0.5, 0.1]], [[0, 1, 1]], 1) == [False]


def test_ties_count_against_it() -> None:
    assert found([[0.5, 0.5, 0.5]], [[0, 1, 0]], 2) == [False]
    assert found([[0.5, 0.5, 0.1]], [[0, 1, 0]], 2) == [True]
    assert found([[0.5, 0.5, 0.1]], [[1, 1, 0]], 1) == [True]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_chance_is_the_mean_over_all_orders(k: int) -> None:
    right = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]).bool()
    orders = list(permutations(range(5)))
    brute = [[bool(row[list(order)[:k]].any()) for order in orders] for row in right]
    expected = sum(map(sum, brute)) / (len(brute) * len(orders))
    assert chance_of_hits(right, k) == pytest.approx(expected)


@pytest.mark.parametrize("tokens", [1, 100, 2**15])
@pytest.mark.parametrize(
    "objective",
    [
        Captioning(decoder=JointDecoder(width=16, depth=2, num_heads=2), tokenizer=TOKENIZER, context_length=16),
        CapPa(decoder=CrossAttentionDecoder(width=16, depth=2, num_heads=2), tokenizer=TOKENIZER, context_length=16),
    ],
    ids=["joint", "cross"],
)
@torch.no_grad()
def test_pairs_are_checked_as_each_alone(objective, tokens: int) -> None:
    with seeded():
        module = objective.build(StandInTrunk().build()).double().eval()
    draw_nonzero(module)
    images, text = random_images(number=3), TOKENIZER.encode(TEXTS, 16)
    matrix = caption_likelihoods(module, batch_of(images), text, tokens=tokens)
    start = module.caption_start(batch_of(images))
    alone = [module.caption_log_likelihoods(start, TOKENIZER.encode([one] * 3, 16)) for one in TEXTS]
    torch.testing.assert_close(matrix, torch.stack(alone, dim=1))
    assert torch.equal(matrix[:, 0], matrix[:, 4])


def data_and_module(*skills: str) -> tuple[OpenEvaluationData, torch.nn.Module]:
    source = StandInCaptioned()
    experiment = Experiment(
        name="speaking",
        data=Data(train=source, validation=source, batch_size=4, image_size=8),
        trunk=StandInTrunk(),
        objective=StandInSpeaker(gives=frozenset(skills)),
        num_steps=1,
    )
    with seeded():
        return OpenEvaluationData.of(experiment), experiment.objective.build(experiment.trunk.build()).eval()


@torch.no_grad()
def test_embeddings_are_compared_by_cosine() -> None:
    data, module = data_and_module("embed", "caption")
    numbers, found_nC = similarities(module, data, data.validation, TEXTS[:3], [7, 2])
    assert numbers.tolist() == [2, 7]
    (batch,) = data.batches(data.validation, [7])
    expected = module.embed_images(batch.images) @ module.embed_texts(data.encode(TEXTS[:3])).T
    torch.testing.assert_close(found_nC[1:], expected.double())


@torch.no_grad()
def test_captioners_compare_by_log_likelihood() -> None:
    data, module = data_and_module("caption")
    _, found_nC = similarities(module, data, data.validation, TEXTS[:3], [4])
    assert bool((found_nC < 0).all())


@torch.no_grad()
def test_similarities_that_are_no_numbers_are_an_error() -> None:
    data, module = data_and_module("embed")
    module.embedding.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteSimilarity, match="training has diverged"):
        similarities(module, data, data.validation, TEXTS[:3], [4])


def test_images_are_chosen_by_hash_and_once_per_group() -> None:
    data, _ = data_and_module("embed")
    few, more = (data.captioned(data.validation, most, kind=None, group_by=None) for most in (3, 6))
    assert len(few) == 3
    assert set(few) < set(more)
    groups = data.captioned(data.validation, 99, kind="name", group_by="word")
    assert len(groups) == 4
    assert len({one.index % 4 for one in groups}) == 4
    assert data.captioned(data.validation, 99, kind="other", group_by=None) == []
