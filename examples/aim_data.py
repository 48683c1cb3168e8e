"""On which images should one pre-train? AIM, arXiv:2401.08541, Table 2 and Figure 5.

    python -m aimcore.run examples/aim_data.py                          # two cores, several minutes
    python -m aimcore.run examples/aim_data.py --scale paper --dry-run

A small curated set, a large uncurated one, and a mixture that reads the curated one every fifth time (section 3). All
are validated while they train, on the curated set's held-out images, so that the report's curves are Figure 5.

At ``small`` the curated set is the bundled slice of Fashion-MNIST, and the bundled emoji stand for uncurated images:
they are other pictures, but neither many nor natural. Normalisation is that of Fashion-MNIST for all.

The paper's attentive score is the mean over its 15 data sets; ours is that of one, so that the two are not comparable.
AIM-0.6B was trained for 500,000 steps (appendix D).
"""

import os

import attrs
from aim_settings import IMAGENET, experiment, fashion

from aimcore import Scale, Source, Study
from aimcore_sources import BundledEmoji, ImageFolder, Mixture, WebDataset

DFN = os.environ.get("DFN", "file:///data/dfn-2b")
"""Where the WebDataset shards of DFN-2B lie; any fsspec URL."""
PAPER = {
    name: {"attentive-15": score} for name, score in {"curated": 0.735, "uncurated": 0.745, "mixed": 0.756}.items()
}
PAPER_STEPS = 500_000


def sources(scale: Scale) -> dict[str, Source]:
    """ImageNet, DFN-2B, and DFN-2B+ with shares of 0.8 and 0.2."""
    curated: Source = ImageFolder(url=f"{IMAGENET}/train")
    uncurated: Source = WebDataset(url=f"{DFN}/*.tar")
    if scale != "paper":
        curated, uncurated = fashion(scale, "train"), BundledEmoji(split="train")
    return {
        "curated": curated,
        "uncurated": uncurated,
        "mixed": Mixture(sources=(uncurated, curated), weights=(0.8, 0.2)),
    }


def study(scale: Scale) -> Study:
    """The three columns of Table 2, and the three curves of Figure 5."""
    num_steps, validations = {"smoke": (4, 2), "small": (1_500, 15), "paper": (PAPER_STEPS, 20)}[scale]
    experiments = []
    for name, train in sources(scale).items():
        one = experiment(name, scale, num_steps=num_steps, validate_every=num_steps // validations)
        probed = attrs.evolve(one.data, train=train, probe_train=one.data.train)
        experiments.append(attrs.evolve(one, data=probed))
    where = "arXiv:2401.08541, Table 2 and Figure 5; the paper's score is a mean over 15 data sets, ours of one"
    return Study(name="aim-data", source=where, experiments=experiments, paper=PAPER)
