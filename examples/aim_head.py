"""Which head should predict the pixels? AIM, arXiv:2401.08541, Table 3e.

    python -m aimcore.run examples/aim_head.py                          # two cores, a few minutes
    python -m aimcore.run examples/aim_head.py --scale paper --dry-run

The paper's "None" is one linear layer. Its transformer has the width and depth of its MLP; other settings of it are
published nowhere, and ours are an ASSUMPTION: heads of 128 values, and the attention of the trunk.
"""

from aim_settings import experiment, head, next_patch, rows, source

from aimcore import Head, Scale, Study
from aimcore_heads import LinearHead, TransformerHead

PAPER = rows({"none": (64.0, 75.4), "mlp": (70.0, 78.2), "transformer": (70.5, 78.5)})


def study(scale: Scale) -> Study:
    """The three columns of Table 3e."""
    mlp = head(scale)
    transformer = TransformerHead(
        width=mlp.width, depth=mlp.depth, num_heads=mlp.width // 128 if scale == "paper" else 4
    )
    heads: dict[str, Head] = {"none": LinearHead(), "mlp": mlp, "transformer": transformer}
    experiments = [experiment(name, scale, objective=next_patch(scale, head_of=one)) for name, one in heads.items()]
    return Study(name="aim-head", source=source("Table 3e", scale), experiments=experiments, paper=PAPER)
