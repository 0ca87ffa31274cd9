"""The real processes export what they do: one trace for a question, no secret, no price for silence."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from streams.support import event, migrated, until
from test_platform import KEY, end, environment, ready, serve
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from ssot.auth.client import AuthClient
from ssot.configuration import RedisSettings
from ssot.context import UserContext, new_id
from ssot.environment import MASK
from ssot.errors import AuthenticationError, SettingsError
from ssot.events import TERMINAL, decode_event, encode_event
from ssot.lab.services import Services
from ssot.lab.spans import Span, SpanCollector, edges, kernel_tracing, reaches
from ssot.streams import Append, EventLog
from ssot.telemetry import open_telemetry
from ssot.tracing import Spans, current_trace, trace_of
from ssot.websocket.client import Client
from ssot.websocket.protocol import (
    BEARER,
    SUBPROTOCOL,
    Event,
    UserMessage,
    decode_server,
    encode,
)

PASSWORD = "correct horse battery staple"

_spans = Spans("lab")


@pytest.fixture(scope="module")
def collector() -> Iterator[SpanCollector]:
    with SpanCollector() as collector:
        kernel_tracing(collector)
        yield collector
        kernel_tracing(None)


class Platform(NamedTuple):
    auth: str
    node: str
    secrets: tuple[str, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(servers: Services, collector: SpanCollector) -> AsyncIterator[Platform]:
    """auth, node and worker as real processes that export to the collector."""
    urls = await migrated(servers)
    redis = RedisSettings.model_validate({"url": servers.redis.url, "prefix": new_id("t")[:20]})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    more = {"auth": {"AUTH_PORT": str(port)}, "node": {"SSOT_AUTH_URL": address}, "worker": {}}
    async with AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(
                serve(
                    role,
                    **environment(role, urls, redis, **own),
                    **collector.variables(f"{role} a"),
                )
            )
            for role, own in more.items()
        ]
        _, node, _ = [await ready(process) for process in [await one for one in starting]]
        passwords = [url.split(":")[2].split("@")[0] for url in (*urls.values(), servers.redis.url)]
        yield Platform(address, node["address"], (KEY, *filter(None, passwords)))


async def ask(platform: Platform, collector: SpanCollector) -> tuple[list[Span], tuple[str, ...]]:
    """One question from login to its last event, under one span; its trace, and what was secret."""
    with _spans.span("check"):
        trace = current_trace().split("-")[1]
        async with AuthClient(platform.auth) as auth:
            name = new_id("alice")
            await auth.create_account(name, PASSWORD)
            login = await auth.login(name, PASSWORD)
        async with asyncio.timeout(20), Client([platform.node], token=login.access_token) as client:
            run = await client.send("what did I spend?", thread_id="t1", agent="usage_analysis")
            async for received in client:
                if received.event.type in TERMINAL:
                    break
            record = await client.run(run)
            assert record is not None
            assert record["state"] == "completed"
    # Of each process what ends last there; the rest has been sent with it.
    last = ["agents.run", "auth.login", "websocket.deliver", *["websocket.message"] * 2]

    def came() -> bool:
        names = [span.name for span in collector.spans(trace=trace)]
        return all(names.count(name) >= last.count(name) for name in last)

    await until(came, what="the spans of every process")
    return collector.spans(trace=trace), (PASSWORD, login.access_token, *platform.secrets)


async def test_one_trace_follows_a_question_and_its_answer(
    platform: Platform, collector: SpanCollector
) -> None:
    """From the login over node, stream, worker, tool and database, and over the log to the client."""
    spans, _ = await ask(platform, collector)
    known = {span.id: span for span in spans}
    wanted = {
        "kernel": "auth.request websocket.connect websocket.send websocket.receive",
        "auth a": "auth.create_account auth.login database.transaction database.session",
        "node a": "websocket.admit auth.verify websocket.message streams.submit "
        "streams.receive websocket.deliver",
        "worker a": "streams.claim streams.lease agents.run agents.tool streams.append "
        "database.transaction database.session",
    }
    for process, there in wanted.items():
        found = {span.name for span in spans if span.process == process}
        assert set(there.split()) - found == set(), process
    # Every span but the first was led to by another one of this trace.
    assert [s.name for s in spans if s.parent not in known] == ["check"]
    (user,) = {span.user for span in spans if span.user}
    assert user.startswith("user-")
    for name in ("agents.run", "agents.tool", "streams.append", "websocket.deliver"):
        assert all(span.user == user for span in spans if span.name == name)
    assert [span.error for span in spans if span.error] == []
    events = [s.attributes["ssot.event"] for s in spans if s.name == "websocket.receive"]
    assert events == [
        "agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed",
    ]  # fmt: skip


async def test_every_component_leads_to_the_next(
    platform: Platform, collector: SpanCollector
) -> None:
    """The edges of a question, and the chain from the client's socket to the database."""
    spans, _ = await ask(platform, collector)
    assert {(edge.from_, edge.to) for edge in edges(spans)} >= {
        ("auth", "database"),
        ("websocket", "auth"),
        ("websocket", "streams"),
        ("streams", "agents"),
        ("agents", "streams"),
        ("agents", "database"),
        ("agents", "websocket"),
        ("streams", "websocket"),
        ("database", "postgresql"),
        ("streams", "redis"),
    }
    chain = reaches(spans, "websocket", "agents")
    assert [span.component for span in chain] == ["websocket", "streams", "streams", "agents"]
    assert [span.process for span in chain] == ["node a", "node a", "worker a", "worker a"]
    assert reaches(spans, "agents", "postgresql")
    assert reaches(spans, "auth", "agents") == []


