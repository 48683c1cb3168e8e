"""An encoder with its weights: features of images, and all that is needed to use them elsewhere.

Shape suffixes: B images, C channels, H W pixels, N patches, D width, K classes, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Text
from aimcore.contracts.features import Features
from aimcore.contracts.images import Images, Preprocessing
from aimcore.contracts.layouts import FileLayout, StoredModel
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.encoders.encoder_source import EncoderError, EncoderSource
from aimcore.encoders.image_reader import ImageReader, averaged
from aimcore.encoders.preprocessing import GIVEN, EncoderTransform, KnownPreprocessing
from aimcore.encoders.recognition import layout_called
from aimcore.encoders.saved_encoders import require_no_encoder, write_encoder
from aimcore.encoders.text_reader import read_text
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed


class Encoder:
    """A trunk with its weights, from a file of any known layout. See :func:`~aimcore.encoders.loading.load_encoder`.

    Example::

        encoder = load_encoder("hf://apple/aimv2-large-patch14-224")
        pixels_BCHW = torch.stack([encoder.transform(image) for image in images])
        tokens_BND = encoder.features(pixels_BCHW)  # [B, 256, 1024]
    """

    def __init__(
        self,
        model: StoredModel,
        module: TrunkModule,
        source: EncoderSource,
        preprocessing: KnownPreprocessing,
        *,
        objective_module: ObjectiveModule | None = None,
        probe: nn.Module | None = None,
        is_changed: bool = False,
    ) -> None:
        self.model = model
        self.module = module
        """The trunk's module, in evaluation mode."""
        self.source = source
        self.known_preprocessing = preprocessing
        self.objective_module = objective_module
        """The module of :attr:`objective`, whose ``trunk`` is :attr:`module`; None if the file has the trunk only."""
        self.probe = probe
        """Maps raw tokens ``[B, N, D]`` to logits ``[B, K]``; None if the file has no probe."""
        self.is_changed = is_changed
        """Whether the weights differ from those in the file: an update was merged."""
        self._reader = ImageReader(model.trunk, module, source.name)

    def __repr__(self) -> str:
        """Name the file, what it holds, and the size."""
        size = "any size" if self.image_size is None else f"{self.image_size} px"
        return (
            f"<Encoder {self.source.name}: {self.source.title}; width {self.width}, {self.depth} blocks, "
            f"patches of {self.patch_size} px, images of {size}, {self.num_parameters:,} parameters>"
        )

    @property
    def trunk(self) -> Trunk:
        """The component that builds the module."""
        return self.model.trunk

    @property
    def objective(self) -> Objective | None:
        """The component of the other parts of the file: two towers or a decoder; None if it has none."""
        return self.model.objective

    @property
    def probe_layers(self) -> tuple[int, ...]:
        """Blocks whose raw outputs the probe reads, averaged; empty for the tokens after the final norm."""
        return self.model.probe_layers

    @property
    def width(self) -> int:
        """D, the width of its tokens."""
        return self.module.width

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.module.depth

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return self.module.patch_size

    @property
    def image_size(self) -> int | None:
        """Side of the images that :attr:`transform` gives, in pixels; None for native resolution."""
        return self.known_preprocessing.image_size

    @property
    def transform(self) -> EncoderTransform:
        """The preprocessing of images: a Pillow image to pixels ``float32 [C, H, W]``."""
        return EncoderTransform(self.known_preprocessing.preprocessing, self.image_size, self.patch_size)

    @property
    def num_parameters(self) -> int:
        """Number of the trunk's parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def with_preprocessing(self, preprocessing: Preprocessing) -> Self:
        """Change the normalisation and crop that :attr:`transform` applies; return the encoder."""
        self.known_preprocessing = KnownPreprocessing(preprocessing, self.image_size, GIVEN)
        return self

    def to(self, *args: Any, **options: Any) -> Self:
        """Move all modules, or change their types, as ``torch.nn.Module.to`` does; return the encoder."""
        for module in (self.module, self.objective_module, self.probe):
            if module is not None:
                module.to(*args, **options)
        return self

    @torch.no_grad()
    def features(
        self, images_BCHW: Tensor | Images, layers: Sequence[int] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return tokens ``[B, N, D]`` after the final norm, in raster order.

        Images of another size than :attr:`image_size` are read with interpolated positions, bicubic and antialiased,
        if positions are learned (a log message says so once per grid); they are never sliced. Sine-cosine positions
        are computed for any grid. Attention is bidirectional, without gradients.

        On a CPU, the first call copies the weights into the form that is read fastest
        (:meth:`~aimcore.TrunkModule.for_inference`), and so does the first call after the weights have changed.

        Args:
            images_BCHW: pixels as :attr:`transform` gives them, or a batch of patches of any grids.
            layers: numbers of blocks, from 0 (negative ones count from the last): then a tuple of their raw outputs,
                ``[B, N, D]`` each, without the final norm.

        Raises:
            EncoderError: the images are not such pixels or do not divide into patches, or there is no such block.
        """
        if layers is None:
            return self._reader.read_frozen(images_BCHW, ()).tokens_BND
        return self._reader.read_frozen(images_BCHW, self._reader.blocks(layers)).layers

    def read(self, images_BCHW: Tensor | Images, layers: tuple[int, ...] = ()) -> Features:
        """Return all features, with positions, validity and extra tokens. Gradients pass.

        Raises:
            EncoderError: the images do not divide into patches, or the trunk cannot read their grid.
        """
        return self._reader.read(images_BCHW, layers)

    def frozen_module(self, products: torch.dtype | None = None) -> TrunkModule:
        """Return the module that reads fastest without gradients: :attr:`module`, or a copy of its present weights.

        Args:
            products: the type of matrix products; by default that of autocast if it is enabled, else of the weights.
        """
        return self._reader.frozen_module(products)

    @torch.no_grad()
    def pool(self, images_BCHW: Tensor | Images, layers: Sequence[int] | None = None) -> Tensor:
        """Return ``[B, D]``: the mean of each image's tokens, of the outputs that a probe of this model reads.

        Args:
            images_BCHW: as for :meth:`features`.
            layers: blocks whose raw outputs are averaged; by default :attr:`probe_layers`. Without layers, the tokens
                after the final norm.

        Raises:
            EncoderError: see :meth:`features`.
        """
        chosen = self.probe_layers if layers is None else self._reader.blocks(layers)
        features = self._reader.read_frozen(images_BCHW, chosen)
        tokens_BND, valid_BN1 = averaged(features, chosen), features.valid_BN.unsqueeze(-1)
        total_BD = (tokens_BND * valid_BN1).sum(1)
        return total_BD / valid_BN1.sum(1)

    @torch.no_grad()
    def classify(self, images_BCHW: Tensor | Images) -> Tensor:
        """Return the logits ``[B, K]`` of the probe in the file.

        Raises:
            EncoderError: the file has no probe.
        """
        if self.probe is None:
            raise EncoderError(
                f"{self.source.name} has no probe. AIM's probes are files of their own: load_encoder(BACKBONE, "
                "head=HEAD). Those of AIMv2 were never released; train one: aimcore probe"
            )
        features = self._reader.read_frozen(images_BCHW, self.probe_layers)
        logits_BK: Tensor = self.probe(averaged(features, self.probe_layers))
        return logits_BK

    @torch.no_grad()
    def embed_images(self, images_BCHW: Tensor | Images) -> Tensor:
        """Return ``[B, E]`` of unit length, in the space that the two towers share.

        Raises:
            EncoderError: the file has no two towers, or the trunk cannot read these images.
        """
        towers = self._reader.frozen_towers(self._towers())
        return towers.embed_images(self._reader.images(images_BCHW))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str] | Text | Tensor) -> Tensor:
        """Return ``[B, E]`` of unit length for texts, or for their ids ``[B, T]``, padded at the end.

        Raises:
            EncoderError: the file has no two towers.
            AimcoreError: texts are given, and the tokenizer is unknown: give it to ``load_encoder``.
        """
        towers = self._towers()
        assert self.objective is not None, "_towers requires it"
        # The tokenizer's file may be missing, but the table has the number of ids. Towers of other libraries have other
        # names, and check ids themselves.
        table = towers.state_dict().get("text_tower.embedding.weight")
        return towers.embed_texts(read_text(texts, self.objective, None if table is None else len(table)))

    @torch.no_grad()
    def zero_shot(self, images_BCHW: Tensor | Images, texts: Sequence[str] | Text | Tensor) -> Tensor:
        """Return the scaled similarities ``[images, texts]``; a softmax over texts gives probabilities.

        Raises:
            EncoderError: the file has no two towers.
            AimcoreError: texts are given, and the tokenizer is unknown: give it to ``load_encoder``.
        """
        towers: Any = self._towers()
        similarity: Tensor = self.embed_images(images_BCHW) @ self.embed_texts(texts).T
        logits: Tensor = towers.scale(similarity)
        return logits

    def to_recipe(self) -> dict[str, Any]:
        """Return the fields of a recipe that start an experiment from this encoder.

        They are ``trunk``, ``initial_weights`` (the file with its hash) and the fields of ``data`` that the weights
        depend on. Objective, decoder and head are the experiment's own, and begin with fresh weights.

        Raises:
            EncoderError: the weights are not those of a file.
        """
        if not self.source.files:
            raise EncoderError(
                f"{self.source.name} stores no weights: begin as it did, with trunk and initial_weights of its recipe"
            )
        if self.is_changed:
            raise EncoderError(
                f"{self.source.name} does not hold these weights, into which an update was merged: write them with "
                "'aimcore export', or save the encoder and open it again"
            )
        mean, std, eval_crop = self.known_preprocessing.preprocessing
        data: dict[str, Any] = {"mean": list(mean), "std": list(std), "eval_crop": eval_crop}
        if self.image_size is not None:
            data["image_size"] = self.image_size
        weights = {"url": self.source.url, "sha256": self.source.sha256}
        return {"trunk": plain(self.trunk), "initial_weights": weights, "data": data}

    def state(self) -> dict[str, Tensor]:
        """Return all tensors by the names of :class:`~aimcore.contracts.layouts.StoredModel`."""
        if self.objective_module is not None:
            tensors = dict(self.objective_module.state_dict())
        else:
            tensors = {f"trunk.{name}": value for name, value in self.module.state_dict().items()}
        if self.probe is not None:
            tensors |= {f"probe.{name}": value for name, value in self.probe.state_dict().items()}
        return tensors

    def save(self, folder: str | Path) -> None:
        """Write the encoder to a new folder, which ``load_encoder`` opens with equal weights and preprocessing.

        The weights are in the layout that they were read in, and a file next to them has what they do not say. Of a
        run, or a model of another library, the trunk is saved.

        Raises:
            EncoderError: the folder holds an encoder already.
            NotInLayout: the layout has no place for the tensors.
            CannotWrite: the system refused.
        """
        path, layout = Path(folder), self.source.layout
        require_no_encoder(path)
        is_listed = layout in installed().registry(FileLayout.role)
        trunk = {f"trunk.{name}": value for name, value in self.module.state_dict().items()}
        tensors = layout_called(layout).write(self.state()) if is_listed else trunk
        write_encoder(path, tensors, self.model, self.known_preprocessing, self.source, is_listed=is_listed)

    def _towers(self) -> ObjectiveModule:
        if self.objective_module is None or self.objective is None or "embed" not in self.objective.skills:
            raise EncoderError(f"{self.source.name} has no text tower: it holds {self.source.title}")
        return self.objective_module
