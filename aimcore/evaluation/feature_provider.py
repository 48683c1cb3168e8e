"""The feature provider: it loads features from the cache, or else computes them by reading the images once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from aimcore.contracts.sources import OpenSource, Source
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.evaluation.feature_keys import Description, described, software
from aimcore.evaluation.feature_sources import FeatureSource
from aimcore.evaluation.feature_tables import FeatureKind, Table
from aimcore.evaluation.feature_writers import FeatureWriter, MemoryWriter
from aimcore.evaluation.probe_images import ProbeImages, chosen_numbers, probe_sources


@attrs.frozen
class FeatureRequest:
    """A request for one kind of features, of at most ``most`` images; None requests all images."""

    kind: FeatureKind
    most: int | None = None


Tables = dict[FeatureRequest, Table]


@attrs.frozen(eq=False)
class FeatureProvider:
    """Provides the features for the probes of an experiment."""

    images: ProbeImages
    batch_size: int
    cache: FeatureCache | None

    def train_and_test(
        self,
        feature_source: FeatureSource,
        requests: Sequence[FeatureRequest],
        only_test: Sequence[FeatureRequest] = (),
    ) -> tuple[Tables, Tables]:
        """Return tables of the requested training images and of all test images, under the same keys.

        Of the requests in ``only_test``, there are test images only.
        """
        train_source, test_source = probe_sources(self.images.experiment)
        # The weights are digested once, and only if the cache needs it.
        depends_on = {} if self.cache is None else {"software": software(), "origin": feature_source.description()}
        whole = {each: FeatureRequest(each.kind) for each in (*requests, *only_test)}
        train = self._tables(feature_source, depends_on, train_source, self.images.train, requests)
        test = self._tables(feature_source, depends_on, test_source, self.images.test, list(whole.values()))
        return train, {each: test[all_images] for each, all_images in whole.items()}

    def _tables(
        self,
        feature_source: FeatureSource,
        depends_on: Description,
        source: Source,
        opened: OpenSource,
        requests: Sequence[FeatureRequest],
    ) -> Tables:
        found: Tables = {}
        writers: dict[FeatureRequest, FeatureWriter[Any]] = {}
        for each in dict.fromkeys(requests):
            only = chosen_numbers(len(opened), each.most)
            if self.cache is None:
                writers[each] = MemoryWriter(each.kind, self.images.num_classes, only)
                continue
            description = {**depends_on, **self._description(source, len(opened), each)}
            stored = self.cache.find(description)
            if stored is None or stored.num_classes != self.images.num_classes:
                writers[each] = self.cache.writer(description, each.kind, self.images.num_classes, only)
            else:
                found[each] = stored
        return found | self._read(feature_source, opened, writers)

    def _read(
        self, feature_source: FeatureSource, opened: OpenSource, writers: Mapping[FeatureRequest, FeatureWriter[Any]]
    ) -> Tables:
        """Read each image that some writer needs, once."""
        if not writers:
            return {}
        parts = [writer.only for writer in writers.values() if writer.only is not None]
        union = torch.unique(torch.cat(parts)) if len(parts) == len(writers) else None
        batches = self.images.batches(opened, self.batch_size, union)
        return dict(zip(writers, feature_source.read(batches, list(writers.values())), strict=True))

    def _description(self, source: Source, num_images: int, request: FeatureRequest) -> Description:
        experiment = self.images.experiment
        return {
            "source": described(source),
            "num_images": num_images,
            "most_images": request.most,
            "transform": self.images.size.description(experiment.data, experiment.trunk.patch_size),
            "reads": request.kind.reads,
            "layers": list(request.kind.layers),
            # The default is omitted, so that features which earlier versions stored are found.
            **({} if request.kind.pooling == "mean" else {"pooling": request.kind.pooling}),
        }
