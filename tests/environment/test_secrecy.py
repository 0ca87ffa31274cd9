"""No secret in any output: whatever makes it one, whatever shows it, and however it is encoded."""

from __future__ import annotations

import base64
import json
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ssot.configuration import UnifiedConfiguration, environment_options
from ssot.configuration.inspection import check, explain
from ssot.environment import (
    MASK,
    Change,
    IsolatedEnvironment,
    RedactingFilter,
    Redactor,
    is_secret_name,
    mask_url,
)
from ssot.environment.redaction import mask_value, passwords_of
from ssot.environment.weakness import weakness
from ssot.errors import SettingsError

# Letters that are in no message and no path, and what means something to files, URLs and JSON.
LETTERS = st.text(st.sampled_from("QXZJ0987é"), min_size=8, max_size=12)
AWKWARD = st.text(st.sampled_from('QXZJ0987/?#@:%&+=é"\\ ~'), min_size=4, max_size=12)
# The middle is awkward; none is weak, and none looks like a URL.
SECRETS = (
    st.tuples(LETTERS, AWKWARD, LETTERS)
    .map(lambda parts: f"QXZ{''.join(parts)}J0")
    .filter(lambda secret: "://" not in secret and weakness(secret) is None)
)


def encoded(secret: str) -> set[str]:
    """The forms in which it must not be anywhere."""
    raw = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        raw,
        raw.replace("+", "-").replace("/", "_"),
    }


def pieces(secret: str) -> set[str]:
    """Any six characters of it in a row are too much."""
    return {secret[at : at + 6] for at in range(len(secret) - 5)}


def scene(folder: Path, secret: str, how: str) -> tuple[dict[str, str], str]:
    """A process whose environment holds the secret in one of the ways; and the name that has it."""
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    file = folder / ".env"
    file.write_text("")
    process = {"SSOT_ENV_DIRECTORY": str(folder), "SSOT_SECRETS_DIRECTORY": str(secrets)}
    literal = "'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'"
    match how:
        case "name":
            return {**process, "API_TOKEN": secret}, "API_TOKEN"
        case "name in a file":
            file.write_text(f"API_TOKEN={literal}\n", encoding="utf-8")
            return process, "API_TOKEN"
        case "type":
            return {**process, "SSOT_DATABASE_URL": secret}, "SSOT_DATABASE_URL"
        case "own name":
            return {**process, "AUTH_DATABASE_URL": f"mysql://r:{secret}@h/d"}, "AUTH_DATABASE_URL"
        case "URL":
            return {**process, "OTHER_PLACE": f"https://user:{secret}@host/x"}, "OTHER_PLACE"
        case "query":
            return {
                **process,
                "OTHER_PLACE": f"https://host/x?token={quote(secret, safe='')}",
            }, "OTHER_PLACE"
        case "secret file":
            (secrets / "GREETING").write_text(secret, encoding="utf-8")
            return process, "GREETING"
        case "beaten":
            file.write_text(f"API_TOKEN={literal}\n", encoding="utf-8")
            return {**process, "API_TOKEN": "another-one"}, "API_TOKEN"
        case "expansion":
            file.write_text("CARD=to ${API_TOKEN}\nGREETING=x ${CARD:-} y\n", encoding="utf-8")
            return {**process, "API_TOKEN": secret}, "GREETING"
    raise AssertionError(how)


HOW = [
    "name", "name in a file", "type", "own name", "URL", "query", "secret file", "beaten", "expansion",
]  # fmt: skip


@settings(phases=set(Phase) - {Phase.explain, Phase.shrink})
@given(SECRETS, st.sampled_from(HOW))
def test_nothing_shows_a_secret(secret: str, how: str) -> None:
    """Neither text nor repr of anything, nor the explanations, errors, changes and both commands."""
    with TemporaryDirectory(prefix="ssot-") as name:
        process, named = scene(Path(name), secret, how)
        options = {**environment_options("auth"), "validate": None}
        environment = IsolatedEnvironment.load(process, **options)
        told: list[Change] = []
        granted: list[Change] = []
        environment.subscribe(told.append)
        environment.subscribe(granted.append, secrets=True)
        variable = environment.snapshot().variables[named]
        environment.override({named: "s3cret-after"})
        overlay = environment.overlay({named: variable.value, "COPY": secret}, label="alice")
        shown = [f"{overlay.snapshot().variables[named]}"]
        environment.delete(named)
        shown += [
            f"{variable} {variable!r} {variable.shown} {variable.over}",
            f"{environment!r} {environment.snapshot()!r} {overlay!r}",
            f"{overlay.snapshot()!r}",
            f"{told} {[*map(str, told)]} {[(each.old, each.new) for each in told]}",
            f"{granted} {[*map(str, granted)]}",
            f"{overlay.explain(named)} {overlay.explain('COPY')}",
            explain(named, process, service="auth"),
            explain("SSOT_DATABASE_URL", process),
            check(process)[0],
        ]
        # Named by a reader of logs, and where all that is known is that it was one.
        for form in encoded(secret):
            assert form not in environment.redact(f"<{form}>"), how
        with pytest.raises(SettingsError) as wrong:
            IsolatedEnvironment.load(process, **environment_options("auth"))
        shown.append(f"{wrong.value} {wrong.value!r}")
        with pytest.raises(SettingsError) as wrong:
            UnifiedConfiguration(IsolatedEnvironment.load(process, **options), "auth")
        shown.append(f"{wrong.value} {wrong.value!r}")
    for text in shown:
        for piece in pieces(secret):
            assert piece not in text, (how, text)


