"""Reading ``.env`` files and folders of secret files: what they say, and all that is wrong in them.

Nothing here raises because of what a file holds or what stands in its place: it is told as a
problem, a sentence without any value. What was checked is what is read, by one descriptor.
"""

from __future__ import annotations

import io
import os
import re
import stat
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

from ssot.environment.redaction import printable

__all__ = ["Contents", "Entry", "absence", "read_env_file", "read_secrets"]

_LARGEST_FILE = 1024 * 1024
_LARGEST_SECRET = 64 * 1024
# In one report of a file.
_MOST_PROBLEMS = 100
# python-dotenv looks for a comment with `\s+#`, which takes the square of this in time.
_MOST_SPACES = 1000
# How often a folder is read again that was exchanged meanwhile.
_ATTEMPTS = 3

_LEGAL = "use letters, digits and _, and no digit first"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_SPACES = re.compile(r"[^\S\r\n]+")
_UNREADABLE = re.compile(r"[\0\udc80-\udcff]")
_ASSIGNMENT = re.compile(
    r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*=[^\S\r\n]*(?P<quote>['\"]?)"
)
_QUOTED = {
    "'": re.compile(r"'(?:\\.|[^'\\])*'", re.DOTALL),
    '"': re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL),
}
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """One variable as a file sets it; the representation never shows its value.

    ``line`` counts from 1, and is None for a secret file. A ``literal`` value is never expanded:
    it was in single quotes, or is the content of a secret file.
    """

    name: str
    value: str = field(repr=False)
    path: Path
    line: int | None
    literal: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """What could be read, in the order of the file or by name, and every problem on the way.

    Whoever finds problems uses none of the entries: they are there to check those as well. When
    it is ``unread``, there are none, and its one problem is why.
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]
    unread: bool = False


def _unread(shown: str, why: object) -> Contents:
    return Contents((), (f"{shown}: {why}",), unread=True)


class _Unusable(Exception):
    """Why a file was not read, and what to do; without its path."""


def read_env_file(path: Path) -> Contents:
    """The variables of a ``.env`` file, in the syntax of python-dotenv and with nothing expanded.

    At most 1 MiB of a regular file in UTF-8 is read; a byte order mark, CRLF and ``export`` are
    fine, and an empty value is a value. A name is legal as in a shell, and set once in a file.
    """
    shown = _shown(path)
    try:
        raw = _read(path, limit=_LARGEST_FILE)
    except _Unusable as reason:
        return _unread(shown, reason)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _unread(f"{shown}, line 1", "byte 0 begins UTF-16; save the file as UTF-8")
    text = raw.decode("utf-8", "surrogateescape")
    problems = _unreadable(text)
    marks = len(text) - len(text.lstrip("\ufeff"))
    starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]
    if wide := next((m for m in _SPACES.finditer(text) if len(m[0]) > _MOST_SPACES), None):
        problems.append(
            (
                bisect_right(starts, wide.start()),
                f"more than {_MOST_SPACES} spaces follow each other; remove them",
            )
        )
        return Contents((), _sentences(shown, problems))
    entries: dict[str, Entry] = {}
    position = marks
    for binding in parse_stream(io.StringIO(text[marks:], newline="")):
        if len(problems) > _MOST_PROBLEMS:
            # A log, or a table: what else is wrong with it, nobody wants to know.
            break
        source = binding.original.string
        start = position + len(source) - len(source.lstrip())
        position += len(source)
        # Not the parser's own number: it counts CRLF after a mistake, and blank lines, its own way.
        line = bisect_right(starts, start)
        if binding.error:
            match = _ASSIGNMENT.match(text, start, position)
            if match is None or not match["quote"]:
                problems.append((line, "is no assignment; write NAME=value, or # before a comment"))
                continue
            quote = match["quote"]
            closing = _QUOTED[quote].match(text, match.start("quote"))
            if closing is None:
                advice = "close it, or put \\ before one inside"
                problems.append((line, f"the quote {quote} is never closed; {advice}"))
                # Whatever follows may belong to the value, so it is neither read nor told.
                break
            end = bisect_right(starts, closing.end() - 1)
            problems.append(
                (
                    line,
                    f"the quote {quote} is closed on line {end}, and more follows there; "
                    f"put \\ before each {quote} inside the value",
                )
            )
        elif binding.key is None or _UNREADABLE.search(source):
            continue
        # The text is not shown: a line without = may well be one of a secret that lost its quotes.
        elif binding.value is None:
            advice = "write NAME=value, or NAME= for an empty value"
            problems.append((line, f"no = follows the name; {advice}"))
        elif not _NAME.fullmatch(binding.key):
            problems.append((line, f"the name before = is not legal; {_LEGAL}"))
        elif first := entries.get(binding.key):
            problems.append((line, f"{first.name} is set on line {first.line} already; keep one"))
        else:
            match = _ASSIGNMENT.match(source)
            literal = match is not None and match["quote"] == "'"
            entries[binding.key] = Entry(binding.key, binding.value, path, line, literal=literal)
    return Contents(tuple(entries.values()), _sentences(shown, problems))


def read_secrets(folder: Path) -> Contents:
    """The variables of a folder of secret files: one file each, its name is the variable's.

    At most 64 KiB of each is read, and one newline at its end is no part of the value. Names that
    begin with a dot, and folders, are passed over. Links are followed as long as they stay inside
    of the folder; so the layout of Kubernetes works, and when its link ``..data`` is exchanged
    meanwhile, everything is read again: the values belong together.
    """
    shown = _shown(folder)
    try:
        root = os.open(folder, _FLAGS | os.O_DIRECTORY)
    except NotADirectoryError:
        return _unread(shown, "is no folder; name the folder that holds the files")
    except (OSError, ValueError) as error:
        return _unread(shown, _cannot(error, "folder", path=folder))
    try:
        for _ in range(_ATTEMPTS):
            before = _generation(root)
            contents = _read_folder(root, folder)
            if _generation(root) == before:
                return contents
        return _unread(shown, "was exchanged while it was read; try again")
    except OSError as error:
        return _unread(shown, _cannot(error, "folder"))
    finally:
        os.close(root)


def _read_folder(root: int, folder: Path) -> Contents:
    entries: list[Entry] = []
    problems: list[str] = []
    for name in sorted(os.listdir(root)):
        if name.startswith("."):
            continue
        path = folder / name
        try:
            raw = _read_inside(root, folder, name)
            if raw is None:
                continue
            if not _NAME.fullmatch(name):
                raise _Unusable(f"the name is not legal; {_LEGAL}")
            text = raw.decode("utf-8", "surrogateescape")
            if unreadable := _unreadable(text):
                line, wrong = unreadable[0]
                raise _Unusable(f"on line {line}, {wrong}")
        except _Unusable as reason:
            problems.append(f"{_shown(path)}: {reason}")
            continue
        ending = 2 if text.endswith("\r\n") else 1 if text.endswith("\n") else 0
        value = text[: len(text) - ending].removeprefix("\ufeff")
        entries.append(Entry(name, value, path, None, literal=True))
    return Contents(tuple(entries), tuple(problems))


def _read_inside(root: int, folder: Path, name: str) -> bytes | None:
    """The content of a file that is really inside of the folder; None for a folder.

    The path without links is walked from the folder's descriptor and no link is followed on the
    way: what is exchanged between the look and the reading cannot lead outside.
    """
    try:
        top = os.path.realpath(folder, strict=True)
        real = os.path.realpath(os.path.join(top, name), strict=True)
    except OSError as error:
        raise _Unusable(_cannot(error, "file", link=True)) from None
    if os.path.commonpath([top, real]) != top:
        raise _Unusable("is a link that leads out of the folder; put the file itself there")
    *parents, last = os.path.relpath(real, top).split(os.sep)
    opened: list[int] = []
    try:
        place = root
        for part in parents:
            place = os.open(part, _FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            opened.append(place)
        # Asked before it is opened: a folder that may not be searched is passed over like any.
        if stat.S_ISDIR(os.stat(last, dir_fd=place, follow_symlinks=False).st_mode):
            return None
        descriptor = os.open(last, _FLAGS | os.O_NOFOLLOW, dir_fd=place)
        opened.append(descriptor)
        return _take(descriptor, limit=_LARGEST_SECRET)
    except OSError as error:
        raise _Unusable(_cannot(error, "file")) from None
    finally:
        for descriptor in reversed(opened):
            os.close(descriptor)


def _read(path: Path, *, limit: int) -> bytes:
    try:
        # Without waiting: the opening of a FIFO would last until somebody writes into it.
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        raise _Unusable(_cannot(error, "file", path=path, link=os.path.islink(path))) from None
    try:
        return _take(descriptor, limit=limit)
    except OSError as error:
        raise _Unusable(_cannot(error, "file")) from None
    finally:
        os.close(descriptor)


def _take(descriptor: int, *, limit: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable(f"is {_kind(status.st_mode)}, not a file; put a regular file there")
    chunks = bytearray()
    # The size is asked for too, but a file may grow, and some tell none.
    while status.st_size <= limit and len(chunks) <= limit:
        chunk = os.read(descriptor, limit + 1 - len(chunks))
        if not chunk:
            return bytes(chunks)
        chunks += chunk
    raise _Unusable(f"holds more than {limit // 1024} KiB; is it the file that you mean?")


def _generation(root: int) -> str | None:
    """Which files Kubernetes shows now: it exchanges all of them at once by this link."""
    try:
        return os.readlink("..data", dir_fd=root)
    except OSError:
        return None


def _unreadable(text: str) -> list[tuple[int, str]]:
    """The first byte that is no text, of each line that has one: the line, and what is wrong."""
    found: list[tuple[int, str]] = []
    begin = offset = 0
    if not _UNREADABLE.search(text):
        return found
    for line, end in enumerate([*(m.end() for m in _NEWLINE.finditer(text)), len(text)], 1):
        content = text[begin:end]
        if match := _UNREADABLE.search(content):
            at = offset + len(content[: match.start()].encode("utf-8", "surrogateescape"))
            what = "is NUL; remove it" if match[0] == "\0" else "is not UTF-8; save it as UTF-8"
            found.append((line, f"byte {at} of the file {what}"))
            if len(found) > _MOST_PROBLEMS:
                break
        offset += len(content.encode("utf-8", "surrogateescape"))
        begin = end
    return found


def _sentences(shown: str, problems: list[tuple[int, str]]) -> tuple[str, ...]:
    ordered = sorted(problems, key=lambda problem: problem[0])
    told = tuple(f"{shown}, line {line}: {wrong}" for line, wrong in ordered[:_MOST_PROBLEMS])
    if len(ordered) <= _MOST_PROBLEMS:
        return told
    return (*told, f"{shown}: more lines are wrong; is it the file that you mean?")


def _cannot(
    error: OSError | ValueError, what: str, *, path: Path | None = None, link: bool = False
) -> str:
    if isinstance(error, FileNotFoundError):
        if link:
            return "is a link to nothing; correct it, or remove it"
        return absence(what, path)
    reason = error.strerror if isinstance(error, OSError) else "the path is not legal"
    return f"cannot be read ({reason}); make it a {what} that this process may read"


def absence(what: str, path: Path | None = None) -> str:
    """That there is no such file or folder, and what to do."""
    if path is not None and any(part.startswith("~") for part in path.parts):
        return f"there is no such {what}; ~ is a shell's, not expanded here: write the whole path"
    return f"there is no such {what}; make it, or do not name it"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _shown(path: Path) -> str:
    return printable(str(path))
