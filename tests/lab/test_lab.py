"""What a check calls of a lab, on real servers: further processes, files, what is expected."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from notebooks.samples import SSOT, finish, notebook, start, write
from sqlalchemy import text

from ssot.configuration import UnifiedConfiguration
from ssot.database import DatabaseManager
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError
from ssot.lab.bare_socket import HandshakeRefused
from ssot.lab.evidence import PATH_VARIABLE
from ssot.lab.lab import Lab
from ssot.lab.processes import ProcessFailed
from ssot.lab.services import ServiceError
from ssot.lab.wired import live_pool
from ssot.tracing import continuing

FIVE = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]

Evidence = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def evidence_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab") / "evidence.json"


@pytest.fixture
def evidence(evidence_file: Path) -> Evidence:
    """The evidence of a check that has run, as it is written."""

    def of(check_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(evidence_file.read_text())["checks"][check_id]
        return found

    return of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(evidence_file: Path) -> AsyncIterator[Lab]:
    """One lab for all tests here: each begins a check of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PATH_VARIABLE, str(evidence_file))
        lab = Lab(
            "lab", parameters={"users": 2, "seed": 7, "services": "embedded", "latency_ms": 0}
        )
    try:
        await lab.open()
        yield lab
    finally:
        await lab.aclose()


async def test_another_auth_service_and_a_node_that_trusts_it(lab: Lab, evidence: Evidence) -> None:
    """Both by their names and through links of their own, with exactly the environment given."""
    async with lab.check("LAB-01", "another auth service"):
        given = lab.environment("auth", "auth b")
        auth = await lab.start("auth", "auth b", given)
        node = await lab.start_node("b", lab.environment("node", "node b", auth="auth b"))
        assert auth.address != lab.auth.address
        alice = await lab.client(await lab.user("alice", auth="auth b"), node="b")
        run = await alice.ask("What did I spend?")
        await alice.finished(run)
        assert alice.types(run) == FIVE

        assert lab.environ_of("auth b") == auth.environment
        assert {**auth.environment, **given} == auth.environment
        assert set(auth.environment) - set(given) == {"SSOT_WORKSPACE"}
        assert lab.environ_of("node b") == node.environment
        assert (await lab.health("auth b"))["status"] == "ok"
        assert "5/5 auth: up" in await lab.logged("auth b", "up at")
        link = lab.link("node b", "auth b")
        assert str(link.port) in node.environment["SSOT_AUTH_URL"]
        assert link.traffic().bytes_to > 0
        pids = [auth.pid, node.pid]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(LookupError, match="no process is called 'auth b'"):
        lab.auth_client("auth b")
    chains = evidence("LAB-01")["chains"]
    for far in ("configuration", "database", "auth", "websocket", "streams", "postgresql", "redis"):
        assert chains[f"environment → {far}"][:1] == ["environment.load"]


async def test_a_user_of_a_login_that_the_check_has_made(lab: Lab) -> None:
    """No other account is made; rows are the account's, also when it is logged in again."""
    async with lab.check("LAB-14", "a login of its own"):
        async with lab.auth_client() as auth:
            user_id = await auth.create_account("carol of LAB-14", "a password of hers")
            logins = [await auth.login("carol of LAB-14", "a password of hers") for _ in range(2)]
        first, again = [await lab.user("carol", login=login) for login in logins]
        assert first.user_id == again.user_id == user_id
        assert (first.login, first.password) == ("", "")
        assert first.total_microusd == again.total_microusd > 0
        carol = await lab.client(again)
        found = await carol.answer("What did I spend?")
        assert found["total_microusd"] == again.total_microusd
        assert lab.redact(logins[0].access_token) == "********"


