"""The vocabulary: errors, events, identities, health, commands, and trying again."""

from __future__ import annotations

import asyncio
import random
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams.support import event, someone

from ssot.commands import RunCommand, decode_command, encode_command
from ssot.context import MAX_DEPTH, UserContext, new_id
from ssot.errors import (
    AuthenticationError,
    Fenced,
    LimitExceeded,
    NotSerializable,
    PermissionDenied,
    ProtocolError,
    SettingsError,
    SsotError,
    Unavailable,
    UnknownAgent,
    VersionMismatch,
)
from ssot.events import (
    EVENT_VERSION,
    TERMINAL,
    AgentEvent,
    Payload,
    Position,
    check_json,
    decode_event,
    encode_event,
    event_types,
    follows,
)
from ssot.health import Health, merge
from ssot.retry import retry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


# Errors


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            SettingsError(["A is not set", "B is wrong"]),
            ["2 problems", "A is not set", "B is wrong"],
        ),
        (SettingsError(["A is not set"]), ["1 problem in", "A is not set"]),
        (AuthenticationError("expired"), ["expired"]),
        (Unavailable("Redis", deadline=2.5, cause="refused"), ["Redis", "2.5 s", "refused"]),
        (VersionMismatch("events", ours=1, theirs=7, advice="wait"), ["events", "1", "7", "wait"]),
        (Fenced("run-1", token=3, current=9), ["run-1", "3", "9"]),
        (UnknownAgent("x", ["a", "b"]), ["'x'", "a, b"]),
        (UnknownAgent("x", []), ["'x'", "none"]),
        (LimitExceeded("runs", limit=8, observed=9), ["runs", "8", "9"]),
    ],
)
def test_an_error_says_its_values(error: SsotError, parts: list[str]) -> None:
    """The message of each error carries the values that it was made of."""
    assert all(part in str(error) for part in parts)


# Identities


@pytest.mark.parametrize("field", ["user_id", "thread_id", "run_id"])
@pytest.mark.parametrize(
    "value",
    ["", " ", "None", "null", "UNDEFINED", "default", "0", "-1", "a b", "a\n", "../x", "é", "x" * 129,
     "user", None, 7],
)  # fmt: skip
def test_a_placeholder_or_malformed_id_is_refused(field: str, value: object) -> None:
    """No identity is made of what a forgotten variable leaves behind; the field is named."""
    ids: dict[str, object] = {"user_id": "u1", "thread_id": "t1", "run_id": "r1", field: value}
    with pytest.raises(ProtocolError, match=field):
        UserContext(**ids)  # type: ignore[arg-type]


def test_a_new_id_is_a_valid_identity() -> None:
    """What the platform itself makes passes its own check, and no two are alike."""
    made = {new_id("user") for _ in range(100)}
    assert len(made) == 100
    for value in made:
        UserContext(value, value, value)


def test_the_caller_cannot_change_a_context_afterwards() -> None:
    """What a caller keeps of the metadata is not what the context holds."""
    kept = {"list": [1, {"deep": [2]}], "set": {3}}
    context = UserContext("u1", "t1", "r1", metadata=kept)
    kept["list"].append(4)  # type: ignore[attr-defined]
    kept["list"][1]["deep"].append(5)  # type: ignore[index]
    kept["set"].add(6)  # type: ignore[attr-defined]
    kept["new"] = 7
    assert context.metadata == {"list": (1, {"deep": (2,)}), "set": frozenset({3})}


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_context_is_immutable_at_every_depth(metadata: dict[str, object]) -> None:
    """No mapping or sequence inside a context can be written to, and a child shares none."""
    context = UserContext("u1", "t1", "r1", metadata=metadata)

    def walk(value: object) -> None:
        assert not isinstance(value, dict | list | set)
        if hasattr(value, "items"):
            with pytest.raises(TypeError):
                value["x"] = 1  # type: ignore[index]
            for item in value.values():
                walk(item)
        elif isinstance(value, tuple):
            for item in value:
                walk(item)

    walk(context.metadata)
    with pytest.raises(AttributeError):
        context.user_id = "u2"  # type: ignore[misc]
    child = context.child(extra=1)
    assert "extra" in child.metadata
    assert context.metadata.get("extra") == metadata.get("extra")


def test_children_have_a_depth_limit() -> None:
    """A run that makes contexts without end is stopped, with the limit in the message."""
    context = someone()
    for _ in range(MAX_DEPTH):
        context = context.child()
    assert context.depth == MAX_DEPTH
    with pytest.raises(LimitExceeded, match=str(MAX_DEPTH)):
        context.child()


def test_a_context_of_another_user_is_refused() -> None:
    """A context stands for its own user and for nobody else; the message names both."""
    alice, bob = someone("alice"), someone("bob")
    alice.require_user(alice.user_id)
    with pytest.raises(PermissionDenied) as refused:
        alice.require_user(bob.user_id)
    assert alice.user_id in str(refused.value)
    assert bob.user_id in str(refused.value)


