"""Where an encoder's weights are from, and the error of all that an encoder cannot do."""

from __future__ import annotations

import attrs

from aimcore.contracts.errors import AimcoreError
from aimcore.io.locations import without_secrets
from aimcore.io.weight_files import StoredFile


class EncoderError(AimcoreError):
    """An encoder is asked for something that it cannot do."""


@attrs.frozen
class EncoderSource:
    """Where an encoder's weights are from."""

    url: str
    layout: str
    """Name of the layout of its files."""
    title: str
    """What the layout calls it."""
    files: tuple[StoredFile, ...]
    """The files of weights, with sizes and hashes; none for a run that trains nothing, and stores no weights."""
    sha256: str
    """The hash of the file; of several files, that of the list of their hashes; without files, that of all values."""
    licence: str | None
    """As a file next to the weights or the layout states it; None if unknown."""
    dtype: str = "float32"
    """Type of the numbers in the files; ``"mixed"`` if they have several. An encoder itself is in float32."""

    @property
    def name(self) -> str:
        """The path or URL without password and query, to be shown and written."""
        return without_secrets(self.url)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)
