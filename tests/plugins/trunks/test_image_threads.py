"""Threads that read images of their own: every part once, without gradients, with operations of one thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from aimcore.contracts.images import images_of
from aimcore.contracts.trunks import Reading
from aimcore_trunks import ViT, image_threads, packed_vit
from aimcore_trunks.image_threads import ImageThreads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_part_is_read_once_by_threads_with_operations_of_one():
    both, seen = threading.Barrier(2), []

    def read(part: int) -> None:
        if part < 2:
            both.wait(10)  # passes only if two threads read at the same time
        seen.append((part, threading.get_ident(), torch.get_num_threads()))

    ImageThreads().each(read, range(7))
    assert sorted(part for part, _, _ in seen) == list(range(7))
    assert len({thread for _, thread, _ in seen}) == 2
    assert {number for _, _, number in seen} == {1}
    assert threading.get_ident() not in {thread for _, thread, _ in seen}


def test_later_threads_keep_torchs_number_of_threads():
    ImageThreads().each(lambda _: None, range(2))
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert (torch.get_num_threads(), found) == (2, [2])


def test_threads_follow_the_number_of_the_caller():
    threads, seen = ImageThreads(), []
    threads.each(lambda _: None, range(2))
    torch.set_num_threads(3)
    all_three = threading.Barrier(3)
    threads.each(lambda part: seen.append((part, all_three.wait(10))), range(3))
    assert len(seen) == 3
    assert torch.get_num_threads() == 3


def test_a_forked_process_starts_threads_of_its_own(monkeypatch: pytest.MonkeyPatch):
    threads, seen = ImageThreads(), set()
    threads.each(lambda _: seen.add(threading.get_ident()), range(2))
    monkeypatch.setattr(image_threads.os, "getpid", lambda: -1)
    before = set(seen)
    threads.each(lambda _: seen.add(threading.get_ident()), range(2))
    assert seen - before


def test_an_error_of_one_part_reaches_the_caller():
    def read(part: int) -> None:
        if part == 3:
            raise RuntimeError("part 3")

    with pytest.raises(RuntimeError, match="part 3"):
        ImageThreads().each(read, range(5))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_threads_read_as_one_thread_does(mode: type[torch.no_grad], monkeypatch: pytest.MonkeyPatch):
    """Ten images of 256 tokens: five rounds of two threads; eleven leave one for both together."""
    torch.manual_seed(0)
    plain = ViT(width=32, depth=2, num_heads=2, patch_size=2).build().eval()
    images = images_of(torch.randn(11, 3, 32, 32), patch_size=2)
    parts: list[int] = []
    each = ImageThreads.each
    monkeypatch.setattr(
        ImageThreads, "each", lambda self, read, given: parts.append(len(given)) or each(self, read, given)
    )
    module = plain.for_inference()
    with mode():
        found_BND, expected_BND = module(images, Reading()).tokens_BND, plain(images, Reading()).tokens_BND
        again_BND = module(images, Reading()).tokens_BND
    assert parts == [10, 10, 10, 10] if isinstance(module, packed_vit.InferenceViT) else not parts
    torch.testing.assert_close(found_BND, expected_BND, rtol=1e-5, atol=1e-5)
    assert torch.equal(found_BND, again_BND)
    assert not found_BND.requires_grad