async def test_a_process_that_was_refused_can_be_corrected_under_its_name(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that runs has its name to itself."""
    async with lab.check("LAB-02", "a name again"):
        good = lab.environment("worker", "worker b")
        with lab.raises(ProcessFailed) as refused:
            await lab.start("worker", "worker b", good | {"WORKER_LEASE_TTL": "long"})
        assert refused.value.code == 2
        worker = await lab.start("worker", "worker b", good)
        assert lab.workers["b"] is worker
        with pytest.raises(ServiceError, match="worker b is there already"):
            await lab.start("worker", "worker b", good)
        assert "WORKER_LEASE_TTL" in await lab.logged("worker b", "WORKER_LEASE_TTL")
    async with lab.check("LAB-03", "its log is its own"):
        await lab.start_worker("b")
        await lab.logged("worker b", "5/5 worker: up")
        capsys.readouterr()
        lab.logs()
        assert "worker b    | " in (shown := capsys.readouterr().out)
        assert "WORKER_LEASE_TTL" not in shown
    assert lab.workers.keys() == {"a"}


@pytest.mark.long
async def test_all_roles_in_one(lab: Lab, evidence: Evidence) -> None:
    """Each is a part with a name; a child of it has what is its service's, and ends with it."""
    async with lab.check("LAB-04", "all"):
        everything = await lab.start("all", "all", lab.environment("all"))
        assert everything.addresses.keys() == {"auth", "node"}
        assert everything.address is None
        children = everything.children()
        assert children.keys() == {"auth", "worker", "node"}
        bob = await lab.client(await lab.user("bob", auth="all/auth"), node="all/node")
        await bob.finished(await bob.ask("What did I spend?"))

        assert "AUTH_SIGNING_KEY" in lab.environ_of("all")
        found = {role: lab.environ_of(f"all/{role}") for role in children}
        assert found["auth"]["AUTH_SIGNING_KEY"] == lab.signing_key
        assert "AUTH_SIGNING_KEY" not in found["node"].keys() | found["worker"].keys()
        assert [role for role in found if "AUTH_DATABASE_URL" in found[role]] == ["auth"]
        said = await lab.reload("all")
        assert said.splitlines() == ["environment reloaded, 0 changed"] * 3
        assert await lab.reload("all/worker") == "environment reloaded, 0 changed"
        with pytest.raises(ServiceError, match="all has no process migrate"):
            lab.environ_of("all/migrate")
    assert not any(psutil.pid_exists(pid) for pid in children.values())
    chains, processes = evidence("LAB-04")["chains"], evidence("LAB-04")["processes"]
    assert chains["environment → agents"][-1] == "agents.start"
    assert processes.keys() >= {"ssot-auth", "ssot-node", "ssot-worker", "ssot-migrate"}


async def test_no_process_reads_files_of_the_folder_it_is_started_in(lab: Lab) -> None:
    """Each is pointed at a folder that is empty, and a check points it at another."""
    async with lab.check("LAB-05", "files"):
        for role in ("auth", "node", "worker", "migrate", "all"):
            assert os.listdir(lab.environment(role)["SSOT_ENV_DIRECTORY"]) == []
        folder = lab.folder(
            {".env": "A=1\nOAUTH_SECRET=never-to-be-read\n", "s/KEY": "nor-is-this"}
        )
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert lab.redact("never-to-be-read, nor-is-this") == "********, ********"
    assert not folder.exists()


async def test_the_secrets_of_a_process_are_the_labs(lab: Lab) -> None:
    """What a check itself gives it, by name."""
    async with lab.check("LAB-06", "secrets"):
        lab.process("worker", "worker x", {"API_TOKEN": "drawn-by-a-check"})
        assert lab.redact("drawn-by-a-check") == "********"


async def test_an_environment_in_the_kernel_leads_to_what_is_opened_with_it(
    lab: Lab, evidence: Evidence
) -> None:
    """Through the configuration, when it is opened under its trace; a refusal keeps its words."""
    async with lab.check("LAB-07", "in the kernel"):
        environment = IsolatedEnvironment(lab.environment("worker"), service="worker")
        configuration = UnifiedConfiguration(environment, "worker")
        with continuing(configuration.trace):
            async with DatabaseManager(configuration.settings.database, name="check") as database:
                await database.run_transaction(None, lambda s: s.execute(text("SELECT 1")))
        environment.override({"WORKER_LEASE_TTL": "soon"})
        with lab.raises(SettingsError) as refused:
            UnifiedConfiguration(environment, "worker")
        assert "WORKER_LEASE_TTL" in str(refused.value)
    found = evidence("LAB-07")
    assert found["chains"]["environment → postgresql"] == [
        "environment.load",
        "configuration.build",
        "database.transaction",
        "database.session",
    ]
    (error,) = found["errors"]
    assert error["kind"] == "SettingsError"
    assert "WORKER_LEASE_TTL (from the override)" in error["text"]


async def test_a_browser_is_let_in_by_the_origin_of_its_page(lab: Lab, evidence: Evidence) -> None:
    """A bare socket may have an origin; what the node says of a wrong one is a value of its own."""
    async with lab.check("LAB-11", "origins"):
        alice = await lab.user("alice")
        shop = {"NODE_ORIGINS": "https://shop.example"}
        await lab.start_node("b", lab.environment("node", "node b") | shop)
        async with lab.socket(alice, node="b", origin="https://shop.example"):
            pass
        with lab.raises(HandshakeRefused) as refused:
            async with lab.socket(alice, node="b", origin="https://other.example"):
                pass
        assert refused.value.status == 403
        assert "https://other.example" in refused.value.reason
        assert refused.value.watches == {"websocket"}
    (error,) = evidence("LAB-11")["errors"]
    assert error["kind"] == "HandshakeRefused"


async def test_a_process_says_what_it_has_read_again(lab: Lab, evidence: Evidence) -> None:
    """Which names have changed; or every problem, and it goes on."""
    async with lab.check("LAB-08", "reloading"):
        folder = lab.folder({".env": "SSOT_DATABASE_POOL_SIZE=3\n"})
        given = lab.environment("worker", "worker b") | {"SSOT_ENV_DIRECTORY": str(folder)}
        await lab.start("worker", "worker b", given)
        (folder / ".env").write_text("SSOT_DATABASE_POOL_SIZE=4\n")
        said = await lab.reload("worker b")
        assert said == "environment reloaded, 1 changed: SSOT_DATABASE_POOL_SIZE"
        (folder / ".env").write_text("SSOT_DATABASE_POOL_SIZE=many\n???\n")
        said = await lab.reload("worker b")
        assert said.startswith("environment not reloaded, the one before goes on serving: ")
        assert "\n  - " in said
        assert lab.workers["b"].running
    names = [span["name"] for span in evidence("LAB-08")["spans"]]
    assert names.count("environment.reload") == 2
    assert "database.reconfigure" in names


OBSERVING = """\
environment = IsolatedEnvironment({"SSOT_REDIS_PREFIX": "observed"})
    assert environment.get("SSOT_REDIS_PREFIX") == "observed"
    value = environment.get("SSOT_REDIS_PREFIX")
    assert value == "observed"
    with lab.raises(SettingsError) as refused:
        environment.require("MISSING_HERE")
    assert "MISSING_HERE" in str(refused.value)
    assert lab.environ_of("auth")["AUTH_SIGNING_KEY"] == lab.signing_key
    configuration = UnifiedConfiguration(
        IsolatedEnvironment(lab.environment("worker"), service="worker"), "worker")
    assert configuration.settings.worker.lease_ttl == 1"""
WARNING = """\
with lab.warned("was told") as told:
        logging.getLogger("ssot.environment").warning("a subscriber was told: %s", 1)
    assert "a subscriber was told: 1" in told.text"""
UNEXPECTED = """\
assert True
    logging.getLogger("ssot.environment").warning("nobody expects it")"""
SETUP = """\
import logging
from ssot.configuration import UnifiedConfiguration
from ssot.environment import IsolatedEnvironment
from ssot.errors import SettingsError
from ssot.lab.lab import open_lab

lab = await open_lab(
    "00_observed", users=users, seed=seed, services=services, latency_ms=int(latency_ms)
)
"""


def test_what_a_cell_asserts_of_environment_and_configuration_is_evidence(tmp_path: Path) -> None:
    """Where the object stands in the assertion; a value that was taken out before does not count."""
    write(
        notebook(OBSERVING, WARNING, UNEXPECTED, setup=SETUP, summary=""),
        tmp_path / "notebooks" / "00_observed.ipynb",
    )
    _, output = finish(start(*SSOT, "run", cwd=tmp_path), within=60)
    path = tmp_path / "outputs" / "latest" / "00_observed.evidence.json"
    checks = json.loads(path.read_text())["checks"]
    assert [each["verdict"] for each in checks.values()] == ["pass", "pass", "fail"], output
    asserted = [(each["component"], each["expression"]) for each in checks["GP-01"]["asserted"]]
    assert ("environment", "environment.get('SSOT_REDIS_PREFIX')") in asserted
    assert ("environment", "value") not in asserted
    assert ("environment", "str(refused.value)") in asserted
    assert ("auth", "lab.environ_of('auth')['AUTH_SIGNING_KEY']") in asserted
    assert ("configuration", "configuration.settings.worker.lease_ttl") in asserted
    assert "MISSING_HERE is not set" in checks["GP-01"]["errors"][0]["text"]
    (told,) = checks["GP-02"]["asserted"]
    assert (told["component"], told["expression"]) == ("environment", "told.text")
    assert checks["GP-02"]["errors"] == [
        {"kind": "logged warning", "text": "a subscriber was told: 1"}
    ]
    assert "nobody expects it" in checks["GP-03"]["failure"]["text"]


async def test_a_login_role_has_any_password_and_is_dropped_with_the_check(lab: Lab) -> None:
    """Its URL logs in as it, with the rights of an application role and nobody's rows."""
    password = "k/e@y:s#t?o%n e'\"\\"
    async with lab.check("LAB-20", "a login role"):
        alice = await lab.user("alice")
        url = await lab.login_role(password)
        environment = {"SSOT_DATABASE_URL": url, "SSOT_REDIS_URL": lab.redis_url}
        settings = UnifiedConfiguration(IsolatedEnvironment(environment), "worker").settings
        query = text("SELECT current_user AS name, count(*) AS seen FROM llm_usage")
        async with DatabaseManager(settings.database, name="login role") as database:
            for user, seen in ((alice.context, len(alice.usage)), (None, 0)):
                row = await database.run_transaction(user, lambda s: s.execute(query))
                (name, count) = row.one()
                assert count == seen
        assert name in url
        assert password not in url
        assert password not in lab.redact(f"it is {password}, or {url}")
    assert await lab.rows("SELECT 1 FROM pg_roles WHERE rolname = :name", name=name) == []


async def test_what_the_lab_asks_is_counted_as_its_own(lab: Lab, evidence: Evidence) -> None:
    """Its reads, and the table that it holds locked; what it asks as another role is not."""
    async with lab.check("LAB-24", "only looks"), lab.locked("llm_usage"):
        assert await lab.rows("SELECT 1 AS one") == [{"one": 1}]
    only_looked = evidence("LAB-24")["servers"]["postgresql"]
    assert only_looked["statements"] == only_looked["by_lab"] > 0
    async with lab.check("LAB-25", "asks as a worker"):
        assert await lab.rows("SELECT 1 AS one", role="app_b") == [{"one": 1}]
    asked = evidence("LAB-25")["servers"]["postgresql"]
    assert asked["statements"] > asked["by_lab"] == 0


async def test_a_pool_of_the_kernel_follows_its_environment(lab: Lab, evidence: Evidence) -> None:
    """As a worker's does; its sessions are seen by their name, and those of a role that it left end.

    An overlay has its own pool, which follows nobody.
    """
    async with lab.check("LAB-21", "a live pool"):
        alice, others = await lab.user("alice"), await lab.sessions()
        assert {"ssot-auth", "ssot-node", "ssot-worker"} >= {each.service for each in others}
        given = lab.environment("worker")
        environment = IsolatedEnvironment(given, service="worker")
        query = text("SELECT count(*) FROM llm_usage")
        async with live_pool(environment, "worker", "follows") as (pool, changes):
            rows = await pool.run_transaction(alice.context, lambda s: s.execute(query))
            assert rows.scalar_one() == len(alice.usage)
            assert [each.login for each in await lab.sessions("follows")] == ["app_a"]
            environment.override({"SSOT_DATABASE_URL": lab.database_urls["app_b"]})
            assert await changes.applied() == ()
            await pool.run_transaction(alice.context, lambda s: s.execute(query))
            await lab.disconnected("follows", "app_a")
            left = await lab.sessions("follows")
            assert [each.login for each in left] == ["app_b"]
            await lab.disconnected("follows", "app_b", but=left)
        overlay = environment.overlay({"SSOT_DATABASE_POOL_SIZE": "1"}, label="a task")
        async with live_pool(overlay, "worker", "task") as (pool, _):
            assert pool.statistics().size == 1
        assert await lab.sessions("follows") == []
    assert "environment → postgresql" in evidence("LAB-21")["chains"]
