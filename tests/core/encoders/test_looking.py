"""What ``aimcore look`` finds: attention of any encoder that can be read, components and similarities by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_files import FOLDER
from PIL import Image
from safetensors.torch import save_file

from aimcore import PatchGrid, Reading, load_encoder
from aimcore.contracts.images import images_of
from aimcore.encoders.looking import LookedAt, component_colours, look, similarities, spread_queries
from aimcore.encoders.named_models import load_named
from aimcore.run import command

MANY = 10**9


def test_the_attention_of_the_last_block_is_what_the_trunk_itself_says() -> None:
    encoder = load_encoder(str(FOLDER / "aim_v2.weights.safetensors"), num_heads=4)
    pixels = torch.rand(3, 56, 56, generator=torch.Generator().manual_seed(0))
    looked = look(encoder, pixels, most_attention=MANY)
    assert looked.attention_LHQN.shape == (4, 4, 16, 16)
    with torch.no_grad():
        expected = encoder.module.attention_maps(images_of(pixels[None], 14), Reading())[0]
    assert torch.allclose(looked.attention_LHQN[-1], expected, atol=1e-6)
    some = look(encoder, pixels, most_attention=4 * 4 * 16 * 4)
    assert some.queries == (5, 7, 13, 15)
    assert torch.equal(some.attention_LHQN, looked.attention_LHQN[:, :, [5, 7, 13, 15]])


def test_attention_of_other_libraries_is_found_and_where_there_is_none_none_is_made_up(tmp_path: Path) -> None:
    import timm

    for name, is_found in (("test_vit", True), ("test_resnet", False)):
        model = timm.create_model(name, pretrained=False)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
        encoder = load_named(f"timm:{name}@{tmp_path}/{name}.safetensors")
        looked = look(encoder, torch.rand(3, 160, 160), most_attention=MANY)
        assert (looked.attention_LHQN is not None) == is_found
        if is_found:  # rows add up to 1 with the class token
            rows = looked.attention_LHQN.sum(-1)
            assert ((rows > 0.5) & (rows < 1)).all()


def looked_at(tokens: torch.Tensor, grid: PatchGrid) -> LookedAt:
    return LookedAt(grid, tokens, (), (), (), None)


def test_similarities_and_components_are_those_computed_by_hand() -> None:
    tokens = torch.tensor([[3.0, 0, 0], [0, 2, 0], [-1, 0, 0], [1, 1, 0]])
    queries, similar = similarities(looked_at(tokens, PatchGrid(2, 2)))
    assert queries == (0, 1, 2, 3)
    half = 0.5**0.5
    assert torch.allclose(similar[0], torch.tensor([1, 0, -1, half]))
    assert torch.allclose(similar[3], torch.tensor([half, half, -half, 1]))
    line = torch.arange(101.0)[:, None] * torch.tensor([[1.0, 0.0]])
    first, second = component_colours([line[:50], line[50:]])
    # All lie on one line: the first component runs from the 1st to the 99th percentile, the others are constant.
    assert first[[0, 1, 25], 0].tolist() == [0, 0, round(255 * 24 / 98)]
    assert second[[0, 49, 50], 0].tolist() == [round(255 * 49 / 98), 255, 255]


@pytest.mark.parametrize(("most", "number"), [(16, 16), (15, 4), (4, 4), (3, 1), (0, 1)])
def test_queries_are_spread_and_not_too_many(most: int, number: int) -> None:
    assert len(spread_queries(PatchGrid(4, 4), most)) == number


def test_the_command_writes_a_page_and_skips_what_is_no_image(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder(str(FOLDER / "aim_v2.weights.safetensors"), num_heads=4)
    encoder.save(tmp_path / "encoder")
    Image.new("RGB", (70, 60), (200, 10, 10)).save(tmp_path / "<b>.png")
    (tmp_path / "bad.png").write_bytes(b"x")
    page = tmp_path / "page.html"
    words = ["look", str(tmp_path / "encoder"), str(tmp_path / "<b>.png"), str(tmp_path / "bad.png")]
    assert command([*words, "--page", str(page)]) == 1
    assert "skipped: cannot read" in capfd.readouterr().err
    text = page.read_text()
    assert "&lt;b&gt;.png" in text
    assert "<b>.png" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert command(["look", str(tmp_path / "encoder"), str(tmp_path / "bad.png")]) == 2
