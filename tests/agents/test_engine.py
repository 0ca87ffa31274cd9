"""Registry, tools, emitter, engine and worker, on a real database and a real log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from streams.support import someone, until

from ssot.agents.contexts import context_of
from ssot.agents.emitter import Emitter
from ssot.agents.engine import ExecutionEngine
from ssot.agents.registry import AgentRegistry, AgentSession
from ssot.agents.tools import Tool, ToolDispatcher
from ssot.agents.worker import Worker
from ssot.commands import RunCommand
from ssot.configuration import AgentSettings, WorkerSettings
from ssot.context import UserContext, new_id
from ssot.database import DatabaseManager, RunRecords
from ssot.errors import AgentFailed, Fenced, PermissionDenied, ProtocolError, UnknownAgent
from ssot.events import TERMINAL, AgentEvent, Position, decode_event, follows
from ssot.streams import CommandStream, EventLog, EventWriter, Leases, RedisClient, RunSink

Body = Callable[[str, AgentSession], Awaitable[Any]]


class Number(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of the tools of these tests."""

    value: int = 0


async def square(session: AsyncSession, arguments: Number) -> int:
    return int(
        await session.scalar(
            text("SELECT CAST(:v AS integer) * CAST(:v AS integer)"), {"v": arguments.value}
        )
        or 0
    )


async def broken(session: AsyncSession, arguments: Number) -> int:
    raise ZeroDivisionError("the tool's own mistake")


async def sleepy(session: AsyncSession, arguments: Number) -> int:
    await session.execute(text("SELECT pg_sleep(30)"))
    return 0


TOOLS = (
    Tool("square", Number, square),
    Tool("broken", Number, broken),
    Tool("sleepy", Number, sleepy),
)


class Scripted:
    """An agent that runs a function of the test."""

    tools = TOOLS

    def __init__(self, body: Body) -> None:
        self._body = body

    async def run(self, text: str, session: AgentSession) -> dict[str, Any]:
        return await self._body(text, session)  # type: ignore[no-any-return]


def registry_of(**bodies: Body) -> AgentRegistry:
    registry = AgentRegistry()
    for name, body in bodies.items():
        registry.register(name, lambda _, body=body: Scripted(body))  # type: ignore[misc]
    return registry


def command_of(user: UserContext, agent: str = "a", *, text: str = "hello") -> RunCommand:
    return RunCommand(
        message_id=new_id("message"), user_id=user.user_id, thread_id=user.thread_id,
        run_id=user.run_id, agent=agent, text=text,
    )  # fmt: skip


@pytest_asyncio.fixture
async def writer(log: EventLog) -> AsyncIterator[EventWriter]:
    async with EventWriter(log) as writer:
        yield writer


def engine_of(registry: AgentRegistry, database: DatabaseManager, **limits: Any) -> ExecutionEngine:
    return ExecutionEngine(
        registry,
        runs=RunRecords(database),
        transactions=database,
        settings=AgentSettings.model_validate(limits),
    )


def sink_of(
    writer: EventWriter, user: UserContext, *, again: bool = False, token: int = 1
) -> RunSink:
    sink = writer.sink(user_id=user.user_id, run_id=user.run_id, token=token)
    if again:
        sink.replaying()
    return sink


async def events(log: EventLog, user: UserContext) -> list[AgentEvent]:
    entries = await log.read(user.user_id, Position(0, 0), limit=1000)
    found = [decode_event(entry.body) for entry in entries]
    return [event for event in found if event.run_id == user.run_id]


async def nothing(_: str, session: AgentSession) -> dict[str, Any]:
    return {}


# Registry


async def test_an_unknown_agent_and_a_failing_factory_are_told_apart(user: UserContext) -> None:
    """Nothing registered is UnknownAgent with what there is; a factory's error is AgentFailed with its cause."""
    registry = registry_of(good=nothing)

    def fails(_: UserContext) -> Any:
        raise ValueError("no model")

    registry.register("bad", fails)
    with pytest.raises(UnknownAgent, match=r"'other'.*bad, good"):
        await registry.create("other", user)
    with pytest.raises(AgentFailed, match="no model") as failed:
        await registry.create("bad", user)
    assert isinstance(failed.value.__cause__, ValueError)


