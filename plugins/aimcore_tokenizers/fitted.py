"""Image tokenizers that are fitted, and read from one safetensors file with a recorded hash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Self, TypeVar

from torch import Tensor

from aimcore import ImageTokenizer, InvalidValue, Problem, settings
from aimcore.contracts.component import Checked
from aimcore.contracts.errors import AimcoreError
from aimcore.io.tokenizer_files import TokenizerRecord, tokenizer_record, tokenizer_tensors
from aimcore_tokenizers.files import TokenizerFileError, file_problems, hash_of, read_file

S = TypeVar("S", bound=Checked)


class WrongPatches(AimcoreError):
    """A tokenizer was fitted on other patches or channels than those that it should encode."""


@settings
class FittedTokenizer(ImageTokenizer):
    """An image tokenizer whose fitted state is in a file."""

    path: str
    """The file that ``aimcore tokenizer fit`` or ``export`` wrote: a path or URL."""
    sha256: str
    """The hash of the file; :meth:`from_file` computes it."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and a hash that is not one."""
        return file_problems(self.path, self.sha256)

    @classmethod
    def from_file(cls, path: str) -> Self:
        """Return the tokenizer of a file, with the file's current hash.

        Raises:
            DataNotFound: the file cannot be read.
        """
        return cls(path=path, sha256=hash_of(path))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()

    @cached_property
    def record(self) -> TokenizerRecord:
        """What the header of the file says.

        Raises:
            DataNotFound: the file cannot be read.
            TokenizerFileError: it belongs to another tokenizer.
        """
        record = tokenizer_record(self.path)
        if record.tokenizer != self.name:
            raise TokenizerFileError(
                f"{self.path} is the file of a tokenizer {record.tokenizer!r}, and {self.name!r} is to read it"
            )
        return record

    def shape(self, kind: type[S]) -> S:
        """Return the settings of the file as a ``kind``.

        Raises:
            TokenizerFileError: they are not valid.
        """
        try:
            return kind(**self.record.settings)
        except (InvalidValue, TypeError) as cause:
            raise TokenizerFileError(f"{self.path} is damaged: {cause}") from cause

    def tensors(self) -> dict[str, Tensor]:
        """Read the file, and verify its hash.

        Raises:
            DataNotFound: the file cannot be read.
            TokenizerFileError: its hash differs from the recorded one.
            NotATokenizerFile: it is damaged.
        """
        return tokenizer_tensors(read_file(self.path, self.sha256), self.path)

    def require_tensors(self, found: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
        """Refuse tensors of other names, shapes or values than the settings of the file describe.

        Raises:
            TokenizerFileError: with the first difference.
        """
        if found.keys() != shapes.keys():
            different = sorted(found.keys() ^ shapes.keys())
            raise TokenizerFileError(f"{self.path} is damaged: it has too many or too few tensors: {different[:4]}")
        for name, shape in shapes.items():
            if tuple(found[name].shape) != shape or not found[name].isfinite().all():
                raise TokenizerFileError(
                    f"{self.path} is damaged: {name} must be finite and {list(shape)}, got {list(found[name].shape)}"
                )
