"""``aimcore data inspect SOURCE``: what a source holds, what is broken, and what is there twice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aimcore.cli.source_arguments import add_source, add_workers

_MOST_LISTED = 10
_MOST_IN_GROUP = 5


def add_inspect_action(actions: Any) -> None:
    """Add ``aimcore data inspect``."""
    inspect = actions.add_parser(
        "inspect", help="show what a source holds, what is broken, and what is there twice",
        description="Read every sample of a source. Shows counts, classes, captions, sizes, formats, broken samples "
        "with the reason, and duplicates: equal pixels, and similar perceptual hashes. Nothing is changed.",
        epilog="exit status: 0 every sample can be read; 1 a sample is broken; 2 nothing was started; 130 interrupted",
    )  # fmt: skip
    add_source(inspect)
    inspect.add_argument("--json", action="store_true", help="print everything that was found, with all names, as JSON")
    inspect.add_argument("--page", type=Path, metavar="FILE", help="write a page with pictures (HTML)")
    inspect.add_argument(
        "--sample", type=int, metavar="N", help="pictures of each class on the page (default: 12; 60 without classes)"
    )
    inspect.add_argument(
        "--near", type=int, metavar="N",
        help="bits of 64 in which the perceptual hashes of near duplicates differ at most (default: 2). Hashes "
        "differ in an even number of bits, except of some drawings",
    )  # fmt: skip
    add_workers(inspect)
    inspect.set_defaults(function=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.contracts.component import at_least
    from aimcore.contracts.errors import InvalidValue
    from aimcore.data.perceptual_hash import NEAR
    from aimcore.io.atomic_files import require_writable
    from aimcore.io.terminal import Terminal
    from aimcore.recipe.writing import plain
    from aimcore.report.inspection_page import write_inspection_page
    from aimcore.running.image_sources import source_named
    from aimcore.running.inspection_record import inspection_record
    from aimcore.running.source_inspection import inspect_source

    if options.sample is not None and (problems := list(at_least("sample", options.sample, 1))):
        raise InvalidValue("inspect", problems)
    if options.page is not None:
        require_writable(options.page)
    source = source_named(options.source)
    most_bits = NEAR if options.near is None else options.near
    with Stages("nothing was written") as stages:
        opened = source.open()
        found = inspect_source(opened, num_workers=options.workers, most_bits=most_bits, progress=stages.progress)
        if options.page is not None:
            write_inspection_page(
                found, opened, options.source, options.page, per_class=options.sample, num_workers=options.workers,
                progress=stages.progress,
            )  # fmt: skip
    record = {"source": plain(source), **inspection_record(found)}
    if options.json:
        Terminal().print_data(record)
    else:
        written = [] if options.page is None else [f"written: {options.page}"]
        for line in (*_lines(options.source, record), *written):
            Terminal().print(line, highlight=False, soft_wrap=True)
    return int(bool(found.measured.broken))


def _lines(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what people read first; long lists are cut."""
    yield (
        f"{name}: {_counted(record['num_samples'], 'sample')}, {_counted(len(record['classes']), 'class', 'classes')}, "
        f"{record['num_broken']:,} broken"
    )
    for reason, count in record["left_out"].items():
        yield f"not read: {count:,} {reason}"
    if record["classes"]:
        classes = [f"{one['name']} {one['num_samples']:,}" for one in record["classes"]]
        yield f"classes: {_listed(classes)}; {record['num_unlabelled']:,} without a label"
    for kind, one in record["captions"].items():
        yield (
            f"captions {kind}: {one['num_captions']:,} of {_counted(one['num_samples'], 'sample')}, "
            f"{_range(one['words'])} words, {_range(one['characters'])} characters"
        )
    if record["sizes"]["extremes"]:
        yield from _sizes(record["sizes"])
        forms = [f"{form} {count:,}" for form, count in record["files"]["forms"].items()]
        size = f"; {record['files']['num_bytes'] / 1e6:,.1f} MB" if record["files"]["num_bytes"] else ""
        yield f"images: {_listed(forms)}{size}; {record['num_without_contrast']:,} of one colour"
    yield from _broken(record["broken"])
    duplicates = record["duplicates"]
    yield from _groups("equal pixels", duplicates["exact"])
    yield from _groups(f"near duplicates (up to {duplicates['near_most_bits']} of 64 bits)", duplicates["near"])


def _sizes(sizes: Mapping[str, Any]) -> Iterator[str]:
    yield (f"width: {_range(sizes['width'])}; height: {_range(sizes['height'])}; aspect: {_range(sizes['aspect'])}")
    sides = [f"{one['width']} x {one['height']} ({one['num_samples']:,})" for one in sizes["frequent"]]
    yield f"most frequent: {_listed(sides[:5])}"
    for what, one in sizes["extremes"].items():
        yield f"{what}: {one['identifier']}, {one['width']} x {one['height']}"


def _broken(broken: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in broken[:_MOST_LISTED]:
        yield f"broken: {one['identifier']}: {one['cause']}"
    if len(broken) > _MOST_LISTED:
        yield f"broken: {len(broken) - _MOST_LISTED:,} more; --json lists all"


def _groups(what: str, groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    number = sum(len(group["samples"]) for group in groups)
    yield f"{what}: {_counted(len(groups), 'group')}" + (f" of {number:,} samples" if groups else "")
    for group in groups[:_MOST_LISTED]:
        names = [one["identifier"] for one in group["samples"]]
        yield f"  {_listed(names, _MOST_IN_GROUP)}{' (different classes)' if group['other_labels'] else ''}"
    if len(groups) > _MOST_LISTED:
        yield f"  {_counted(len(groups) - _MOST_LISTED, 'more group')}; --json lists all"


def _range(spread: Mapping[str, float]) -> str:
    return f"{_number(spread['minimum'])} to {_number(spread['maximum'])} (median {_number(spread['median'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _listed(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _counted(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
