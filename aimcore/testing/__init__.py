"""The conformance kit, with which plugin authors check their components, and the causality check."""

from aimcore.testing.causality import Case, case_of, findings_of, installed_cases
from aimcore.testing.conformance import checks_for, installed_components
from aimcore.testing.parametrize import parametrize_with_checks
from aimcore.testing.runner import Outcome, outcomes_of

__all__ = [
    "Case",
    "Outcome",
    "case_of",
    "checks_for",
    "findings_of",
    "installed_cases",
    "installed_components",
    "outcomes_of",
    "parametrize_with_checks",
]
