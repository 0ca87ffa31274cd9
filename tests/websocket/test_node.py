"""Node and client on a real log: delivered once and in order, resumed on another node, cut off alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket as sockets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from streams.support import event, someone, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from ssot.auth.jwks import TokenVerifier
from ssot.auth.keys import SigningKey, new_signing_key
from ssot.configuration import NodeSettings, RedisSettings, TokenSettings
from ssot.context import UserContext
from ssot.database import DatabaseManager, RunRecords
from ssot.environment import IsolatedEnvironment
from ssot.errors import AuthenticationError, ProtocolError, SsotError, Unavailable
from ssot.events import Position, encode_event
from ssot.health import Health
from ssot.lab.services import Services
from ssot.platform import Role, open_role
from ssot.streams import Append, CommandStream, EventLog, RedisClient, Subscriber
from ssot.websocket.client import Client
from ssot.websocket.node import Node
from ssot.websocket.protocol import (
    Accepted,
    Error,
    Event,
    GetRun,
    Reset,
    RunRecord,
    ServerFrame,
    UserMessage,
    Welcome,
    decode_server,
    encode,
)

KEY = SigningKey(new_signing_key())
PRIVATE = new_signing_key()
TOKENS = TokenSettings()


class Source:
    """The log and its live channel as one."""

    def __init__(self, log: EventLog, subscriber: Subscriber) -> None:
        self.bounds, self.read = log.bounds, log.read
        self.subscribe, self.unsubscribe = subscriber.subscribe, subscriber.unsubscribe


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def auth(database_urls: Any) -> AsyncIterator[Role]:
    """A real auth service, for its public keys."""
    environment = {
        "SSOT_DATABASE_URL": database_urls["auth"], "AUTH_SIGNING_KEY": PRIVATE, "AUTH_PORT": "0",
        "AUTH_SCRYPT_LOG_N": "10",
    }  # fmt: skip
    async with open_role("auth", IsolatedEnvironment(environment, service="auth")) as role:
        yield role


def token(user: UserContext, *, ttl: float = 60) -> str:
    return SigningKey(PRIVATE).sign(user_id=user.user_id, ttl=ttl, tokens=TOKENS)


StartNode = Callable[..., Any]


@pytest_asyncio.fixture
async def start_node(
    auth: Role, redis_settings: RedisSettings, database: DatabaseManager
) -> AsyncIterator[StartNode]:
    """Starts nodes with connections of their own; all stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(**values: Any) -> Node:
            settings = NodeSettings.model_validate({"port": 0, "auth_url": auth.address, **values})
            client = RedisClient(redis_settings, name="node")
            stack.push_async_callback(client.aclose)
            await client.open()
            log = EventLog(client)
            subscriber = await stack.enter_async_context(Subscriber(client, log, ping_interval=2))
            verifier = await stack.enter_async_context(TokenVerifier(settings.auth_url, TOKENS))

            async def health() -> Health:
                return await client.health()

            node = Node(
                settings,
                source=Source(log, subscriber),
                commands=CommandStream(client),
                runs=RunRecords(database),
                verifier=verifier,
                health=health,
            )
            return await stack.enter_async_context(node)

        yield start


async def write(log: EventLog, user: UserContext, first: int, last: int, *, size: int = 0) -> None:
    """Events ``first`` to ``last`` of the user's run."""
    for start in range(first, last + 1, 50):
        await log.append(
            user.user_id,
            [
                Append(
                    f"{user.run_id}:{i}",
                    user.run_id,
                    1,
                    encode_event(event(user, i, pad="x" * size)),
                )
                for i in range(start, min(start + 50, last + 1))
            ],
        )


async def raw(
    node: Node, user: UserContext, *, after: Position | None = None, **options: Any
) -> ClientConnection:
    """A bare connection, its welcome not yet read."""
    query = f"?after={after}" if after else ""
    return await connect(
        f"{node.address}/events{query}",
        subprotocols=[
            Subprotocol("ssot.v1"),
            Subprotocol(f"bearer.{options.pop('token', None) or token(user)}"),
        ],
        compression=None,
        proxy=None,
        **options,
    )


