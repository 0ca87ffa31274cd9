"""Freezing takes a process with all its children, and letting go asks for nothing."""

from __future__ import annotations

import os

import psutil
import pytest

from services.support import until
from ssot.lab.services import Workspace
from ssot.lab.services.signals import freeze_tree, is_frozen, thaw_tree, tree_of


def test_children_freeze_and_go_on_with_their_parent(workspace: Workspace):
    """What it has started stands still as well; thawing twice, or one that is gone, is harmless."""
    parent = workspace.spawn(
        ["sh", "-c", "sleep 60 & wait"], environment={"PATH": os.environ["PATH"]}
    )
    assert until(lambda: len(tree_of(parent.pid)) == 2)
    child = tree_of(parent.pid)[1]
    freeze_tree(parent.pid)
    assert is_frozen(parent.pid)
    assert child.status() == psutil.STATUS_STOPPED
    thaw_tree(parent.pid)
    thaw_tree(parent.pid)
    assert not is_frozen(parent.pid)
    assert child.status() != psutil.STATUS_STOPPED
    child.kill()
    parent.wait()
    thaw_tree(parent.pid)
    assert not is_frozen(parent.pid)
    assert tree_of(parent.pid) == []
    with pytest.raises(psutil.NoSuchProcess):
        psutil.Process(parent.pid)
