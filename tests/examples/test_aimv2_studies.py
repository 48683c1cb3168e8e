"""The studies of AIMv2's tables: what they compare, what they hold fixed, and that they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from aimcore import Scale, Schedule, Study
from aimcore.engine.cost import cost_of
from aimcore.report import read_summary
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study
from aimcore_optimizers import AdamW

EXAMPLES = Path(__file__).parents[2] / "examples"
ROWS = {
    "objectives": ["aim-prefix", "cap-bidirectional", "cap-prefix", "aimv2-prefix"],
    "vs_clip": ["clip", "clip-large-batch", "cappa", "aimv2", "clip-released-optimizer"],
    "image_weight": ["image-weight-0.2", "image-weight-0.4", "image-weight-0.6"],
    "decoder": [
        "default", "separate", "half-width", "one-and-a-half-width", "two-thirds-depth", "four-thirds-depth",
    ],
    "vs_captioning": [
        "aimv2-data-0.25", "cap-data-0.25", "aimv2-data-0.5", "cap-data-0.5", "aimv2-data-1", "cap-data-1",
    ],
    "captions": ["captions", *(f"{name}-seed-{seed}" for name in ("aimv2", "clip") for seed in range(3))],
    "lit": [
        "cap", "cap-lit", "aimv2", "aimv2-lit", "cappa", "cappa-lit", "aimv2-long", "aimv2-long-lit", "clip", "siglip",
    ],
}  # fmt: skip


def study(name: str, scale: Scale) -> Study:
    return load_study(EXAMPLES / f"aimv2_{name}.py", scale)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_table_is_there(name: str) -> None:
    assert [one.name for one in study(name, "small").experiments] == ROWS[name]


@pytest.mark.parametrize("scale", ["smoke", "small"])
@pytest.mark.parametrize("name", ROWS)
def test_the_scales_that_run_here_pass_every_check(name: str, scale: Scale) -> None:
    check_study(study(name, scale))


@pytest.mark.usefixtures("vocabulary")
@pytest.mark.parametrize("name", ROWS)
def test_the_papers_scale_can_be_costed_without_data(name: str) -> None:
    paper = study(name, "paper")
    check_study(paper, with_data=False)
    large = next(one for one in paper.experiments if one.trunk.width == 1024)  # type: ignore[attr-defined]
    assert cost_of(large).trunk_parameters == 309_197_824


@pytest.mark.parametrize("name", ["objectives", "image_weight", "decoder"])
def test_runs_of_a_table_differ_in_their_objective_alone(name: str) -> None:
    first, *others = study(name, "small").experiments
    for other in others:
        alike = attrs.evolve(other, name=first.name, objective=first.objective)  # type: ignore[type-var]
        assert alike == first


def test_clip_sees_as_many_samples_with_twice_the_batch() -> None:
    clip, large, *_ = study("vs_clip", "small").experiments
    assert large.data.batch_size == 2 * clip.data.batch_size
    assert large.num_steps * large.data.batch_size == clip.num_steps * clip.data.batch_size


@pytest.mark.usefixtures("vocabulary")
def test_one_row_of_clip_has_the_optimiser_of_the_authors_released_configuration() -> None:
    made = study("vs_clip", "paper")
    clip, released = made.experiments[0], made.experiments[-1]
    assert released == attrs.evolve(  # type: ignore[type-var]
        clip,
        name="clip-released-optimizer",
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.2, decay="coupled", betas=(0.9, 0.95), gradient_clipping=None),
        schedule=Schedule(warmup_steps=clip.num_steps // 20, warmup_lr=1e-6, decay="cosine", final_lr=1e-6),
    )
    assert released.name not in made.paper
    assert made.source.endswith("the optimiser and the pooling of its CLIP rows are ASSUMPTIONS")


@pytest.mark.parametrize(
    ("name", "row", "scores"),
    [
        ("objectives", "aim-prefix", (0.720, 0.654, 0.127)),
        ("objectives", "cap-bidirectional", (0.851, 0.762, 0.344)),
        ("objectives", "cap-prefix", (0.854, 0.768, 0.365)),
        ("objectives", "aimv2-prefix", (0.856, 0.769, 0.375)),
        ("vs_clip", "clip", (0.846, 0.741, 0.246)),
        ("vs_clip", "clip-large-batch", (0.852, 0.748, 0.263)),
        ("vs_clip", "cappa", (0.847, 0.751, 0.306)),
        ("image_weight", "image-weight-0.2", (0.856, 0.767, 0.374)),
        ("image_weight", "image-weight-0.6", (0.856, 0.767, 0.374)),
        ("decoder", "separate", (0.856, 0.771, 0.372)),
        ("decoder", "half-width", (0.853, 0.762, 0.359)),
        ("decoder", "one-and-a-half-width", (0.851, 0.769, 0.369)),
        ("decoder", "two-thirds-depth", (0.855, 0.767, 0.370)),
        ("decoder", "four-thirds-depth", (0.856, 0.769, 0.366)),
    ],
)
def test_the_papers_scores_are_those_of_table_9(name: str, row: str, scores: tuple[float, ...]) -> None:
    assert tuple(study(name, "small").paper[row].values()) == scores


@pytest.mark.usefixtures("vocabulary")
def test_decoders_at_the_papers_scale_have_the_widths_and_depths_of_tables_9e_and_9f() -> None:
    decoders: Any = [one.objective.decoder for one in study("decoder", "paper").experiments]  # type: ignore[attr-defined]
    assert [(one.width, one.depth) for one in decoders] == [
        (1024, 12), (1024, 12), (512, 12), (1536, 12), (1024, 8), (1024, 16),
    ]  # fmt: skip


@pytest.mark.usefixtures("vocabulary")
def test_an_ablation_sees_two_billion_pairs_in_the_proportions_of_table_2() -> None:
    one: Any = study("objectives", "paper").experiments[-1]
    assert round(one.num_steps * one.data.batch_size / 1e9, 3) == 2.0
    assert one.data.train.weights == (30.0, 30.0, 9.0, 28.0, 3.0)


def test_without_the_papers_vocabulary_its_scale_says_which_file_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLES / "aimv2_objectives.py"), "--scale", "paper", "--dry-run"]) == 2
    assert "cannot read the tokenizer's file /data/siglip/sentencepiece.model" in capsys.readouterr().err


@pytest.mark.usefixtures("vocabulary")
@pytest.mark.parametrize(
    ("row", "score", "billions", "tuning"),
    [
        ("cap", 0.750, 2, 3), ("aimv2", 0.753, 2, 3), ("cappa", 0.764, 9, 3), ("aimv2-long", 0.770, 12, 3),
        ("clip", 0.755, 13, None), ("siglip", 0.804, 40, None),
    ],
)  # fmt: skip
def test_every_column_of_table_5_has_its_score_and_its_pairs(
    row: str, score: float, billions: float, tuning: float | None
) -> None:
    paper = study("lit", "paper")
    seen = {one.name: round(one.num_steps * one.data.batch_size / 1e9, 3) for one in paper.experiments}
    assert (seen[row], seen.get(f"{row}-lit")) == (billions, tuning)
    assert paper.paper[f"{row}-lit" if tuning else row] == {"zero_shot/top1": score}


@pytest.mark.usefixtures("vocabulary")
def test_the_text_tower_reads_clips_vocabulary_and_decoders_siglips() -> None:
    experiments: Any = {one.name: one.objective for one in study("lit", "paper").experiments}
    assert experiments["aimv2-lit"].tokenizer.name == "clip_bpe"
    assert experiments["aimv2-lit"].tokenizer.vocabulary_size == 49_408
    assert experiments["aimv2"].tokenizer.name == "sentencepiece"
    caption = "the dogâ€™s Blue-green &amp;amp; (small) car."
    assert experiments["aimv2"].tokenizer.cleaned(caption) == "the dogs bluegreen small car"  # as SigLIP's class
    assert (
        experiments["aimv2-lit"].tokenizer.cleaned(caption) == "the dog's blue-green & (small) car."
    )  # as CLIP's code


@pytest.mark.usefixtures("vocabulary")
def test_what_is_recognised_by_its_name_has_readable_class_names_and_nothing_else_needs_them() -> None:
    named = {one.name: _class_names(one.data) for one in study("lit", "paper").experiments}
    assert named["aimv2-lit"] == named["siglip"] == {"file:///data/imagenet/LOC_synset_mapping.txt"}
    assert named["aimv2"] == _class_names(study("vs_clip", "paper").experiments[0].data) == {None}


def _class_names(data: Any) -> set[str | None]:
    return {data.probe_train.names, data.probe_test.names}


def test_what_the_paper_does_not_say_of_the_tuning_is_called_an_assumption() -> None:
    assert "ASSUMPTION" in study("lit", "small").source


def test_without_clips_vocabulary_its_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--scale", "paper", "--dry-run", "--only", "clip"]
    assert main([str(EXAMPLES / "aimv2_lit.py"), *options]) == 2
    assert "cannot read the tokenizer's file /data/clip/bpe_simple_vocab_16e6.txt.gz" in capsys.readouterr().err


def test_locked_encoders_are_those_that_were_trained_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--scale", "smoke", "--only", "cap", "--only", "cap-lit", "--set", "num_steps=2"]
    assert main([str(EXAMPLES / "aimv2_lit.py"), *options, "--set", "probes=[]", "--out", str(out)]) == 0
    first, second = read_summary(out / "summary.json").experiments
    assert (first.status, second.status) == ("finished", "finished")
    recipe = json.loads((out / "cap-lit" / "recipe.json").read_text())
    assert recipe["experiment"]["initial_weights"]["experiment"] == "cap"
    assert recipe["experiment"]["frozen"] == ["trunk"]
