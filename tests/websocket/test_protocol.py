"""The pure part of the WebSocket Core: frames, the ring, the bridge over gaps, what is resumable."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.errors import ProtocolError
from ssot.events import Bounds, LogEntry, Position
from ssot.websocket.feed import Frame, Ring, bridge, resumable
from ssot.websocket.protocol import (
    Error,
    Event,
    GetRun,
    Reset,
    UserMessage,
    Welcome,
    decode_client,
    decode_server,
    encode,
    event_frame,
)


@pytest.mark.parametrize(
    "frame",
    [UserMessage("m1", "t1", "hello", "a"), GetRun("r1", "run-1")],
)
def test_a_clients_frame_survives_its_encoding(frame: UserMessage | GetRun) -> None:
    """Decoding what was encoded gives the same frame, from text and from bytes."""
    assert decode_client(encode(frame)) == frame
    assert decode_client(encode(frame).decode()) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Welcome(1, "c", "u", 5, 6, True),
        Reset(1, 2, "why"),
        Error("why", "m1", retry=True),
        Error("why"),
    ],
)
def test_a_nodes_frame_survives_its_encoding(frame: Welcome | Reset | Error) -> None:
    """Decoding what was encoded gives the same frame."""
    assert decode_server(encode(frame)) == frame


def test_an_event_frame_carries_the_body_unchanged() -> None:
    """The body of the log travels as it is, with its position."""
    frame = decode_server(event_frame(Position(3, 4), b'{"a": 1}'))
    assert isinstance(frame, Event)
    assert (frame.epoch, frame.seq, bytes(frame.event)) == (3, 4, b'{"a": 1}')


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ('{"type":"user_message","id":"1","thread_id":"t","agent":"a","content":"x"}', "content"),
        ('{"type":"user_message","id":"1","thread_id":"t","agent":"a"}', "text"),
        ('{"type":"user_message","id":"1","thread_id":"t","agent":"a","text":1}', "text"),
        ('{"type":"user_message","id":1,"thread_id":"t","agent":"a","text":"x"}', "id"),
        ('{"type":"shout","id":"1"}', "shout"),
        ('{"id":"1"}', "type"),
        ("hello", "ssot.v1"),
        ("", "ssot.v1"),
        ("[]", "ssot.v1"),
        (b"\xff\xfe", "ssot.v1"),
        (b'{"type":"get_run","id":"\xff","run_id":"r"}', "ssot.v1"),
        ('{"x":' + "[" * 30_000 + "]" * 30_000 + ',"type":"get_run","id":"1","run_id":"r"}', "ssot.v1"),
    ],
)  # fmt: skip
def test_a_wrong_frame_is_refused_naming_what_is_wrong(message: str | bytes, named: str) -> None:
    """A client that sends `content` where `text` is meant is told so, not ignored."""
    with pytest.raises(ProtocolError, match=named):
        decode_client(message)


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_noise_raises_nothing_but_protocol_errors(message: str | bytes) -> None:
    """Whatever a peer sends, decoding ends in a frame or a ProtocolError."""
    for decode in (decode_client, decode_server):
        try:
            decode(message)
        except ProtocolError:
            pass


@given(st.integers(1, 20), st.integers(0, 60))
def test_a_ring_keeps_the_newest_under_indices_that_never_repeat(size: int, count: int) -> None:
    """The ring holds the last `size` frames, each under the index that it was given."""
    ring = Ring(size)
    for number in range(count):
        ring.append(Frame(Position(1, number + 1), str(number).encode()))
    assert ring.end == count
    assert ring.start == max(count - size, 0)
    assert [ring[i].data for i in range(ring.start, ring.end)] == [
        str(i).encode() for i in range(ring.start, ring.end)
    ]


POSITIONS = st.builds(Position, st.integers(1, 3), st.integers(0, 6))


@given(POSITIONS, POSITIONS.filter(lambda p: p.seq > 0))
def test_a_bridge_says_reset_exactly_when_something_is_between(
    position: Position, entry: Position
) -> None:
    """The next event comes alone; after a gap or an epoch a reset stands before it."""
    frames = bridge(position, LogEntry(entry, b"{}"))
    kinds = [msgspec.json.decode(f.data)["type"] for f in frames]
    assert kinds == (["event"] if position.precedes(entry) else ["reset", "event"])
    assert frames[-1].position == entry
    if len(frames) == 2:
        assert frames[0].position.precedes(entry)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(0, 6),
)
def test_resumable_is_true_only_when_every_event_after_the_cursor_is_kept(
    counts: list[int], trimmed: int, epoch: int, seq: int
) -> None:
    """Against a model of the log: never true when an event is missing, always when all are there."""
    log = [Position(e, s) for e, count in enumerate(counts, 1) for s in range(1, count + 1)]
    kept = log[trimmed:]
    current = len(counts)
    bounds = Bounds(kept[0] if kept else None, Position(current, counts[-1]))
    cursor = Position(epoch, seq)
    existed = epoch == current and seq <= counts[-1]
    whole = [p for p in log if p > cursor] == [p for p in kept if p > cursor]
    assert resumable(cursor, bounds) == (existed and whole)