async def test_each_run_gets_an_agent_of_its_own(user: UserContext) -> None:
    """Two runs never share an instance, also when their factory is a coroutine."""
    registry = AgentRegistry()

    async def factory(_: UserContext) -> Scripted:
        return Scripted(nothing)

    registry.register("a", factory)
    registry.register("a", factory)
    assert await registry.create("a", user) is not await registry.create("a", user)
    with pytest.raises(ValueError, match="registered already"):
        registry.register("a", lambda _: Scripted(nothing))


async def test_a_factory_may_call_the_registry_and_a_slow_one_stalls_nobody(
    user: UserContext,
) -> None:
    """A factory that creates another agent does not deadlock; one that hangs holds up only its own."""
    registry = registry_of(inner=nothing)
    hang = asyncio.Event()

    async def outer(context: UserContext) -> Any:
        return await registry.create("inner", context)

    async def slow(_: UserContext) -> Any:
        await hang.wait()
        return Scripted(nothing)

    registry.register("outer", outer)
    registry.register("slow", slow)
    slowly = asyncio.create_task(registry.create("slow", user))
    async with asyncio.timeout(1):
        await registry.create("outer", user)
    hang.set()
    await slowly


def test_a_context_is_made_of_the_commands_ids(user: UserContext) -> None:
    """The context factory takes the identity of the command and refuses a placeholder."""
    command = command_of(user)
    context = context_of(command)
    assert (context.user_id, context.thread_id, context.run_id) == (
        user.user_id, user.thread_id, user.run_id,
    )  # fmt: skip
    with pytest.raises(ProtocolError, match="user_id"):
        context_of(msgspec.structs.replace(command, user_id="undefined"))


# Emitter and tools


async def test_the_emitter_keeps_the_grammar(
    writer: EventWriter, log: EventLog, user: UserContext
) -> None:
    """An event out of order is refused where it is emitted, and the ones around it arrive."""
    sink = sink_of(writer, user)
    emitter = Emitter(sink, context=user, agent="a")
    with pytest.raises(ProtocolError, match="agent_thinking cannot follow nothing"):
        emitter.emit("agent_thinking")
    assert emitter.emit("agent_started") == 1
    with pytest.raises(ProtocolError, match="tool_completed"):
        emitter.emit("tool_completed")
    assert emitter.emit("agent_thinking", text="hm") == 2
    emitter.emit("agent_completed")
    with pytest.raises(ProtocolError):
        emitter.emit("agent_failed")
    await sink.barrier()
    assert [e.id.partition(":")[2] for e in await events(log, user)] == ["1", "2", "end"]


@pytest.fixture
def tools(writer: EventWriter, database: DatabaseManager, user: UserContext) -> ToolDispatcher:
    """The tools of one run that has started."""
    emitter = Emitter(sink_of(writer, user), context=user, agent="a")
    emitter.emit("agent_started")
    return ToolDispatcher(TOOLS, context=user, transactions=database, emitter=emitter, timeout=3)


async def test_a_tool_returns_its_result_between_its_two_events(
    tools: ToolDispatcher, writer: EventWriter, log: EventLog, user: UserContext
) -> None:
    """A call is tool_executing with the arguments and tool_completed with the result."""
    assert await tools.call("square", value=7) == 49
    await writer.barrier()
    _, executing, completed = await events(log, user)
    assert (executing.type, executing.payload.tool, executing.payload.data) == (
        "tool_executing", "square", {"value": 7},
    )  # fmt: skip
    assert (completed.type, completed.payload.data) == ("tool_completed", {"result": 49})