async def receive(socket: ClientConnection) -> ServerFrame:
    async with asyncio.timeout(5):
        return decode_server(await socket.recv())


async def collect(client: Client, count: int) -> list[int]:
    """The texts of the next events, as numbers."""
    got: list[int] = []
    async with asyncio.timeout(5):
        async for received in client:
            got.append(int(received.event.payload.text))
            if len(got) == count:
                break
    return got


# Delivery


async def test_the_first_frame_is_a_welcome_that_says_where_the_client_stands(
    start_node: StartNode, log: EventLog
) -> None:
    """Who, where and whether whole, before any event."""
    node, user = await start_node(), someone()
    await write(log, user, 1, 3)
    async with await raw(node, user) as socket:
        welcome = await receive(socket)
        assert isinstance(welcome, Welcome)
        assert (welcome.v, welcome.user_id, welcome.seq, welcome.recovered) == (
            1,
            user.user_id,
            3,
            True,
        )


async def test_events_arrive_once_and_in_order_at_their_own_user_only(
    start_node: StartNode, log: EventLog
) -> None:
    """Two users on one node, written alternately: each gets all of theirs and none of the other's."""
    node = await start_node()
    alice, bob = someone("alice"), someone("bob")
    async with (
        Client([node.address], token=token(alice)) as one,
        Client([node.address], token=token(bob)) as two,
    ):
        for index in range(1, 101):
            await write(log, alice, index, index)
            await write(log, bob, 1000 + index, 1000 + index)
        assert await collect(one, 100) == list(range(1, 101))
        assert await collect(two, 100) == list(range(1001, 1101))
        assert one.statistics().duplicates == 0


async def test_two_connections_of_one_user_get_everything_and_end_apart(
    start_node: StartNode, log: EventLog
) -> None:
    """Closing one of a user's connections leaves the other as it was."""
    node, user = await start_node(), someone()
    one, two = (Client([node.address], token=token(user)) for _ in range(2))
    async with two:
        async with one:
            await write(log, user, 1, 10)
            assert await collect(one, 10) == await collect(two, 10) == list(range(1, 11))
        await until(lambda: node.statistics().connections == 1, what="one to be gone")
        await write(log, user, 11, 20)
        assert await collect(two, 10) == list(range(11, 21))
    await until(lambda: node.statistics().users == 0, what="the user to be forgotten")


async def test_coming_and_going_at_once_misses_nothing(
    start_node: StartNode, log: EventLog
) -> None:
    """A user whose last connection ends while the next one begins, thirty times, misses no event."""
    node, user = await start_node(), someone()
    position: Position | None = Position(0, 0)
    position = (await log.bounds(user.user_id)).last
    got: list[int] = []
    for index in range(1, 31):
        async with Client([node.address], token=token(user), after=position) as client:
            writing = asyncio.create_task(write(log, user, index, index))
            got += await collect(client, 1)
            position = client.position
            await writing
    assert got == list(range(1, 31))


async def test_a_cursor_resumes_on_another_node(start_node: StartNode, log: EventLog) -> None:
    """What was missed comes from the log, then what is live, with no seam."""
    one, two, user = await start_node(), await start_node(), someone()
    async with Client([one.address], token=token(user)) as client:
        await write(log, user, 1, 5)
        assert await collect(client, 5) == [1, 2, 3, 4, 5]
        position = client.position
    await write(log, user, 6, 1205)
    async with Client([two.address], token=token(user), after=position) as client:
        await write(log, user, 1206, 1210)
        assert await collect(client, 1205) == list(range(6, 1211))
        assert client.statistics().resets == 0


async def test_a_node_that_stops_hands_its_clients_on(start_node: StartNode, log: EventLog) -> None:
    """A stopping node tells its clients to go; they go on elsewhere and lose nothing."""
    one, two, user = await start_node(), await start_node(), someone()
    async with Client([one.address, two.address], token=token(user)) as client:
        writing = asyncio.create_task(write(log, user, 1, 400))
        got = await collect(client, 20)
        await one.aclose()
        got += await collect(client, 380)
        await writing
        assert got == list(range(1, 401))
        assert client.statistics().connects == 2


