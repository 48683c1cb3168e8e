"""The report's page: what it shows, what it says is missing, and that it escapes what it is given."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from matplotlib.figure import Figure
from report_material import HOSTILE, make_study, samples

from aimcore.contracts.errors import InvalidSummary, ReportError
from aimcore.report import ExperimentSummary, ProbeSummary, Summary, read_summary, write_summary
from aimcore.report.page import draw_report
from aimcore.report.page_content import MAX_PICTURED, FigureGroup
from aimcore.report.sample_files import save_samples
from aimcore.running.correctness import Correctness
from aimcore.running.summary import LayersSummary

save_figure = Figure.savefig


def save_svg_only(drawn: Figure, file: Any, *, format: str, **settings: Any) -> None:
    """Draw an SVG, and write an empty file where a PNG is asked for."""
    if format == "png":
        Path(file).touch()
    else:
        save_figure(drawn, file, format=format, **settings)


class Page(html.parser.HTMLParser):
    """Tags, identifiers, links and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.identifiers: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.identifiers += [values["id"] or ""] if "id" in values else []
        self.labels += [values["aria-label"] or ""] if tag == "svg" and "aria-label" in values else []
        self.links += [values[name] or "" for name in ("href", "src", "xlink:href") if name in values]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.text += " " + data

    def row(self, first: str) -> list[str]:
        """Cells of the first table row whose first cell is ``first``."""
        rows = re.findall(r"<tr>(.*?)</tr>", self.source, re.DOTALL)
        cells = ([re.sub(r"<[^>]*>", "", cell).strip() for cell in re.split(r"</t[hd]>", row)[:-1]] for row in rows)
        return next(row for row in cells if row[0] == first)


def page_of(out: Path) -> Page:
    return Page(draw_report(out))


