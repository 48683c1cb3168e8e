"""Everything that is bound to fail is reported before anything runs."""

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from aimcore import Data, Study, TrunkModule, Weights
from aimcore.contracts.errors import InvalidValue
from aimcore.running.preflight import check_study
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, NextPatch
from aimcore_optimizers import AdamW
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import BundledFashionMNIST, ImageFolder
from aimcore_trackers import JSONLines
from aimcore_trunks.vit import ViTModule


def data(**sources: Any) -> Data:
    bundled = BundledFashionMNIST()
    return Data(**{"train": bundled, "validation": bundled, "batch_size": 4, "image_size": 28, **sources})


def test_a_sound_study_passes(make_study: Any) -> None:
    check_study(make_study("one", "two"))


@pytest.mark.parametrize(("url", "clash"), [("m.jsonl", True), ("{run}.jsonl", False)])
def test_runs_that_would_replace_each_others_metrics_are_refused(make_experiment: Any, url: str, clash: bool) -> None:
    trackers = (JSONLines(url=url),)
    study = Study(name="table", experiments=[make_experiment(name, trackers=trackers) for name in ("one", "two")])
    if not clash:
        check_study(study)
        return
    with pytest.raises(InvalidValue) as caught:
        check_study(study, with_data=False)
    ((path, message),) = caught.value.problems
    assert path == "two.trackers.0"
    assert message.startswith("writes to 'm.jsonl', as one.trackers.0 does: ")


def test_all_problems_of_all_experiments_are_reported_at_once(make_experiment: Any) -> None:
    folder = ImageFolder(url="/nowhere/at/all")
    study = Study(
        name="table",
        experiments=[
            make_experiment("one", data=data(train=folder)),
            make_experiment("two", data=data(validation=folder, batch_size=3)),
        ],
    )
    with pytest.raises(InvalidValue) as caught:
        check_study(study, world_size=2)
    paths = [path for path, _ in caught.value.problems]
    assert paths == [
        "one.data.train",
        "two.data.batch_size",
        "two.data.validation",
    ]


def test_a_dry_run_does_not_look_for_the_data(make_experiment: Any) -> None:
    study = Study(name="table", experiments=[make_experiment("one", data=data(train=ImageFolder(url="/nowhere")))])
    check_study(study, with_data=False)


def with_notes(folder: Path, **left_out: int) -> ImageFolder:
    """A folder with one image, and with so many files of other kinds."""
    for name, count in left_out.items():
        for number in range(count):
            (folder / f"{number}.{name}").write_text("")
    Image.new("RGB", (28, 28)).save(folder / "image.png")
    return ImageFolder(url=str(folder))


def test_what_sources_leave_out_is_returned_by_experiment_and_field(make_experiment: Any, tmp_path: Path) -> None:
    one = make_experiment("one", data=data(train=with_notes(tmp_path, txt=2, md=1)))
    assert check_study(Study(name="table", experiments=[one, make_experiment("two")])) == {
        "one": {"train": {"files of other kinds (.txt)": 2, "files of other kinds (.md)": 1}},
        "two": {},
    }


@pytest.mark.parametrize("wrong", [["a link"], {"links": "3"}, {"links": -1}, {3: 3}, {"links": True}])
def test_counts_that_no_summary_could_hold_are_refused_before_training(
    make_study: Any, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.setattr("aimcore_sources.arrays.OpenArrays.left_out", wrong, raising=False)
    with pytest.raises(InvalidValue, match=r"left_out of OpenArrays must be \{reason: count\}, with counts from 0"):
        check_study(make_study("one"))


def test_a_batch_must_divide_over_the_processes(make_study: Any) -> None:
    with pytest.raises(InvalidValue, match=r"one\.data\.batch_size: 4 samples per step do not divide over 3 ranks"):
        check_study(make_study("one"), world_size=3)


def test_a_class_of_no_plugin_is_refused_before_it_runs(make_experiment: Any) -> None:
    class Homemade(LinearHead):
        """Of no plugin."""

    study = Study(name="table", experiments=[make_experiment("one", objective=NextPatch(head=Homemade()))])
    with pytest.raises(InvalidValue, match=r"(?s)one.*objective\.head"):
        check_study(study)


def test_settings_that_do_not_fit_the_trunk_are_reported_at_their_paths(make_experiment: Any) -> None:
    objective = Classification(num_classes=10, pooling="attentive", num_pool_heads=3)
    one = make_experiment("one", objective=objective, probes=(KNNProbe(), LinearProbe(layers=(7,))))
    with pytest.raises(InvalidValue) as found:
        check_study(Study(name="table", experiments=[one]))
    assert [path for path, _ in found.value.problems] == ["one.objective.num_pool_heads", "one.probes.1.layers"]


def test_too_few_images_of_a_class_in_a_folder_are_found_before_training(make_experiment: Any, tmp_path: Any) -> None:
    from PIL import Image

    for number in range(6):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (28, 28)).save(tmp_path / f"class{number % 2}" / f"{number}.png")
    source = ImageFolder(url=str(tmp_path))
    one = make_experiment(
        "one", data=data(train=source, validation=source), probes=(LinearProbe(),), probe_labels_per_class=(4,)
    )
    with pytest.raises(InvalidValue, match=r"one\.data\.train: .* asks for 4 images .* of class 0 \(class0\)"):
        check_study(Study(name="table", experiments=[one]))


