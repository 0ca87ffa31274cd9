"""Counting the frames of a WebSocket as its bytes go by; pure, whatever the pieces they come in."""

from __future__ import annotations

__all__ = ["FrameCounter"]

_LONGEST_HEAD = 65_536
_END_OF_HEAD = b"\r\n\r\n"


class FrameCounter:
    """One direction of one connection: an HTTP head, and behind an upgrade the frames (RFC 6455).

    ``frames`` counts data and control frames whose first byte has come. A head that does not
    upgrade to WebSocket, or has no end within 64 KiB, ends the counting at what it was.
    """

    __slots__ = ("_head", "_need", "_skip", "frames")

    def __init__(self) -> None:
        self.frames = 0
        # The bytes of what is being read: the HTTP head, later the head of a frame.
        self._head: bytearray | None = bytearray()
        # How many bytes of a frame's head are needed; 0 while the HTTP head is being read.
        self._need = 0
        # How many bytes of a payload are still to come.
        self._skip = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of this direction."""
        if self._head is None:
            return
        at = 0
        if self._need == 0:
            at = self._upgrade(data)
            if self._need == 0:
                return
        head, end = self._head, len(data)
        while at < end:
            if self._skip:
                passed = min(self._skip, end - at)
                self._skip -= passed
                at += passed
                continue
            if not head:
                self.frames += 1
            taken = data[at : at + self._need - len(head)]
            head += taken
            at += len(taken)
            if len(head) < self._need:
                return
            self._need = _head_size(head)
            if len(head) == self._need:
                self._skip = _payload_size(head)
                head.clear()
                self._need = 2

    def _upgrade(self, data: bytes | bytearray | memoryview) -> int:
        """Read on in the HTTP head; returns where in ``data`` the frames begin."""
        head = self._head
        assert head is not None
        before = len(head)
        head += data
        found = head.find(_END_OF_HEAD, max(before - len(_END_OF_HEAD) + 1, 0))
        if found < 0:
            if len(head) > _LONGEST_HEAD:
                self._head = None
            return len(data)
        lines = bytes(head[:found]).split(b"\r\n")
        refused = lines[0].startswith(b"HTTP/") and b" 101 " not in lines[0] + b" "
        if refused or not any(_asks_for_websocket(line) for line in lines[1:]):
            self._head = None
            return len(data)
        head.clear()
        self._need = 2
        return found + len(_END_OF_HEAD) - before


def _asks_for_websocket(line: bytes) -> bool:
    name, _, value = line.partition(b":")
    return name.strip().lower() == b"upgrade" and value.strip().lower() == b"websocket"


def _head_size(head: bytearray) -> int:
    """The length of a frame's head, of which the first two bytes are there."""
    length = head[1] & 0x7F
    return 2 + {126: 2, 127: 8}.get(length, 0) + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytearray) -> int:
    length = head[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(head[2 : 4 if length == 126 else 10], "big")
