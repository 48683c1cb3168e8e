"""What should be predicted of a patch? AIM, arXiv:2401.08541, Table 3a.

    python -m aimcore.run examples/aim_targets.py                       # two cores, a few minutes; extra: kmeans
    python -m aimcore.run examples/aim_targets.py --scale paper --dry-run

Pixels, normalised pixels, and the codes of two image tokenizers. Losses of different targets are in different units, so
that only probes can be compared.

Below the paper's scale, the tokenizers are files in ``assets/``: 512 centres of patches
(``aimcore tokenizer fit bundled_fashion_mnist --name kmeans --image-size 28 --patch-size 4 --set num_codes=512
--set num_images=12000 --out FILE``), and the dVAE of ``aim_dvae.py``. ``paper`` needs files of the user's:
``KMEANS_TOKENIZER`` (``aimcore tokenizer fit examples/aim_targets.py --scale paper --name kmeans``; the paper publishes
neither the number of its centres nor what they were fitted to) and ``DVAE_TOKENIZER`` (DALL-E's published files, by
``aimcore tokenizer convert``).
"""

import os
from pathlib import Path

from aim_settings import experiment, next_patch, rows, source

from aimcore import Scale, Study, Target
from aimcore_targets import Codes, NormalizedPixels, Pixels
from aimcore_tokenizers import DVAE, KMeans

ASSETS = Path(__file__).parent / "assets"
FILES = {
    "kmeans": (ASSETS / "fashion_kmeans.safetensors", os.environ.get("KMEANS_TOKENIZER", "/data/kmeans.safetensors")),
    "dvae": (ASSETS / "fashion_dvae.safetensors", os.environ.get("DVAE_TOKENIZER", "/data/dall_e.safetensors")),
}
"""Below the paper's scale, and at it."""
PAPER = rows({"pixels": (67.5, 76.2), "normalized-pixels": (70.0, 78.2), "kmeans": (66.6, 75.9), "dvae": (64.0, 74.5)})


def codes(scale: Scale, kind: type[KMeans] | type[DVAE]) -> Codes:
    """The codes of a tokenizer's file, which must exist."""
    return Codes(tokenizer=kind.from_file(str(FILES[kind.name][scale == "paper"])))


def study(scale: Scale) -> Study:
    """The columns of Table 3a."""
    targets: dict[str, Target] = {
        "pixels": Pixels(),
        "normalized-pixels": NormalizedPixels(),
        "kmeans": codes(scale, KMeans),
        "dvae": codes(scale, DVAE),
    }
    experiments = [experiment(name, scale, objective=next_patch(scale, target=one)) for name, one in targets.items()]
    return Study(name="aim-targets", source=source("Table 3a", scale), experiments=experiments, paper=PAPER)
