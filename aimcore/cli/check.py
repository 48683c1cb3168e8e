"""``aimcore check causality`` and ``aimcore check plugin``: check properties of installed components."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aimcore.contracts.component import Component
from aimcore.contracts.errors import PluginError
from aimcore.contracts.messages import printable, printable_lines
from aimcore.contracts.scales import Scale
from aimcore.io.terminal import Terminal
from aimcore.registry.plugins import Plugins
from aimcore.registry.registry import Supplier
from aimcore.testing import Outcome
from aimcore.testing.runner import NoVerdict, Verdict

_SHOWN = 8
"""Number of printed findings per case: a leak usually shows at every step."""


def check_command(study: Path | None, scale: Scale) -> int:
    """Check the causality of the experiments of ``study``, or of all installed components.

    Returns:
        0 if nothing leaks; 1 if something leaks, cannot be checked, or is not judged although its objective must give
        losses per step.

    Raises:
        AimcoreError: the study cannot be loaded.
    """
    from aimcore.cli.progress_counter import Counting
    from aimcore.running.study_files import load_study
    from aimcore.testing.cases import installed_cases, without_examples
    from aimcore.testing.causality import case_of
    from aimcore.testing.runner import verdict_of

    experiments = () if study is None else load_study(study, scale).experiments
    # Frozen baselines predict nothing.
    cases = installed_cases() if study is None else [case_of(e) for e in experiments if e.objective.has_losses]
    faults = {} if study else without_examples()
    verdicts: list[Verdict | NoVerdict] = [NoVerdict([fault]) for fault in faults.values()]
    for name, verdict in zip(faults, verdicts, strict=True):
        _print_verdict(name, verdict)
    what = "experiment" if study else "combination"
    with Counting(len(cases), f"{what}s") as counting:
        for case in cases:
            counting.begin(case.name)
            verdicts.append(verdict_of(case))
            _print_verdict(case.name, verdicts[-1])
            counting.end()
    print(_tally(verdicts, what))
    return 1 if any(verdict.is_fault for verdict in verdicts) else 0


def _tally(verdicts: Sequence[Verdict | NoVerdict], what: str) -> str:
    """Format the number of cases per verdict: ``3 experiments: 1 causal, 1 leaking, 1 not judged``."""
    words = [verdict.word for verdict in verdicts]
    counts = {"not judged": words.count("NOT JUDGED"), "could not be checked": words.count("CANNOT BE CHECKED")}
    others = "".join(f", {count} {said}" for said, count in counts.items() if count)
    total = f"{len(words)} {what}{'s' * (len(words) != 1)}"
    return f"{total}: {words.count('causal') or 'none'} causal, {words.count('LEAKS') or 'none'} leaking{others}"


def _print_verdict(name: str, verdict: Verdict | NoVerdict) -> None:
    findings = verdict.findings
    lines = [printable(f"{name}: {verdict.word}"), *(printable_lines(f"  {finding}") for finding in findings[:_SHOWN])]
    if len(findings) > _SHOWN:
        lines.append(f"  and {len(findings) - _SHOWN} more")
    print("\n".join(lines), flush=True)  # flush also if it is piped


def check_plugin_command(name: str) -> int:
    """Run the conformance kit over the examples of a plugin's components.

    Args:
        name: name of an entry point, or of a distribution (which means all its plugins).

    Returns:
        0 if every check passes; 1 if one fails, or if a component of the plugin is returned by no hook.

    Raises:
        PluginError: no loaded plugin has this name, or it supplies no component.
    """
    from aimcore.cli.progress_counter import Counting
    from aimcore.io.terminal import Terminal
    from aimcore.registry.plugins import installed
    from aimcore.testing.conformance import labels_of
    from aimcore.testing.runner import outcomes_of

    console = Terminal()
    with _deprecations() as deprecated_at_import:
        plugins = installed()
    suppliers = _suppliers_called(name, plugins)
    classes = _components_of(plugins, suppliers)
    forgotten = [text for supplier in suppliers for text in _forgotten(supplier, plugins)]
    if not classes and not forgotten:
        roles = ", ".join(sorted(plugins.registries))
        raise PluginError(
            f"plugin {name!r} supplies no component: its module needs a function with @hookimpl that is named after a "
            f"role ({roles}) and returns component classes"
        )
    outcomes = {}
    with _deprecations() as deprecated:
        components = [example for component in classes for example in component.examples()]
        with Counting(len(components), "examples") as counting:
            for label, component in zip(labels_of(components), components, strict=True):
                counting.begin(label)
                outcomes[label] = list(outcomes_of(component))
                counting.end()
    checked = {type(component) for component in components}
    _print_outcomes(outcomes, [component for component in classes if component not in checked], console)
    for text in forgotten:
        console.print(text, highlight=False, soft_wrap=True)
    for text in dict.fromkeys([*deprecated_at_import, *deprecated]):
        console.print(f"deprecated: {text}", markup=False, highlight=False, soft_wrap=True)
    return 1 if forgotten or any(outcome.fault for each in outcomes.values() for outcome in each) else 0


@contextmanager
def _deprecations() -> Iterator[list[str]]:
    """A context that lists the deprecated names of aimcore that are used in it, each once, when it ends."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for one in caught:
        text = f"{one.message} ({Path(one.filename).name}, line {one.lineno})"
        if not issubclass(one.category, DeprecationWarning) or "aimcore" not in str(one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif text not in found:
            found.append(text)


def _suppliers_called(name: str, plugins: Plugins) -> list[Supplier]:
    from packaging.utils import canonicalize_name

    from aimcore.contracts.messages import did_you_mean
    from aimcore.registry.registry import relevant

    wanted = canonicalize_name(name)
    found = [one for one in plugins.suppliers if wanted in _names_of(one)]
    if found:
        return found
    absent = [plugin.why for plugin in plugins.not_loaded if wanted in _names_of(plugin.supplier)]
    if absent:
        raise PluginError(f"not loaded: {', '.join(absent)}")
    known = sorted({each for one in plugins.suppliers for each in (one.plugin, one.distribution)})
    why = relevant(plugins.not_loaded, name, known)
    not_loaded = f"; not loaded: {', '.join(why)}" if why else ""
    raise PluginError(
        f"no plugin is called {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}{not_loaded}"
    )


def _names_of(supplier: Supplier) -> tuple[str, str]:
    from packaging.utils import canonicalize_name

    return canonicalize_name(supplier.plugin), canonicalize_name(supplier.distribution)


def _forgotten(supplier: Supplier, plugins: Plugins) -> Iterator[str]:
    """Yield the components and hooks of a plugin's module that are never called or returned."""
    import inspect
    from importlib.metadata import entry_points

    from aimcore.contracts.component import Component
    from aimcore.contracts.roles import ROLES
    from aimcore.registry.hookspecs import PROJECT

    for point in entry_points(group=PROJECT, name=supplier.plugin):
        module = point.load()
        for role in ROLES:
            function = getattr(module, role.role, None)
            if inspect.isfunction(function) and not hasattr(function, f"{PROJECT}_impl"):
                yield f"{module.__name__}.{role.role} lacks @hookimpl: it is never called"
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Component) and "name" in vars(value):
                registry = plugins.registry(value.role)
                if value.name not in registry or registry.get(value.name) is not value:
                    yield f"{module.__name__}.{value.__name__} ({value.role}/{value.name}) is returned by no hook"


