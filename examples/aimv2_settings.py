"""What the AIMv2 studies of this folder share: data, encoder, decoder and training at the three scales.

``small`` reads the bundled emoji at 32 px with their names as captions; ``paper`` is ViT-L on 2 billion pairs
(arXiv:2411.14402, section 5), in WebDataset shards below ``PAIRS``, probed on ImageNet below ``IMAGENET``.
"""

import os
from collections.abc import Sequence
from typing import Literal

from aimcore import (
    Augmentation,
    Data,
    DataNotFound,
    Engine,
    Evaluation,
    Experiment,
    Objective,
    Probe,
    Scale,
    Schedule,
    Source,
    TextTokenizer,
    Trunk,
    Weights,
)
from aimcore_decoders import CrossAttentionDecoder, JointDecoder, SeparateDecoder
from aimcore_evaluations import PROMPTS, Retrieval, ZeroShot
from aimcore_heads import MLPHead
from aimcore_objectives import CapPa, Captioning, Contrastive, Multimodal, NextPatch
from aimcore_objectives.towers import TextTower
from aimcore_optimizers import AdamW
from aimcore_probes import AttentiveProbe
from aimcore_sources import BundledEmoji, FewLabels, ImageFolder, Mixture, WebDataset
from aimcore_tokenizers import Bytes, ClipBPE, SentencePiece
from aimcore_trunks import AIMV2_BATCH_SIZE, AIMv2Size, ViT, aimv2, aimv2_optimizer, aimv2_schedule

IMAGENET = os.environ.get("IMAGENET", "file:///data/imagenet")
"""Where ImageNet lies, with folders train/ and val/; any fsspec URL."""
IMAGENET_NAMES = os.environ.get("IMAGENET_NAMES", f"{IMAGENET}/LOC_synset_mapping.txt")
"""What ImageNet's classes, whose folders are WordNet ids, are called: a line or a JSON entry per folder (see
``ImageFolder.names``). Zero-shot classification needs it."""
PAIRS = os.environ.get("PAIRS", "file:///data/pairs")
"""Where the captioned shards of Table 2 lie, in folders dfn/, coyo/, hqitp/ and validation/; any fsspec URL."""
VOCABULARY = os.environ.get("SIGLIP_VOCABULARY", "/data/siglip/sentencepiece.model")
"""SigLIP's SentencePiece model (32,000 pieces), which the paper tokenizes captions with. The paper's scale cannot be
costed without it, as the vocabulary is part of every decoder."""
CLIP_VOCABULARY = os.environ.get("CLIP_VOCABULARY", "/data/clip/bpe_simple_vocab_16e6.txt.gz")
"""CLIP's file of merges (49,408 ids), which the text tower of the released LiT model reads."""

ABLATION_PAIRS = 2_000_000_000
"""Samples of every run of Table 9 and Figure 4 (arXiv:2411.14402, sections 3.2 and 5)."""
VQA = ("VQAv2", "TextVQA")
"""Columns of Table 9 that come after instruction tuning, which is not run here."""


def rows(scores: dict[str, tuple[float, float, float]]) -> dict[str, dict[str, float]]:
    """The paper's scores per experiment from Table 9's percentages (IN-1k, VQAv2, TextVQA)."""
    columns = ("attentive", *VQA)
    return {
        name: {column: round(value / 100, 4) for column, value in zip(columns, values, strict=True)}
        for name, values in scores.items()
    }