async def test_a_killed_subscription_is_repaired_from_the_log(
    start_node: StartNode, log: EventLog, client: RedisClient
) -> None:
    """The node's link to Redis is cut again and again under load: nothing lost, doubled, reordered."""
    node, user = await start_node(), someone()
    async with Client([node.address], token=token(user)) as reader:
        for block in range(10):
            writing = asyncio.create_task(write(log, user, block * 50 + 1, block * 50 + 50))
            for one in await client.redis.client_list():
                if one["name"] == "node" and int(one["sub"]):
                    await client.redis.client_kill_filter(_id=one["id"])
            await writing
        assert await collect(reader, 500) == list(range(1, 501))
        assert reader.statistics().resets == 0
    assert node.statistics().repairs > 0


async def test_a_reboot_of_the_server_is_told(
    servers: Services, start_node: StartNode, log: EventLog
) -> None:
    """After a reboot a live client gets a reset, and a resuming one `recovered: false` and a reset."""
    node, user = await start_node(), someone()
    async with Client([node.address], token=token(user)) as client:
        await write(log, user, 1, 3)
        assert await collect(client, 3) == [1, 2, 3]
        position = client.position
        await servers.redis.kill()
        await servers.redis.restart()
        await until(lambda: client.statistics().resets == 1, what="the reset")
        await write(log, user, 4, 5)
        assert await collect(client, 2) == [4, 5]
    assert position is not None
    async with await raw(node, user, after=position) as socket:
        welcome = await receive(socket)
        assert isinstance(welcome, Welcome)
        assert not welcome.recovered
        frames = [await receive(socket) for _ in range(3)]
        assert [type(frame) for frame in frames] == [Reset, Event, Event]


async def test_a_reboot_without_any_new_event_is_told_as_well(
    servers: Services, start_node: StartNode, log: EventLog
) -> None:
    """A client that resumes after a reboot is told at once, also when nothing was written since."""
    node, user = await start_node(), someone()
    await write(log, user, 1, 3)
    position = (await log.bounds(user.user_id)).last
    await servers.redis.kill()
    await servers.redis.restart()
    async with await raw(node, user, after=position) as socket:
        welcome = await receive(socket)
        assert isinstance(welcome, Welcome)
        assert not welcome.recovered
        assert isinstance(await receive(socket), Reset)


async def test_a_trimmed_log_is_told(
    start_node: StartNode, log: EventLog, client: RedisClient
) -> None:
    """A cursor before the oldest entry gets a reset, then what is still there."""
    node, user = await start_node(), someone()
    await write(log, user, 1, 10)
    await client.redis.xtrim(log.stream(user.user_id), maxlen=4, approximate=False)
    async with await raw(node, user, after=Position(client.epoch, 2)) as socket:
        welcome = await receive(socket)
        assert isinstance(welcome, Welcome)
        assert not welcome.recovered
        reset = await receive(socket)
        assert isinstance(reset, Reset)
        assert reset.seq == 6
        events = [await receive(socket) for _ in range(4)]
        assert [e.seq for e in events if isinstance(e, Event)] == [7, 8, 9, 10]


@pytest.mark.parametrize("ahead", [(0, 5), (10, 0)])
async def test_a_cursor_from_the_future_is_told(
    start_node: StartNode, log: EventLog, client: RedisClient, ahead: tuple[int, int]
) -> None:
    """A position that this log never gave is not recovered; the client is told where it stands."""
    node, user = await start_node(), someone()
    await write(log, user, 1, 2)
    cursor = Position(client.epoch + ahead[0], 2 + ahead[1])
    async with await raw(node, user, after=cursor) as socket:
        welcome, reset = await receive(socket), await receive(socket)
        assert isinstance(welcome, Welcome)
        assert not welcome.recovered
        assert isinstance(reset, Reset)
        assert (reset.epoch, reset.seq) == (client.epoch, 2)


