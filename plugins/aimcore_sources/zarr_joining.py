"""Writing of a zarr group from parts: their samples are made by several processes, and joined by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aimcore import Source
from aimcore.contracts.sample_writers import Written, WrittenSample
from aimcore.io.atomic_files import replacing, writing
from aimcore_sources.numbered_files import LocalWriter
from aimcore_sources.zarr_layout import FORMAT, NO_LABEL
from aimcore_sources.zarr_writing import GroupWriter, bytes_of


class ZarrWriter(LocalWriter):
    """A zarr group; until it is complete, its samples are on the disk twice."""

    owner = "ZarrImages"

    def write_part(
        self, folder: Path, part: int, samples: Iterable[WrittenSample], class_names: tuple[str, ...]
    ) -> None:
        """Write the bytes of the samples, and a row for each: number of bytes, C, H, W, label."""
        rows = list[tuple[int, ...]]()
        with replacing(folder / "spool" / f"{part:05}.samples") as partial, partial.open("wb") as file:
            for one in samples:
                content, label = bytes_of(one.sample), one.sample.label
                file.write(content)
                rows.append((len(content), *one.sample.image.shape, NO_LABEL if label is None else label))
        with replacing(folder / "spool" / f"{part:05}.npy") as partial, partial.open("wb") as file:
            np.save(file, np.array(rows, dtype=np.int64).reshape(-1, 5), allow_pickle=False)

    def finish(self, folder: Path, written: Written) -> Source:
        """Write the group, anew if an earlier call was interrupted."""
        import zarr  # here, because it takes a while to load

        place = folder / "out" / self._path.name
        with writing(place):
            group = zarr.open_group(place, mode="w")
            group.attrs.update({"format": FORMAT, "class_names": list(written.class_names)})
            writer = GroupWriter(group, written.class_names, written.left_out)
            for part in range(written.num_parts):
                rows = np.load(folder / "spool" / f"{part:05}.npy", allow_pickle=False)
                with (folder / "spool" / f"{part:05}.samples").open("rb") as file:
                    for size, channels, height, width, label in rows.tolist():
                        writer.add_bytes(file.read(size), (channels, height, width), label)
            writer.close()
        return self._source(url=self._url)
