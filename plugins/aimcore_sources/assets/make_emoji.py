"""Make the bundled captioned emoji again.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    python plugins/aimcore_sources/assets/make_emoji.py FOLDER

FOLDER has the two packages as npm installs them. From each come the single 64 px pictures, never the sheets: those fill
gaps with other vendors' drawings. Transparent pixels are put on white; pictures are scaled to 32 px (Lanczos) and each
channel is rounded to a multiple of 8 (white stays white), which halves the size; sheets are lossless WebP.
"""

import hashlib
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PACKAGES = {
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
}
"""SHA-256 of each style's package."""
SIZE = 32
TILES_PER_ROW = 60

JOINER, VARIATION = "200d", "fe0f"
GENDERS = {"2640", "2642"}
DIRECTIONS = {"27a1", "2194", "2195"}
"""Facing right; shaking the head to the sides, or up and down."""
ADULTS = {"1f468", "1f469", "1f9d1"}
PEOPLE = ADULTS | {"1f466", "1f467", "1f9d2"}
TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}
ALIKE = {
    "adult": ADULTS | {"1f471"},  # fair hair, which Twitter's style gives to one woman who is not said to have it
    "child": {"1f466", "1f467", "1f9d2"},
    "older adult": {"1f9d3", "1f474", "1f475"},
    "holding hands": {"1f46b", "1f46c", "1f46d"},
    "kiss": {"1f48f"},
    "couple with heart": {"1f491"},
    "family": {"1f46a"},
    "royalty": {"1f934", "1f478", "1fac5"},
    "pregnant": {"1f930", "1fac3", "1fac4"},
    "person 1f37c": {"1f931"},  # breast-feeding, and people feeding a baby
    "person 1f384": {"1f385", "1f936"},  # Father, Mother and Mx Claus
    "dancing": {"1f483", "1f57a"},
}
"""Emoji that differ in gender or age group only, though their codes do not say so."""
SAME_DRAWING = (
    ("1f1e6-1f1fa", "1f1ed-1f1f2"),  # flags of Australia, Heard and McDonald Islands
    ("1f1ea-1f1e6", "1f1ea-1f1f8"),  # Ceuta and Melilla, Spain
    ("1f1eb-1f1f7", "1f1e8-1f1f5", "1f1f2-1f1eb"),  # France, Clipperton Island, St Martin
    ("1f1ee-1f1f4", "1f1e9-1f1ec"),  # British Indian Ocean Territory, Diego Garcia
    ("1f1f8-1f1e6", "1f1e8-1f1f6"),  # Saudi Arabia, and what Google's pictures have for Sark
    ("1f1f8-1f1ef", "1f1e7-1f1fb", "1f1f3-1f1f4"),  # Svalbard and Jan Mayen, Bouvet Island, Norway
    ("1f1fa-1f1f8", "1f1fa-1f1f2"),  # United States, their outlying islands
    ("1f64e", "1f64d"),  # pouting, frowning: Twitter's style all but draws the same
)
"""Emoji with (nearly) equal pictures in one style at least. The first names the concept, and so decides the side."""
CONCEPTS = {code: concept for concept, codes in ALIKE.items() for code in codes} | {
    code: codes[0] for codes in SAME_DRAWING for code in codes
}


def concept_of(unified: str) -> str:
    """What is drawn, whatever its gender and direction: codes of one concept stay on one side of the split."""
    parts = unified.lower().replace(f"-{VARIATION}", "").split(f"-{JOINER}-")
    first, rest = parts[0], [part for part in parts[1:] if part not in GENDERS | DIRECTIONS]
    if not rest:
        return CONCEPTS.get(first, first)
    if "1f48b" in rest:
        return "kiss"
    if first in ADULTS and rest[0] == "2764":
        return "couple with heart"
    if first in ADULTS and rest[0] == "1f91d":
        return "holding hands"
    if {first, *rest} <= PEOPLE:
        return "family"
    return " ".join(["person" if first in ADULTS else first, *rest])


def cleaned(name: str) -> str:
    """A name as a caption: lower case, plain apostrophes, spaces for underscores and hyphens of short names."""
    return " ".join(name.replace("’", "'").lower().split())


