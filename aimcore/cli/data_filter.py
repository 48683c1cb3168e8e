"""``aimcore data filter SOURCE DESTINATION``: write the samples of a source that are worth training on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimcore.cli.encoder_arguments import add_encoder_settings, encoder_settings
from aimcore.cli.source_arguments import add_destination, add_source, add_workers

if TYPE_CHECKING:
    from aimcore.running.converting import Converted
    from aimcore.running.filter_report import FilterChoice
    from aimcore.running.filter_steps import Filtering

_KEEP = 0.15
_MOST_LISTED = 10


def add_filter_action(actions: Any) -> None:
    """Add ``aimcore data filter``."""
    parser = actions.add_parser(
        "filter", help="leave out evaluation images, duplicates, and captions that do not fit",
        description="Write a source without the images of evaluation sets, without duplicates, and with the samples "
        "whose captions fit best. Broken samples are left out. A report next to the destination names all samples that "
        "are removed, with the reason, and a page shows some. Nothing is overwritten but the page. After an "
        "interruption, the same command continues.",
        epilog="exit status: 0 everything is written; 2 nothing was started, or the data was refused; 130 interrupted",
    )  # fmt: skip
    add_source(parser)
    add_destination(parser)
    parser.add_argument(
        "--against", metavar="SOURCE", nargs="+", action="extend", default=[], help="remove the images of these sources"
    )
    parser.add_argument(
        "--deduplicate", action="store_true", help="of duplicates, keep the sample with the lowest number"
    )
    parser.add_argument(
        "--hash-distance", type=int, metavar="D",
        help="bits of 64 in which the perceptual hashes of duplicates, and of evaluation images, differ at most "
        "(default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings-by", metavar="ENCODER",
        help="any encoder: also remove images whose features are similar to those of an image of --against",
    )  # fmt: skip
    parser.add_argument(
        "--similarity", type=float, metavar="S", help="remove images from this cosine of the features up, such as 0.95"
    )
    parser.add_argument("--scores-by", metavar="ENCODER", help="the run or weights of two towers that score captions")
    add_encoder_settings(parser)
    share = parser.add_mutually_exclusive_group()
    share.add_argument("--keep", type=float, metavar="SHARE", help="share of scored samples to keep (default: 0.15)")
    share.add_argument("--min-score", type=float, metavar="S", help="keep samples with at least this score, a cosine")
    parser.add_argument(
        "--caption", metavar="KIND", help="kind of the captions to score (default: each sample's first)"
    )
    add_workers(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write the report and its page only; without it, the same command continues",
    )
    parser.set_defaults(function=_filter)


def _filter(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.io.terminal import Terminal
    from aimcore.report.filter_page import page_of, write_filter_page
    from aimcore.running.filter_report import choose, write_kept
    from aimcore.running.image_sources import destination_named, source_named

    filtering = _filtering(options)
    source, destination = source_named(options.source), destination_named(options.destination)
    with Stages("the same command continues") as stages:
        working = {"num_workers": options.workers, "progress": stages.progress}
        choice = choose(source, destination, filtering, **working)
        page = page_of(choice.report)
        if choice.is_new or not page.exists():
            write_filter_page(choice, **working)
        done = None if options.dry_run else write_kept(choice, **working)
    for line in _lines(options, choice, page, done):
        Terminal().print(line, soft_wrap=True, highlight=False)
    return 0


def _filtering(options: argparse.Namespace) -> Filtering:
    from aimcore.contracts.errors import InvalidValue
    from aimcore.running.filter_steps import HASH_DISTANCE, Filtering

    if options.hash_distance is not None and not (options.against or options.deduplicate):
        raise InvalidValue("filter", [("hash-distance", "needs --against or --deduplicate")])
    keep = options.keep
    if options.scores_by is not None and keep is None and options.min_score is None:
        keep = _KEEP
    return Filtering(
        against=tuple(options.against), embeddings_by=options.embeddings_by, similarity=options.similarity,
        deduplicate=options.deduplicate,
        hash_distance=HASH_DISTANCE if options.hash_distance is None else options.hash_distance,
        scores_by=options.scores_by, encoder_settings=encoder_settings(options), keep=keep,
        min_score=options.min_score, caption=options.caption,
    )  # fmt: skip


def _lines(options: argparse.Namespace, choice: FilterChoice, page: Path, done: Converted | None) -> Iterator[str]:
    from aimcore.recipe.writing import plain

    record = choice.record
    if not choice.is_new:
        yield f"the choice is that of {choice.report}; remove it to choose again"
    yield f"{options.source}: {record['num_samples']:,} samples, of which {record['num_kept']:,} are kept"
    for reason, count in record["num_removed"].items():
        yield f"removed: {count:,} {reason}"
    yield from _broken(record)
    if record["similarities"] is not None:
        found, nearest = record["similarities"], record["similarities"]["nearest_kept"]
        yield (
            f"similarities: {found['num_removed']:,} of {found['num_compared']:,} removed, from "
            f"{found['threshold']:.4f} up; the largest of those kept is {nearest[0]['similarity']:.4f}"
        )
    if record["scores"] is not None:
        scores = record["scores"]
        yield f"scores: {scores['num_kept']:,} of {scores['num_scored']:,} kept, from {scores['threshold']:.4f} up"
    yield f"report: {choice.report}"
    yield f"page: {page}"
    if done is None:
        yield "dry run: no samples are written"
    else:
        yield f"{options.destination}: {done.num_samples:,} samples"
        yield json.dumps(plain(done.source))


def _broken(record: Mapping[str, Any]) -> Iterator[str]:
    broken = [one for one in record["removed"] if one["reason"] == "broken"]
    for one in broken[:_MOST_LISTED]:
        yield f"broken: {one['identifier']}: {one['cause']}"
    if len(broken) > _MOST_LISTED:
        yield f"broken: {len(broken) - _MOST_LISTED:,} more; the report lists all"
    for name, counts in record["evaluation_sets"].items():
        if counts["num_broken"]:
            yield f"{name}: {counts['num_broken']:,} broken images were not compared with"