async def test_a_call_that_may_not_be_has_no_event(
    tools: ToolDispatcher, writer: EventWriter, log: EventLog, user: UserContext
) -> None:
    """An unknown tool and wrong arguments are refused before anything happens."""
    with pytest.raises(PermissionDenied, match=r"'rm'.*broken, sleepy, square"):
        await tools.call("rm")
    with pytest.raises(ProtocolError, match="value"):
        await tools.call("square", value="seven")
    with pytest.raises(ProtocolError, match="other"):
        await tools.call("square", other=1)
    assert await tools.call("square", value=2) == 4
    await writer.barrier()
    assert len(await events(log, user)) == 3


async def test_a_tool_that_takes_too_long_or_raises_is_agent_failed(tools: ToolDispatcher) -> None:
    """The limit is in the message; an error of the tool itself is chained."""
    with pytest.raises(AgentFailed, match=r"'sleepy' took longer than 3 s"):
        await tools.call("sleepy")


async def test_a_tool_that_raises_is_agent_failed_with_its_cause(tools: ToolDispatcher) -> None:
    """What a tool raises reaches the agent as the platform's own error, naming the tool."""
    with pytest.raises(AgentFailed, match="broken") as failed:
        await tools.call("broken")
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


# Engine


async def run(
    engine: ExecutionEngine, writer: EventWriter, log: EventLog, user: UserContext, agent: str = "a"
) -> list[AgentEvent]:
    """Run to the end; the run's events."""
    async with asyncio.timeout(10):
        await engine.execute(command_of(user, agent), sink_of(writer, user))
    found = await events(log, user)
    last = None
    for event in found:
        assert follows(last, event.type)
        last = event.type
    return found


async def test_a_run_sends_the_five_events_in_order(
    writer: EventWriter, log: EventLog, database: DatabaseManager, user: UserContext
) -> None:
    """Started, thinking, executing, completed, completed: in order, in one shape, with the result."""

    async def body(text: str, session: AgentSession) -> dict[str, Any]:
        session.think(text)
        return {"square": await session.call("square", value=3)}

    found = await run(engine_of(registry_of(a=body), database), writer, log, user)
    assert [e.type for e in found] == [
        "agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed",
    ]  # fmt: skip
    assert found[-1].payload.data == {"result": {"square": 9}}
    record = await RunRecords(database).get(user)
    assert record is not None
    assert (record["state"], record["result"]) == ("completed", {"square": 9})


async def raises(_: str, session: AgentSession) -> dict[str, Any]:
    raise RuntimeError("the secret is hunter2")


async def hangs(_: str, session: AgentSession) -> dict[str, Any]:
    await asyncio.get_running_loop().create_future()
    return {}


async def own_timeout(_: str, session: AgentSession) -> dict[str, Any]:
    raise TimeoutError("the model did not answer")


async def not_json(_: str, session: AgentSession) -> dict[str, Any]:
    return {"value": object()}


async def not_a_number(_: str, session: AgentSession) -> dict[str, Any]:
    return {"value": float("nan")}


async def nul(_: str, session: AgentSession) -> dict[str, Any]:
    return {"value": "a\0b"}


async def a_set(_: str, session: AgentSession) -> dict[str, Any]:
    return {"value": {1, 2}}


async def fails_in_tool(_: str, session: AgentSession) -> dict[str, Any]:
    await session.call("broken")
    return {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (raises, "RuntimeError"),
        (hangs, "took longer than 0.3 s"),
        (own_timeout, "TimeoutError"),
        (fails_in_tool, "broken"),
        (not_json, ""),
        (not_a_number, ""),
        (nul, ""),
        (a_set, ""),
    ],
)
async def test_a_run_that_cannot_complete_ends_as_failed(
    writer: EventWriter,
    log: EventLog,
    database: DatabaseManager,
    user: UserContext,
    body: Body,
    said: str,
) -> None:
    """Whatever an agent does wrong, its user gets one agent_failed that says so, and no secret."""
    engine = engine_of(registry_of(a=body), database, run_timeout=0.3, tool_timeout=0.3)
    found = await run(engine, writer, log, user)
    assert found[-1].type == "agent_failed"
    assert said in found[-1].payload.text
    assert "hunter2" not in found[-1].payload.text
    record = await RunRecords(database).get(user)
    assert record is not None
    assert record["state"] == "failed"
    assert engine.statistics().failed == 1


