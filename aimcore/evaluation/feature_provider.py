"""Features of a source's images: from the cache where they are in it, else by reading the images once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from aimcore.contracts.sources import OpenSource, Source
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.evaluation.feature_keys import Description, described, software
from aimcore.evaluation.feature_sources import Origin
from aimcore.evaluation.feature_tables import FeatureKind, Table
from aimcore.evaluation.feature_writers import MemorySink, Sink
from aimcore.evaluation.probe_images import ProbeImages, chosen_numbers, probe_sources


@attrs.frozen
class Wanted:
    """One kind of features, of at most ``most`` of the images; None is all of them."""

    kind: FeatureKind
    most: int | None = None


Tables = dict[Wanted, Table]


@attrs.frozen(eq=False)
class Obtaining:
    """How an experiment's probes get their features."""

    images: ProbeImages
    batch_size: int
    cache: FeatureCache | None

    def train_and_test(self, origin: Origin, wanted: Sequence[Wanted]) -> tuple[Tables, Tables]:
        """Tables of the training images, as many as are wanted, and of all test images, under the same keys."""
        train_source, test_source = probe_sources(self.images.experiment)
        # The weights are digested once, and only if the cache needs it.
        depends_on = {} if self.cache is None else {"software": software(), "origin": origin.description()}
        whole = {each: Wanted(each.kind) for each in wanted}
        train = self._tables(origin, depends_on, train_source, self.images.train, wanted)
        test = self._tables(origin, depends_on, test_source, self.images.test, list(whole.values()))
        return train, {each: test[all_images] for each, all_images in whole.items()}

    def _tables(
        self, origin: Origin, depends_on: Description, source: Source, opened: OpenSource, wanted: Sequence[Wanted]
    ) -> Tables:
        found: Tables = {}
        sinks: dict[Wanted, Sink[Any]] = {}
        for each in dict.fromkeys(wanted):
            only = chosen_numbers(len(opened), each.most)
            if self.cache is None:
                sinks[each] = MemorySink(each.kind, self.images.num_classes, only)
                continue
            description = {**depends_on, **self._description(source, len(opened), each)}
            stored = self.cache.find(description)
            if stored is None or stored.num_classes != self.images.num_classes:
                sinks[each] = self.cache.sink(description, each.kind, self.images.num_classes, only)
            else:
                found[each] = stored
        return found | self._read(origin, opened, sinks)

    def _read(self, origin: Origin, opened: OpenSource, sinks: Mapping[Wanted, Sink[Any]]) -> Tables:
        """Read the images that some sink wants, once."""
        if not sinks:
            return {}
        parts = [sink.only for sink in sinks.values() if sink.only is not None]
        union = torch.unique(torch.cat(parts)) if len(parts) == len(sinks) else None
        batches = self.images.batches(opened, self.batch_size, union)
        return dict(zip(sinks, origin.read(batches, list(sinks.values())), strict=True))

    def _description(self, source: Source, num_images: int, wanted: Wanted) -> Description:
        experiment = self.images.experiment
        return {
            "source": described(source),
            "num_images": num_images,
            "most_images": wanted.most,
            "transform": self.images.size.description(experiment.data, experiment.trunk.patch_size),
            "reads": wanted.kind.reads,
            "layers": list(wanted.kind.layers),
            # Left out where it was, so that features that earlier versions have kept are found.
            **({} if wanted.kind.pooling == "mean" else {"pooling": wanted.kind.pooling}),
        }
