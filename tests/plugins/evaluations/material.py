"""Images whose colour is their only content, and modules whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import (
    Batch,
    Data,
    Engine,
    Experiment,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    OpenSource,
    Sample,
    Source,
    Text,
    component,
)
from aimcore.contracts.decoders import CaptionStart, DecoderState
from aimcore.evaluation import OpenEvaluationData, evaluate
from aimcore.testing.small_parts import StandInTrunk
from aimcore_tokenizers import Bytes

TOKENIZER = Bytes(supervise_end=True)
CONTEXT = 12


@component("grey")
class Grey(Source):
    """Image i has brightness 10 i; the last caption of ``captions`` goes to all behind it."""

    captions: tuple[str, ...] = ("a",)
    labels: tuple[int | None, ...] = ()
    classes: tuple[str, ...] = ()

    def open(self) -> OpenSource:
        return OpenGrey(self)


class OpenGrey(OpenSource):
    def __init__(self, source: Grey) -> None:
        self.source, self.class_names = source, source.classes

    def __len__(self) -> int:
        return len(self.source.captions)

    def read(self, index: int) -> Sample:
        image = torch.full((3, 4, 4), 10 * index, dtype=torch.uint8)
        caption = self.source.captions[index]
        captions = {"name": (caption,), "other": (caption.upper(), "something else")} if caption else {}
        label = self.source.labels[index] if self.source.labels else None
        return Sample(image, f"grey {index}", captions, label, {"half": index // 2})


@component("known")
class Known(Objective):
    """Its module is made elsewhere."""

    can: frozenset[str] = frozenset({"embed"})
    supervise_end: bool = True

    @property
    def text(self):
        return Bytes(supervise_end=self.supervise_end), CONTEXT

    def build(self, trunk):
        raise NotImplementedError


def number_of(images: Images) -> Tensor:
    """Which of the images of :class:`Grey` these are."""
    return (images.patches_BNF[:, 0, 0] * 255 / 10).round().long()


class KnownModule(ObjectiveModule):
    """Embeddings by image number and by text; captions by image number."""

    def __init__(
        self,
        images: Sequence[Sequence[float]] = (),
        texts: Mapping[str, Sequence[float]] | None = None,
        captions: Sequence[str] = (),
        likelihood: Callable[[int, str], float] | None = None,
    ) -> None:
        super().__init__()
        self.images, self.texts = torch.tensor(images, dtype=torch.float32), texts or {}
        self.captions, self.likelihood = captions, likelihood

    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        return {}

    def embed_images(self, images: Images) -> Tensor:
        return functional.normalize(self.images[number_of(images)], dim=-1)

    def embed_texts(self, text: Text) -> Tensor:
        known = [self.texts[TOKENIZER.decode(ids)] for ids in text.ids_BT.tolist()]
        return functional.normalize(torch.tensor(known), dim=-1)

    def caption_start(self, batch: Batch) -> CaptionStart:
        """The image's number is remembered as what was seen."""
        numbers_B1 = number_of(batch.images)[:, None]
        return CaptionStart(self._logits(numbers_B1, 0), DecoderState((), numbers_B1, 1))

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        return self._logits(state.seen_BL, state.num_tokens), state._replace(num_tokens=state.num_tokens + 1)

    def _logits(self, numbers_B1: Tensor, position: int) -> Tensor:
        captions = self.captions or [""] * 99
        ids_BT = TOKENIZER.encode([captions[number] for number in numbers_B1[:, 0].tolist()], CONTEXT).ids_BT
        return functional.one_hot(ids_BT[:, position], TOKENIZER.vocabulary_size).float()

    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        assert self.likelihood is not None
        pairs = zip(start.state.seen_BL[:, 0].tolist(), text.ids_BT.tolist(), strict=True)
        return torch.tensor([self.likelihood(number, TOKENIZER.decode(ids)) for number, ids in pairs])


def experiment(source: Source, evaluation, *, can: str = "embed", supervise_end: bool = True, **data) -> Experiment:
    fixed = {"batch_size": 4, "image_size": 4, "mean": (0.0,) * 3, "std": (1.0,) * 3, "eval_crop": 1.0}
    return Experiment(
        name="known",
        data=Data(train=source, validation=source, **fixed | data),
        trunk=StandInTrunk(),
        objective=Known(can=frozenset({can}), supervise_end=supervise_end),
        num_steps=1,
        evaluations=(evaluation,),
        engine=Engine(precision="fp32"),
    )


def measured(source: Source, evaluation, module: ObjectiveModule, *, can: str = "embed", **data) -> dict:
    """Scores by their names."""
    return dict(evaluate(experiment(source, evaluation, can=can, **data), module).scores)


def misfits(source: Source, evaluation, *, can: str = "embed", **data) -> list[str]:
    """What stands against measuring ``evaluation``."""
    made = experiment(source, evaluation, can=can, **data)
    return [*evaluation.problems_with(made.objective), *evaluation.problems_with_data(OpenEvaluationData.of(made))]