@given(SECRETS)
def test_no_error_of_a_wrong_file_shows_a_secret(secret: str) -> None:
    """A line that lost its quotes, its name or its equals sign is told by its place."""
    for line in (
        secret,
        f"API_TOKEN {secret}",
        f"API TOKEN={secret}",
        f"API_TOKEN='{secret}",
        f"API_TOKEN=${{{secret}",
        f"API_TOKEN=$({secret})",
        f"SSOT_TEST_X={secret}",
    ):
        with TemporaryDirectory(prefix="ssot-") as name:
            Path(name, ".env").write_text(f"{line}\nBROKEN\n", encoding="utf-8")
            with pytest.raises(SettingsError) as wrong:
                IsolatedEnvironment.load({"SSOT_ENV_DIRECTORY": name})
        for piece in pieces(secret):
            assert piece not in str(wrong.value), line


@given(SECRETS, st.text(max_size=5), st.text(max_size=5))
def test_basic_credentials_are_recognised(secret: str, before: str, after: str) -> None:
    """What was put into base64 together with others is masked but for two letters at the edges."""
    whole = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    shown = Redactor([secret])(whole)
    assert MASK in shown
    kept = len(f"{before}{after}".encode()) * 8 // 6 + 8
    assert len(shown) <= len(MASK) + kept


@given(SECRETS)
def test_forms_and_representations_are_recognised(secret: str) -> None:
    """As a form sends it, percent-encoded in lower case, and as Python shows it."""
    lower = re.sub("%..", lambda found: found[0].lower(), quote(secret, safe=""))
    for text in (urlencode({"a": secret}), lower, repr({"a": secret})):
        shown = Redactor([secret])(text)
        assert MASK in shown
        assert secret[:6] not in shown


@pytest.mark.parametrize("raw", [b"\xff\xfe-s3cret-value", "s3cret-valué".encode("latin-1")])
def test_bytes_that_are_no_text_stop_nothing(raw: bytes) -> None:
    """A process may be given any bytes; of the platform's own names they are told."""
    value = raw.decode("utf-8", "surrogateescape")
    environment = IsolatedEnvironment({"API_TOKEN": value})
    assert environment.redact(f"<{value}>") == f"<{MASK}>"
    assert environment.redact(base64.b64encode(raw).decode()).startswith(MASK)
    with pytest.raises(SettingsError, match=r"AUTH_TOKEN \(process\): is not UTF-8"):
        IsolatedEnvironment({"AUTH_TOKEN": value})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://u:my long pw@h/d", "postgresql://u:********@h/d"),
        ("postgresql://u:a/b c@d@h/d", "postgresql://u:********@h/d"),
        ("postgresql://h/d?user=u&password=a b&x=1", "postgresql://h/d?user=u&password=********&x=1"),
        ("http://host:8081/path", "http://host:8081/path"),
        ("nothing in it", "nothing in it"),
        ("http://[broken:pw@h", "http://[broken:********@h"),
    ],
)  # fmt: skip
def test_the_password_of_a_value_is_masked_however_ill_it_is_formed(value: str, shown: str) -> None:
    """A value is one URL: a space in it ends nothing."""
    assert mask_value(value) == shown


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u:p%40ss@h/d", {"p%40ss", "p@ss"}),
        ("postgresql://h/d?password=p%40ss+x", {"p%40ss+x", "p@ss x"}),
        ("postgresql://u:half/open@h/d", {"half/open"}),
        ("http://host:80/", set()),
        ("no URL: at@all", set()),
    ],
)  # fmt: skip
def test_every_password_of_a_url_is_known(url: str, found: set[str]) -> None:
    """In the authority and in the query, as written and as meant."""
    assert passwords_of(url) == found


