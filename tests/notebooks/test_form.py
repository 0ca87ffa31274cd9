"""The committed notebooks have the one form, and tell no two checks alike."""

from __future__ import annotations

import pytest

from ssot.lab.notebook import read, validate_form

from .samples import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_has_the_form(path):
    """A committed notebook violates nothing."""
    assert validate_form(read(path).node) == []


def test_no_two_checks_share_an_id_or_a_reason():
    """Over all notebooks, a check's id and its BVJ are its own."""
    checks = [check for path in NOTEBOOKS for check in read(path).checks]
    ids = [check.id for check in checks]
    reasons = [check.bvj for check in checks]
    assert len(ids) == len(set(ids))
    assert len(reasons) == len(set(reasons))
