"""``aimcore check causality``: no prediction sees its own target, nor a later one."""

from __future__ import annotations

from pathlib import Path

from aimcore.experiment import Scale


def check_command(study: Path | None, scale: Scale) -> int:
    """Check causality over the experiments of ``study``, or over everything installed.

    Returns:
        0 where nothing leaks, 1 where something does.

    Raises:
        AimcoreError: the study cannot be loaded.
    """
    from aimcore.study import load_study
    from aimcore.testing.cases import installed_cases
    from aimcore.testing.causality import case_of, findings_of

    cases = installed_cases() if study is None else [case_of(e) for e in load_study(study, scale).experiments]
    leaks = 0
    for case in cases:
        findings = findings_of(case)
        leaks += bool(findings)
        print(f"{case.name}: {'LEAKS' if findings else 'causal'}")
        for finding in findings:
            print(f"  {finding}")
    print(f"{len(cases)} checked, {leaks or 'none'} leaks")
    return 1 if leaks else 0
