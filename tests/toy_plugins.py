"""A plugin with one toy component of every role, and what makes distributions out of text."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from aimcore import (
    Data,
    Decoder,
    Evaluation,
    Experiment,
    Head,
    ImageTokenizer,
    Objective,
    Ordering,
    Probe,
    Problem,
    Source,
    Target,
    TextTokenizer,
    Tokenizer,
    Tracker,
    Trunk,
    at_least,
    component,
    hookimpl,
    settings,
)
from aimcore.contracts.layouts import FileLayout, StoredModel
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.registry.plugins import Plugins, load_plugins
from aimcore_optimizers import AdamW

if TYPE_CHECKING:
    from torch import Tensor


@component("toy")
class ToyOrdering(Ordering):
    seed: int = 0

    def permutation(self, grid): ...


@component("toy")
class ToyTarget(Target):
    weights: Mapping[str, float] = attrs.field(factory=dict)
    names: frozenset[str] = frozenset()

    def num_outputs(self, patch_size, num_channels): ...
    def values(self, batch): ...
    def loss(self, predictions_MK, values_M): ...


@component("codes")
class ToyImageTokenizer(ImageTokenizer):
    num_codes: int = 16

    def encode(self, view_BCHW, grid): ...
    def decode(self, ids_BN): ...


@component("letters")
class ToyTextTokenizer(TextTokenizer):
    vocabulary_size: int = 256

    def encode(self, texts, context_length): ...
    def decode(self, ids): ...


@settings
class Shape:
    """Settings inside a component; its annotation below is text, as under ``from __future__ import annotations``."""

    sides: tuple[int, int] = (1, 2)
    label: "str | None" = None


@component("toy")
class ToyHead(Head):
    buffer: "ClassVar[Tensor | None]" = None  # a name only type checkers know
    width: int = 8
    ratio: float = 4.0
    bias: bool = False
    norm: Literal["layer", "rms"] = "layer"
    shape: "Shape" = Shape()
    places: tuple[tuple[int, float], ...] = ()
    labels: Sequence[str] = ()
    scale: float | Literal["auto"] | None = None
    amount: float | int = 1

    def problems(self) -> Iterable[Problem]:
        yield from at_least("width", self.width, 1)
        yield from at_least("ratio", self.ratio, 0)

    def build(self, in_width, num_outputs): ...


@component("toy")
class ToyDecoder(Decoder):
    depth: int = 1

    def build(self, in_width, num_outputs, vocabulary_size, context_length): ...


@component("toy")
class ToyProbe(Probe):
    epochs: int = 1

    def layers_of(self, depth): ...
    def fit(self, train, held_out, seed): ...


@component("second")
class SecondToyProbe(ToyProbe):
    """Another name: an experiment has one probe of each."""


@component("toy")
class ToyEvaluation(Evaluation):
    most: int = 1

    def scores(self, module, material): ...


@component("toy")
class ToyObjective(Objective):
    ordering: Ordering = ToyOrdering()
    target: Target = ToyTarget()
    head: Head = ToyHead()
    decoder: Decoder | None = None
    text_tokenizer: TextTokenizer = ToyTextTokenizer()
    image_tokenizer: ImageTokenizer | None = None
    any_tokenizer: Tokenizer = ToyImageTokenizer()
    heads: tuple[Head, ...] = ()
    prefix: Literal["uniform"] | int | None = "uniform"

    def build(self, trunk): ...


@component("toy")
class ToyTrunk(Trunk):
    patch_size: int = 4

    def build(self): ...


@component("wrapped")
class WrappedTrunk(Trunk):
    trunk: Trunk = ToyTrunk()

    @property
    def patch_size(self):
        return self.trunk.patch_size

    def build(self): ...


@component("toy")
class ToySource(Source):
    root: str = "somewhere"

    def open(self): ...


@component("toy")
class ToyOptimizer(AdamW):
    momentum: float = 0.9


@component("toy")
class ToyTracker(Tracker):
    project: str = ""
    notes: Any = None

    def open(self, folder, recipe, resume_step): ...


@hookimpl
def tokenizers():
    return [ToyImageTokenizer, ToyTextTokenizer]


@hookimpl
def orderings():
    return [ToyOrdering]


@hookimpl
def targets():
    return [ToyTarget]


@hookimpl
def heads():
    return [ToyHead]


@hookimpl
def decoders():
    return [ToyDecoder]


@hookimpl
def probes():
    return [ToyProbe, SecondToyProbe]


@hookimpl
def evaluations():
    return [ToyEvaluation]


@hookimpl
def objectives():
    return [ToyObjective]


@hookimpl
def trunks():
    return [ToyTrunk, WrappedTrunk]


@hookimpl
def sources():
    return [ToySource]


@hookimpl
def optimizers():
    return [ToyOptimizer]


@hookimpl
def trackers():
    return [ToyTracker]


@component("toy")
class ToyLayout(FileLayout):
    """One tensor."""

    @property
    def title(self) -> str:
        return "a toy"

    @property
    def table(self) -> TensorTable:
        return TensorTable((TensorMap("weight", ("trunk.weight",)),))

    def model(self, tensors, config, given) -> StoredModel:
        return StoredModel(trunk=ToyTrunk())


@hookimpl
def layouts():
    return [ToyLayout]


class ToyDistribution(Distribution):
    """An installed distribution, made of text."""

    def __init__(self, name: str, version: str, points: Mapping[str, str], requires: Sequence[str] = ()) -> None:
        self.files_by_name = {
            "METADATA": "\n".join(
                [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in requires), ""]
            ),
            "entry_points.txt": "\n".join(["[aimcore]", *(f"{key} = {value}" for key, value in points.items())]),
        }

    def read_text(self, filename: str) -> str | None:
        return self.files_by_name.get(filename)

    def locate_file(self, path):
        return Path(path)


def points_of(*distributions: Distribution) -> list[EntryPoint]:
    """The entry points of distributions."""
    return [point for distribution in distributions for point in distribution.entry_points]


def toy_plugins(version: str = "1.5") -> Plugins:
    """This module as the only plugin, of the distribution ``aimcore-toys``."""
    return load_plugins(points_of(ToyDistribution("aimcore-toys", version, {"toys": "toy_plugins"})))


def toy_experiment(**fields) -> Experiment:
    """An experiment of toys."""
    data = Data(train=ToySource(), validation=ToySource(root="elsewhere"), batch_size=8, image_size=32)
    parts = {"trunk": ToyTrunk(), "objective": ToyObjective(), "optimizer": ToyOptimizer()}
    return Experiment(**{"name": "toys", "data": data, "num_steps": 10} | parts | fields)
