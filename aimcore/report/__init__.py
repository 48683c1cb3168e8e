"""Results of a study: the report page, and tables on the terminal."""

from aimcore.running.summary import (
    SCHEMA_VERSION,
    EvaluationSummary,
    ExperimentSummary,
    LossSummary,
    ProbeSummary,
    Status,
    Summary,
    read_summary,
    write_summary,
)

__all__ = [
    "SCHEMA_VERSION",
    "EvaluationSummary",
    "ExperimentSummary",
    "LossSummary",
    "ProbeSummary",
    "Status",
    "Summary",
    "read_summary",
    "write_summary",
]