@pytest.mark.parametrize("agent", ["nobody", "", "a\0b", "x" * 10_000])
async def test_a_run_of_an_agent_that_is_not_there_fails(
    writer: EventWriter, log: EventLog, database: DatabaseManager, user: UserContext, agent: str
) -> None:
    """Whatever name a client sends, its run ends, with the name in the message."""
    found = await run(engine_of(registry_of(a=nothing), database), writer, log, user, agent)
    assert [e.type for e in found] == ["agent_started", "agent_failed"]
    assert "is registered" in found[-1].payload.text


async def test_an_agent_may_go_on_after_a_tool_failed(
    writer: EventWriter, log: EventLog, database: DatabaseManager, user: UserContext
) -> None:
    """An agent that catches a tool's failure can think, call another tool and complete."""

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        try:
            await session.call("broken")
        except Exception:
            session.think("another way, then")
        return {"square": await session.call("square", value=2)}

    found = await run(engine_of(registry_of(a=body), database), writer, log, user)
    assert found[-1].type == "agent_completed"


async def test_the_limits_are_enforced(writer: EventWriter, database: DatabaseManager) -> None:
    """Never more runs of one user than their limit, never more in all, and all get their turn."""
    alice, bob = someone("alice"), someone("bob")
    now: dict[str, int] = {}
    most: dict[str, int] = {}

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        for name in (session.context.user_id, "all"):
            now[name] = now.get(name, 0) + 1
            most[name] = max(most.get(name, 0), now[name])
        await asyncio.sleep(0.02)
        for name in (session.context.user_id, "all"):
            now[name] -= 1
        return {}

    engine = engine_of(registry_of(a=body), database, max_runs=3, max_runs_per_user=2)
    runs = [
        UserContext(u.user_id, u.thread_id, new_id("run")) for u in (alice, bob) for _ in range(6)
    ]
    async with asyncio.timeout(10):
        await asyncio.gather(*(engine.execute(command_of(r), sink_of(writer, r)) for r in runs))
    assert most == {alice.user_id: 2, bob.user_id: most[bob.user_id], "all": 3}
    assert most[bob.user_id] <= 2
    assert engine.statistics().completed == 12


async def test_new_limits_let_waiting_runs_begin_and_take_nothing_from_running_ones(
    writer: EventWriter, database: DatabaseManager
) -> None:
    """More room is used at once, by each user and by all; less room ends nobody's run."""
    alice, bob = someone("alice"), someone("bob")
    go = asyncio.Event()
    began: list[str] = []

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        began.append(session.context.user_id)
        await go.wait()
        return {}

    def limits(max_runs: int, of_one_user: int) -> AgentSettings:
        return AgentSettings(max_runs=max_runs, max_runs_per_user=of_one_user)

    engine = engine_of(registry_of(a=body), database, max_runs=2, max_runs_per_user=1)
    people = [alice] * 4 + [bob] * 4
    runs = [UserContext(u.user_id, u.thread_id, new_id("run")) for u in people]
    tasks = [asyncio.create_task(engine.execute(command_of(r), sink_of(writer, r))) for r in runs]

    async def running(alices: int, bobs: int) -> None:
        await until(
            lambda: (began.count(alice.user_id), began.count(bob.user_id)) == (alices, bobs),
            what=f"{alices} and {bobs} runs",
        )

    await running(1, 1)
    engine.apply(limits(4, 1))
    engine.apply(limits(4, 2))
    await running(2, 2)
    engine.apply(limits(6, 3))
    await running(3, 3)
    engine.apply(limits(1, 1))
    assert engine.statistics().running == 6
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert engine.statistics().completed == 8
    # The users are forgotten by now: who comes again finds the limits of now.
    go.clear()
    began.clear()
    again = [UserContext(alice.user_id, alice.thread_id, new_id("run")) for _ in range(2)]
    tasks = [asyncio.create_task(engine.execute(command_of(r), sink_of(writer, r))) for r in again]
    await running(1, 0)
    assert engine.statistics().running == 1
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)


