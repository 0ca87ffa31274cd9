"""Workspaces and servers for the tests of the lab's services."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from ssot.lab.services import Services, Workspace, open_services


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with Workspace.open("test") as workspace:
        yield workspace
    assert not workspace.root.exists()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services() -> AsyncIterator[Services]:
    """Two servers that no test of the module harms."""
    async with Workspace.open("shared by a test module") as workspace:
        yield await open_services("embedded", workspace)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """An empty folder that every user can enter, and write to by name; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="services-test-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)