async def test_a_slow_client_is_cut_off_alone(start_node: StartNode, log: EventLog) -> None:
    """A client that takes nothing is cut off in bounded time; the other one of the node goes on."""
    node = await start_node(stall_timeout=0.3, ring_size=2048, ping_interval=60)
    user = someone()
    small = sockets.socket()
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    small.setblocking(False)
    host, port = node.address.removeprefix("ws://").split(":")
    await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
    stuck = await raw(node, user, sock=small, max_queue=1, max_size=None, close_timeout=0.1)
    await until(lambda: node.statistics().connections == 1, what="the slow client")
    async with Client([node.address], token=token(user)) as quick:
        writing = asyncio.create_task(write(log, user, 1, 120, size=60_000))
        begin = time.monotonic()
        assert await collect(quick, 120) == list(range(1, 121))
        await writing
        await until(
            lambda: node.statistics().connections == 1,
            what="the slow client to be cut off",
            seconds=4,
        )
        assert time.monotonic() - begin < 5
        await write(log, user, 121, 125)
        assert await collect(quick, 5) == [121, 122, 123, 124, 125]
    stuck.transport.abort()


# Admission


async def status(node: Node, **options: Any) -> tuple[int, str]:
    """The HTTP status and text of a handshake that is refused; 101 when it is not."""
    try:
        socket = await connect(
            f"{node.address}{options.pop('path', '/events')}", proxy=None, **options
        )
    except InvalidStatus as refused:
        return refused.response.status_code, (refused.response.body or b"").decode()
    await socket.close()
    return 101, ""


async def test_a_wrong_handshake_is_refused_with_its_reason(start_node: StartNode) -> None:
    """Each refusal says what was wrong, and what the other side speaks."""
    node, user = await start_node(origins="https://good.example"), someone()
    bearer = {"Authorization": f"Bearer {token(user)}"}
    ours = [Subprotocol("ssot.v1")]
    code, text = await status(node, additional_headers=bearer)
    assert (code, "ssot.v1" in text, "none" in text) == (400, True, True)
    code, text = await status(
        node, additional_headers=bearer, subprotocols=[Subprotocol("ssot.v9")]
    )
    assert (code, "ssot.v1" in text, "ssot.v9" in text) == (400, True, True)
    code, text = await status(node, subprotocols=ours)
    assert (code, "no token" in text) == (401, True)
    code, text = await status(
        node, subprotocols=ours, additional_headers={"Authorization": "Bearer x"}
    )
    assert code == 401
    code, text = await status(
        node, subprotocols=ours, additional_headers=bearer, origin=Origin("https://evil.example")
    )
    assert code == 403
    for after in ("x", ""):
        code, text = await status(
            node, subprotocols=ours, additional_headers=bearer, path=f"/events?after={after}"
        )
        assert (code, "position" in text) == (400, True)
    code, text = await status(node, subprotocols=ours, additional_headers=bearer, path="/other")
    assert (code, "/events" in text) == (404, True)
    async with connect(
        f"{node.address}/events", subprotocols=ours, additional_headers=bearer, proxy=None,
        origin=Origin("https://good.example"),
    ) as socket:  # fmt: skip
        assert isinstance(await receive(socket), Welcome)


