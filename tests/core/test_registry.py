import pytest
from toy_plugins import ToyHead, ToyOrdering

from aimcore import AimcoreError, Ordering, component
from aimcore.contracts.errors import NameClash, NotAComponent, UnknownComponent
from aimcore.registry.registry import NotLoaded, Registry, Supplier, relevant

ONE = Supplier("aimcore-one", "1.0", "one")
TWO = Supplier("aimcore-two", "2.1", "two")


@component("raster")
class Rows(Ordering):
    def permutation(self, grid): ...


def registry(*components: type[Ordering]) -> Registry[Ordering]:
    made = Registry(Ordering)
    for added in components:
        made.add(added, ONE)
    return made


def test_a_component_is_found_by_its_name_with_its_supplier():
    made = registry(Rows, ToyOrdering)
    assert made.get("raster") is Rows
    assert made.supplier_of("raster") == ONE


def test_names_and_items_are_sorted():
    made = registry(ToyOrdering, Rows)
    assert made.names() == ("raster", "toy")
    assert made.items() == (("raster", Rows), ("toy", ToyOrdering))


def test_membership_and_length_count_components():
    made = registry(Rows)
    assert ("raster" in made, "toy" in made) == (True, False)
    assert len(made) == 1


def test_an_unknown_name_is_answered_with_the_nearest_the_suppliers_and_the_path():
    with pytest.raises(UnknownComponent) as caught:
        registry(Rows, ToyOrdering).get("rastr", path="objective.ordering")
    assert str(caught.value) == (
        "no ordering is called 'rastr' (at objective.ordering) (did you mean 'raster'?); "
        "there are raster (aimcore-one), toy (aimcore-one)"
    )


HILBERT = NotLoaded(Supplier("aimcore-hilbert", "1.0", "curves"), "plugin 'curves' of aimcore-hilbert 1.0 failed")
MISSING = NotLoaded(Supplier("aimcore", "0.1", "wandb"), "plugin 'wandb' of aimcore 0.1 needs wandb")


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("peano", [HILBERT, MISSING]),  # nothing is near: it may be of any
        ("rastr", []),
        ("wnadb", [MISSING]),
        ("curve", [HILBERT]),
        ("hilberd", [HILBERT]),
    ],
)
def test_plugins_that_are_not_loaded_are_mentioned_where_they_may_have_what_is_asked_for(name, absent):
    known = ("raster", "curved", "hilbers", "wandbs")
    assert relevant([HILBERT, MISSING], name, known) == tuple(plugin.why for plugin in absent)


def test_the_reason_why_a_plugin_is_not_loaded_stands_last():
    made = registry(Rows)
    made.freeze([HILBERT])
    with pytest.raises(AimcoreError, match=r"; not loaded: plugin 'curves' of aimcore-hilbert 1\.0 failed$"):
        made.get("hilbert")
    with pytest.raises(AimcoreError, match=r"there are raster \(aimcore-one\)$"):
        made.get("rastr")


def test_an_empty_registry_says_how_to_install_plugins():
    with pytest.raises(UnknownComponent, match=r"no installed plugin supplies orderings; .* pip install -e \."):
        registry().supplier_of("raster")


def test_two_suppliers_of_one_name_are_both_named_and_the_first_stays():
    made = registry(Rows)

    @component("raster")
    class Other(Ordering):
        def permutation(self, grid): ...

    with pytest.raises(NameClash, match=r"orderings/raster: .*aimcore-one 1\.0, and .*aimcore-two 2\.1"):
        made.add(Other, TWO)
    assert made.get("raster") is Rows


def test_a_component_of_another_role_is_refused():
    with pytest.raises(NotAComponent, match=r"aimcore-two.* it is not a subclass of Ordering"):
        registry().add(ToyHead, TWO)


def test_an_instance_in_place_of_its_class_is_refused():
    with pytest.raises(NotAComponent, match="it is an instance: give the class, Rows, without parentheses"):
        registry().add(Rows(), TWO)


def test_what_is_no_class_is_refused():
    with pytest.raises(NotAComponent, match="it is not a subclass of Ordering"):
        registry().add("raster", TWO)


def test_a_class_that_inherits_its_name_is_refused():
    class Columns(Rows):
        pass

    with pytest.raises(NotAComponent, match=r"not decorated with @component\(name\)"):
        registry().add(Columns, TWO)


def test_a_class_that_lacks_a_method_is_refused():
    @component("nothing")
    class Nothing(Ordering):
        pass

    with pytest.raises(NotAComponent, match="it lacks permutation"):
        registry().add(Nothing, TWO)


def test_a_frozen_registry_takes_nothing_more():
    made = registry()
    made.freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        made.add(Rows, ONE)
    assert len(made) == 0
