"""Warnings of settings that nothing states, so that one of several is assumed."""

from __future__ import annotations

import warnings

from loguru import logger


class UncertainEncoder(UserWarning):
    """An encoder is opened with a setting that nothing states, such as the normalisation of its images."""


def warn_uncertain(message: str) -> None:
    """Warn of such a setting: in the log of a command, and as a Python warning, because the log of a library is off."""
    logger.warning("{}", message)
    warnings.warn(message, UncertainEncoder, stacklevel=2)