# Events


@given(st.integers(0, 2**32))
def test_any_walk_of_the_grammar_ends_in_one_terminal(seed: int) -> None:
    """Whatever a run does, it begins with agent_started and has at most one last event."""
    randomness = random.Random(seed)
    walk: list[str] = []
    last = None
    while allowed := [e for e in event_types() if follows(last, e)]:
        last = randomness.choice(allowed)
        walk.append(last)
        assert len(walk) < 1000
    assert walk[0] == "agent_started"
    assert walk.count("agent_started") == 1
    assert [e for e in walk if e in TERMINAL] == walk[-1:]
    for here, after in zip(walk, [*walk[1:], ""], strict=True):
        if here == "tool_executing":
            assert after in {"tool_completed", "agent_failed", "agent_cancelled"}
        if after == "tool_completed":
            assert here == "tool_executing"


def test_nothing_follows_a_terminal_and_a_run_may_end_anywhere() -> None:
    """Each terminal is final, and failing or being cancelled is possible at every point."""
    for event_type in event_types():
        if event_type in TERMINAL:
            assert not any(follows(event_type, after) for after in event_types())
        else:
            assert follows(event_type, "agent_failed")
            assert follows(event_type, "agent_cancelled")


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_an_event_survives_its_encoding(text: str, data: dict[str, object]) -> None:
    """Decoding what was encoded gives the same event."""
    made = msgspec.structs.replace(event(USER, 1), payload=Payload(text=text, data=data))
    assert decode_event(encode_event(made)) == made


USER = UserContext("u1", "t1", "r1")


@pytest.mark.parametrize(
    "value",
    [object(), "\ud800", print],
    ids=["object", "lone surrogate", "function"],
)
def test_a_payload_without_json_is_refused_at_the_emitter(value: object) -> None:
    """What JSON cannot carry is an error where it is emitted, naming event and run."""
    with pytest.raises(NotSerializable, match="agent_thinking of run r1"):
        encode_event(event(USER, 1, value=value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(value: float) -> None:
    """NaN and infinity do not arrive as null: the emitter is told."""
    with pytest.raises(NotSerializable, match="run r1"):
        encode_event(event(USER, 1, value=value))


def test_a_payload_that_contains_itself_is_refused() -> None:
    """A cycle is an error, not an endless recursion."""
    data: dict[str, object] = {}
    data["self"] = data
    with pytest.raises(NotSerializable):
        encode_event(event(USER, 1, data=data))


@pytest.mark.parametrize("shape", ["same", "other"])
def test_another_version_of_an_event_is_refused_with_both_numbers(shape: str) -> None:
    """A reader of another version says which one it speaks and which one came."""
    body = (
        encode_event(msgspec.structs.replace(event(USER, 1), v=EVENT_VERSION + 6))
        if shape == "same"
        else b'{"v":7,"what":"else"}'
    )
    with pytest.raises(VersionMismatch) as refused:
        decode_event(body)
    assert (refused.value.ours, refused.value.theirs) == (EVENT_VERSION, 7)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'{"v":1}', b'{"id":"\xff"}']
)
def test_what_is_no_event_is_a_protocol_error(body: bytes) -> None:
    """Malformed bytes never raise anything but the platform's own error."""
    with pytest.raises(ProtocolError):
        decode_event(body)


@given(st.binary(max_size=200))
def test_decoding_noise_raises_only_our_errors(body: bytes) -> None:
    """Whatever the bytes are, a decoder ends in an event or in an error of the platform."""
    for decode in (decode_event, decode_command):
        try:
            decode(body)
        except (ProtocolError, VersionMismatch):
            pass


# Positions


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_position_is_read_as_it_is_written(epoch: int, seq: int) -> None:
    """Parsing the text of a position gives it back."""
    assert Position.parse(str(Position(epoch, seq))) == Position(epoch, seq)


@given(*[st.integers(0, 5)] * 4)
def test_positions_are_ordered_by_epoch_then_sequence(a: int, b: int, c: int, d: int) -> None:
    """A later epoch is later whatever its sequence, and only the next of one epoch is preceded."""
    one, two = Position(a, b), Position(c, d)
    assert (one < two) == (a < c or (a == c and b < d))
    assert one.precedes(two) == (a == c and d == b + 1)


