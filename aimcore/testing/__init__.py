"""What plugin authors check their components with."""

from aimcore.testing.causality import Case, case_of, findings_of, installed_cases

__all__ = ["Case", "case_of", "findings_of", "installed_cases"]
