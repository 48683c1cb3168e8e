"""summary.json: its schema, its writer and its reader."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from aimcore.contracts.errors import InvalidSummary
from aimcore.report import (
    EvaluationSummary,
    ExperimentSummary,
    LossSummary,
    ProbeSummary,
    Summary,
    read_summary,
    write_summary,
)
from aimcore.running.summary import summary_to_json


def full() -> Summary:
    probe = ProbeSummary(
        top1=0.75, ci95=(0.7, 0.8), untrained_top1=0.5, raw_pixels_top1=0.6, learning_rate=1e-3, layers=(0, 1)
    )
    experiment = ExperimentSummary(
        name="raster",
        status="finished",
        seed=3,
        num_steps=600,
        losses={"next_patch": LossSummary(train_last_100=0.5, validation=0.25)},
        validation_prefix=None,
        validation_loss_by_chunk=(0.5,) * 16,
        probes={"linear": probe},
        evaluations={"retrieval/image_to_text@5": EvaluationSummary(value=0.5, num=4, chance=0.25, ci95=(0.2, 0.8))},
        paper={"linear": 0.695, "vqav2": 0.7},
        patches_per_second=1e4,
        peak_memory=2_000_000_000,
        data_share=0.25,
        seconds=12.5,
        left_out={"train": {"broken links": 3}},
        recipe="raster/recipe.json",
    )
    return Summary(study="ablation", scale="small", machine={"num_cores": 2}, experiments=(experiment,))


def written(**changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(json.dumps(summary_to_json(full())))
    entry["experiments"][0].update(changes)
    return entry


def read(entry: object, folder: Path) -> Summary:
    path = folder / "summary.json"
    path.write_text(json.dumps(entry))
    return read_summary(path)


def test_a_summary_has_exactly_the_keys_of_the_schema() -> None:
    entry = written()
    assert set(entry) == {"schema_version", "study", "scale", "machine", "experiments"}
    assert set(entry["experiments"][0]) == {
        "name", "status", "seed", "num_steps", "losses", "validation_prefix", "validation_loss_by_chunk", "probes",
        "evaluations", "paper", "patches_per_second", "seconds", "peak_memory", "data_share", "left_out",
        "extra", "recipe",
    }  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_summary(full(), tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == full()
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_what_was_not_configured_is_absent_but_no_prefix_is_null() -> None:
    bare = ExperimentSummary(name="a", status="failed", seed=0, recipe="a/recipe.json")
    entry = summary_to_json(Summary(study="s", machine={}, experiments=(bare,)))
    assert "scale" not in entry
    assert entry["experiments"][0] == {
        "name": "a", "status": "failed", "seed": 0, "validation_prefix": None, "extra": {}, "recipe": "a/recipe.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "done"}, r"experiments\.0\.status: must be"),
        ({"validation_loss_by_chunk": [1.0] * 15}, "validation_loss_by_chunk"),
        ({"loss": {}}, r"experiments\.0\.loss: unknown field"),
        ({"probes": {"linear": {"top1": 75.0}}}, r"experiments\.0\.probes\.linear\.top1"),
        ({"probes": {"linear": {}}}, r"experiments\.0\.probes\.linear\.top1"),
        ({"num_steps": True}, "num_steps"),
        ({"losses": [1.0]}, "losses"),
        ({"left_out": {"train": {"broken links": -1}}}, "left_out"),
        ({"left_out": {"broken links": 3}}, "left_out"),
    ],
)
def test_what_does_not_follow_the_schema_is_refused_with_its_path(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSummary, match=message):
        read(written(**changes), tmp_path)


def test_what_a_summary_lacks_is_named(tmp_path: Path) -> None:
    entry = written()
    del entry["experiments"][0]["name"], entry["experiments"][0]["seed"]
    with pytest.raises(InvalidSummary, match=r"experiments\.0\.name: is required\s+experiments\.0\.seed: is required$"):
        read(entry, tmp_path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSummary, match="schema_version"):
        read(written() | {"schema_version": 2}, tmp_path)


def test_a_file_that_is_no_json_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InvalidSummary, match=r"summary\.json: is not JSON"):
        read_summary(tmp_path / "summary.json")


def test_an_old_summary_survives_a_writer_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_summary(full(), path)
    broken = Summary(study="s", machine={"rate": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_summary(broken, path)
    assert read_summary(path) == full()


def test_what_only_the_paper_has_was_not_run() -> None:
    (experiment,) = full().experiments
    assert experiment.not_run == ("vqav2",)
    assert attrs.evolve(experiment, status="failed").not_run == ()


def test_a_score_of_an_evaluation_is_a_share(tmp_path: Path) -> None:
    wrong = {"retrieval/image_to_text@5": {"value": 50.0, "num": 4}}
    with pytest.raises(InvalidSummary, match=r"experiments\.0\.evaluations\.retrieval/image_to_text@5\.value"):
        read(written(evaluations=wrong), tmp_path)