async def test_new_timeouts_are_for_runs_that_begin_after_them(
    writer: EventWriter, log: EventLog, database: DatabaseManager
) -> None:
    """A run under way keeps the time that it was given; the next one has the new."""
    before, after = someone(), someone()
    began, go = asyncio.Event(), asyncio.Event()

    async def waits(_: str, session: AgentSession) -> dict[str, Any]:
        began.set()
        await go.wait()
        return {}

    engine = engine_of(registry_of(a=waits, b=hangs), database)
    running = asyncio.create_task(engine.execute(command_of(before), sink_of(writer, before)))
    await began.wait()
    engine.apply(AgentSettings(run_timeout=0.2))
    found = await run(engine, writer, log, after, "b")
    assert "took longer than 0.2 s" in found[-1].payload.text
    go.set()
    await running
    assert [e.type for e in await events(log, before)][-1] == "agent_completed"


async def test_a_finished_run_given_again_only_repeats_its_last_event(
    writer: EventWriter, log: EventLog, database: DatabaseManager, user: UserContext
) -> None:
    """The agent is not run a second time, and the log is as it was."""
    runs = 0

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        session.think("once")
        return {"runs": runs}

    engine = engine_of(registry_of(a=body), database)
    before = await run(engine, writer, log, user)
    await engine.execute(command_of(user), sink_of(writer, user, again=True))
    assert await events(log, user) == before
    assert runs == 1


async def test_a_fenced_run_stops_and_records_nothing(
    client: RedisClient,
    writer: EventWriter,
    log: EventLog,
    database: DatabaseManager,
    user: UserContext,
) -> None:
    """A worker whose run was taken over writes no event and no end."""
    leases = Leases(client, ttl=30)
    first = await leases.acquire(user.run_id, "a")
    assert first is not None
    await leases.release(first)
    assert await leases.acquire(user.run_id, "b")
    engine = engine_of(registry_of(a=nothing), database)
    with pytest.raises(Fenced):
        await engine.execute(command_of(user), sink_of(writer, user, token=first.token))
    assert await events(log, user) == []
    # Recorded as ended, whoever takes over would only repeat its last event.
    record = await RunRecords(database).get(user)
    assert record is not None
    assert record["state"] == "running"


# Worker


def worker_of(
    client: RedisClient,
    writer: EventWriter,
    engine: ExecutionEngine,
    *,
    ttl: float = 0.4,
    **values: Any,
) -> Worker:
    settings = WorkerSettings.model_validate({"lease_ttl": ttl, "drain_timeout": 0.2, **values})
    return Worker(
        commands=CommandStream(client), leases=Leases(client, ttl=ttl), sinks=writer, engine=engine,
        settings=settings,
    )  # fmt: skip


async def ended(log: EventLog, user: UserContext) -> bool:
    return any(e.type in TERMINAL for e in await events(log, user))


async def test_a_worker_runs_what_is_submitted(
    client: RedisClient,
    writer: EventWriter,
    log: EventLog,
    database: DatabaseManager,
    user: UserContext,
) -> None:
    """A command becomes a run with its events, and leaves the stream."""
    engine = engine_of(registry_of(a=nothing), database)
    async with worker_of(client, writer, engine) as worker:
        await CommandStream(client).submit(command_of(user))
        await until(lambda: worker.statistics().finished == 1, what="the run")
    assert [e.type for e in await events(log, user)] == ["agent_started", "agent_completed"]
    assert await client.redis.xlen(client.key("commands")) == 0


