"""Frames are counted as they are, however the stream is cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from ssot.lab.faults.frames import FrameCounter

REQUEST = (
    b"GET /events?after=1-2 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\r\n"

SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536])
FRAMES = st.lists(
    st.one_of(
        st.builds(
            Frame,
            opcode=st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
            data=st.one_of(SIZES, st.integers(0, 300)).map(bytes),
        ),
        st.builds(
            Frame,
            opcode=st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]),
            data=st.integers(0, 125).map(bytes),
        ),
    ),
    max_size=8,
)


def counted(stream: bytes, cuts: list[int]) -> int:
    """The count of a stream that comes in the pieces between these cuts."""
    counter = FrameCounter()
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    for begin, end in itertools.pairwise(places):
        counter.feed(stream[begin:end])
    return counter.frames


@given(
    frames=FRAMES,
    masked=st.booleans(),
    head=st.sampled_from([REQUEST, ANSWER]),
    cuts=st.lists(st.one_of(st.integers(0, 400), st.integers(0, 200_000)), max_size=30),
)
def test_any_pieces_give_the_same_count(
    frames: list[Frame], masked: bool, head: bytes, cuts: list[int]
) -> None:
    """Heads, lengths of all three forms, masks and payloads may be cut anywhere."""
    stream = head + b"".join(frame.serialize(mask=masked) for frame in frames)
    assert counted(stream, cuts) == len(frames)


def test_byte_by_byte() -> None:
    """The smallest pieces there are."""
    frames = [Frame(Opcode.TEXT, bytes(size)) for size in (0, 1, 125, 126, 300)]
    stream = REQUEST + b"".join(frame.serialize(mask=True) for frame in frames)
    assert counted(stream, list(range(len(stream)))) == len(frames)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 101 \r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_no_websocket_has_no_frames(head: bytes) -> None:
    """Whatever follows a head without an upgrade is not looked at."""
    assert counted(head + b"\x81\x01x" * 10, [3, 20, 40]) == 0


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10))
def test_any_bytes_are_survived(noise: bytes, cuts: list[int]) -> None:
    """What is neither HTTP nor WebSocket raises nothing, and any pieces give the same count."""
    for stream in (noise, REQUEST + noise):
        assert counted(stream, cuts) == counted(stream, [])


def test_a_head_without_an_end_is_given_up() -> None:
    """It is not kept in memory for as long as it goes on."""
    counter = FrameCounter()
    for _ in range(20):
        counter.feed(b"x" * 10_000)
    counter.feed(b"\r\nUpgrade: websocket\r\n\r\n\x81\x00")
    assert counter.frames == 0
