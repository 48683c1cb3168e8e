"""One of two processes: evaluates its share of a dozen images, and prints the scores.

python evaluating_rank.py RANK RENDEZVOUS_FILE
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import attrs
import torch.distributed as dist

from aimcore import Engine, Experiment
from aimcore.evaluation import evaluate
from aimcore.experiment import Data
from aimcore.testing.caption_stand_in import StandInCaptioned, StandInSpeaker
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_evaluations import Captions, Retrieval, ZeroShot


def scores(skill: str) -> dict[str, object]:
    """Every evaluation of an objective that embeds or captions, with weights that a seed gives."""
    source = StandInCaptioned()
    evaluations = (ZeroShot(), Retrieval(), Retrieval(split="train", subtract_mean=True, group_by="word"))
    experiment = Experiment(
        name="shared",
        data=Data(train=source, validation=source, batch_size=4, image_size=8),
        trunk=StandInTrunk(),
        objective=StandInSpeaker(gives=frozenset({skill})),
        num_steps=1,
        engine=Engine(precision="fp32"),
        evaluations=(*evaluations, Captions(num_images=7)) if skill == "caption" else evaluations,
    )
    with seeded():
        module = experiment.objective.build(experiment.trunk.build())
    return {name: attrs.asdict(score) for name, score in evaluate(experiment, module).scores.items()}


def main(rank: int, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    print(json.dumps({skill: scores(skill) for skill in ("embed", "caption")}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
