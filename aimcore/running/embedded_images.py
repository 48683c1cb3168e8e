"""Whether stored embeddings are of the images that a source has now, by the names of some of these images.

Row i of stored embeddings is image i of the source. A file that is added to a folder or removed from it moves all
images after it, and the number of images may stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.messages import shown
from aimcore.contracts.sources import OpenSource
from aimcore.encoders.stored_embeddings import OtherEmbeddings


def require_same_images(url: str, names: Mapping[int, str], source: OpenSource) -> None:
    """Refuse to continue embeddings whose rows are of other images than those of the source.

    Args:
        url: where the embeddings are.
        names: names of the images of some rows.
        source: has as many images as the embeddings have rows.

    Raises:
        OtherEmbeddings: the source has another image in the place of one of them.
    """
    for row, name in names.items():
        found = name_of(source, row)
        if found != name:
            raise OtherEmbeddings(
                f"{shown(url)} holds embeddings of other images: image {row} was {shown(name)}, and is {shown(found)} "
                "in the source now. Give another place, or remove these embeddings"
            )


def name_of(source: OpenSource, index: int) -> str:
    """Return the name of an image, also of one that cannot be read."""
    try:
        return source.read(index).identifier
    except UnreadableSample as failure:
        return failure.identifier
