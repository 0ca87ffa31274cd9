"""Files of variables: what they say, all that is wrong in them, and never a value in a problem."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.environment.files import Contents, read_env_file, read_secrets

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
QUOTED: dict[str, Callable[[str], str]] = {
    "'": lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'",
    '"': lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"',
}


@pytest.fixture
def env(tmp_path: Path) -> Callable[[str | bytes], Contents]:
    """Reads a file of this content."""

    def read(content: str | bytes) -> Contents:
        path = tmp_path / ".env"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_env_file(path)

    return read


def values(contents: Contents) -> dict[str, str]:
    assert contents.problems == ()
    return {entry.name: entry.value for entry in contents.entries}


# .env files


def test_what_a_file_says(env: Callable[[str], Contents]) -> None:
    """Comments, `export`, quotes and empty values, each with its line; nothing is expanded."""
    contents = env("# a comment\n\nexport A=1 # one\nB='${A}'\nC=\"x\\ty\n${A}\"\nD=\nE=${A}#2\n")
    assert values(contents) == {"A": "1", "B": "${A}", "C": "x\ty\n${A}", "D": "", "E": "${A}#2"}
    assert [(e.line, e.literal) for e in contents.entries] == [
        (3, False), (4, True), (5, False), (7, False), (8, False),
    ]  # fmt: skip


def test_a_mark_at_the_start_and_windows_newlines(env: Callable[[str], Contents]) -> None:
    """A file from another system is as good, and its lines are counted as an editor does."""
    contents = env("\ufeffA=1\r\n\r\nB='x'\r\n")
    assert values(contents) == {"A": "1", "B": "x"}
    assert [entry.line for entry in contents.entries] == [1, 3]


@given(st.dictionaries(NAMES, st.tuples(TEXT, st.sampled_from(sorted(QUOTED)))))
def test_what_was_written_is_read(tmp_path: Path, written: dict[str, tuple[str, str]]) -> None:
    """Any text comes back as it was, in either quotes; and only single ones make it literal."""
    path = tmp_path / ".env"
    lines = [f"{name}={QUOTED[quote](text)}\n" for name, (text, quote) in written.items()]
    path.write_bytes("".join(lines).encode())
    contents = read_env_file(path)
    assert values(contents) == {name: text for name, (text, _) in written.items()}
    assert {e.name: e.literal for e in contents.entries} == {
        name: quote == "'" for name, (_, quote) in written.items()
    }


@given(st.binary(max_size=200) | st.text(st.sampled_from("AB='\"\\ \r\n#$\t\0é")).map(str.encode))
def test_reading_never_raises(tmp_path: Path, content: bytes) -> None:
    """Whatever a file holds: entries with legal names on ascending lines, or problems."""
    path = tmp_path / "FILE"
    path.write_bytes(content)
    contents = read_env_file(path)
    lines = [entry.line or 0 for entry in contents.entries]
    assert lines == sorted(set(lines))
    assert all(str(path) in problem and "\n" not in problem for problem in contents.problems)
    assert read_env_file(path) == contents
    secrets = read_secrets(tmp_path)
    assert len(secrets.entries) + len(secrets.problems) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("A=1\n\n=2\n", "line 3: is no assignment; write NAME=value"),
        ("A=1\r\n\r\nA\r\n", "line 3: no = follows the name; write NAME=value"),
        ("1A=2\n", "line 1: the name before = is not legal; use letters"),
        ("Ä=2\n", "line 1: the name before = is not legal; use letters"),
        ("A=1\nB=2\nA=3\n", "line 3: A is set on line 1 already; keep one"),
        ("\nA='b\nc\n", "line 2: the quote ' is never closed; close it"),
        ('A="b\nB=1\nC="d"\n', 'line 1: the quote " is closed on line 3, and more follows there'),
        (b"A=1\nB=\xc3\xa9\xff\n", "line 2: byte 8 of the file is not UTF-8; save it"),
        (b"\xef\xbb\xbfA=\xff\n", "line 1: byte 5 of the file is not UTF-8; save it"),
        (b"A=1\nB=a\0b\n", "line 2: byte 7 of the file is NUL; remove it"),
        ("A=1\n".encode("utf-16"), "line 1: byte 0 begins UTF-16; save the file as UTF-8"),
        ("A=a" + 1001 * " " + "b", "line 1: more than 1000 spaces follow each other; remove"),
    ],
)
def test_what_is_refused(
    env: Callable[[str | bytes], Contents], tmp_path: Path, content: str | bytes, problem: str
) -> None:
    """Each mistake says the file, the line, what is wrong and what to do."""
    (told,) = env(content).problems
    assert told.startswith(f"{tmp_path / '.env'}, {problem}")


def test_every_problem_of_a_file_at_once(env: Callable[[bytes], Contents]) -> None:
    """One reading is enough to correct a file; they stand in the order of the lines."""
    contents = env(b"A=1\r\n!=1\r\nA=2\r\nB=\xff\r\nC\r\n=\r\nD='x'y\r\nE='\r\n")
    lines = [problem.split(", line ")[1].split(":")[0] for problem in contents.problems]
    assert lines == ["2", "3", "4", "5", "6", "7", "8"]
    assert [entry.name for entry in contents.entries] == ["A"]


@pytest.mark.parametrize(
    "content",
    [
        "s3cret", "s3cret=='", "s3-cret=s3cret", "A=s3cret\nA=s3cret", "A='s3cret", "A='s3cret' s3cret",
        "A=\"s3cret\ns3cret\nA+s3cret=s3cret", "A=s3cret\0", "A=-----BEGIN\ns3cret/+==\ns3cret\n", "'s3cret",
        "A=s3cret" + 1001 * " " + "s3cret", "export s3cret", "=s3cret",
    ],
)  # fmt: skip
def test_no_problem_shows_a_value(env: Callable[[str], Contents], content: str) -> None:
    """Also a line that may be one of a value which lost its quotes is not shown."""
    contents = env(content)
    assert contents.problems or "==" in content
    assert "s3cret" not in "".join(contents.problems) + repr(
        [e for e in contents.entries if e.name == "A"]
    )


def test_the_representation_of_an_entry_hides_its_value(env: Callable[[str], Contents]) -> None:
    """An entry that gets into a log or a traceback tells its name and place alone."""
    shown = repr(env("A=s3cret-value").entries)
    assert "name='A'" in shown
    assert "line=1" in shown
    assert "s3cret" not in shown


def test_what_stands_in_the_place_of_a_file(tmp_path: Path) -> None:
    """Nothing, a folder, a FIFO that nobody writes, and a device: told at once, never waited for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "loop").symlink_to("loop")
    told = {
        name: " ".join(read_env_file(path).problems)
        for name, path in {
            "nothing": tmp_path / "nothing",
            "folder": tmp_path,
            "fifo": fifo,
            "device": Path("/dev/zero"),
            "loop": tmp_path / "loop",
            "below a file": Path(__file__) / "x",
            "illegal": tmp_path / "a\0b",
        }.items()
    }
    assert told == {
        "nothing": f"{tmp_path}/nothing: there is no such file; make it, or do not name it",
        "folder": f"{tmp_path}: is a folder, not a file; put a regular file there",
        "fifo": f"{fifo}: is a FIFO, not a file; put a regular file there",
        "device": "/dev/zero: is a device, not a file; put a regular file there",
        "loop": f"{tmp_path}/loop: cannot be read (Too many levels of symbolic links); "
        "make it a file that this process may read",
        "below a file": f"{__file__}/x: cannot be read (Not a directory); "
        "make it a file that this process may read",
        "illegal": f"{tmp_path}/a\\x00b: cannot be read (the path is not legal); "
        "make it a file that this process may read",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """The system's reason is in the sentence."""
    path = tmp_path / ".env"
    path.touch(mode=0o000)
    (told,) = read_env_file(path).problems
    assert told.startswith(f"{path}: cannot be read (Permission denied)")


def test_the_largest_file(tmp_path: Path) -> None:
    """1 MiB is read, one byte more is not; nor is a file whose size alone says more."""
    path = tmp_path / ".env"
    content = b"A=" + b"x" * (1024 * 1024 - 2)
    path.write_bytes(content)
    assert read_env_file(path).problems == ()
    path.write_bytes(content + b"x")
    (told,) = read_env_file(path).problems
    assert told == f"{path}: holds more than 1024 KiB; is it the file that you mean?"
    os.truncate(path, 2**40)
    assert read_env_file(path).problems == (told,)


# Folders of secret files


def test_secret_files(tmp_path: Path) -> None:
    """The file's name is the variable's; one newline at the end is no part of the value."""
    for name, content in {
        "A": b"a",
        "B": b"b\n\n",
        "C": b"c\r\n",
        "D": b"",
        "E": b"\xef\xbb\xbf$x\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "sub-folder").mkdir()
    contents = read_secrets(tmp_path)
    assert values(contents) == {"A": "a", "B": "b\n", "C": "c", "D": "", "E": "$x"}
    assert {(e.path, e.line, e.literal) for e in contents.entries} == {
        (tmp_path / name, None, True) for name in "ABCDE"
    }
    assert "$x" not in repr(contents)


@given(st.dictionaries(NAMES, TEXT.filter(lambda text: not text.startswith("\ufeff"))))
def test_secrets_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, written: dict[str, str]
) -> None:
    """Any text with a newline after it."""
    folder = tmp_path_factory.mktemp("secrets")
    for name, text in written.items():
        (folder / name).write_bytes(f"{text}\n".encode())
    assert values(read_secrets(folder)) == written


def test_the_problems_of_a_folder_at_once(tmp_path: Path) -> None:
    """Each file that cannot be used is told, by name; the others are read."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (tmp_path / "outside").write_text("s3cret-outside")
    (folder / "GOOD").write_text("s3cret-good")
    (folder / "bad-name").write_text("s3cret")
    (folder / "BAD_TEXT").write_bytes(b"s3cret\n\xff")
    (folder / "LARGE").write_bytes(b"s" * (64 * 1024 + 1))
    (folder / "LEADS_OUT").symlink_to(tmp_path / "outside")
    (folder / "LEADS_UP").symlink_to("../outside")
    (folder / "DANGLING").symlink_to("nowhere")
    (folder / "LOOP").symlink_to("LOOP")
    os.mkfifo(folder / "PIPE")
    contents = read_secrets(folder)
    assert [entry.name for entry in contents.entries] == ["GOOD"]
    assert {p.removeprefix(f"{folder}/").split(";")[0] for p in contents.problems} == {
        "bad-name: the name is not legal",
        "BAD_TEXT: on line 2, byte 7 of the file is not UTF-8",
        "LARGE: holds more than 64 KiB",
        "LEADS_OUT: is a link that leads out of the folder",
        "LEADS_UP: is a link that leads out of the folder",
        "DANGLING: is a link to nothing",
        "LOOP: cannot be read (Too many levels of symbolic links)",
        "PIPE: is a FIFO, not a file",
    }
    assert "s3cret" not in "".join(contents.problems)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """Missing, or a file: one problem."""
    (tmp_path / "file").touch()
    assert read_secrets(tmp_path / "none").problems == (
        f"{tmp_path}/none: there is no such folder; make it, or do not name it",
    )
    assert read_secrets(tmp_path / "file").problems == (
        f"{tmp_path}/file: is no folder; name the folder that holds the files",
    )


def mount(folder: Path, generation: int) -> None:
    """Show another generation of secrets in the way of Kubernetes: all of them by one link."""
    data = folder / f"..{generation}"
    data.mkdir(parents=True)
    for name in ("A", "B"):
        (data / name).write_text(str(generation))
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(data.name)
    os.replace(folder / "..new", folder / "..data")


def test_secrets_that_are_exchanged_meanwhile_belong_together(tmp_path: Path) -> None:
    """While the link changes all the time, what is read is of one generation, or it is told."""
    folder = tmp_path / "secrets"
    mount(folder, 0)
    done = threading.Event()

    def exchange() -> None:
        for generation in range(1, 400):
            mount(folder, generation)
        done.set()

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = []
    while not done.is_set():
        seen.append(read_secrets(folder))
    thread.join()
    assert values(read_secrets(folder)) == {"A": "399", "B": "399"}
    for contents in seen:
        if contents.problems:
            assert contents.problems == (f"{folder}: was exchanged while it was read; try again",)
        else:
            assert len(set(values(contents).values())) == 1


def test_a_link_that_changes_its_mind_leads_nowhere_else(tmp_path: Path) -> None:
    """What lies outside is never read, however often a link is exchanged meanwhile."""
    folder = tmp_path / "secrets"
    (folder / ".in").mkdir(parents=True)
    (folder / ".in/A").write_text("inside")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/A").write_text("outside")
    (folder / "A").symlink_to(".way/A")
    (folder / ".way").symlink_to(".in")
    done = threading.Event()

    def exchange() -> None:
        for turn in range(600):
            (folder / ".new").symlink_to("../out" if turn % 2 else ".in")
            os.replace(folder / ".new", folder / ".way")
        done.set()

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = set()
    while not done.is_set():
        seen |= {entry.value for entry in read_secrets(folder).entries}
    thread.join()
    assert seen <= {"inside"}