def names_of(emoji: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    """The name, then other ones; a name that two emoji share gives way to the short one."""
    short = [cleaned(name.replace("_", " ").replace("-", " ")) for name in emoji["short_names"]]
    name = cleaned(emoji["name"])
    names = [*([name] if counts[name] == 1 else []), *short]
    return list(dict.fromkeys(names))


def tones_of(variation: str) -> str:
    """``"1F3FB-1F3FF"`` is ``"light and dark"``."""
    return " and ".join(dict.fromkeys(TONES[part] for part in variation.lower().split("-")))


def rows_of(metadata: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per base emoji, in the usual order of emoji keyboards."""
    chosen = [emoji for emoji in metadata if emoji["category"] != "Component"]
    counts = Counter(cleaned(emoji["name"]) for emoji in chosen)
    for emoji in sorted(chosen, key=lambda emoji: int(emoji["sort_order"])):
        variations = emoji.get("skin_variations", {})
        if not all(part["has_img_google"] and part["has_img_twitter"] for part in (emoji, *variations.values())):
            raise ValueError(f"{emoji['short_name']} has no picture in one of the styles")
        yield {
            "names": names_of(emoji, counts),
            "category": cleaned(emoji["category"]),
            "subcategory": emoji["subcategory"],
            "concept": concept_of(emoji["unified"]),
            "codes": [Path(part["image"]).stem for part in (emoji, *variations.values())],
            "tones": ["", *map(tones_of, variations)],
        }


def picture(content: bytes) -> npt.NDArray[np.uint8]:
    """One tile, ``[SIZE, SIZE, 3]``."""
    with Image.open(io.BytesIO(content)) as opened:
        drawn = opened.convert("RGBA")
    ground = Image.new("RGBA", drawn.size, (255, 255, 255, 255))
    ground.alpha_composite(drawn)
    pixels = np.asarray(ground.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS), dtype=np.int64)
    return np.minimum((pixels + 4) // 8 * 8, 255).astype(np.uint8)


def sheet(tiles: Sequence[npt.NDArray[np.uint8]]) -> Image.Image:
    """All tiles, ``TILES_PER_ROW`` in a row."""
    blank = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    filled = np.stack([*tiles, *[blank] * (-len(tiles) % TILES_PER_ROW)])
    rows = filled.reshape(-1, TILES_PER_ROW, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(rows.reshape(-1, TILES_PER_ROW * SIZE, 3))


def package(folder: Path, style: str) -> tarfile.TarFile:
    """The package of a style, if it is the one that is known."""
    path = folder / f"emoji-datasource-{style}-16.0.0.tgz"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != PACKAGES[style]:
        raise ValueError(f"{path} is another package than the one that the set was made of")
    return tarfile.open(fileobj=io.BytesIO(content), mode="r:gz")


def member(tar: tarfile.TarFile, name: str) -> bytes:
    """The content of a file of the package."""
    file = tar.extractfile(f"package/{name}")
    if file is None:
        raise ValueError(f"the package has no {name}")
    return file.read()


def pictures_of(tar: tarfile.TarFile, folder: str) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """The tiles of a folder by their codes, in one pass."""
    for entry in tar:
        file = tar.extractfile(entry) if entry.name.startswith(folder) else None
        if file is not None:
            yield Path(entry.name).stem, picture(file.read())


def main(folder: Path) -> None:
    """Write ``emoji.json``, ``emoji_google.webp`` and ``emoji_twitter.webp`` to the folder of this script."""
    here = Path(__file__).parent
    with package(folder, "google") as tar:
        rows = list(rows_of(json.loads(member(tar, "emoji.json"))))
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (here / "emoji.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    for style in PACKAGES:
        with package(folder, style) as tar:
            drawn = dict(pictures_of(tar, f"package/img/{style}/64/"))
        tiles = [drawn[code] for row in rows for code in row["codes"]]
        path = here / f"emoji_{style}.webp"
        sheet(tiles).save(path, "WEBP", lossless=True, quality=90, method=6)
        print(f"{path}: {len(tiles)} pictures, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