@pytest.fixture(scope="module", autouse=True)
def empty_pngs() -> Iterator[None]:
    """PNGs without content: they are half of the work, and tests of the page do not read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_svg_only)
        yield


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a study of one experiment, drawn once; tests only read it."""
    return page_of(make_study(tmp_path_factory.mktemp("one") / "out", ["raster"], evaluations=["retrieval"]))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a study of two experiments, drawn once; tests only read it."""
    return page_of(make_study(tmp_path_factory.mktemp("two") / "out", ["raster", "spiral"]))


def change(out: Path, **changes: object) -> None:
    """Give the first experiment of a summary other values."""
    summary = read_summary(out / "summary.json")
    first = attrs.evolve(summary.experiments[0], **changes)
    write_summary(attrs.evolve(summary, experiments=(first, *summary.experiments[1:])), out / "summary.json")


def test_scores_stand_beside_the_untrained_trunk_raw_pixels_and_the_paper(two_runs: Page) -> None:
    page = two_runs
    assert page.row("spiral") == ["spiral", "linear", "79.0 ± 1.0", "50.0", "90.0", "69.5"]
    assert "Raw pixels win against the trunk: raster, linear (raw pixels 90.0 %, trained 80.0 %)" in page.text


def test_the_header_says_where_the_comparison_comes_from(one_run: Page) -> None:
    assert "After arXiv:0, Table 9." in one_run.text


def test_every_figure_is_there_with_a_text_for_those_who_cannot_see_it(two_runs: Page) -> None:
    page = two_runs
    assert len(page.labels) == 3 + 2 * 3
    assert "Reading order of raster on 3 x 4 patches, from row 1, column 1 to row 3, column 4." in page.labels
    assert "absent" not in re.sub(r"<style>.*</style>", "", page.source, flags=re.DOTALL)


def test_pngs_of_all_figures_lie_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", save_figure)
    draw_report(make_study(tmp_path / "out", ["raster", "a b"]))
    drawn = sorted((tmp_path / "out" / "report").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert [path.name for path in drawn] == [
        "attention-a-b.png", "attention-raster.png", "chunks-next_patch.png", "order-a-b.png", "order-raster.png",
        "predictions-a-b.png", "predictions-raster.png", "scores-linear.png", "training-next_patch.png",
    ]  # fmt: skip


def test_the_accuracy_by_block_is_drawn_for_runs_that_probed_every_block(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster", "spiral"], pictured=False)
    candidates = tuple(
        LayersSummary(layers=(block,), held_out_top1=0.5 + block / 10, top1=0.4 + block / 10) for block in range(3)
    )
    probe = ProbeSummary(top1=0.6, layers=(2,), candidates=candidates)
    change(out, probes={"linear@best_layer": probe})
    page = page_of(out)
    assert any("probe linear@best_layer by block: raster 40.0 to 60.0 %" in label for label in page.labels)
    assert (out / "report" / "layers-linear-best_layer.png").is_file()


def test_the_page_needs_nothing_but_itself(one_run: Page) -> None:
    page = one_run
    assert {link.partition(":")[0] for link in page.links if not link.startswith("#")} == {"data"}
    assert "script" not in page.tags
    assert "@import" not in page.source
    assert not re.findall(r"url\((?!#)", page.source)


def test_identifiers_are_unique_and_links_lead_somewhere(tmp_path: Path) -> None:
    page = page_of(make_study(tmp_path / "out", ["raster", "spiral", "a b", "a/b"]))
    assert len(page.identifiers) == len(set(page.identifiers))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.identifiers)


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", [HOSTILE, "raster"], probes=[HOSTILE])
    change(out, status="failed", extra={"error": HOSTILE, "protocols": {HOSTILE: {HOSTILE: HOSTILE}}})
    (out / "0" / "error.txt").write_text(HOSTILE)
    (out / "0" / "metrics.jsonl").write_text(json.dumps({"step": 0, "losses": {HOSTILE: 1.0}}) + "\n")
    (out / "0" / "recipe.json").write_text(json.dumps({"experiment": {HOSTILE: HOSTILE}, "plugins": {HOSTILE: {}}}))
    save_samples(samples(order_N=None, absent={"order": HOSTILE}), out / "0" / "samples.npz")
    page = page_of(out)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 10
    assert any(HOSTILE in label for label in page.labels)


@pytest.mark.parametrize(
    ("missing", "message", "gone"),
    [
        ("metrics.jsonl", "No training curve of raster : 0/metrics.jsonl does not exist.", "training-next_patch.png"),
        (
            "validation.json",
            "No loss along the sequence of raster : 0/validation.json does not exist",
            "chunks-next_patch.png",
        ),
        ("recipe.json", "No recipe of raster : 0/recipe.json does not exist.", ""),
        ("samples.npz", "No attention map of raster : ", "attention-raster.png"),
    ],
)
def test_a_missing_file_takes_its_figure_and_is_reported_in_its_place(
    missing: str, message: str, gone: str, tmp_path: Path
) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    draw_report(out)
    (out / "0" / missing).unlink()
    assert message in page_of(out).text
    assert not gone or not (out / "report" / gone).exists()


def test_what_one_experiment_lacks_the_others_still_show(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster", "spiral"])
    shutil.rmtree(out / "0")
    page = page_of(out)
    assert "No training curve of raster : 0/metrics.jsonl does not exist." in page.text
    assert "Reading order of spiral on 3 x 4 patches, from row 1, column 1 to row 3, column 4." in page.labels


def test_pictures_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    (out / "report").mkdir()
    (out / "report" / "mine.png").write_bytes(b"")
    (out / "report" / "order-old.png").write_bytes(b"")
    draw_report(out)
    assert (out / "report" / "mine.png").exists()
    assert not (out / "report" / "order-old.png").exists()


def test_a_failure_shows_its_error_and_traceback(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"], pictured=False)
    failed = ExperimentSummary(name="a", status="failed", seed=0, extra={"error": "OSError: gone"}, recipe="a/r.json")
    write_summary(Summary(study="s", machine={}, experiments=(failed,)), out / "summary.json")
    (out / "a").mkdir()
    (out / "a" / "error.txt").write_text("Traceback of it")
    page = page_of(out)
    assert "a failed: OSError: gone" in page.text
    assert "Traceback of it" in page.text
    assert page.row("a")[:4] == ["a", "failed", "–", "–"]


def test_a_study_without_probes_or_experiments_says_so(tmp_path: Path) -> None:
    write_summary(Summary(study="empty", machine={}), tmp_path / "summary.json")
    page = page_of(tmp_path)
    assert "No probe scores." in page.text
    assert "No training curve: there is no experiment." in page.text


def test_only_the_differences_between_recipes_are_listed(two_runs: Page) -> None:
    page = two_runs
    assert page.row("seed") == ["seed", "0", "1"]
    with pytest.raises(StopIteration):
        page.row("num_steps")


def test_one_experiment_is_compared_with_nothing(one_run: Page) -> None:
    assert "recipes differ" not in one_run.text


def test_a_card_says_what_is_shared_once_and_each_experiment_s_own_apart(two_runs: Page) -> None:
    text = two_runs.text
    assert text.count("learning rates 0.0001, 0.001") == 1
    assert "Only raster order raster Only spiral order spiral" in text


def test_scores_lead_to_their_cards(one_run: Page) -> None:
    source = one_run.source
    links = re.findall(r'href="#((?:probe|evaluation)-[^"]+)"', source)
    assert links == ["probe-linear", "evaluation-retrieval"]
    assert all(f'<h3 id="{link}">' in source for link in links)


def test_evaluations_have_cards_too(one_run: Page) -> None:
    text = one_run.text
    assert "Probe: linear" in text
    assert "Evaluation: retrieval" in text


def test_use_of_codes_is_a_table_with_the_entropy_of_their_marginal(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["codes", "pixels"])
    counts_K = np.array([2, 2, 0, 4])  # shares 1/4, 1/4, 0, 1/2: entropy 1.5 ln 2 = 1.0397
    images = samples().images_BHWC
    save_samples(samples(code_counts_K=counts_K, decoded_BHWC=images), out / "0" / "samples.npz")
    text = page_of(out).text
    assert all(cell in text for cell in ("3 of 4", "1.0397", "2.8"))
    assert text.count("codes in use") == 1


@pytest.mark.parametrize("uses_truth", [True, False])
def test_a_leak_of_mean_and_variance_into_the_pictures_is_reported(uses_truth: bool, tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    save_samples(samples(uses_truth=uses_truth), out / "0" / "samples.npz")
    assert ("own mean and variance" in page_of(out).text) is uses_truth


@pytest.mark.parametrize("is_own", [True, False])
def test_a_drawn_order_that_is_one_of_many_is_reported(is_own: bool, tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    save_samples(samples(order_is_own=is_own), out / "0" / "samples.npz")
    page = page_of(out)
    assert ("every sample has an order of its own. The drawing shows that of sample number 0" in page.text) is is_own
    assert ("Every sample has an order of its own; this is that of sample number 0." in page.source) is is_own


def test_a_report_is_drawn_the_same_again(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster", "spiral"])
    assert page_of(out).source == page_of(out).source


def test_a_folder_without_results_is_an_error_that_knows_the_likely_folder(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    with pytest.raises(ReportError, match=r"has no summary\.json.*did you mean .*out\?"):
        draw_report(out / "0")


def test_a_damaged_summary_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InvalidSummary, match="is not JSON"):
        draw_report(tmp_path)


def test_evaluations_stand_beside_chance_and_the_paper_and_what_was_not_run_says_so(tmp_path: Path) -> None:
    scores = ["zero_shot/top1", "zero_shot/top5", "retrieval/image_to_text@5"]
    page = page_of(make_study(tmp_path / "out", ["cap"], evaluations=scores, pictured=False))
    assert page.row("zero_shot/top5") == ["zero_shot/top5", "25.0 ± 6.0", "30.0", "200", "–"]
    assert page.row("retrieval/image_to_text@5") == ["retrieval/image_to_text@5", "25.0 ± 6.0", "30.0", "200", "90.0"]
    assert page.row("not run") == ["not run", "vqav2"]
    assert "The paper's scores of what is not run here" in page.source


def test_names_of_scores_may_be_broken_where_words_end_and_nowhere_else(tmp_path: Path) -> None:
    source = page_of(make_study(tmp_path / "out", ["cap"], evaluations=["<i>/image_to@1"], pictured=False)).source
    assert "&lt;i&gt;/<wbr>image_<wbr>to@1</a>" in source


def test_runs_that_differ_in_their_seed_alone_have_a_row_per_score(tmp_path: Path) -> None:
    names = ["cap-seed-0", "cap-seed-1"]
    page = page_of(make_study(tmp_path / "out", names, evaluations=["recall"], only_seeds_differ=True, pictured=False))
    assert page.row("cap-seed-*") == ["cap-seed-*", "linear", "2", "79.5", "0.7", "79.0–80.0", "–"]
    assert "recall 2 25.0 0.0 25.0–25.0 0.8 x chance" in page.text


def test_variants_with_a_common_seed_are_compared_image_by_image(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster", "spiral"], pictured=False)
    written = read_summary(out / "summary.json")
    entries = []
    for entry, bits in zip(written.experiments, ([1] * 8 + [0] * 8, [1] * 16), strict=True):
        probe = ProbeSummary(top1=sum(bits) / 16, correct=Correctness.of(np.array(bits, dtype=bool), "test"))
        entries.append(attrs.evolve(entry, seed=0, probes={"linear": probe}))
    write_summary(attrs.evolve(written, experiments=tuple(entries)), out / "summary.json")
    page = page_of(out)
    assert "Paired differences between variants" in page.source
    # Binomial(16, 1/2) / 16: at most 4 with probability 0.038, at most 3 with 0.011; so 4 to 12.
    assert "spiral raster linear 1 +50.0 +25.0 to +75.0 –" in page.text


def test_runs_of_which_each_has_its_own_recipe_are_no_seeds(tmp_path: Path) -> None:
    assert (
        "x chance"
        not in page_of(make_study(tmp_path / "out", ["raster", "spiral"], evaluations=["recall"], pictured=False)).text
    )


def test_a_study_without_evaluations_has_no_table_of_them(two_runs: Page) -> None:
    assert "objective can do" not in two_runs.text


def test_pictures_are_of_the_first_experiments_and_the_others_are_named(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", [f"run-{number}" for number in range(MAX_PICTURED + 2)])
    text = page_of(out).text
    message = "of 2 more, as only the first 8 experiments are drawn: run-8, run-9."
    assert all(f"No {what} {message}" in text for what in ("reading order", "reconstruction", "attention map"))
    assert len(list((out / "report").glob("predictions-*.png"))) == MAX_PICTURED


def test_curves_of_several_losses_say_which_is_which(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"], pictured=False)
    assert "Training loss: next_patch" not in page_of(out).text
    (out / "0" / "metrics.jsonl").write_text(json.dumps({"step": 0, "losses": {"text": 1.0, "image": 2.0}}) + "\n")
    assert "Training loss: text" in page_of(out).text


def test_a_linked_folder_of_figures_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "scores-mine.png").write_text("mine")
    out = make_study(tmp_path / "out", ["raster"])
    (out / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReportError, match="report is a link to another folder"):
        draw_report(out)
    assert (tmp_path / "elsewhere" / "scores-mine.png").read_text() == "mine"


def test_a_recipe_that_is_a_link_out_of_the_run_is_not_shown(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    (tmp_path / "secret.json").write_text('{"password": 1}')
    (out / "0" / "recipe.json").unlink(missing_ok=True)
    (out / "0" / "recipe.json").symlink_to(tmp_path / "secret.json")
    for kept in out.glob("*/samples.npz"):
        kept.unlink()
    page = page_of(out)
    assert "is a link out of the run's folder, which is not followed" in page.text
    assert "password" not in page.source


def test_experiments_that_lack_a_figure_for_one_reason_share_a_sentence() -> None:
    group = FigureGroup(missing=(("a", "nothing was trained"), ("b", "is damaged"), ("c", "nothing was trained")))
    assert group.missing_by_reason == {"nothing was trained": ("a", "c"), "is damaged": ("b",)}
