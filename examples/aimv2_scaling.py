"""How does AIMv2's loss fall with samples, size and compute? AIMv2, arXiv:2411.14402, section 3.1 and Figure 2.

    python -m aimcore.run examples/aimv2_scaling.py                     # two cores, five minutes: runs, plots, fit
    python -m aimcore.run examples/aimv2_scaling.py --scale paper --dry-run

One long run per size, with a half-cosine that ends at half the peak rate. From its checkpoints branch cooldowns to
1e-6, each a fifth as long as what came before it, and each branch is a model trained to the end on fewer samples: the
seven points of a size cost half as much as if each were trained alone. The long run's own end, which never cooled down,
is shown but not fitted.

``small`` has widths of 16 to 128 and five branches each, on the bundled emoji at 32 px. It compares the *image* loss:
names of concepts that were never seen cannot be known from 1,338 others, so that after a few passes the text loss on
held-out concepts rises in every size. What Figure 2 shows is there in little: the best width grows with the budget, and
with the most samples a larger width has a lower loss; with few samples, larger widths are undertrained. Each model has
one seed, so expect noise of a percent or so.

The law of the lower envelope is fitted only at budgets where a size beats a smaller and a larger one, so that a study
whose sizes do not cross has none; the joint law of size and samples (arXiv:2203.15556) is fitted to all models.

``paper`` is the four sizes of AIMv2, compared by the weighted total of both losses. The paper gives neither the steps
of its checkpoints nor warm-up and batch of this study: ours are ASSUMPTIONS (Table A1's, and steps evenly spaced in the
logarithm), and so is that a cooldown's fifth is one of the steps before it.
"""

from math import gcd
from typing import NamedTuple

from aimv2_settings import PAIRS, emoji, pairs, tokenizer

from aimcore import (
    Augmentation,
    Branch,
    Data,
    Engine,
    Experiment,
    Objective,
    Scale,
    Scaling,
    Schedule,
    Study,
    Trunk,
)
from aimcore_decoders import JointDecoder
from aimcore_objectives import Multimodal
from aimcore_optimizers import AdamW
from aimcore_sources import BundledEmoji, WebDataset
from aimcore_trunks import (
    AIMV2_BATCH_SIZE,
    AIMv2Size,
    ViT,
    aimv2,
    aimv2_cooldown,
    aimv2_long_schedule,
    aimv2_optimizer,
)


class Size(NamedTuple):
    """What differs between the curves."""

    name: str
    trunk: Trunk
    optimizer: AdamW


class Plan(NamedTuple):
    """What a scale is made of."""

    sizes: tuple[Size, ...]
    objective: Objective
    data: Data
    long_steps: int
    branch_steps: tuple[int, ...]
    """Where the branches leave; the last may leave at the end."""
    checkpoint_every: int
    schedule: Schedule
    engine: Engine
    loss: str | None
    """What is compared; None takes the weighted total."""


def small() -> Plan:
    """Minutes on two cores."""
    shapes = {"w16": (16, 1, 4e-3), "w32": (32, 2, 4e-3), "w64": (64, 3, 3e-3), "w128": (128, 4, 2e-3)}
    sizes = tuple(emoji_size(name, width, depth, rate) for name, (width, depth, rate) in shapes.items())
    steps = (40, 80, 140, 240, 400)
    return emoji_plan("small", sizes, decoder=(64, 1), batch_size=64, branch_steps=steps, warmup_steps=20)


def smoke() -> Plan:
    """Seconds: the same way through everything, too short to learn."""
    sizes = tuple(emoji_size(name, width, 1, 1e-3) for name, width in (("w16", 16), ("w32", 32)))
    return emoji_plan("smoke", sizes, decoder=(16, 1), batch_size=16, branch_steps=(4, 8), warmup_steps=2)