async def test_keys_are_fetched_in_the_trace_of_the_first_token(
    platform: Platform, collector: SpanCollector
) -> None:
    """The node's request is what the auth service answers."""
    await ask(platform, collector)
    await until(lambda: "auth.jwks" in {s.name for s in collector.spans()}, what="the keys")
    (answer,) = [s for s in collector.spans() if s.name == "auth.jwks"]
    (asked,) = [s for s in collector.spans() if s.id == answer.parent]
    assert (asked.name, asked.process, answer.process) == ("auth.fetch_keys", "node a", "auth a")


async def test_a_start_leads_from_the_environment_to_the_servers(
    platform: Platform, collector: SpanCollector
) -> None:
    """What is opened names the settings it was opened with, and these their environment."""
    await until(
        lambda: sum(span.name == "platform.start" for span in collector.spans()) >= 3,
        what="the starts",
    )
    for process, component in (("auth a", "auth"), ("node a", "websocket"), ("worker a", "agents")):
        spans = [s for s in collector.spans() if s.process == process]
        (start,) = [s for s in spans if s.name == "platform.start"]
        spans = [s for s in spans if s.trace == start.trace]
        there = {(edge.from_, edge.to) for edge in edges(spans)}
        assert ("environment", "configuration") in there
        assert {("configuration", "database"), ("configuration", component)} <= there
        assert reaches(spans, "environment", "postgresql")
        if process != "auth a":
            assert reaches(spans, "configuration", "redis")


async def test_what_outlives_the_start_is_not_its_child(
    platform: Platform, collector: SpanCollector
) -> None:
    """A request without a trace begins one of its own, in whatever task it is served."""
    starts = {s.trace for s in collector.spans() if s.name == "platform.start"}
    given = {"name": new_id("untraced"), "password": PASSWORD}
    async with httpx.AsyncClient(base_url=platform.auth, trust_env=False) as http:
        user = (await http.post("/accounts", json=given)).json()["user_id"]
        token = (await http.post("/login", json=given)).json()["access_token"]
    protocols = [Subprotocol(SUBPROTOCOL), Subprotocol(f"{BEARER}{token}")]
    async with (
        asyncio.timeout(20),
        connect(f"{platform.node}/events", subprotocols=protocols, proxy=None) as ws,
    ):
        await ws.send(encode(UserMessage("1", "t", "hello", "usage_analysis")), text=True)
        async for message in ws:
            frame = decode_server(message)
            if isinstance(frame, Event) and decode_event(bytes(frame.event)).type in TERMINAL:
                break

    def theirs() -> dict[str, Span]:
        return {s.name: s for s in collector.spans() if s.user == user}

    wanted = {"auth.create_account", "auth.login", "websocket.admit", "websocket.message"}
    wanted |= {"agents.run", "websocket.deliver"}
    await until(lambda: wanted <= set(theirs()), what="the spans of this user")
    found = theirs()
    assert not {span.trace for span in found.values()} & starts
    assert found["agents.run"].trace == found["websocket.message"].trace
    assert found["agents.run"].trace != found["auth.login"].trace