@pytest.mark.timeout(20)
def test_long_texts_are_cleaned_in_a_moment() -> None:
    """A word of a million letters is looked at once."""
    text = "a" * 1_000_000
    assert mask_url(text) == text
    assert mask_value(text) == text
    assert Redactor(["s3cret-value"])(text) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["://a:", "://a:b ", "://a:\n", "://u:p@", "?token=x&", "://", "://a", ":/", "@", "://@:"],
    ids=repr,
)
def test_many_beginnings_of_a_url_are_cleaned_in_a_moment(piece: str) -> None:
    """Wherever a password could begin, its end is not looked for anew: all of it is looked at once.

    A megabyte takes hours where it is.
    """
    text = piece * (1_000_000 // len(piece))
    shown = mask_url(text)
    assert shown == text or MASK in shown
    assert MASK in mask_value(text) or not passwords_of(text)


@given(st.text(st.sampled_from("a:/@?& \n"), max_size=40))
def test_a_password_reaches_to_the_last_at_of_its_word(text: str) -> None:
    """One that should have been encoded may hold everything but white space."""
    whole = re.sub(r"(://[^\s:/@]*:)\S+@", rf"\1{MASK}@", text)
    assert mask_url(text) == whole


def test_a_secret_that_comes_later_is_out_of_the_log() -> None:
    """A handler that redacts by the environment knows what was rotated in, and out."""
    environment = IsolatedEnvironment({"API_TOKEN": "s3cret-one"})
    record = logging.makeLogRecord({"msg": "%s %s", "args": ("s3cret-one", "s3cret-two")})
    environment.override({"API_TOKEN": "s3cret-two"})
    RedactingFilter(environment.redact).filter(record)
    assert record.getMessage() == f"{MASK} {MASK}"


def test_the_newest_256_of_the_old_secrets_are_known() -> None:
    """A process that rotates for ever neither grows nor becomes slow; what is in force stays."""
    environment = IsolatedEnvironment({"API_TOKEN": "s3cret-beaten"})
    for number in range(300):
        environment.override({"API_TOKEN": f"s3cret-{number:03}"})
    # The eight overrides before that of now are part of its story, and in force like it.
    known = {"s3cret-beaten", *(f"s3cret-{number:03}" for number in range(299 - 8 - 256, 300))}
    assert environment.secrets() == known
    assert environment.redact("s3cret-299 s3cret-043 s3cret-beaten") == f"{MASK} {MASK} {MASK}"


def test_a_secret_that_comes_back_is_old_anew() -> None:
    """In order of rotation, and not in that in which they were first seen."""
    environment = IsolatedEnvironment({})
    environment.override({"API_TOKEN": "s3cret-first"})
    for number in range(200):
        environment.override({"API_TOKEN": f"s3cret-{number:03}"})
    environment.override({"API_TOKEN": "s3cret-first"})
    for number in range(200, 400):
        environment.override({"API_TOKEN": f"s3cret-{number:03}"})
    assert "s3cret-first" in environment.secrets()
    assert "s3cret-000" not in environment.secrets()


def test_many_secrets_rotated_at_once_are_all_known() -> None:
    """Whoever still reads the snapshot of before may log any of them."""
    before = {f"TOKEN_{number}": f"s3cret-old-{number:03}" for number in range(300)}
    environment = IsolatedEnvironment(before)
    environment.override({name: value.replace("old", "new") for name, value in before.items()})
    assert environment.secrets() >= set(before.values())
    assert len(environment.secrets()) == 600


def test_a_secret_of_a_narrowed_view_is_known_after_a_rotation() -> None:
    """What only one service sees is a secret of now, and an old one later."""
    environment = IsolatedEnvironment(
        {"AUTH_SIGNING_KEY": "s3cret-signing"}, defaults={"NODE_TOKEN": "s3cret-default"}
    )
    environment.seen_by("node")
    environment.override({"NODE_TOKEN": "s3cret-other"})
    text = "s3cret-signing s3cret-default s3cret-other"
    assert environment.redact(text) == f"{MASK} {MASK} {MASK}"


@given(st.text(st.sampled_from("AbKEYTOKEN_SECRETPASWD"), max_size=20))
def test_a_name_is_secret_or_not_in_any_case(name: str) -> None:
    """Upper and lower case are the same name to a reader."""
    assert is_secret_name(name.upper()) == is_secret_name(name.lower())
