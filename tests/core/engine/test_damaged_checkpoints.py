"""Whatever happened to a checkpoint's files, it is loaded as it was saved or refused with the file and the way on."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import experiment, whole_batch
from core.mutations import mutated

from aimcore.engine import CheckpointDamaged, CheckpointMismatch, TrainingEngine, checkpoints
from aimcore.engine.manifest import Manifest, describe_files, read_manifest

MODEL = "mp_rank_00_model_states.pt"
SHARD = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
NEWEST = "step_00000004"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at stage 1 with checkpoints after 2 and 4 steps."""
    folder = tmp_path_factory.mktemp("saved")
    with TrainingEngine(experiment(1)) as engine:
        for step in range(4):
            engine.step([whole_batch(step)])
            if step % 2:
                checkpoints.save(engine, folder, seconds=1.5)
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[TrainingEngine]:
    """A fresh engine; a refused checkpoint leaves it fresh."""
    with TrainingEngine(experiment(1)) as engine:
        yield engine


@pytest.fixture
def newest(saved: Path, tmp_path: Path) -> Path:
    """The newest checkpoint of a copy of that run."""
    return Path(shutil.copytree(saved, tmp_path / "run")) / "checkpoints" / NEWEST


def refusal(engine: TrainingEngine, newest: Path, message: str) -> CheckpointDamaged:
    """How the newest checkpoint is refused."""
    with pytest.raises(CheckpointDamaged, match=message) as caught:
        checkpoints.resume(engine, newest.parent.parent)
    assert len(str(caught.value)) < 1000
    return caught.value


