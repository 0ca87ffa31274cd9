"""Reading versioned JSON: what a process of another version wrote is refused by its number."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ssot.errors import ProtocolError, VersionMismatch

__all__ = ["read_json", "read_versioned"]

T = TypeVar("T")


class _Versioned(msgspec.Struct):
    v: int | None = None


_version = msgspec.json.Decoder(_Versioned)


def read_json(decoder: msgspec.json.Decoder[T], body: bytes | str, *, what: str) -> T:
    """The decoded value; :class:`ProtocolError` for whatever ``decoder`` does not take."""
    try:
        return decoder.decode(body)
    # Bytes that are no UTF-8, surrogates in a string, and nesting without end are not DecodeErrors.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not {what}: {error}") from None


def read_versioned(
    decoder: msgspec.json.Decoder[T], body: bytes, *, version: int, what: str, advice: str
) -> T:
    """The decoded value, if its field ``v`` is ``version``.

    Raises :class:`VersionMismatch` with both numbers, whatever shape the other version has, and
    :class:`ProtocolError` for what is malformed.
    """
    found = read_json(_version, body, what=what).v
    if found is not None and found != version:
        raise VersionMismatch(what, ours=version, theirs=found, advice=advice)
    return read_json(decoder, body, what=what)