def _components_of(plugins: Plugins, suppliers: Sequence[Supplier]) -> list[type[Component]]:
    return [
        component
        for registry in plugins.registries.values()
        for name, component in registry.items()
        if registry.supplier_of(name) in suppliers
    ]


def _print_outcomes(
    outcomes: dict[str, list[Outcome]], unchecked: Sequence[type[Component]], console: Terminal
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table("component", "checks", "failed", box=box.SIMPLE, pad_edge=False)
    for label, each in outcomes.items():
        failed = sum(bool(outcome.fault) for outcome in each)
        table.add_row(label, str(len(each)), Text(str(failed), "red") if failed else "none")
    for component in unchecked:
        table.add_row(
            f"{component.role}/{component.name}", "none", "has no examples(): check an instance of it in a test"
        )
    console.print(table)
    for label, each in outcomes.items():
        for outcome in each:
            if outcome.skipped:
                text = f"{label} {outcome.check} was skipped: {outcome.skipped}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    for fault, where in _by_fault(outcomes).items():
        for name in where:
            console.print(name, style="bold", highlight=False)
        console.print(f"  {fault}", highlight=False, soft_wrap=True)


def _by_fault(outcomes: dict[str, list[Outcome]]) -> dict[str, list[str]]:
    """Group checks by the fault that they found, because one cause often fails several checks."""
    found: dict[str, list[str]] = {}
    for label, each in outcomes.items():
        for outcome in each:
            if outcome.fault:
                found.setdefault(outcome.fault, []).append(f"{label} {outcome.check}")
    return found
