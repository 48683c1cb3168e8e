"""A run begins with weights of several files, each for its own part; or it is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import experiment, whole_batch
from loguru import logger
from safetensors.torch import save_file
from torch import Tensor, nn

from aimcore import InvalidValue, Weights, recipe
from aimcore.contracts.errors import RecipeError
from aimcore.engine import TrainingEngine, WeightsMismatch, WeightsNotFound, build_module, initial_module
from aimcore.engine.initial_weights import check_weights, load_weights
from aimcore.engine.weights_fit import require_apart
from aimcore.running.preflight.part_checks import weight_problems

State = dict[str, Tensor]


def numbered(start: float) -> State:
    """The toy's whole state, each value a number of its own that no initialization draws."""
    state = build_module(experiment()).state_dict()
    return {
        name: torch.arange(value.numel(), dtype=torch.float32).reshape(value.shape) + start + 1000 * place
        for place, (name, value) in enumerate(state.items())
    }


ONE, OTHER = numbered(1e5), numbered(2e5)


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """Whole objectives, and the head of the other alone."""
    head = {name.removeprefix("head."): value for name, value in OTHER.items() if name.startswith("head.")}
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("one", "other", "head")}
    for (_, path), state in zip(paths.items(), (ONE, OTHER, head), strict=True):
        save_file(state, path)
    return paths


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: found.append(message.record["message"]), level="INFO")
    yield found
    logger.remove(sink)
    logger.disable("aimcore")


def expected() -> State:
    """The head of the other file, the trunk's embedding and table of the one, and the rest fresh."""
    state = build_module(experiment()).state_dict()
    for name in state:
        if name.startswith(("trunk.embed.", "trunk.table.")):
            state[name] = ONE[name]
        elif name.startswith("head."):
            state[name] = OTHER[name]
    return state


@pytest.mark.parametrize("head", ["other", "head"])
@pytest.mark.parametrize("stage", [0, 3])
def test_each_part_is_that_of_its_file_and_the_rest_is_fresh(files: Mapping[str, str], stage: int, head: str) -> None:
    parts = (
        Weights(url=files["one"], part="trunk.embed"),
        Weights(url=files[head], part="head"),
        Weights(url=files["one"], part="trunk.table.places"),
    )
    with TrainingEngine(experiment(stage, "fp32", initial_weights=parts)) as engine:
        found = engine.full_state_dict()
        engine.step([whole_batch(0)])
    assert found.keys() == expected().keys()
    assert [name for name, value in expected().items() if not torch.equal(found[name], value)] == []


def test_all_but_a_part_is_of_one_file_and_the_part_of_another(files: Mapping[str, str]) -> None:
    parts = (Weights(url=files["one"], part="all", fresh=("trunk",)), Weights(url=files["other"]))
    for order in (parts, parts[::-1]):
        found = initial_module(experiment(initial_weights=order)).state_dict()
        for name, value in found.items():
            assert torch.equal(value, (OTHER if name.startswith("trunk.") else ONE)[name])


