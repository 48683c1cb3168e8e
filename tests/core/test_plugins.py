import sys
from types import ModuleType

import pytest
from toy_plugins import ToyDistribution, ToyOrdering, points_of, toy_plugins

from aimcore import Head, Ordering, component, hookimpl
from aimcore.contracts.errors import NameClash, NotAComponent, PluginError, UnknownBlock, UnknownComponent
from aimcore.contracts.roles import ROLES
from aimcore.registry.plugins import installed, load_plugins
from aimcore.registry.registry import Supplier

TOYS = ToyDistribution("aimcore-toys", "1.5", {"toys": "toy_plugins"})


@component("hilbert")
class Hilbert(Ordering):
    def permutation(self, grid): ...


@pytest.fixture
def plugin(monkeypatch):
    """Make a distribution whose plugin has the given hooks."""

    def make(name="hilbert", requires=(), extra="", **hooks) -> ToyDistribution:
        module = ModuleType(f"plugin_of_{name}")
        for hook, function in hooks.items():
            setattr(module, hook, hookimpl(function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return ToyDistribution(f"aimcore-{name}", "0.3", {name: f"{module.__name__}{extra}"}, requires)

    return make


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A distribution whose plugin cannot be imported."""
    (tmp_path / "broken_plugin.py").write_text("raise OSError('no such device')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return ToyDistribution("aimcore-broken", "0.1", {"broken": "broken_plugin"})


def test_every_role_has_a_registry_and_the_toys_are_in_it():
    plugins = toy_plugins()
    assert set(plugins.registries) == {role.role for role in ROLES}
    assert all(len(registry) for registry in plugins.registries.values())


def test_a_registry_is_found_by_role_class_or_name():
    plugins = toy_plugins()
    assert plugins.registry(Ordering) is plugins.registry("orderings")
    assert plugins.registry(Ordering).get("toy") is ToyOrdering


def test_an_unknown_role_is_answered_with_the_roles():
    with pytest.raises(PluginError, match=r"no role is called 'ordering' \(did you mean 'orderings'\?\); there are "):
        toy_plugins().registry("ordering")


def test_a_component_knows_its_distribution_version_and_plugin():
    supplier = toy_plugins().registry(Head).supplier_of("toy")
    assert supplier == Supplier("aimcore-toys", "1.5", "toys")
    assert str(supplier) == "plugin 'toys' of aimcore-toys 1.5"


def test_registries_are_frozen_and_their_table_too():
    plugins = toy_plugins()
    with pytest.raises(RuntimeError, match="frozen"):
        plugins.registry(Ordering).add(Hilbert, Supplier("me", "1", "me"))
    with pytest.raises(TypeError):
        plugins.registries["orderings"] = plugins.registry(Head)


def test_plugins_are_loaded_in_the_order_of_their_names_whatever_order_they_come_in(plugin):
    points = points_of(TOYS, plugin(orderings=lambda: [Hilbert]))
    forwards, backwards = load_plugins(points), load_plugins(points[::-1])
    assert [supplier.plugin for supplier in forwards.suppliers] == ["hilbert", "toys"]
    assert forwards.suppliers == backwards.suppliers


def test_no_plugins_at_all_says_what_to_run():
    with pytest.raises(PluginError, match=r"aimcore's plugins are not installed: run pip install -e \."):
        load_plugins([])


def test_two_distributions_with_one_plugin_name_are_both_named():
    other = ToyDistribution("someone-elses-toys", "9.0", {"toys": "no_such_module"})
    with pytest.raises(NameClash, match=r"plugin called 'toys': aimcore-toys 1\.5 and someone-elses-toys 9\.0"):
        load_plugins(points_of(TOYS, other))


def test_a_clash_is_settled_by_blocking_one_distribution():
    other = ToyDistribution("someone-elses-toys", "9.0", {"toys": "no_such_module"})
    plugins = load_plugins(points_of(TOYS, other), ["someone-elses-toys"])
    assert [supplier.distribution for supplier in plugins.suppliers] == ["aimcore-toys"]
    assert plugins.blocked == (Supplier("someone-elses-toys", "9.0", "toys"),)


def test_two_suppliers_of_one_component_are_both_named(plugin):
    @component("toy")
    class OtherToy(Ordering):
        def permutation(self, grid): ...

    with pytest.raises(NameClash, match=r"orderings/toy: .*aimcore-hilbert 0\.3, and .*aimcore-toys 1\.5"):
        load_plugins(points_of(TOYS, plugin(orderings=lambda: [OtherToy])))


def test_a_plugin_that_cannot_be_imported_is_quarantined_and_the_others_work(broken):
    plugins = load_plugins(points_of(TOYS, broken))
    assert str(plugins.quarantined[0]) == (
        "plugin 'broken' of aimcore-broken 0.1 failed to load (OSError: no such device)"
    )
    assert plugins.registry(Ordering).get("toy") is ToyOrdering


def test_asking_for_a_quarantined_plugins_component_names_the_cause(broken):
    with pytest.raises(UnknownComponent, match=r"not loaded: .*aimcore-broken 0\.1 .*no such device"):
        load_plugins(points_of(TOYS, broken)).registry(Ordering).get("peano")


def test_a_strict_start_fails_on_a_quarantined_plugin(broken):
    with pytest.raises(PluginError, match=r"aimcore-broken 0\.1 .*no such device.*AIMCORE_BLOCK"):
        load_plugins(points_of(TOYS, broken), strict=True)


def test_a_strict_start_passes_where_everything_loads():
    assert load_plugins(points_of(TOYS), strict=True).quarantined == ()


def test_a_plugin_whose_hook_fails_supplies_nothing(plugin):
    fails = plugin(orderings=lambda: [Hilbert], heads=lambda: 1 / 0)
    plugins = load_plugins(points_of(TOYS, fails))
    assert [type(failed.cause) for failed in plugins.quarantined] == [ZeroDivisionError]
    assert "hilbert" not in plugins.registry(Ordering)


def test_a_misspelt_hook_names_the_plugin_and_the_hooks(plugin):
    with pytest.raises(PluginError, match=r"aimcore-hilbert 0\.3: unknown hook 'ordering'.*hooks are .*orderings"):
        load_plugins(points_of(TOYS, plugin(ordering=lambda: [Hilbert])))


def test_supplying_what_is_no_component_is_an_error(plugin):
    with pytest.raises(NotAComponent, match=r"aimcore-hilbert 0\.3 supplies .*Hilbert.* for heads"):
        load_plugins(points_of(TOYS, plugin(heads=lambda: [Hilbert])))


@pytest.mark.parametrize("name", ["hilbert", "aimcore-hilbert", "Aimcore_Hilbert"])
def test_a_plugin_is_blocked_by_its_name_or_its_distributions(plugin, name):
    plugins = load_plugins(points_of(TOYS, plugin(orderings=lambda: [Hilbert])), [name])
    assert plugins.blocked == (Supplier("aimcore-hilbert", "0.3", "hilbert"),)
    with pytest.raises(UnknownComponent, match=r"aimcore-hilbert 0\.3 is blocked by AIMCORE_BLOCK"):
        plugins.registry(Ordering).get("hilbert")


def test_a_blocked_plugin_is_not_imported(broken):
    plugins = load_plugins(points_of(TOYS, broken), ["broken"])
    assert plugins.quarantined == ()
    assert "broken_plugin" not in sys.modules


def test_blocking_what_is_not_installed_is_a_warning():
    with pytest.warns(UnknownBlock, match="AIMCORE_BLOCK names 'toyz', but no such plugin is installed"):
        load_plugins(points_of(TOYS), ["toyz"])


def test_a_plugin_without_its_extra_is_listed_with_the_command_and_not_imported():
    point = {"wandb": "no_such_module [wandb]"}
    lacks = ToyDistribution("aimcore-log", "1.0", point, ["no-such-package>=1; extra == 'wandb'", "attrs"])
    plugins = load_plugins(points_of(TOYS, lacks))
    assert plugins.quarantined == ()
    assert [(lack.packages, lack.command) for lack in plugins.missing_extras] == [
        (("no-such-package",), "pip install 'aimcore-log[wandb]'")
    ]


def test_a_name_that_may_come_with_an_extra_is_answered_with_the_command():
    lacks = ToyDistribution("log", "1.0", {"wandb": "x [wandb]"}, ["no-such-package; extra == 'wandb'"])
    with pytest.raises(UnknownComponent, match=r"needs no-such-package: pip install 'log\[wandb\]'"):
        load_plugins(points_of(TOYS, lacks)).registry("trackers").get("wandb")


@pytest.mark.parametrize(("need", "is_met"), [("attrs>=20", True), ("attrs<20", False)])
def test_an_extra_is_met_by_an_installed_package_of_a_fitting_version(plugin, need, is_met):
    made = plugin(requires=[f"{need}; extra == 'fast'"], extra=" [fast]", orderings=lambda: [Hilbert])
    plugins = load_plugins(points_of(made))
    assert ("hilbert" in plugins.registry(Ordering)) is is_met
    assert bool(plugins.missing_extras) is not is_met


def test_the_version_of_a_distribution_is_known_loaded_or_not(broken):
    plugins = load_plugins(points_of(TOYS, broken))
    assert plugins.version_of("aimcore-toys") == "1.5"
    assert (plugins.version_of("aimcore-broken"), plugins.version_of("nobody")) == ("0.1", None)


def test_installed_plugins_are_loaded_once_and_nothing_is_quarantined():
    assert installed() is installed()
    installed().require_all()


def test_installed_leaves_out_what_the_environment_blocks(monkeypatch):
    monkeypatch.setenv("AIMCORE_BLOCK", "orderings, heads")
    plugins = installed.__wrapped__()
    assert [supplier.plugin for supplier in plugins.blocked] == ["heads", "orderings"]
    assert len(plugins.registry(Ordering)) == 0