async def test_users_at_once_keep_their_traces(
    platform: Platform, collector: SpanCollector
) -> None:
    """What one process does for several at the same time is told apart."""
    for spans, _ in await asyncio.gather(*(ask(platform, collector) for _ in range(4))):
        assert len({span.user for span in spans if span.user}) == 1
        assert sum(span.name == "websocket.receive" for span in spans) == 5


async def test_the_runs_of_one_append_are_all_its_causes(
    log: EventLog, user: UserContext, collector: SpanCollector
) -> None:
    """A flush joins what several runs of a user emitted: one is the parent, the others are linked."""
    with _spans.span("one run") as span:
        one = trace_of(span)
    with _spans.span("another", parent="") as span:
        another = trace_of(span)
    with _spans.span("somebody else", user=user.user_id):
        await log.append(
            user.user_id,
            [
                Append(
                    f"{user.run_id}:{index}",
                    user.run_id,
                    1,
                    encode_event(event(user, index)),
                    trace=t,
                )
                for index, t in enumerate((one, another, one, ""), 1)
            ],
        )
    (found,) = [s for s in collector.spans() if s.user == user.user_id and s.server]
    assert found.causes == (one.split("-")[2], another.split("-")[2])
    assert found.trace == one.split("-")[1]
    assert (found.name, found.server, found.attributes["ssot.events"]) == (
        "streams.append",
        "redis",
        4,
    )


async def test_no_secret_is_in_any_span(platform: Platform, collector: SpanCollector) -> None:
    """Passwords, tokens and keys are nowhere in what is exported, of failures neither."""
    _, secrets = await ask(platform, collector)
    async with AuthClient(platform.auth) as auth:
        with pytest.raises(AuthenticationError):
            await auth.login("nobody", f"{PASSWORD}!")
    with pytest.raises(AuthenticationError):
        async with Client([platform.node], token=f"{secrets[1]}x"):
            pass
    await until(
        lambda: {"auth.login", "websocket.admit"} <= {s.name for s in collector.spans() if s.error},
        what="the refusals",
    )
    everything = repr(collector.spans())
    assert "AuthenticationError: wrong name or password" in everything
    assert [secret for secret in secrets if secret in everything] == []
    assert "what did I spend?" not in everything


async def test_a_start_that_is_refused_is_exported(collector: SpanCollector) -> None:
    """In the trace of whoever started it, with every problem and no secret."""
    trace = "7" * 32
    variables = collector.variables("node x", traceparent=f"00-{trace}-{'8' * 16}-01")
    secret = "postgresql://u:hunter2hunter2@127.0.0.1:x/d"
    async with serve("node", SSOT_DATABASE_URL=secret, **variables) as process:
        code, log = await end(process)
    assert code == 2, log
    spans = collector.spans(trace=trace)
    assert [(s.name, s.process, bool(s.error)) for s in spans] == [
        ("environment.load", "node x", True),
        ("configuration.validate", "node x", True),
    ]
    assert spans[0].parent == "8" * 16
    assert all("SSOT_REDIS_URL" in s.error for s in spans)
    assert reaches(spans, "environment", "configuration")
    assert "hunter2hunter2" not in repr(spans)


async def test_a_password_that_the_server_refuses_is_exported(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, collector: SpanCollector
) -> None:
    """The attempt is the database's, and it says who refused."""
    head, _, tail = database_urls["app_a"].rpartition("@")
    wrong = f"{head.rpartition(':')[0]}:not-the-password@{tail}"
    values = environment("worker", database_urls, redis_settings, SSOT_DATABASE_URL=wrong)
    async with serve("worker", **values, **collector.variables("worker x")) as process:
        code, log = await end(process)
    assert code == 1, log
    errors = {s.name: s.error for s in collector.spans() if s.process == "worker x" and s.error}
    assert set(errors) == {"platform.start", "database.connect", "database.session"}
    assert "PostgreSQL refused" in errors["database.session"]
    assert "not-the-password" not in repr(collector.spans())