def test_probes_need_labels(make_experiment: Any, tmp_path: Any) -> None:
    from PIL import Image

    Image.new("RGB", (28, 28)).save(tmp_path / "unlabelled.png")
    source = ImageFolder(url=str(tmp_path))
    one = make_experiment("one", data=data(train=source), probes=(LinearProbe(),))
    with pytest.raises(InvalidValue, match=r"one\.data\.train: probes need classes"):
        check_study(Study(name="table", experiments=[one]))


def test_what_the_objective_needs_must_be_in_the_data(make_experiment: Any) -> None:
    one = make_experiment("one", objective=Classification(num_classes=7))
    with pytest.raises(InvalidValue, match=r"one\.data\.validation: its images are of 10 classes"):
        check_study(Study(name="table", experiments=[one]))
    check_study(Study(name="table", experiments=[attrs.evolve(one, objective=Classification(num_classes=10))]))


def test_what_cannot_be_frozen_or_begun_with_is_reported_before_anything_runs(make_experiment: Any) -> None:
    one = make_experiment("one", frozen=("tower",), initial_weights=Weights(url="/nowhere.safetensors"))
    study = Study(name="table", experiments=[one])
    for with_data in (True, False):
        with pytest.raises(InvalidValue) as caught:
            check_study(study, with_data=with_data)
        assert [path for path, _ in caught.value.problems] == ["one.frozen", "one.initial_weights"]
    assert caught.value.problems[0][1].startswith("'tower' names no parameter; there are trunk")


def test_each_of_several_files_of_weights_is_reported_at_its_place(make_experiment: Any) -> None:
    files = (Weights(url="/nowhere.safetensors"), Weights(url="/no_head.safetensors", part="head"))
    study = Study(name="table", experiments=[make_experiment("one", initial_weights=files)])
    with pytest.raises(InvalidValue) as caught:
        check_study(study, with_data=False)
    assert [path for path, _ in caught.value.problems] == ["one.initial_weights.0", "one.initial_weights.1"]
    assert "cannot read /no_head.safetensors" in caught.value.problems[1][1]


def test_rates_that_a_trunk_does_not_know_are_reported_before_anything_runs(
    make_experiment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_experiment("one", optimizer=AdamW(layer_decay=0.5))
    study = Study(name="table", experiments=[one])
    check_study(study, with_data=False)
    monkeypatch.setattr(ViTModule, "layer_of", TrunkModule.layer_of)
    with pytest.raises(InvalidValue) as caught:
        check_study(study, with_data=False)
    ((path, message),) = caught.value.problems
    assert path == "one.optimizer.layer_decay"
    assert message.startswith("must be 1: ViTModule does not assign parameters to layers")


def test_each_source_is_opened_once_for_all_experiments(make_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[BundledFashionMNIST] = []
    original = BundledFashionMNIST.open
    monkeypatch.setattr(BundledFashionMNIST, "open", lambda self: (opened.append(self), original(self))[1])
    check_study(make_study("one", "two", "three"))
    assert len(opened) == 1
    assert attrs.asdict(opened[0]) == {"split": "train"}  # type: ignore[call-overload]


def test_a_tracker_without_the_package_of_its_protocol_is_refused_before_anything_runs(
    make_experiment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    trackers = (JSONLines(url="memory://{run}.jsonl"), JSONLines(url="s3://bucket/{run}.jsonl"))
    study = Study(name="table", experiments=[make_experiment("one"), make_experiment("two", trackers=trackers)])
    with pytest.raises(InvalidValue) as caught:
        check_study(study, with_data=False)
    ((path, message),) = caught.value.problems
    assert path == "two.trackers.1"
    assert message == "'s3://bucket/two.jsonl' cannot be opened: Install s3fs to access S3: pip install s3fs"
