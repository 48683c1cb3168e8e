"""Values of another type than declared, as Python gives them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
import pytest
from toy_plugins import ToyHead, ToyOrdering, ToyProbe, ToyTrunk, toy_experiment

from aimcore import Data, Experiment, Head, InvalidValue, Ordering, Trunk, component, settings
from aimcore.contracts.component import Checked
from aimcore_optimizers import AdamW

if TYPE_CHECKING:
    from nowhere import Unknown


@settings
class Inner(Checked):
    size: int = 1


@component("everything")
class Everything(Ordering):
    """Annotations are text here, as in most plugins."""

    whole: int = 1
    number: float = 0.5
    flag: bool = False
    text: str = ""
    choice: Literal["low", "high"] | None = None
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[int, ...] | None = ()
    names: Sequence[str] = ()
    kinds: frozenset[str] = frozenset()
    weights: Mapping[str, tuple[float, ...]] = attrs.field(factory=dict)
    inner: Inner | None = None
    part: Ordering | None = None
    path: Path | None = None
    later: Unknown = None  # type: ignore[assignment]
    anything: Any = None

    def permutation(self, grid: Any) -> Any: ...


def problems(cls: type[Any] = Everything, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidValue) as caught:
        cls(**fields)
    return [(path, message) for path, message in caught.value.problems]


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"whole": "32"}, "whole", "must be a whole number, got '32'"),
        ({"whole": True}, "whole", "must be a whole number, got true"),
        ({"whole": 1e3}, "whole", "must be a whole number, got 1000.0: write 1000"),
        ({"whole": 1.5}, "whole", "must be a whole number, got 1.5"),
        ({"whole": np.int64(3)}, "whole", "must be a whole number, got np.int64(3): write 3"),
        ({"whole": None}, "whole", "must be a whole number, got null"),
        ({"number": "1e-3"}, "number", "must be a number, got '1e-3'"),
        ({"number": np.float32(0.5)}, "number", "must be a number, got np.float32(0.5): write 0.5"),
        ({"flag": 1}, "flag", "must be true or false, got 1"),
        ({"text": 3}, "text", "must be text, got 3"),
        ({"choice": "lwo"}, "choice", "must be \"low\" or \"high\" or null, got 'lwo'"),
        ({"pair": (1, "2")}, "pair.1", "must be a number, got '2'"),
        ({"pair": (1,)}, "pair", "must have 2 items, got 1: (1,)"),
        ({"many": (1, "2")}, "many.1", "must be a whole number, got '2'"),
        ({"many": 3}, "many", "must be a list or null, got 3: write [3]"),
        ({"names": "trunk"}, "names", "must be a list, got 'trunk': write ['trunk']"),
        ({"weights": {"a": ("b",)}}, "weights.a.0", "must be a number, got 'b'"),
        ({"weights": {1: ()}}, "weights.1", "must be text, got 1"),
        ({"weights": [1]}, "weights", "must be a mapping, got [1]"),
        ({"inner": {"size": 2}}, "inner", "must be settings (Inner) or null, got {'size': 2}: write Inner(...)"),
        ({"part": ToyHead}, "part", f"must be a component (Ordering) or null, got {ToyHead!r}"),
        ({"part": ToyOrdering}, "part", f"must be a component (Ordering) or null, got {ToyOrdering!r}: write "
         "ToyOrdering()"),
        ({"part": "everything"}, "part", "must be a component (Ordering) or null, got 'everything': write Everything()"
         f", from {__name__.partition('.')[0]}"),
        ({"part": "evrything"}, "part", "must be a component (Ordering) or null, got 'evrything': only recipes "
         "refer to components by name; import its class and construct it"),
        ({"whole": 2**64}, "whole", "must be a whole number, got 18446744073709551616: it has more than 64 bits"),
        ({"whole": 10**5000}, "whole",
         "must be a whole number, got a whole number of 16610 bits: it has more than 64 bits"),
        ({"number": float("nan")}, "number", "must be a number, got nan: it is not finite"),
        ({"number": 10**400}, "number", "must be a number, got a whole number of 1329 bits: it is not finite"),
        ({"pair": (1, float("inf"))}, "pair.1", "must be a number, got inf: it is not finite"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_reported_with_its_path(fields: dict[str, Any], path: str, message: str) -> None:
    assert problems(**fields) == [(path, message)]


def test_all_that_is_wrong_is_reported_at_once() -> None:
    assert [path for path, _ in problems(whole="1", pair=("a", "b"), text=b"")] == ["whole", "text", "pair.0", "pair.1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 1, "pair": (1, 2)},
        {"whole": 2**64 - 1, "number": -1e308},
        {"whole": -(2**63), "number": 10**308},
        {"path": "anything", "later": object(), "anything": object()},
        {"choice": "low", "many": None, "inner": Inner(), "part": Everything()},
    ],
)
def test_what_fits_and_what_cannot_be_judged_stays_as_it_is(fields: dict[str, Any]) -> None:
    made = Everything(**fields)
    assert all(getattr(made, name) is value for name, value in fields.items())


def test_lists_become_what_is_declared() -> None:
    made = Everything(pair=[1, 2.0], many=[1], names=["a"], kinds=["a", "b"], weights={"a": [1.0]})
    assert made == Everything(pair=(1, 2.0), many=(1,), names=("a",), kinds=frozenset("ab"), weights={"a": (1.0,)})
    assert isinstance(made.weights["a"], tuple)


def test_an_argument_of_the_wrong_role_is_refused() -> None:
    said = problems(Experiment, **fields_of_an_experiment(objective=ToyHead()))
    assert said[0][0] == "objective"
    assert said[0][1].startswith("must be a component (Objective), got ToyHead(width=8")


def test_an_experiment_takes_probes_as_a_list_and_refuses_one_alone() -> None:
    assert Experiment(**fields_of_an_experiment(probes=[ToyProbe()])).probes == (ToyProbe(),)
    message = "must be a list, got ToyProbe(epochs=1): write [ToyProbe(...)]"
    assert problems(Experiment, **fields_of_an_experiment(probes=ToyProbe())) == [("probes", message)]


def test_settings_and_required_arguments_are_written_in_the_hint() -> None:
    given = fields_of_an_experiment(schedule={"warmup_steps": 1}, data=Data)
    assert [message.rpartition(": ")[2] for _, message in problems(Experiment, **given)] == [
        "write Data(...)", "write Schedule(...)",
    ]  # fmt: skip


def test_a_field_that_does_not_exist_is_answered_with_the_nearest_and_all() -> None:
    assert problems(AdamW, peak_rl=1.0) == [
        (
            "peak_rl",
            "unknown field (did you mean 'peak_lr'?); there are peak_lr, gradient_clipping, layer_decay, "
            "weight_decay, decay, betas, eps",
        )
    ]


def test_a_long_value_is_cut() -> None:
    ((_, message),) = problems(whole="x" * 1000)
    assert len(message) < 300


def test_a_type_error_of_the_values_own_is_not_hidden() -> None:
    @component("broken")
    class Broken(Head):
        def problems(self) -> Any:
            raise TypeError("of its own")

        def build(self, in_width: int, num_outputs: int) -> Any: ...

    with pytest.raises(TypeError, match="of its own"):
        Broken()


def test_types_are_looked_up_once_per_class(monkeypatch: pytest.MonkeyPatch) -> None:
    Everything()
    monkeypatch.delattr(sys.modules[__name__], "Inner")
    assert problems(inner=3) == [("inner", "must be settings (Inner) or null, got 3")]


def fields_of_an_experiment(**changes: Any) -> dict[str, Any]:
    experiment = toy_experiment()
    trunk: Trunk = ToyTrunk()
    given = {"name": "a", "data": experiment.data, "trunk": trunk, "objective": experiment.objective, "num_steps": 1}
    return given | changes
