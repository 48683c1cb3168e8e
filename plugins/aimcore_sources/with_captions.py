"""Another source with one more kind of caption, from a file of JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import attrs

from aimcore import InvalidValue, OpenSource, PixelStatistics, Problem, Sample, Source, component
from aimcore.contracts.errors import DataNotFound, UnreadableSample
from aimcore.contracts.messages import printable
from aimcore.io.locations import file_system, location_problems
from aimcore.io.retries import StoreUnavailable, with_retries
from aimcore.io.text_files import decode_text, flaw_in, parse_json, split_lines
from aimcore_sources.wrapped import OpenWrapped


@component("with_captions", paper="arXiv:2411.14402, section 2.3")
class WithCaptions(Source):
    """The samples of ``source``, each with the captions that a file has for its identifier.

        {"identifier": "a/1.jpg", "captions": ["a red shoe", "a shoe on grass"]}

    A sample that the file does not name is unreadable: it is counted within ``data.max_unreadable``.
    """

    source: Source
    captions: str
    """The file, as ``aimcore data caption`` writes it: a path or URL."""
    kind: str = "synthetic"
    """The kind of these captions; ``source`` must have none of it."""

    @property
    def statistics(self) -> PixelStatistics | None:
        """The statistics of ``source``."""
        return self.source.statistics

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and an empty kind."""
        yield from location_problems("captions", self.captions)
        if not self.kind:
            yield Problem("kind", "must not be empty")

    def open(self) -> OpenSource:
        """Open ``source`` and read the captions.

        Raises:
            DataNotFound: the file is missing.
            InvalidValue: a line is wrong.
        """
        return OpenWithCaptions(self.source.open(), _captions_in(self.captions), self)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()


def _captions_in(url: str) -> dict[str, tuple[str, ...]]:
    try:
        filesystem, path = file_system(url)
        lines = split_lines(decode_text(with_retries(url, lambda: filesystem.cat_file(path)), url))
    except StoreUnavailable:
        raise
    except (OSError, ValueError, ImportError) as cause:
        raise DataNotFound(f"WithCaptions: cannot read {url}: {cause}. `aimcore data caption` writes it") from cause
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        identifier, texts = _entry(parse_json(line, f"{url}:{number}"), f"captions:{number}")
        if identifier in found:
            raise InvalidValue("WithCaptions", [(f"captions:{number}", f"{printable(identifier)} occurs twice")])
        found[identifier] = texts
    return found


def _entry(line: Any, place: str) -> tuple[str, tuple[str, ...]]:
    texts = line.get("captions") if isinstance(line, Mapping) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) and not flaw_in(text) for text in texts):
        raise InvalidValue("WithCaptions", [(place, "must have 'captions', a list of texts")])
    if not isinstance(identifier := line.get("identifier"), str):
        raise InvalidValue("WithCaptions", [(place, "must have 'identifier', that of a sample")])
    return identifier, tuple(texts)


class OpenWithCaptions(OpenWrapped):
    """An open source that adds captions to what it reads."""

    def __init__(self, source: OpenSource, captions: Mapping[str, tuple[str, ...]], component: WithCaptions) -> None:
        super().__init__(source)
        self._captions, self._kind, self._url = captions, component.kind, component.captions

    def read(self, index: int) -> Sample:
        """Return the sample with its captions; see :meth:`read_with_file`."""
        return self._with_captions(self._source.read(index))

    def read_with_file(self, index: int) -> tuple[Sample, bytes | None]:
        """Return the sample with its captions, and its file.

        Raises:
            UnreadableSample: the source cannot read it, or the file of captions does not name it.
        """
        sample, content = self._source.read_with_file(index)
        return self._with_captions(sample), content

    def _with_captions(self, sample: Sample) -> Sample:
        if self._kind in sample.captions:
            message = f"the source has captions of kind {self._kind!r} already: choose another kind"
            raise InvalidValue("WithCaptions", [("kind", message)])
        if (texts := self._captions.get(sample.identifier)) is None:
            raise UnreadableSample(sample.identifier, f"{self._url} has no captions of this identifier")
        return attrs.evolve(sample, captions={**sample.captions, self._kind: texts})
