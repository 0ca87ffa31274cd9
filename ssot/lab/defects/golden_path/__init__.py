"""The defects that the checks of ``00_golden_path`` must catch."""

from __future__ import annotations

from ssot.lab.defects.golden_path import delivery, identity, path, rows, takeover
from ssot.lab.defects.model import Defect

__all__ = ["CONTROL", "DEFECTS"]

CONTROL = ("GP-05",)
"""The happy path: it must pass with every defect that does not name another control."""

_MODULES = (path, identity, rows, delivery, takeover)

DEFECTS: tuple[Defect, ...] = tuple(defect for module in _MODULES for defect in module.DEFECTS)
