"""The defects that the checks of ``01_isolated_environment`` must catch."""

from __future__ import annotations

from ssot.lab.defects.environment import (
    cascade,
    changes,
    disclosure,
    following,
    isolation,
    judging,
    launching,
    references,
    secrets,
    threads,
)
from ssot.lab.defects.model import Defect

__all__ = ["CONTROL", "DEFECTS"]

CONTROL = ("ENV-01",)
"""What must pass with every defect that does not name another control."""

_MODULES = (
    isolation,
    launching,
    cascade,
    references,
    judging,
    secrets,
    disclosure,
    threads,
    changes,
    following,
)

DEFECTS: tuple[Defect, ...] = tuple(defect for module in _MODULES for defect in module.DEFECTS)
