"""``aimcore describe``: roles, a role, a component, an experiment; at 80 columns; as values."""

from __future__ import annotations

import json

import pytest

from aimcore import run


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run.command(["describe", *arguments]) == 0
    out = capsys.readouterr().out
    assert "--json" in arguments or max(map(len, out.splitlines())) <= 80
    return out


def test_roles_are_listed_with_their_components(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys)
    assert all(word in out for word in ("orderings", "spiral", "trunks", "vit", "trackers", "jsonl"))


def test_a_fields_line_holds_its_path_type_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in printed(capsys, "objectives/next_patch").splitlines()]
    assert "ordering: Ordering = raster" in lines
    assert "head.width: int = 2048" in lines
    assert "heads: linear, mlp, transformer" in lines


def test_a_required_field_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "width: int (required)" in printed(capsys, "trunks/vit")


def test_a_component_without_fields_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "orderings/raster")
    assert "no fields" in out
    assert "aimcore_orderings/raster.py, line" in out


def test_an_experiment_is_described_with_all_paths_that_set_takes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in printed(capsys, "experiment").splitlines()]
    assert "optimizer.peak_lr: float = 0.001" in lines
    assert "initial_weights: Weights | tuple[Weights, ...] | None = None" in lines
    assert "data.augmentation.flip_probability: float = 0.5" in lines


def test_values_are_given_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    described = json.loads(printed(capsys, "heads/mlp", "--json"))
    fields = {field["path"]: field for field in described["fields"]}
    assert (fields["depth"]["type"], fields["depth"]["default"]) == ("int", 12)
    assert (described["plugin"], described["source"]["file"]) == ("heads", "aimcore_heads/mlp.py")
    role = json.loads(printed(capsys, "orderings", "--json"))
    assert {"name": "raster", "distribution": "aimcore"}.items() <= role["components"][-3].items()
    assert role["role"] in {one["role"] for one in json.loads(printed(capsys, "--json"))}


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        ("spiral", "orderings/spiral"),
        ("order/spiral", "orderings/spiral"),
        ("spirla", "orderings/spiral"),
        ("linear", "heads/linear or probes/linear"),
    ],
)
def test_a_component_without_its_role_is_answered_with_it(
    what: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.command(["describe", what]) == 2
    role = what.partition("/")[0]
    assert f"no role is called {role!r} (did you mean {meant}?); there are decoders" in capsys.readouterr().err


def test_a_misspelt_role_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["describe", "ordering"]) == 2
    assert "no role is called 'ordering' (did you mean 'orderings'?)" in capsys.readouterr().err


def test_capabilities_are_those_of_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    trunk, objective = printed(capsys, "trunks/vit"), printed(capsys, "objectives/next_patch")
    assert "capabilities causal, embeddings, native, order, prefix, subset (with width=16" in " ".join(trunk.split())
    assert "requires order, prefix (by default)" in " ".join(objective.split())
    assert "capabilities" not in printed(capsys, "orderings/spiral")


def test_capabilities_are_values_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    described = json.loads(printed(capsys, "objectives/next_patch", "--json"))
    assert described["abilities"] == {"skills": [], "requires": ["order", "prefix"]}
    assert json.loads(printed(capsys, "heads/mlp", "--json"))["abilities"] == {}
