"""Captions and retrieval: what is learnt of the bundled emoji, with the objectives of AIMv2 (arXiv:2411.14402).

    python -m aimcore.run examples/aimv2_captions.py                    # two cores, about a quarter of an hour
    aimcore caption runs/aimv2-captions-small/captions PICTURE.png

The study answers two questions that the paper leaves to larger models. Does a decoder learn its captions? One run
trains on drawings of one style until it can name them; its greedy captions of 64 training pictures are compared with
their names, letter by letter. Does the training generalise? Three seeds each of AIMv2 and CLIP are compared by their
recall among pictures of 335 concepts that were held out in every style, as mean and range over seeds and as a multiple
of chance. The paper's scale has no first run: SigLIP's vocabulary scores no end token, so captions would never end.

Measured at ``small``, before fresh weights were drawn as in the authors' code (docs/departures.md): the captions of all
64 training pictures, and of no held-out one. Recall at 5, mean of three seeds in multiples of chance (1.5 %): CLIP 4.6
from image to text and 4.7 from text to image; AIMv2 2.6 and 3.0. Ranked by log-likelihood, captions that suit every
image come first; less each caption's mean over the images it is 3.2.
"""

from aimv2_settings import captioning, contrastive, experiment, multimodal, retrieval

from aimcore import Augmentation, Data, Experiment, Scale, Schedule, Study
from aimcore_evaluations import Captions
from aimcore_optimizers import AdamW
from aimcore_sources import BundledEmoji
from aimcore_trunks import ViT

SEEDS = (0, 1, 2)


def captions(scale: Scale) -> Experiment:
    """The 1,500 drawings of one style, whole, until their names are known by heart."""
    num_steps, width, depth = {"smoke": (8, 32, 1), "small": (1600, 128, 4)}[scale]
    return Experiment(
        name="captions",
        data=Data(
            train=BundledEmoji(split="train", styles=("google",), skin_tones=False),
            validation=BundledEmoji(split="test", styles=("google",), skin_tones=False),
            batch_size=64,
            image_size=32,
            eval_crop=1.0,
            augmentation=Augmentation(crop_scale=(1.0, 1.0), flip_probability=0.0),
            caption_weights={"name": 1.0},
        ),
        trunk=ViT(width=width, depth=depth, num_heads=4, patch_size=8, norm="rms_norm", norm_eps=1e-5, ffn="swiglu"),
        objective=captioning(scale, "bidirectional"),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=2e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 20),
        evaluations=(Captions(split="train", num_images=64), Captions(split="validation", num_images=64)),
    )


def study(scale: Scale) -> Study:
    """The run that names what it has seen, and three seeds of each objective for what it has not."""
    objectives = {"aimv2": multimodal(scale), "clip": contrastive(scale)}
    experiments = [
        experiment(
            f"{name}-seed-{seed}",
            objective,
            scale,
            share_of_steps=2.0,
            evaluations=retrieval(scale),
            probed=False,
            seed=seed,
        )
        for name, objective in objectives.items()
        for seed in SEEDS
    ]
    if scale != "paper":
        experiments.insert(0, captions(scale))
    return Study(name="aimv2-captions", source="arXiv:2411.14402", experiments=experiments)
