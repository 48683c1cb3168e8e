"""Libraries that only reports need are loaded only by reports: importing plugins and training stay quick."""

from __future__ import annotations

import sys
from pathlib import Path

from processes import run_to_end

IMAGES = Path(__file__).parents[2] / "compat" / "written_by_0_1_0" / "images.zarr"
CODE = f"""
import sys
from pathlib import Path

def loaded():
    return sorted({{"matplotlib", "jinja2", "scipy"}} & set(sys.modules))

import aimcore.testing
from aimcore.run import command
assert command(["plugins", "--load"]) == 0
print(loaded(), "by plugins and the kit")

from aimcore import Data, Experiment, Study, run_study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_probes import KNNProbe
from aimcore_sources import ZarrImages
from aimcore_trunks import ViT
source = ZarrImages(url={str(IMAGES)!r})
experiment = Experiment(
    name="one",
    data=Data(train=source, validation=source, batch_size=4, image_size=16),
    trunk=ViT(width=16, depth=1, num_heads=2, patch_size=8),
    objective=NextPatch(head=LinearHead()),
    num_steps=1,
    probes=(KNNProbe(),),
)
summary = run_study(Study(name="one", experiments=[experiment]), Path("out"), scale=None)
assert summary.experiments[0].status == "finished"
print(loaded(), "by a run")
"""


def test_libraries_of_the_report_are_not_loaded_before_it_is_drawn(tmp_path: Path) -> None:
    done = run_to_end([sys.executable, "-c", CODE], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == [
        "[] by plugins and the kit",
        "[] by a run",
    ]