def test_the_log_says_how_many_parameters_are_fresh(files: Mapping[str, str], lines: list[str]) -> None:
    # Of the toy's 9 parameters, 7 are in the trunk, where 2 are the norm's; its scale is a buffer.
    trunk, head = Weights(url=files["one"], fresh=("norm",)), Weights(url=files["head"], part="head")
    initial_module(experiment(initial_weights=(trunk, head)))
    initial_module(experiment(initial_weights=Weights(url=files["one"], part="all")))
    initial_module(experiment())
    begin = "parameters begin with weights from files"
    assert [line.partition(": ")[2] for line in lines] == [
        f"7 of 9 {begin}, 2 with fresh weights: trunk.norm.weight, trunk.norm.bias",
        f"9 of 9 {begin}, none with fresh weights",
    ]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("trunk", "trunk"), r"initial_weights\.1: part 'trunk' overlaps part 'trunk' of initial_weights\.0"),
        (("trunk", "head", "trunk.embed"), r"initial_weights\.2: part 'trunk\.embed' overlaps part 'trunk' of .*\.0"),
        (("head", "all"), r"initial_weights\.1: part 'all' overlaps part 'head' of initial_weights\.0"),
        (("all", "all"), r"initial_weights\.1: part 'all' overlaps part 'all' of initial_weights\.0"),
    ],
)
def test_parts_that_overlap_are_refused_with_both_named(parts: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        experiment(initial_weights=tuple(Weights(url="a.safetensors", part=part) for part in parts))


def test_a_fresh_part_that_is_smaller_than_the_other_file_gives_still_overlaps() -> None:
    parts = (Weights(url="a", fresh=("embed.bias",)), Weights(url="b", part="trunk.embed"))
    with pytest.raises(InvalidValue, match=r"part 'trunk\.embed' overlaps part 'trunk'"):
        experiment(initial_weights=parts)
    experiment(initial_weights=(Weights(url="a", fresh=("embed",)), Weights(url="b", part="trunk.embed")))
    experiment(initial_weights=(Weights(url="a", part="head"), Weights(url="b", part="head2")))


def test_a_tensor_that_two_files_give_by_two_names_is_refused() -> None:
    module = nn.ModuleDict({"embed": nn.Linear(3, 3), "out": nn.Linear(3, 3)})
    module["out"].weight = module["embed"].weight  # type: ignore[assignment]
    tied = {
        "initial_weights.0": Weights(experiment="a", part="embed"),
        "initial_weights.1": Weights(experiment="b", part="out"),
    }
    with pytest.raises(
        WeightsMismatch, match=r"'b' ends with \(part 'out'\).*out.weight is the tensor embed.weight, which .*\.0"
    ):
        require_apart(module, tied)
    run: Any = experiment(initial_weights=tuple(tied.values()))
    for use in (load_weights, lambda run, module: list(weight_problems(run, module))):
        with pytest.raises(WeightsMismatch, match=r"out.weight is the tensor"):
            use(run, module)
    require_apart(module, tied | {"initial_weights.1": Weights(url="b", part="out", fresh=("weight",))})
    require_apart(module, {"initial_weights": Weights(url="a", part="all")})


def test_a_part_that_the_objective_lacks_is_named_with_what_there_is(files: Mapping[str, str]) -> None:
    weights = Weights(url=files["one"], part="haed")
    with pytest.raises(WeightsMismatch, match=r"'haed' names no parameter \(did you mean 'head'\?\)"):
        check_weights(experiment(), build_module(experiment()), weights)


def test_a_file_without_the_part_is_named_with_the_part(files: Mapping[str, str]) -> None:
    weights = Weights(url=files["head"], part="trunk.embed")
    with pytest.raises(WeightsMismatch, match=r"head\.safetensors \(part 'trunk\.embed'\) does not fit: of another sh"):
        check_weights(experiment(), build_module(experiment()), weights)
    with pytest.raises(WeightsNotFound, match="cannot read /nowhere"):
        initial_module(experiment(initial_weights=(Weights(url=files["one"]), Weights(url="/nowhere", part="head"))))


@pytest.mark.parametrize("part", ["", "*", "trunk.*", "trunk.", ".head"])
def test_a_part_is_a_name(part: str) -> None:
    with pytest.raises(InvalidValue, match="part: must be 'all', 'trunk', or the name of another module"):
        Weights(url="a", part=part)


def test_only_a_trunk_is_resized() -> None:
    with pytest.raises(InvalidValue, match="resize: must be false for part 'head'"):
        Weights(url="a", part="head", resize=True)


def written(value: Any) -> Any:
    """A recipe's initial weights, after ``value`` was one's and made an experiment."""
    fields = recipe.to_recipe(plain_experiment())
    fields["experiment"]["initial_weights"] = value
    return recipe.to_recipe(recipe.from_recipe(fields))["experiment"]["initial_weights"]


def plain_experiment(**changes: Any) -> Any:
    from core.running.conftest import _experiment

    return _experiment("one", **changes)


OLD = {
    "url": "weights.safetensors", "experiment": None, "sha256": "0" * 64, "part": "trunk", "resize": True,
    "fresh": ["norm"],
}  # fmt: skip
"""As aimcore 0.1 wrote it."""


def test_recipes_with_one_file_or_none_are_as_they_were() -> None:
    assert written(OLD) == OLD
    assert written(None) is None
    assert written([OLD]) == OLD
    assert written([]) is None


def test_recipes_with_several_files_come_back() -> None:
    two = [OLD, {**OLD, "part": "head", "resize": False, "fresh": []}]
    assert written(two) == two
    one = plain_experiment(initial_weights=[Weights(url="a"), Weights(url="b", part="head")])
    assert recipe.from_recipe(recipe.to_recipe(one)) == one
    changed = recipe.changed(one, ["initial_weights.1.url=c.safetensors"])
    assert changed.initial_weights == (Weights(url="a"), Weights(url="c.safetensors", part="head"))


def test_problems_of_several_files_have_their_paths() -> None:
    with pytest.raises(RecipeError, match=r"initial_weights\.1\.sha256: must be 64 hexadecimal"):
        written([OLD, {"url": "b", "part": "head", "sha256": "x"}])
    with pytest.raises(RecipeError, match=r"initial_weights\.1: part 'trunk' overlaps part 'trunk' of initial_weights"):
        written([OLD, {"url": "b"}])