def experiment(
    name: str,
    objective: Objective,
    scale: Scale,
    *,
    size: AIMv2Size = "L",
    num_pairs: float = ABLATION_PAIRS,
    batch_factor: int = 1,
    share_of_steps: float = 1.0,
    evaluations: Sequence[Evaluation] = (),
    initial_weights: Weights | None = None,
    frozen: tuple[str, ...] = (),
    probed: bool = True,
    seed: int = 0,
) -> Experiment:
    """One run; what no argument changes is shared by all studies.

    Args:
        name: of the run.
        objective: what is trained.
        scale: how large.
        size: the encoder's, at the paper's scale.
        num_pairs: samples seen at the paper's scale.
        batch_factor: times the usual batch, with the same number of samples.
        share_of_steps: of the usual number of steps, below the paper's scale.
        evaluations: measurements in addition to probes.
        initial_weights: what it begins with.
        frozen: what is not trained.
        probed: whether the attentive probe runs.
        seed: of weights, data and everything else that is drawn.
    """
    batch_size = batch_factor * {"smoke": 16, "small": 64, "paper": AIMV2_BATCH_SIZE}[scale]
    usual = {"smoke": 8, "small": SMALL_STEPS, "paper": num_pairs / AIMV2_BATCH_SIZE}[scale]
    num_steps = max(1, round(usual * (1 if scale == "paper" else share_of_steps) / batch_factor))
    return Experiment(
        name=name,
        data=data(scale, batch_size, named=any(isinstance(one, ZeroShot) for one in evaluations)),
        trunk=trunk(scale, size),
        objective=objective,
        num_steps=num_steps,
        optimizer=optimizer(scale, size),
        schedule=aimv2_schedule() if scale == "paper" else Schedule(warmup_steps=num_steps // 20),
        engine=Engine(zero_stage=1, precision="bf16") if scale == "paper" else Engine(),
        probes=(probe(scale),) if probed else (),
        evaluations=tuple(evaluations),
        checkpoint_every=5_000 if scale == "paper" else None,
        initial_weights=initial_weights,
        frozen=frozen,
        seed=seed,
    )


SMALL_STEPS = 300
"""Seven passes over the emoji: with more, what is learnt of their names no longer helps with other names."""


def data(scale: Scale, batch_size: int, *, named: bool = False) -> Data:
    """Emoji with their Unicode names; or the pairs of Table 2, with ImageNet to probe on.

    Args:
        scale: how large.
        batch_size: of all processes together.
        named: whether ImageNet's classes need names that are words; those of emoji are.
    """
    if scale != "paper":
        return Data(
            train=emoji(scale, BundledEmoji(split="train", skin_tones=False)),
            validation=emoji(scale, BundledEmoji(split="test", skin_tones=False)),
            batch_size=batch_size,
            image_size=32,
            eval_crop=1.0,
            # Emoji fill their picture: little can be cut off, and a mirrored arrow has another name.
            augmentation=Augmentation(crop_scale=(0.8, 1.0), flip_probability=0.0),
            caption_weights={"name": 1.0},
        )
    names = IMAGENET_NAMES if named else None
    return Data(
        train=pairs(),
        validation=WebDataset(url=f"{PAIRS}/validation/*.tar"),
        probe_train=ImageFolder(url=f"{IMAGENET}/train", names=names),
        probe_test=ImageFolder(url=f"{IMAGENET}/val", names=names),
        batch_size=batch_size,
        image_size=224,
        num_workers=8,
    )


def emoji(scale: Scale, source: BundledEmoji) -> Source:
    """All emoji of ``source``, or twenty of each category."""
    return FewLabels(source=source, per_class=20) if scale == "smoke" else source


def pairs() -> Mixture:
    """Table 2: alt-texts and synthetic captions of three collections, and how often each is read."""
    parts = {
        ("dfn", "alt"): 30.0, ("dfn", "synthetic"): 30.0,
        ("coyo", "alt"): 9.0,
        ("hqitp", "alt"): 28.0, ("hqitp", "synthetic"): 3.0,
    }  # fmt: skip
    member = {"alt": "txt", "synthetic": "json#synthetic"}
    sources: tuple[Source, ...] = tuple(
        WebDataset(url=f"{PAIRS}/{collection}/*.tar", captions={kind: member[kind]}) for collection, kind in parts
    )
    return Mixture(sources=sources, weights=tuple(parts.values()))


def trunk(scale: Scale, size: AIMv2Size = "L") -> Trunk:
    """AIMv2's encoder: 16 patches of an emoji, or 256 of 14 px."""
    if scale == "paper":
        return aimv2(size)
    width, depth = {"smoke": (32, 1), "small": (128, 4)}[scale]
    return ViT(
        width=width, depth=depth, num_heads=4, patch_size=8,
        norm="rms_norm", norm_eps=1e-5, ffn="swiglu", positions="learned", grid=(4, 4),
    )  # fmt: skip


def optimizer(scale: Scale, size: AIMv2Size = "L") -> AdamW:
    """Table A1's; at the smaller scales with a rate that suits their widths."""
    if scale == "paper":
        return aimv2_optimizer(size)
    return AdamW(peak_lr=2e-3, weight_decay=1e-4, decay="decoupled")


def probe(scale: Scale) -> Probe:
    """Table A2's attentive probe; at the smaller scales with its grid, on fewer images for fewer epochs."""
    if scale == "paper":
        return AttentiveProbe.aimv2(epochs=100, warmup_epochs=5, batch_size=1024)
    epochs, images = {"smoke": (1, 200), "small": (10, 4000)}[scale]
    return AttentiveProbe.aimv2(epochs=epochs, batch_size=64, max_train_images=images, num_heads=4)


def tokenizer(scale: Scale) -> TextTokenizer:
    """SigLIP's vocabulary and canonical form; bytes, whose end is supervised so that captions end, at smaller scales.

    Captions are repaired and lose their punctuation before they are tokenized, as in the authors' training code. A
    recipe can be written before the vocabulary's file exists; running it then reports the missing file.
    """
    if scale != "paper":
        return Bytes(supervise_end=True)
    try:
        return SentencePiece.from_file(VOCABULARY, repair_text=True, delete_punctuation=True)
    except DataNotFound:
        return SentencePiece(path=VOCABULARY, sha256="0" * 64, repair_text=True, delete_punctuation=True)


def text_tower_tokenizer(scale: Scale) -> TextTokenizer:
    """CLIP's vocabulary, as in the released LiT model's text tower, on repaired captions; bytes at smaller scales."""
    if scale != "paper":
        return tokenizer(scale)
    try:
        return ClipBPE.from_file(CLIP_VOCABULARY, repair_text=True)
    except DataNotFound:  # as above
        return ClipBPE(path=CLIP_VOCABULARY, sha256="0" * 64, repair_text=True)


def context_length(scale: Scale) -> int:
    """77 tokens; emoji names have at most 40 bytes that matter."""
    return 77 if scale == "paper" else 40


def decoder_size(scale: Scale, *, width: float = 1.0, depth: float = 1.0) -> dict[str, int]:
    """Width, depth and heads of a decoder, as multiples of the default (Table 1: 1024 wide, 12 deep, 8 heads)."""
    whole = {"smoke": (32, 2, 4), "small": (128, 3, 4), "paper": (1024, 12, 8)}[scale]
    return {"width": round(whole[0] * width), "depth": round(whole[1] * depth), "num_heads": whole[2]}


def multimodal(
    scale: Scale,
    *,
    image_weight: float = 0.4,
    kind: Literal["joint", "separate"] = "joint",
    width: float = 1.0,
    depth: float = 1.0,
) -> Multimodal:
    """AIMv2's own objective, with what Table 9c to 9f vary."""
    sizes = decoder_size(scale, width=width, depth=depth)
    return Multimodal(
        decoder=JointDecoder(**sizes) if kind == "joint" else SeparateDecoder(**sizes),
        tokenizer=tokenizer(scale),
        context_length=context_length(scale),
        image_weight=image_weight,
    )


def captioning(scale: Scale, attention: Literal["bidirectional", "prefix"]) -> Captioning:
    """Cap: the same decoder without the image loss (section 3.2)."""
    return Captioning(
        decoder=JointDecoder(**decoder_size(scale)),
        tokenizer=tokenizer(scale),
        context_length=context_length(scale),
        attention=attention,
    )


def cappa(scale: Scale) -> CapPa:
    """CapPa (arXiv:2306.07915): its decoder attends to the image, and 75 % of examples are predicted in parallel."""
    decoder = CrossAttentionDecoder(**decoder_size(scale))
    return CapPa(decoder=decoder, tokenizer=tokenizer(scale), context_length=context_length(scale))


def contrastive(scale: Scale, loss: Literal["softmax", "sigmoid"] = "softmax") -> Contrastive:
    """CLIP with AIMv2's architecture; its towers are those of the released LiT model. Or SigLIP, by its loss.

    The CLIP configuration of AIMv2's authors differs: see ``aimv2_vs_clip.py`` and docs/departures.md.
    """
    towers = {"smoke": (32, 1), "small": (128, 3)}
    if scale == "paper":
        return Contrastive(tokenizer=text_tower_tokenizer(scale), context_length=context_length(scale), loss=loss)
    width, depth = towers[scale]
    return Contrastive(
        text_tower=TextTower(width=width, depth=depth, num_heads=4),
        tokenizer=text_tower_tokenizer(scale),
        context_length=context_length(scale),
        embedding_width=width,
        num_pool_heads=4,
        loss=loss,
    )


def next_patch(scale: Scale) -> NextPatch:
    """AIM's objective: images alone, prefix attention, AIM's head."""
    head = MLPHead() if scale == "paper" else MLPHead(width=decoder_size(scale)["width"], depth=2)
    return NextPatch(head=head, prefix="uniform")


def retrieval(scale: Scale) -> tuple[Evaluation, ...]:
    """Retrieval among captions and images of other concepts, one image per concept; 335 emoji concepts are held out."""
    if scale == "paper":
        return (Retrieval(max_images=5000),)
    return (
        Retrieval(max_images={"smoke": 8, "small": 335}[scale], kind="name", group_by="concept", subtract_mean=True),
    )


def zero_shot(scale: Scale) -> tuple[Evaluation, ...]:
    """Zero-shot classification by class names: ImageNet's, or the nine categories of emoji."""
    if scale == "paper":
        return (ZeroShot(templates=PROMPTS),)
    return (ZeroShot(max_images={"smoke": 8, "small": None}[scale]),)