def edited(newest: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest as a careful hand would, its digest included."""
    path = newest / "manifest.json"
    entries = json.loads(path.read_text())
    entries.pop("digest", None)
    edit(entries)
    entries["digest"] = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(entries))


def rehashed(newest: Path) -> None:
    """Bring the manifest in line with changed files."""
    (newest / "manifest.json").unlink()
    files = describe_files(newest)
    earlier = read_manifest(newest.parent / "step_00000002")
    Manifest(4, earlier.seconds, earlier.saved_by, files).write(newest)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another step": (lambda m: m.update(step=1000), "is of step 1000, but its folder is called step_00000004"),
    "step true": (lambda m: m.update(step=True), "the step true"),
    "step as text": (lambda m: m.update(step="4"), 'the step "4"'),
    "step as float": (lambda m: m.update(step=4.0), r"the step 4\.0"),
    "negative step": (lambda m: m.update(step=-4), "the step -4"),
    "huge step": (lambda m: m.update(step=10**100), "the step 1000.*, not a whole number"),
    "step null": (lambda m: m.update(step=None), "the step null"),
    "no step": (lambda m: m.pop("step"), "lacks step"),
    "seconds NaN": (lambda m: m.update(seconds=float("nan")), "NaN seconds"),
    "seconds infinite": (lambda m: m.update(seconds=float("inf")), "Infinity seconds"),
    "seconds as text": (lambda m: m.update(seconds="1"), 'has "1" seconds'),
    "seconds a list": (lambda m: m.update(seconds=[1] * 10**5), "a list of 100000 entries seconds"),
    "negative seconds": (lambda m: m.update(seconds=-1), "has -1 seconds"),
    "huge seconds": (lambda m: m.update(seconds=10**4000), "seconds of training"),
    "saved_by a list": (lambda m: m.update(saved_by=[1]), "must describe in saved_by"),
    "saved_by nested": (lambda m: m["saved_by"].update(seed={"a": 1}), 'an object of 1 entries as "seed" in saved_by'),
    "saved_by true": (lambda m: m["saved_by"].update(zero_stage=True), 'true as "zero_stage" in saved_by'),
    "saved_by long": (lambda m: m["saved_by"].update(note="x" * 10**6), 'as "note" in saved_by'),
    "saved_by with escapes": (lambda m: m["saved_by"].update(precision="\x1b[2J"), 'as "precision" in saved_by'),
    "saved_by with half a character": (lambda m: m["saved_by"].update(precision="\ud800"), 'as "precision" in saved'),
    "files empty": (lambda m: m.update(files={}), "must list the checkpoint's files, not an object of 0 entries"),
    "files a list": (lambda m: m.update(files=[MODEL]), "must list the checkpoint's files, not a list"),
    "files null": (lambda m: m.update(files=None), "must list the checkpoint's files, not null"),
    "a file less": (lambda m: m["files"].pop(SHARD), f"does not list {SHARD}"),
    "a file without hash": (lambda m: m["files"][MODEL].pop("sha256"), f'bytes and sha256 of "{MODEL}"'),
    "a file as text": (lambda m: m["files"].update({MODEL: "x"}), f'bytes and sha256 of "{MODEL}"'),
    "bytes true": (lambda m: m["files"][MODEL].update(bytes=True), "gives true as the bytes"),
    "bytes as float": (lambda m: m["files"][MODEL].update(bytes=1e3), "gives 1000.0 as the bytes"),
    "hash upper case": (lambda m: m["files"][MODEL].update(sha256="A" * 64), "as the sha256"),
    "hash a number": (lambda m: m["files"][MODEL].update(sha256=1), "gives 1 as the sha256"),
    "path upwards": (lambda m: m["files"].update({"../x": m["files"][MODEL]}), 'lists "../x"'),
    "absolute path": (lambda m: m["files"].update({"/etc/passwd": m["files"][MODEL]}), 'lists "/etc/passwd"'),
    "empty path": (lambda m: m["files"].update({"": m["files"][MODEL]}), 'lists ""'),
    "a folder's path": (lambda m: m["files"].update({"a/b": m["files"][MODEL]}), 'lists "a/b"'),
    "a dot": (lambda m: m["files"].update({".": m["files"][MODEL]}), r'lists "\."'),
    "itself": (lambda m: m["files"].update({"manifest.json": m["files"][MODEL]}), 'lists "manifest.json"'),
    "another file": (lambda m: m["files"].update({"other.pt": m["files"][MODEL]}), "lists other.pt, which is not part"),
    "a second shard": (
        lambda m: m["files"].update({SHARD.replace("0", "1", 1): m["files"][SHARD]}),
        "which is not part of it",
    ),
    "an unknown entry": (lambda m: m.update(extra=1), 'has the unknown entry "extra"'),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_refused_with_the_way_on(engine: TrainingEngine, newest: Path, edit: str) -> None:
    change, message = EDITS[edit]
    edited(newest, change)
    older = newest.with_name("step_00000002")
    hint = f"move the folder {newest} elsewhere and resume again, to continue from {older}$"
    assert refusal(engine, newest, f"{message}.*{hint}").file == str(newest / "manifest.json")


CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "cut": (b'{"step": 4, "seconds": 1', "cannot be read"),
    "a number": (b"4", "must hold a JSON object, not 4"),
    "a list": (b"[]", "must hold a JSON object, not a list of 0 entries"),
    "null": (b"null", "must hold a JSON object, not null"),
    "not UTF-8": (b'{"step": "\xff"}', "cannot be read"),
    "UTF-16": ('{"step": 4}'.encode("utf-16"), "cannot be read"),
    "deep": (nested(100_000).encode(), "cannot be read"),
    "deep inside": (b'{"step": 4, "seconds": 1, "files": {}, "saved_by": ' + nested(900).encode() + b"}", "saved_by"),
    "an integer of 5,000 digits": (b'{"step": ' + b"9" * 5000 + b"}", "cannot be read"),
    "an entry twice": (b'{"step": 4, "step": 4, "seconds": 1, "saved_by": {}, "files": {}}', "it has an entry twice"),
    "zeros": (bytes(600), "cannot be read"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_manifest_of_anything_else_is_refused(engine: TrainingEngine, newest: Path, content: str) -> None:
    given, message = CONTENTS[content]
    (newest / "manifest.json").write_bytes(given)
    refusal(engine, newest, message)


def test_an_edit_that_is_plausible_is_found_by_the_digest(engine: TrainingEngine, newest: Path) -> None:
    path = newest / "manifest.json"
    path.write_text(path.read_text().replace('"seconds": 1.5', '"seconds": 2.5'))
    refusal(engine, newest, "was changed after it was written")


def test_a_manifest_of_an_earlier_version_has_no_digest_and_is_read(newest: Path) -> None:
    path = newest / "manifest.json"
    entries = json.loads(path.read_text())
    del entries["digest"]
    path.write_text(json.dumps(entries, indent=1))
    assert read_manifest(newest) == Manifest(**entries)
    with TrainingEngine(experiment(1)) as fresh:
        checkpoints.resume(fresh, newest.parent.parent)
        assert fresh.step_number == 4


def test_a_manifest_and_folder_of_another_step_are_refused(engine: TrainingEngine, newest: Path) -> None:
    later = newest.rename(newest.with_name("step_00001000"))
    edited(later, lambda entries: entries.update(step=1000))
    assert refusal(engine, later, "is of step 4, and the manifest of step 1000").file == str(later / MODEL)


def test_a_checkpoint_beyond_the_end_is_of_another_run(newest: Path) -> None:
    mismatch = pytest.raises(CheckpointMismatch, match="steps was 4, now num_steps is 3")
    with TrainingEngine(experiment(1, num_steps=3)) as short, mismatch:
        checkpoints.resume(short, newest.parent.parent)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / path.name))


PLACES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "the manifest is a folder": ("manifest.json", to_folder, "is not a regular file"),
    "the manifest is a link": ("manifest.json", to_link, "is not a regular file"),
    "a file is a folder": (MODEL, to_folder, "is not a file"),
    "a file is a link": (MODEL, to_link, "is a link"),
    "a file is missing": (SHARD, Path.unlink, "is missing"),
    "a file too many": ("other.pt", lambda path: path.write_bytes(b"x"), "is not listed in the manifest"),
    "a folder too many": ("more", Path.mkdir, "is not listed in the manifest"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_folder_of_anything_else_is_refused(engine: TrainingEngine, newest: Path, place: str) -> None:
    name, change, message = PLACES[place]
    change(newest / name)
    assert refusal(engine, newest, message).file == str(newest / name)


def rezipped(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write the records of a file of torch.save anew."""
    with zipfile.ZipFile(path) as archive:
        records = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def repickled(path: Path, change: Callable[[bytes], bytes]) -> None:
    rezipped(path, lambda name, old: change(old) if name.endswith(".pkl") else old)


def as_a_script(path: Path) -> None:
    """Add the record by which torch knows its scripts."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0].partition("/")[0] + "/constants.pkl", b"")


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


def deep_list() -> list[Any]:
    value: list[Any] = []
    for _ in range(300):
        value = [value]
    return value


def in_old_format(path: Path) -> None:
    torch.save(torch.load(path, weights_only=False), path, _use_new_zipfile_serialization=False)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"module": {}}))


FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut": (MODEL, lambda path: path.write_bytes(path.read_bytes()[:-100])),
    "empty": (MODEL, lambda path: path.write_bytes(b"")),
    "plain pickle": (MODEL, pickled),
    "torch's format before zip": (SHARD, in_old_format),
    "a script": (MODEL, as_a_script),
    "no pickle inside": (MODEL, lambda path: repickled(path, lambda _: b"")),
    "cut pickle": (MODEL, lambda path: repickled(path, lambda old: old[:99])),
    "unknown opcode": (MODEL, lambda path: repickled(path, lambda _: b"\x80\x02\xff")),
    "short tensors": (SHARD, lambda path: rezipped(path, lambda name, old: old[:4] if "/data/" in name else old)),
    "a list": (MODEL, lambda path: torch.save([1, 2], path)),
    "a tensor": (SHARD, lambda path: torch.save(torch.ones(2), path)),
    "deep": (MODEL, lambda path: changed(path, lambda content: content.update(module=deep_list()))),
    "no module": (MODEL, lambda path: changed(path, lambda content: content.pop("module"))),
    "no step": (MODEL, lambda path: changed(path, lambda content: content.pop("global_steps"))),
    "another step": (MODEL, lambda path: changed(path, lambda content: content.update(global_steps=1000))),
    "an entry less": (MODEL, lambda path: changed(path, lambda content: content["module"].popitem())),
    "a number for a tensor": (
        MODEL,
        lambda path: changed(path, lambda content: content["module"].update({"objective.head.bias": 3})),
    ),
    "another shape": (
        MODEL,
        lambda path: changed(path, lambda c: c["module"].update({"objective.head.bias": torch.ones(9)})),
    ),
    "no optimiser": (SHARD, lambda path: changed(path, lambda content: content.pop("optimizer_state_dict"))),
    "nothing of the optimiser": (SHARD, lambda path: changed(path, lambda c: c.update(optimizer_state_dict={}))),
    "no partition": (
        SHARD,
        lambda path: changed(path, lambda c: c["optimizer_state_dict"].pop("base_optimizer_state")),
    ),
}


@pytest.mark.parametrize("content", FILES)
def test_a_file_with_the_right_hash_and_wrong_content_is_refused(newest: Path, content: str) -> None:
    name, change = FILES[content]
    change(newest / name)
    rehashed(newest)
    with TrainingEngine(experiment(1)) as fresh:
        assert refusal(fresh, newest, "step_00000002$").file in (str(newest / name), str(newest))


def test_an_older_checkpoint_is_offered_only_if_it_is_sound(engine: TrainingEngine, newest: Path) -> None:
    (newest / MODEL).unlink()
    (newest.with_name("step_00000002") / MODEL).unlink()
    refusal(engine, newest, "there is no older intact checkpoint: restore this one from a copy, or move the")


def test_a_checkpoint_in_a_linked_folder_is_loaded(newest: Path) -> None:
    newest.symlink_to(newest.rename(newest.parent.parent / "moved"))
    with TrainingEngine(experiment(1)) as fresh:
        checkpoints.resume(fresh, newest.parent.parent)
        assert fresh.step_number == 4


@pytest.mark.parametrize("with_digest", [True, False])
def test_a_mutated_manifest_is_read_as_it_was_or_refused(newest: Path, with_digest: bool) -> None:
    path = newest / "manifest.json"
    entries = json.loads(path.read_text())
    if not with_digest:
        del entries["digest"]
    original = json.dumps(entries, indent=1).encode()
    path.write_bytes(original)
    expected, generator, refused = read_manifest(newest), random.Random(0), 0
    for _ in range(300):
        path.write_bytes(mutated(original, generator))
        try:
            found = read_manifest(newest)
        except CheckpointDamaged as error:
            refused += error.file == str(path)
            continue
        assert found == expected or not with_digest
    assert refused > 150


def test_a_mutated_file_of_states_gives_no_other_error_whatever_its_hash(newest: Path) -> None:
    original, generator = (newest / MODEL).read_bytes(), random.Random(1)
    with TrainingEngine(experiment(1)) as fresh:
        for _ in range(30):
            (newest / MODEL).write_bytes(mutated(original, generator))
            rehashed(newest)
            with suppress(CheckpointDamaged):
                checkpoints.resume(fresh, newest.parent.parent)
