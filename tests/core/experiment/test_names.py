"""Names that become folders."""

from typing import Any

import attrs
import pytest
from toy_plugins import toy_experiment

from aimcore import Branch, InvalidValue, Study
from aimcore.io.run_folder import FIGURES_FOLDER, REPORT_FILE, SUMMARY_FILE
from aimcore.running.study_run import default_folder

TAKEN = (FIGURES_FOLDER, REPORT_FILE, SUMMARY_FILE, "Report", "SUMMARY.JSON")


@pytest.mark.parametrize("name", ["raster", "L-12.5k", "a_b", "x" * 200, "console", "report.v2", "com10"])
def test_names_of_folders_are_names_of_experiments_and_studies(name: str) -> None:
    assert Study(name=name, experiments=[toy_experiment(name=name)]).experiments[0].name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "is taken: the study writes a file or folder of that name") for name in TAKEN),
        ("../x", "must be letters, digits"),
        ("..", "and more than dots"),
        ("", "must be letters, digits"),
        ("a b", "must be letters, digits"),
        ("\x1b[31mred", r"got '\\x1b\[31mred'"),
        (".lock", "must neither begin nor end with a dot"),
        ("a.", "must neither begin nor end with a dot"),
        ("NUL", "'NUL' is reserved by Windows"),
        ("com1.txt", "is reserved by Windows"),
        ("x" * 201, "must be at most 200 bytes long, got 201 characters"),
        ("ä" * 1_000_000, "must be letters"),
    ],
)
def test_other_names_of_experiments_are_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        toy_experiment(name=name)
    assert len(str(caught.value)) < 500
    with pytest.raises(InvalidValue, match=message):
        Branch(experiment=name, step=1)


@pytest.mark.parametrize("name", ["table", "AIM, Table 3b", "Überblick (neu)", "v1.2"])
def test_a_study_has_a_readable_name(name: str) -> None:
    assert default_folder(study(name), "small").as_posix() == f"runs/{name}-small"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../x", "name: must be text without control characters and without"),
        ("/tmp/x", "must be text without"),
        ("..\\x", "must be text without"),
        ("C:x", "must be text without"),
        ("a\nb", "must be text without"),
        ("a\x1b[31m", "must be text without"),
        ("", "must be text without"),
        ("..", "must neither begin nor end"),
        (" a", "must neither begin nor end"),
        ("nul.v2", "reserved by Windows"),
        ("ä" * 101, "must be at most 200 bytes long, got 101 characters"),
    ],
)
def test_other_names_of_studies_are_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        study(name)


def test_names_that_differ_in_case_alone_are_one_folder_on_some_file_systems() -> None:
    with pytest.raises(InvalidValue, match="experiments: 'A-1' and 'a-1' differ only in case"):
        study("table", "a-1", "b", "A-1")


def study(name: str, *experiments: str) -> Study:
    return Study(name=name, experiments=[toy_experiment(name=each) for each in experiments or ("one",)])


def test_a_changed_name_is_checked_too() -> None:
    one: Any = study("table")
    with pytest.raises(InvalidValue, match="must be text without"):
        attrs.evolve(one, name="a/b")
