"""Layouts of files of weights: how the tensors of a file map to a trunk and to what is around it.

A layout is recognised by the names and shapes of a file's tensors, never by the name of the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
from torch import Tensor, nn

from aimcore.contracts.component import Component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.objectives import Objective
from aimcore.contracts.tensor_maps import TableFit, TensorTable
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import Trunk

Tensors = Mapping[str, Tensor]


@attrs.frozen
class GivenSettings:
    """What weights do not say, and a config file or the user may."""

    num_heads: int | None = None
    """Heads of the trunk, and of an attention pool on it."""
    text_heads: int | None = None
    """Heads of the text tower, or of the decoder."""
    tokenizer: TextTokenizer | None = None
    """Tokenizer of the texts that the model reads."""
    image_size: int | None = None
    """Side of the images in pixels, where positions are not learned."""
    probe_layers: tuple[int, ...] | None = None
    """Blocks whose outputs the probe in the file reads."""
    config: str | None = None
    """The content of a ``config.json``, for layouts whose weights say too little without it."""
    url: str | None = None
    """The file of weights, next to which a tokenizer may be; None if there is no file."""


@attrs.frozen(eq=False)
class StoredModel:
    """The model whose weights a file holds, as components that build it.

    Its parameters have the names of these modules: ``trunk.*`` for the trunk, those of the objective's module for the
    other parts (``text_tower.*``, ``decoder.*``, ...), and ``probe.*`` for the probe.
    """

    trunk: Trunk
    """The encoder."""
    objective: Objective | None = None
    """The objective whose module holds the other parts: two towers, or a decoder. None if the file has the trunk only,
    or a trunk with a probe."""
    probe: Callable[[], nn.Module] | None = None
    """Builds the module of a probe: raw tokens ``[B, N, D]`` to logits ``[B, C]``. None if the file has no probe."""
    probe_layers: tuple[int, ...] = ()
    """Blocks whose raw outputs are averaged for the probe; empty for the tokens after the final norm."""
    image_size: int | None = None
    """Side of the square images that the model was trained on, in pixels; None for any size (native resolution)."""
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    """What the weights do not say, as fields of :class:`GivenSettings`: with them the same file opens again, without
    its config."""
    advice: tuple[str, ...] = ()
    """What the user should know before using it, as complete sentences."""


class FileLayout(Component, ABC):
    """A layout of files of weights. It is a component, so a plugin can add one; it has no fields that users set.

    Most layouts are a :class:`~aimcore.contracts.tensor_maps.TensorTable`, and override :attr:`title`, :attr:`table`
    and :meth:`model` only. What is a property here may be a class attribute: ``title = "AIM, as in X"``. The tensors
    that a layout reads and writes are those of one model; shards are joined before.
    """

    __slots__ = ()
    role: ClassVar[str] = "layouts"

    @property
    @abstractmethod
    def title(self) -> str:
        """What a file of this layout holds and who wrote it, in a few words: ``"AIMv2, as in transformers"``."""

    @property
    @abstractmethod
    def table(self) -> TensorTable:
        """The rules that map the file's tensors to the names of :class:`StoredModel`, and back."""

    @abstractmethod
    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the model that has these weights.

        Args:
            tensors: the file's tensors, which fit the table. Only layouts that cannot do without read values.
            config: the content of the ``config.json`` next to the file, or None without such a file. Use it only
                for what the shapes do not say (see also :meth:`stated`).
            given: what the user gave; it is preferred to ``config``.

        Raises:
            AimcoreError: the shapes contradict each other, or a setting is neither given nor implied.
        """

    def stated(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings of the model that a config file states, by their paths: ``{"trunk.width": 1024}``.

        A path is a chain of attributes of :class:`StoredModel`. Every value is compared with that of the model, and a
        file whose weights contradict its config is refused.
        """
        return {}

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """Return the preprocessings that are published for such files, each with its source, the preferred one first.

        They count where neither the user nor a file next to the weights states one; several give a warning.
        """
        return ()

    @property
    def licence(self) -> str | None:
        """Licence of the released files of this layout, if all have the same one."""
        return None

    def explain(self, tensors: Tensors) -> str | None:
        """Explain a file that this layout knows and that cannot be opened alone, such as a head without its trunk.

        Return a complete sentence; None for every other file. Tensors may be on the meta device.
        """
        return None

    def fit(self, tensors: Tensors) -> TableFit:
        """Compare a file with this layout, by names and shapes. Tensors may be on the meta device."""
        return self.table.fit(tensors)

    def read(self, tensors: Tensors) -> dict[str, Tensor]:
        """Convert a file's tensors to the names of :class:`StoredModel`."""
        return self.table.read(tensors)

    def write(self, state: Tensors) -> dict[str, Tensor]:
        """Convert a model's state to the tensors of a file: the inverse of :meth:`read`.

        Raises:
            NotInLayout: this layout has no place for some of the tensors, or the state lacks some.
        """
        return self.table.write(state)

    @property
    def target(self) -> str | None:
        """Who reads files of this layout, as ``aimcore export --to`` names them; None if they are not exported."""
        return None

    @property
    def shards(self) -> bool:
        """Whether its readers open large models that are split over several files."""
        return True

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield what the readers of this layout cannot express of ``model``, in addition to tensors without a place.

        Each text completes the sentence "it cannot be exported, because ...".
        """
        return ()

    def for_model(self, model: StoredModel) -> FileLayout:
        """Return the layout of the files of one model that it can express, if their names depend on it. Optional."""
        return self

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON files that are stored next to the weights, by name, such as ``config.json``. Optional."""
        return {}

    def tokenizer_files(self, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Adapt the files of a tokenizer (:meth:`~aimcore.TextTokenizer.export`) to the readers' model. Optional."""
        return files

    def usage(self, model: StoredModel) -> str:
        """Return code that opens a folder with such files, for the model card. ``FOLDER`` stands for the folder."""
        return ""