def emoji_size(name: str, width: int, depth: int, peak_lr: float) -> Size:
    """AIMv2's form of encoder on 16 patches; its feed-forward width is 8/3 of its own, to a multiple of 16."""
    trunk = ViT(
        width=width, depth=depth, num_heads=max(2, width // 32), patch_size=8, ffn_width=-(-8 * width // 48) * 16,
        norm="rms_norm", norm_eps=1e-5, ffn="swiglu", positions="learned", grid=(4, 4),
    )  # fmt: skip
    return Size(name, trunk, AdamW(peak_lr=peak_lr, weight_decay=1e-4, decay="decoupled"))


def emoji_plan(
    scale: Scale,
    sizes: tuple[Size, ...],
    *,
    decoder: tuple[int, int],
    batch_size: int,
    branch_steps: tuple[int, ...],
    warmup_steps: int,
) -> Plan:
    """Names and drawings of emoji; one decoder for all sizes, as in the paper."""
    width, depth = decoder
    objective = Multimodal(decoder=JointDecoder(width=width, depth=depth, num_heads=2), context_length=32)
    data = Data(
        train=emoji(scale, BundledEmoji(split="train")),
        validation=emoji(scale, BundledEmoji(split="test")),
        batch_size=batch_size,
        image_size=32,
        eval_crop=1.0,
        # Emoji fill their picture, and a mirrored arrow has another name.
        augmentation=Augmentation(crop_scale=(0.8, 1.0), flip_probability=0.0),
        caption_weights={"name": 1.0},
    )
    return Plan(
        sizes=sizes,
        objective=objective,
        data=data,
        long_steps=branch_steps[-1],
        branch_steps=branch_steps,
        checkpoint_every=gcd(*branch_steps),
        schedule=Schedule(warmup_steps=warmup_steps, decay="half_cosine"),
        engine=Engine(),
        loss="image",
    )


def paper() -> Plan:
    """ViT-L to ViT-3B on 5 billion samples, cooled down after 0.4 to 5 billion (0.5 to 6 billion at the end)."""
    names: tuple[AIMv2Size, ...] = ("L", "H", "1B", "3B")
    return Plan(
        sizes=tuple(Size(name, aimv2(name), aimv2_optimizer(name)) for name in names),
        objective=Multimodal(tokenizer=tokenizer("paper")),
        data=Data(
            train=pairs(),
            validation=WebDataset(url=f"{PAIRS}/validation/*.tar"),
            batch_size=AIMV2_BATCH_SIZE,
            image_size=224,
            num_workers=8,
        ),
        long_steps=610_000,
        branch_steps=(50_000, 75_000, 115_000, 175_000, 265_000, 400_000, 610_000),
        checkpoint_every=5_000,
        schedule=aimv2_long_schedule(),
        engine=Engine(zero_stage=1, precision="bf16"),
        loss=None,
    )


def long_run(size: Size, plan: Plan) -> Experiment:
    """The run that the others branch from."""
    return Experiment(
        name=f"{size.name}-long",
        data=plan.data,
        trunk=size.trunk,
        objective=plan.objective,
        num_steps=plan.long_steps,
        optimizer=size.optimizer,
        schedule=plan.schedule,
        engine=plan.engine,
        checkpoint_every=plan.checkpoint_every,
    )


def cooldown(size: Size, plan: Plan, step: int) -> Experiment:
    """A branch of the long run, trained to the end."""
    num_steps, schedule = aimv2_cooldown(step, long_schedule=plan.schedule, long_steps=plan.long_steps)
    return Experiment(
        name=f"{size.name}-{num_steps}",
        data=plan.data,
        trunk=size.trunk,
        objective=plan.objective,
        num_steps=num_steps,
        optimizer=size.optimizer,
        schedule=schedule,
        engine=plan.engine,
        checkpoint_every=plan.checkpoint_every,
        branch=Branch(experiment=f"{size.name}-long", step=step),
    )


def study(scale: Scale) -> Study:
    """Every size's long run and its cooldowns."""
    plan = {"smoke": smoke, "small": small, "paper": paper}[scale]()
    runs = {size.name: [cooldown(size, plan, step) for step in plan.branch_steps] for size in plan.sizes}
    experiments = [run for size in plan.sizes for run in (long_run(size, plan), *runs[size.name])]
    scaling = Scaling(
        curves={name: [run.name for run in branches] for name, branches in runs.items()},
        others={name: [f"{name}-long"] for name in runs},
        loss=plan.loss,
    )
    source = "arXiv:2411.14402, section 3.1 and Figure 2"
    if scale == "paper":
        source += "; steps of the branches, warm-up and batch are ASSUMPTIONS"
    return Study(name="aimv2-scaling", source=source, experiments=experiments, scaling=scaling)