@pytest.mark.parametrize(
    "text",
    ["", "1", "-1", "1-", "-", "a-b", "1-2-3", "1.0-2", " 1-2", "1--2", "+1-2", "1_0-2", "²-1"],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    """A position is two whole numbers and a dash, and nothing else."""
    with pytest.raises(ProtocolError, match="position"):
        Position.parse(text)


@pytest.mark.parametrize("text", ["9" * 5000 + "-1", "1-" + "9" * 5000, f"{2**64}-1", f"1-{2**64}"])
def test_a_position_beyond_the_log_is_refused(text: str) -> None:
    """Numbers that the log cannot hold (64 bits) are refused like any other malformed position."""
    with pytest.raises(ProtocolError, match="position"):
        Position.parse(text)


# Commands

COMMAND = RunCommand(
    message_id="m1", user_id="u1", thread_id="t1", run_id="r1", agent="a", text="hello"
)


def test_a_command_survives_its_encoding() -> None:
    """Decoding what was encoded gives the same command."""
    assert decode_command(encode_command(COMMAND)) == COMMAND


@pytest.mark.parametrize(
    "body",
    [encode_command(msgspec.structs.replace(COMMAND, v=2)), b'{"v":2,"what":"else"}'],
    ids=["same shape", "other shape"],
)
def test_another_version_of_a_command_is_refused_with_both_numbers(body: bytes) -> None:
    """A worker of another version says so, also when the command has another shape."""
    with pytest.raises(VersionMismatch) as refused:
        decode_command(body)
    assert (refused.value.ours, refused.value.theirs) == (1, 2)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"message_id":1}'])
def test_what_is_no_command_is_a_protocol_error(body: bytes) -> None:
    """Malformed commands are refused by the platform's own error."""
    with pytest.raises(ProtocolError):
        decode_command(body)


# Health


def test_merged_health_is_as_bad_as_its_worst_part_and_gives_the_reasons() -> None:
    """Nothing healthy hides something that is down."""
    parts = [
        Health(name="a", status="ok", latency=0.1),
        Health(name="b", status="degraded", reason="slow"),
        Health(name="c", status="down", reason="refused"),
    ]
    found = merge("all", parts)
    assert (found.status, found.parts) == ("down", tuple(parts))
    assert "b: slow" in found.reason
    assert "c: refused" in found.reason
    assert merge("none", []).status == "ok"


# Trying again


async def test_retry_counts_its_attempts_and_returns_the_first_success() -> None:
    """A transient error is tried again; the call is told the number of the attempt."""
    seen: list[int] = []

    async def call(number: int) -> str:
        seen.append(number)
        if number < 3:
            raise OSError("not yet")
        return "done"

    assert await retry(call, what="it", deadline=5, on=lambda e: isinstance(e, OSError)) == "done"
    assert seen == [1, 2, 3]


async def test_retry_raises_any_other_error_at_once() -> None:
    """An error that will not pass is not tried again."""
    seen: list[int] = []

    async def call(number: int) -> None:
        seen.append(number)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await retry(call, what="it", deadline=5, on=lambda e: isinstance(e, OSError))
    assert seen == [1]


async def test_retry_ends_at_the_deadline_with_the_last_error() -> None:
    """Past the deadline the error names what, how long and why, and chains the cause."""

    async def call(_: int) -> None:
        raise OSError("refused")

    begin = time.monotonic()
    with pytest.raises(Unavailable, match=r"Redis.*0\.1 s.*OSError: refused") as ended:
        await retry(call, what="Redis", deadline=0.1, on=lambda _: True)
    assert time.monotonic() - begin < 1
    assert isinstance(ended.value.__cause__, OSError)


async def test_the_deadline_also_ends_a_call_that_hangs() -> None:
    """A server that takes the call and says nothing costs no more than the deadline."""
    cancelled = asyncio.Event()

    async def call(_: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    with pytest.raises(Unavailable, match="it is unavailable"):
        await retry(call, what="it", deadline=0.05, on=lambda _: True)
    assert cancelled.is_set()


async def test_a_timeout_of_the_call_itself_is_judged_like_any_error() -> None:
    """A TimeoutError that the call raises is its own, not the deadline's."""

    async def call(_: int) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await retry(call, what="it", deadline=5, on=lambda _: False)


async def test_cancelling_ends_a_retry_at_once() -> None:
    """A cancelled task does not go on waiting for a server."""
    began = asyncio.Event()

    async def call(_: int) -> None:
        began.set()
        raise OSError

    task = asyncio.create_task(retry(call, what="it", deadline=60, on=lambda _: True))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)


def test_an_agent_event_says_its_version() -> None:
    """Every event carries the version that readers check."""
    assert msgspec.json.decode(encode_event(event(USER, 1)))["v"] == EVENT_VERSION
    assert AgentEvent.__struct_fields__[0] == "id"


@pytest.mark.parametrize(
    "value", [{"a": "\ud800"}, {"a": "\0"}, {"a": float("nan")}, {"a": {1, 2}}, {"a": object()}]
)
def test_what_postgresql_cannot_hold_as_json_is_refused(value: object) -> None:
    """A result that could not be recorded is told where it was made."""
    with pytest.raises(NotSerializable, match="the result"):
        check_json(value, "the result")


def test_text_that_only_looks_like_an_escape_is_json() -> None:
    """A backslash and the letters behind it are text like any other."""
    check_json({"a": "\\u0000", "b": ["é", 1.5, None]}, "the result")
