"""One of two processes: validates and extracts its share of five images, and prints what it got.

python one_rank.py RANK RENDEZVOUS_FILE
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import attrs
import torch
import torch.distributed as dist
from core.evaluation.test_augmented_features import Watching
from core.evaluation.toys import Nearest, ToyModule, ToyObjective, ToyTrunkModule, experiment, sequences

from aimcore import Batch
from aimcore.contracts.probes import FittedProbe, LabelledFeatures
from aimcore.evaluation import FeatureCache, FeatureKind, TooFewBatches, extract_features, probe_experiment, validate
from aimcore.evaluation.feature_extraction import read_trunk
from aimcore.evaluation.feature_keys import weights_digest


def labelled(number: int) -> Batch:
    batch = sequences([[float(number), number + 0.5]], [[False, True]], first_number=number)
    return Batch(
        images=batch.images,
        sample_numbers_B=batch.sample_numbers_B,
        labels_B=torch.tensor([number % 3]),
        extras=batch.extras,
    )


def stored(folder: Path, trunk: ToyTrunkModule, share: list[Batch]) -> dict[str, Any]:
    """Write this process's share to a cache of both; what is read back, and found later."""
    cache, description = FeatureCache(str(folder)), {"of": "both"}
    before = cache.find(description)
    writer = cache.writer(description, FeatureKind("tokens", (0,)), 3, only=torch.tensor([0, 1, 3, 4]))
    (table,) = read_trunk(trunk, share, [writer], objective=ToyObjective(), attention="causal")
    features = table.stream().read().features
    return {
        "features": features.squeeze(-1).tolist(),
        "numbers": table.numbers.tolist(),
        "found": [before is not None, cache.find(description) is not None],
        "digest": weights_digest(trunk),
    }


class SlowNearest(Nearest):
    """It takes a while, so that another process is ready with all blocks before."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        time.sleep(0.2)
        return super().fit(train, held_out, seed)


def probed(nearest: type[Nearest] = Nearest) -> dict[str, Any]:
    """What a probe sees of augmented images, and the best block of another one."""
    Watching.seen.clear()
    watching = probe_experiment(experiment(probes=(Watching(),)), ToyTrunkModule(), None)["watching"]
    swept: Any = attrs.evolve(experiment(probes=(nearest(),)), probe_every_layer=True)
    scores = probe_experiment(swept, ToyTrunkModule(), None)
    return {
        "epochs": [epoch.features[:, 0].sort().values.tolist() for epoch in Watching.seen[:2]],
        "right": watching.right_n.tolist(),
        "layers": {name: [*score.layers, score.top1] for name, score in scores.items()},
    }


def main(rank: int, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    share = [labelled(number) for number in range(5)[rank::2]]
    module, trunk = ToyModule(), ToyTrunkModule(patch_size=1, num_channels=1)
    validation = validate(module, share)
    features = extract_features(
        trunk, share, objective=ToyObjective(), attention="causal", layers=(0,), reads="tokens", num_classes=3
    )
    try:
        validate(module, share if rank == 0 else [])
        refused = False
    except TooFewBatches:
        refused = True
    found = {
        "record": validation.record(num_chunks=2),
        "features": features.features.squeeze(-1).tolist(),
        "labels": features.labels.tolist(),
        "num_forwards": len(trunk.readings),
        "refused": refused,
        "stored": stored(Path(rendezvous).parent / "features", trunk, share),
        "probed": probed(SlowNearest if rank else Nearest),
    }
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