async def test_a_secret_that_slips_into_a_span_is_masked(collector: SpanCollector) -> None:
    """Whatever the process's environment knows as secret is taken out before it is sent."""
    code = (
        "import os\n"
        "from ssot.environment import IsolatedEnvironment\n"
        "from ssot.errors import SsotError\n"
        "from ssot.telemetry import open_telemetry\n"
        "from ssot.tracing import Spans\n"
        "environment = IsolatedEnvironment(os.environ)\n"
        "key = environment.get('SOME_KEY')\n"
        "with open_telemetry(os.environ, 'careless', redact=environment.redact):\n"
        "    with Spans('agents').span('careless', tool=f'tool {key}', events=3):\n"
        "        raise SsotError(f'it said {key}')\n"
    )
    secret = "hunter2hunter2"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code,
        env={"SOME_KEY": secret, **collector.variables("careless")}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, log = await process.communicate()
    assert process.returncode == 1
    (found,) = [span for span in collector.spans() if span.name == "careless"]
    assert found.error == f"SsotError: it said {MASK}", log.decode()
    assert found.attributes["ssot.tool"] == f"tool {MASK}"
    assert found.attributes["ssot.events"] == 3
    assert secret not in repr(found)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["refuses", "takes nothing", "answers nonsense"])
async def test_a_receiver_that_is_not_well_costs_nothing(
    database_urls: Mapping[str, str], redis_settings: RedisSettings, kind: str
) -> None:
    """The process comes up, works, stops in time with 0, and its log has one warning at most."""
    connections: list[asyncio.StreamWriter] = []

    async def serve_badly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        if kind == "answers nonsense":
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async with AsyncExitStack() as stack:
        if kind == "refuses":
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
        else:
            server = await asyncio.start_server(serve_badly, "127.0.0.1", 0)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
        values = environment("auth", database_urls, redis_settings)
        values["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://user:hunter2hunter2@127.0.0.1:{port}"
        values["OTEL_BSP_SCHEDULE_DELAY"] = "10"
        async with serve("auth", **values) as process:
            address = (await ready(process))["address"]
            async with AuthClient(address) as auth:
                for _ in range(3):
                    await auth.create_account(new_id("alice"), PASSWORD)
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            code, log = await end(process)
            took = time.monotonic() - begin
        for writer in connections:
            writer.close()
    assert code == 0, log
    assert took < 3, log
    warnings = [line for line in log.splitlines() if " INFO " not in line]
    assert len(warnings) <= 1, log
    assert all("spans are not taken" in line for line in warnings)
    assert "hunter2hunter2" not in log


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2hunter2@host:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://host/v1/traces"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000"),
    ],
)
async def test_a_wrong_variable_is_told(name: str, value: str) -> None:
    """One clear line that names it, exit code 2, and no password."""
    values = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: value}
    async with serve("worker", **values) as process:
        code, log = await end(process)
    assert code == 2, log
    assert "Traceback" not in log
    assert name.removesuffix("_MAX_EXPORT_BATCH_SIZE") in log
    assert "hunter2hunter2" not in log
    assert "SSOT_DATABASE_URL" not in log


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense", "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_opened_without_an_endpoint(values: dict[str, str]) -> None:
    """Unset, empty, or switched off by the standard's own variables."""
    with open_telemetry(values, "node", redact=str):
        pass


def test_a_traces_endpoint_is_checked_first() -> None:
    """It is the stronger of the two variables."""
    values = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "nonsense",
    }
    with (
        pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        open_telemetry(values, "node", redact=str),
    ):
        pytest.fail("it was opened")


@pytest.mark.long
async def test_all_gives_its_children_the_variables(
    servers: Services, redis_settings: RedisSettings, collector: SpanCollector
) -> None:
    """One command for all roles: each exports under the name of its role."""
    urls = await migrated(servers)
    values: dict[str, Any] = {
        "MIGRATE_DATABASE_URL": urls["owner"], "AUTH_DATABASE_URL": urls["auth"],
        "SSOT_DATABASE_URL": urls["app_a"], "AUTH_SIGNING_KEY": KEY, "AUTH_PORT": "0",
        "AUTH_SCRYPT_LOG_N": "10", "NODE_PORT": "0", "SSOT_REDIS_URL": servers.redis.url,
        "SSOT_REDIS_PREFIX": redis_settings.prefix, "SSOT_AUTH_URL": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
    }  # fmt: skip
    async with serve("all", **values) as process:
        for _ in range(4):
            await ready(process)
        process.terminate()
        code, log = await end(process)
    assert code == 0, log
    found = {s.process for s in collector.spans()}
    assert found >= {"ssot-migrate", "ssot-auth", "ssot-worker", "ssot-node"}
    (migration,) = [
        s for s in collector.spans() if (s.process, s.name) == ("ssot-migrate", "database.migrate")
    ]
    spans = collector.spans(trace=migration.trace)
    assert reaches(spans, "environment", "postgresql")