async def test_a_run_left_by_a_stopped_worker_is_taken_over(
    client: RedisClient,
    writer: EventWriter,
    log: EventLog,
    database: DatabaseManager,
    user: UserContext,
) -> None:
    """The second worker ends what the first one began; no event is doubled."""
    began, go = asyncio.Event(), asyncio.Event()

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        session.think("working")
        began.set()
        await go.wait()
        return {}

    engine = engine_of(registry_of(a=body), database)
    async with asyncio.timeout(10):
        async with worker_of(client, writer, engine):
            await CommandStream(client).submit(command_of(user))
            await began.wait()
        go.set()
        async with worker_of(client, writer, engine) as second:
            await until(lambda: second.statistics().finished == 1, what="the run")
            assert second.statistics().taken_over == 1
    types = [e.type for e in await events(log, user)]
    assert types == ["agent_started", "agent_thinking", "agent_completed"]


async def test_a_long_run_is_not_taken_from_a_living_worker(
    client: RedisClient,
    writer: EventWriter,
    log: EventLog,
    database: DatabaseManager,
    user: UserContext,
) -> None:
    """A run that lasts several leases stays with its worker, though another one is looking."""

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        await asyncio.sleep(0.9)
        return {}

    engine = engine_of(registry_of(a=body), database)
    async with (
        worker_of(client, writer, engine, ttl=0.25) as one,
        worker_of(client, writer, engine, ttl=0.25) as two,
    ):
        await CommandStream(client).submit(command_of(user))
        await until(
            lambda: one.statistics().finished + two.statistics().finished == 1, what="the run"
        )
        assert one.statistics().taken_over + two.statistics().taken_over == 0
    assert [e.type for e in await events(log, user)] == ["agent_started", "agent_completed"]


async def test_a_command_that_waited_for_a_place_and_was_run_elsewhere_is_not_repeated(
    client: RedisClient, writer: EventWriter, log: EventLog, database: DatabaseManager
) -> None:
    """A busy worker that gets to a command which another one has finished adds nothing to the log."""
    busy, waiting = someone("busy"), someone("waiting")
    go = asyncio.Event()

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        if session.context.user_id == busy.user_id:
            await go.wait()
        return {}

    engine = engine_of(registry_of(a=body), database)
    stream = CommandStream(client)
    await stream.submit(command_of(busy))
    await stream.submit(command_of(waiting))
    async with worker_of(client, writer, engine, ttl=0.25, max_claims=1) as first:
        await until(lambda: first.statistics().running == 1, what="the first worker to be busy")
        async with worker_of(client, writer, engine, ttl=0.25) as second:
            await until(lambda: ended(log, waiting), what="the second worker to run it")
            await until(
                lambda: second.statistics().finished == 1, what="the second worker to be done"
            )
            go.set()
            await until(
                lambda: first.statistics().finished >= 2, what="the first to go on", seconds=3
            )
    types = [e.type for e in await events(log, waiting)]
    assert types == ["agent_started", "agent_completed"]


async def test_a_worker_takes_as_many_commands_as_it_may_by_now(
    client: RedisClient, writer: EventWriter, database: DatabaseManager
) -> None:
    """Room for more claims is used at once; with less, those that are held go on."""
    go = asyncio.Event()

    async def body(_: str, session: AgentSession) -> dict[str, Any]:
        await go.wait()
        return {}

    engine = engine_of(registry_of(a=body), database)
    stream = CommandStream(client)
    for _ in range(6):
        await stream.submit(command_of(someone()))
    async with worker_of(client, writer, engine, ttl=10, max_claims=1) as worker:
        for most in (1, 4):
            worker.apply(WorkerSettings(lease_ttl=10, max_claims=most))
            await until(lambda most=most: engine.statistics().running == most, what="the runs")  # type: ignore[misc]
        worker.apply(WorkerSettings(lease_ttl=10, max_claims=2))
        assert worker.statistics().running == 4
        go.set()
        await until(lambda: worker.statistics().finished == 6, what="all runs")


async def test_a_worker_stops_at_once_though_it_has_nothing_to_do(
    client: RedisClient, writer: EventWriter, database: DatabaseManager
) -> None:
    """Whenever it is told to, an idle worker ends: ten times in ten."""
    engine = engine_of(registry_of(a=nothing), database)
    for turns in range(10):
        worker = await worker_of(client, writer, engine).__aenter__()
        for _ in range(turns * 7):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await worker.aclose()
            await worker.aclose()