async def test_a_refused_origin_is_logged_without_its_user(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    """One line each, whatever a client sends there; an origin that is let in has none."""
    node, user = await start_node(origins="https://good.example"), someone()
    caplog.set_level("INFO", "ssot.websocket.node")
    bearer = token(user)
    sent = [
        "https://evil.example", "https://" + "x" * 5000, "https://caf\xe9.example",
        "https://good.example",
    ]  # fmt: skip
    codes = [
        await status(
            node, subprotocols=[Subprotocol("ssot.v1")], origin=Origin(origin),
            additional_headers={"Authorization": f"Bearer {bearer}"},
        )
        for origin in sent
    ]  # fmt: skip
    assert [code for code, _ in codes] == [403, 403, 403, 101]
    shown = ["'https://evil.example'", repr(sent[1][:100]), r"'https://caf\xe9.example'"]
    told = [record for record in caplog.records if record.name == "ssot.websocket.node"]
    assert [(record.levelname, record.getMessage()) for record in told] == [
        ("INFO", f"refused a connection: NODE_ORIGINS does not name the origin {each}")
        for each in shown
    ]
    for secret in (user.user_id, bearer):
        assert secret not in "".join(record.getMessage() for record in told)
    assert node.statistics().refused == 3


@pytest.mark.parametrize("after", ["9" * 5000 + "-1", "1-" + "9" * 30, f"{2**64}-0"])
async def test_an_absurd_position_is_refused_or_survived(start_node: StartNode, after: str) -> None:
    """Numbers beyond the log's are a client's mistake (400), never the node's failure."""
    node, user = await start_node(), someone()
    code, text = await status(
        node, subprotocols=[Subprotocol("ssot.v1"), Subprotocol(f"bearer.{token(user)}")],
        path=f"/events?after={after}",
    )  # fmt: skip
    assert (code, "position" in text) == (400, True)


async def test_an_expired_or_foreign_token_is_refused(start_node: StartNode) -> None:
    """The client is told that its token proves nothing, and why."""
    node, user = await start_node(), someone()
    foreign = KEY.sign(user_id=user.user_id, ttl=60, tokens=TOKENS)
    with pytest.raises(AuthenticationError, match="does not publish"):
        await Client([node.address], token=foreign).__aenter__()
    other = TokenSettings.model_validate({"audience": "elsewhere"})
    wrong = SigningKey(PRIVATE).sign(user_id=user.user_id, ttl=60, tokens=other)
    with pytest.raises(AuthenticationError, match=r"'elsewhere'.*'ssot-platform'"):
        await Client([node.address], token=wrong).__aenter__()


async def test_a_token_that_expires_ends_its_connection_with_4401(start_node: StartNode) -> None:
    """At the token's end the connection is closed, and the client raises why."""
    node, user = await start_node(), someone()
    socket = await raw(node, user, token=token(user, ttl=1))
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(4):
            while True:
                await socket.recv()
    assert socket.close_code == 4401
    assert "expired" in (socket.close_reason or "")


async def test_connections_of_one_user_are_limited(start_node: StartNode) -> None:
    """The limit holds for those who come one after the other, and another user is not concerned."""
    node, user = await start_node(max_connections=2), someone()
    async with await raw(node, user) as one, await raw(node, user) as two:
        await receive(one)
        await receive(two)
        with pytest.raises(InvalidStatus) as refused:
            await raw(node, user)
        assert refused.value.response.status_code == 429
        assert b"2 connections" in (refused.value.response.body or b"")
        async with await raw(node, someone("bob")) as other:
            await receive(other)


async def test_the_limit_holds_for_those_who_come_at_once(start_node: StartNode) -> None:
    """Twenty handshakes at the same moment: no more than the limit get in."""
    node, user = await start_node(max_connections=3), someone()
    proof = token(user)

    async def come() -> ClientConnection | None:
        with contextlib.suppress(InvalidStatus, ConnectionClosed):
            socket = await raw(node, user, token=proof)
            await receive(socket)
            return socket
        return None

    came = await asyncio.gather(*(come() for _ in range(20)))
    inside = [socket for socket in came if socket is not None]
    open_ = node.statistics().connections
    for socket in inside:
        await socket.close()
    assert open_ <= 3
    assert len(inside) <= 3


async def test_health_is_served_as_json(servers: Services, start_node: StartNode) -> None:
    """Healthy is 200, down is 503, and both say why in JSON."""
    node = await start_node()
    url = f"{node.address.replace('ws:', 'http:')}/health"
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        await servers.redis.kill()
        try:
            answer = await http.get(url)
        finally:
            await servers.redis.restart()
        assert (answer.status_code, answer.json()["status"]) == (503, "down")


# Messages


async def ask(socket: ClientConnection, frame: UserMessage | GetRun) -> ServerFrame:
    await socket.send(encode(frame), text=True)
    return await receive(socket)


async def test_a_message_is_accepted_once_however_often_it_is_sent(
    start_node: StartNode, client: RedisClient
) -> None:
    """The same message on two nodes is one run and one command."""
    one, two, user = await start_node(), await start_node(), someone()
    runs = set()
    for node in (one, two, one):
        async with await raw(node, user) as socket:
            await receive(socket)
            answer = await ask(socket, UserMessage("m1", "t1", "hello", "a"))
            assert isinstance(answer, Accepted)
            runs.add(answer.run_id)
    assert len(runs) == 1
    assert await client.redis.xlen(client.key("commands")) == 1


async def test_a_wrong_message_is_answered_and_the_connection_goes_on(
    start_node: StartNode,
) -> None:
    """`content` for `text`, noise, a placeholder for a thread: each is told, nothing is queued."""
    node, user = await start_node(), someone()
    async with await raw(node, user) as socket:
        await receive(socket)
        await socket.send(
            '{"type":"user_message","id":"1","thread_id":"t","agent":"a","content":"x"}'
        )
        answer = await receive(socket)
        assert isinstance(answer, Error)
        assert "content" in answer.reason
        await socket.send(b"\xff")
        assert isinstance(await receive(socket), Error)
        answer = await ask(socket, UserMessage("m1", "undefined", "hello", "a"))
        assert isinstance(answer, Error)
        assert ("thread_id" in answer.reason, answer.id, answer.retry) == (True, "m1", False)
        assert isinstance(await ask(socket, UserMessage("m1", "t1", "hello", "a")), Accepted)


@pytest.mark.parametrize("request_id", ["r1", "0", "1", "user", "request 7"])
async def test_a_record_of_a_run_is_its_users_only(
    start_node: StartNode, database: DatabaseManager, request_id: str
) -> None:
    """One's own run is answered, whatever the request is called; another's is null."""
    node, alice, bob = await start_node(), someone("alice"), someone("bob")
    await RunRecords(database).begin(alice, agent="a")
    async with await raw(node, alice) as one, await raw(node, bob) as two:
        await receive(one)
        await receive(two)
        own, foreign = [await ask(s, GetRun(request_id, alice.run_id)) for s in (one, two)]
    assert isinstance(own, RunRecord), own
    assert own.id == request_id
    assert own.record is not None
    assert own.record["state"] == "running"
    assert isinstance(foreign, RunRecord)
    assert foreign.record is None


async def test_an_oversized_message_ends_its_connection_only(start_node: StartNode) -> None:
    """Too large a message is refused with 1009; others of the node do not notice."""
    node, user = await start_node(max_message_bytes=1000), someone()
    async with await raw(node, user) as one, await raw(node, user) as two:
        await receive(one)
        await receive(two)
        await one.send("x" * 2000)
        with pytest.raises(ConnectionClosed):
            await receive(one)
        assert one.close_code == 1009
        assert isinstance(await ask(two, UserMessage("m1", "t1", "hello", "a")), Accepted)


# The client


async def test_the_client_is_told_of_a_message_that_is_too_large(start_node: StartNode) -> None:
    """A message that no node will ever take fails; it is not sent again for ever."""
    node, user = await start_node(max_message_bytes=1000), someone()
    async with Client([node.address], token=token(user)) as client:
        with pytest.raises(SsotError):
            async with asyncio.timeout(2):
                await client.send("x" * 2000, thread_id="t1", agent="a")
        assert client.statistics().connects < 5


async def test_the_same_message_sent_twice_at_once_is_answered_twice(start_node: StartNode) -> None:
    """Two callers with one message id both learn the one run."""
    node, user = await start_node(), someone()
    async with Client([node.address], token=token(user)) as client, asyncio.timeout(3):
        runs = await asyncio.gather(
            *(client.send("hello", thread_id="t1", agent="a", message_id="m1") for _ in range(2))
        )
    assert runs[0] == runs[1]


async def test_a_message_whose_node_died_unanswered_starts_one_run(
    servers: Services, auth: Role, start_node: StartNode, client: RedisClient, database_urls: Any
) -> None:
    """The node is killed while the command is on its way: sent again elsewhere, it is one run."""
    two, user = await start_node(), someone()
    environment = {
        "SSOT_DATABASE_URL": database_urls["app_a"], "SSOT_AUTH_URL": str(auth.address), "NODE_PORT": "0",
        "SSOT_REDIS_URL": servers.redis.url, "SSOT_REDIS_PREFIX": client.settings.prefix,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssot.serve", "node",
        env=IsolatedEnvironment(os.environ).child_env(environment),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    one = json.loads(await process.stdout.readline())["address"]
    async with Client([one, two.address], token=token(user)) as sender:
        servers.redis.freeze()
        try:
            sending = asyncio.create_task(sender.send("hello", thread_id="t1", agent="a"))
            await asyncio.wait({sending}, timeout=0.1)
            process.kill()
            await process.wait()
        finally:
            servers.redis.thaw()
        async with asyncio.timeout(8):
            assert await sending
        assert sender.statistics().connects == 2
    assert await client.redis.xlen(client.key("commands")) == 1


async def test_a_node_stops_in_time_though_a_message_waits_for_redis(
    servers: Services, start_node: StartNode
) -> None:
    """A node that is told to stop during an outage does not wait the outage out."""
    node, user = await start_node(), someone()
    async with await raw(node, user) as socket:
        await receive(socket)
        servers.redis.freeze()
        try:
            await socket.send(encode(UserMessage("m1", "t1", "hello", "a")), text=True)
            await until(lambda: node.statistics().messages == 1, what="the node to take it")
            async with asyncio.timeout(5):
                await node.aclose()
        finally:
            servers.redis.thaw()


async def test_what_was_received_can_be_read_after_closing(
    start_node: StartNode, log: EventLog
) -> None:
    """A closed client gives what it has and then ends, also when its buffer is full."""
    node, user = await start_node(), someone()
    client = Client([node.address], token=token(user), buffer=3)
    async with client:
        await write(log, user, 1, 10)
        await until(lambda: client.statistics().received >= 3, what="a full buffer")
        await until(lambda: node.statistics().sent == 11, what="the node to have sent the others")
    got = []
    async with asyncio.timeout(2):
        async for received in client:
            got.append(received)  # noqa: PERF401
    assert [int(r.event.payload.text) for r in got] == [1, 2, 3]


async def test_the_position_of_a_closed_client_skips_nothing(
    start_node: StartNode, log: EventLog
) -> None:
    """Resuming from a client's position gives the event after the last one that it gave."""
    node, user = await start_node(), someone()
    client = Client([node.address], token=token(user), buffer=3)
    async with client:
        await write(log, user, 1, 10)
        await until(lambda: client.statistics().received >= 3, what="a full buffer")
        await until(lambda: node.statistics().sent == 11, what="the node to have sent the others")
    got = [int((await anext(aiter(client))).event.payload.text) for _ in range(3)]
    async with Client([node.address], token=token(user), after=client.position) as resumed:
        got += await collect(resumed, 7)
    assert got == list(range(1, 11))


async def test_no_node_at_all_is_unavailable_at_the_deadline() -> None:
    """A client that finds nobody says so, and which nodes it tried."""
    with pytest.raises(Unavailable, match=r"ws://127\.0\.0\.1:1"):
        await Client(["ws://127.0.0.1:1"], token="t", deadline=0.2).__aenter__()


async def test_a_refused_message_is_a_protocol_error(start_node: StartNode) -> None:
    """What the node refuses reaches the caller who sent it."""
    node, user = await start_node(), someone()
    async with Client([node.address], token=token(user)) as client:
        with pytest.raises(ProtocolError, match="thread_id"):
            await client.send("hello", thread_id="undefined", agent="a")
