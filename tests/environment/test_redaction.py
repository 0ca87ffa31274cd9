"""Redaction: no known secret survives in any text, however it is encoded."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssot.environment import (
    MASK,
    IsolatedEnvironment,
    RedactingFilter,
    Redactor,
    is_secret_name,
    mask_url,
)
from ssot.environment.redaction import passwords_of

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda s: quote(s, safe=""),
    "percent, slashes kept": quote,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "json": lambda s: json.dumps(s)[1:-1],
    "json in json": lambda s: json.dumps(json.dumps(s))[3:-3],
    "percent twice": lambda s: quote(quote(s, safe=""), safe=""),
    "hex": lambda s: s.encode().hex(),
    "json, not ascii": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
}
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30)


@given(SECRETS, st.text(max_size=20), st.text(max_size=20), st.sampled_from(sorted(ENCODINGS)))
def test_no_secret_survives_in_any_encoding(secret: str, before: str, after: str, how: str) -> None:
    """Whatever stands around it, a secret of eight characters or more is masked."""
    assume(set(secret) != {"*"})
    shown = ENCODINGS[how](secret)
    assert shown not in Redactor([secret])(f"{before}{shown}{after}")


@pytest.mark.parametrize("how", sorted(ENCODINGS))
@pytest.mark.parametrize(
    "secret", ['ab"cdé\\fgh', "pass word/with+all?", "line\nbreak-secret", "ünïcödé-key"]
)
def test_awkward_secrets_are_masked(secret: str, how: str) -> None:
    """Quotes, backslashes, slashes, spaces and letters beyond ASCII, in each encoding."""
    assert Redactor([secret])(f"x={ENCODINGS[how](secret)};") in {
        f"x={MASK};",
        f"x={MASK}=;",
        f"x={MASK}==;",
    }


@pytest.mark.parametrize(
    "secret", ["aB3!x(y)*z'k/+&=%q", 'w<e>r;t$u,:@~ é9"x', "\\&-<of>/\t😀it's"]
)
def test_what_some_encoders_escape_and_others_do_not(secret: str) -> None:
    """Browsers, URL libraries, JSON of Go and PHP, and HTML: each has its own idea of it."""
    encoders: tuple[Callable[[str], str], ...] = (
        lambda s: quote(s, safe="!'()*~"),
        lambda s: quote(s, safe="!$&'()*+,;="),
        lambda s: quote(s, safe=" +"),
        lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
        lambda s: re.sub("[&<>]", lambda m: f"\\u{ord(m[0]):04X}", json.dumps(s)[1:-1]),
        html.escape,
        lambda s: html.escape(s, quote=False),
        lambda s: html.escape(s).replace("&#x27;", "&#39;"),
    )
    redactor = Redactor([secret])
    for how in encoders:
        assert redactor(f"x={how(secret)};") == f"x={MASK};"


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    """The longer one is taken first."""
    assert Redactor(["12345678", "12345678-and-more"])("a 12345678-and-more b") == f"a {MASK} b"


def test_secrets_that_overlap_are_masked_as_one() -> None:
    """Whichever is found first, nothing of the other is left over; neighbours stay two."""
    redactor = Redactor(["abcdefgh-1", "gh-1-rest-of-it", "12345678"])
    assert redactor("<abcdefgh-1-rest-of-it>") == f"<{MASK}>"
    assert redactor("<1234567812345678>") == f"<{MASK}{MASK}>"


def test_one_more_secret_is_made_of_what_is_known() -> None:
    """A redactor that is like another knows its own secrets, and works on no other."""
    first = Redactor(["the-first-secret", "the-second-secret"])
    second = Redactor(["the-second-secret", "the-third-secret"], like=first)
    text = "the-first-secret the-second-secret the-third-secret"
    assert first(text) == f"{MASK} {MASK} the-third-secret"
    assert second(text) == f"the-first-secret {MASK} {MASK}"


def test_white_space_around_a_secret_does_not_hide_it(tmp_path: Path) -> None:
    """An editor leaves newlines at the end of a secret file, and whoever sends it strips them."""
    (tmp_path / "API_TOKEN").write_bytes(b" windows-token-77\r\n\n")
    environment = IsolatedEnvironment.load({"SSOT_SECRETS_DIRECTORY": str(tmp_path)})
    assert environment.redact("sent windows-token-77.") == f"sent {MASK}."
    assert environment.redact(f"<{environment.get('API_TOKEN')}>") == f"<{MASK}>"


def test_each_line_of_a_key_is_masked() -> None:
    """A line of it alone is a part of the key; the frame is in every key, and short lines in much."""
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    redactor = Redactor([f"{begin}\nMIIEvQIBADANBg/k\r\n  qhkiG9w0BAQ+EFA\nAASC==\n{end}\n"])
    assert redactor("1 MIIEvQIBADANBg/k 2 qhkiG9w0BAQ+EFA") == f"1 {MASK} 2 {MASK}"
    assert redactor(f"{begin} AASC== {end}") == f"{begin} AASC== {end}"
    assert redactor("in a form: qhkiG9w0BAQ%2BEFA") == f"in a form: {MASK}"


def test_short_values_are_left_alone() -> None:
    """Seven letters occur in ordinary words."""
    assert Redactor(["1234567"])("1234567") == "1234567"


@pytest.mark.parametrize(
    "url", ["postgresql://u:{}@h/d", "redis://:{}@h:1/0", "see https://u:{}@h and more"]
)
def test_the_password_of_any_url_is_masked(url: str) -> None:
    """Also a password that nobody has registered, and a short one."""
    assert mask_url(url.format("pw1")) == url.format(MASK)
    assert Redactor()(url.format("pw1")) == url.format(MASK)


def test_the_password_inside_a_url_is_known_by_itself() -> None:
    """A registered URL makes its password known, encoded and decoded."""
    redactor = IsolatedEnvironment(
        {"SSOT_DATABASE_URL": "postgresql://u:p%40ssw0rd%2F1@h/d"}
    ).redactor()
    assert redactor("it is p@ssw0rd/1, or p%40ssw0rd%2F1") == f"it is {MASK}, or {MASK}"


@pytest.mark.parametrize("name", ["AUTH_SIGNING_KEY", "DB_PASSWORD", "API_TOKEN", "client_secret", "SENTRY_DSN",
                                  "APIKEY", "AWS_ACCESS_KEY_ID", "GOOGLE_CREDENTIALS", "PRIVATE_KEY",
                                  "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "DBPASSWORD", "SSH_PASSPHRASE",
                                  "API_KEYS", "CLIENT_SECRETS", "ADMIN_JWT", "AUTHORIZATION",
                                  "CLIENTSECRET", "JWTSECRET", "ACCESSTOKEN", "SECRETKEY", "PASSCODE",
                                  "DOOR_PASSCODE", "GITHUB_PAT", "SESSION_COOKIE", "accessToken",
                                  "PUBLIC_KEY_PASSWORD", "MY_APIKEY_2"])  # fmt: skip
def test_secret_names(name: str) -> None:
    """Names that hold secrets are known as such."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PATH", "MONKEY", "KEYBOARD", "SSOT_REDIS_PREFIX", "NODE_PORT",
                                  "PWD", "OLDPWD", "MAX_TOKENS", "PASS_THROUGH", "COMPASS",
                                  "SSOT_SECRETS_DIRECTORY", "DB_PASSWORD_FILE", "SSH_KEY_PATH",
                                  "TOKEN_TTL", "TOKEN_TTL_SECONDS", "SSOT_TOKEN_ISSUER", "JWT_ALGORITHM",
                                  "PUBLIC_KEY", "JWT_PUBLIC_KEYS", "SSOT_TOKEN_AUDIENCE", "PATTERN",
                                  "TOKENIZERS_PARALLELISM", "SECRETARY"])  # fmt: skip
def test_ordinary_names(name: str) -> None:
    """Names that only look similar are shown."""
    assert not is_secret_name(name)


@pytest.fixture
def logger() -> logging.Logger:
    """A logger whose one handler redacts; what it wrote is in ``lines`` of the handler."""

    class Lines(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.setFormatter(logging.Formatter("%(message)s"))

        def emit(self, record: logging.LogRecord) -> None:
            self.lines.append(self.format(record))

    logger = logging.Logger("redacted")
    handler = Lines()
    handler.addFilter(RedactingFilter(Redactor(["s3cret-value"])))
    logger.addHandler(handler)
    return logger


def test_logs_and_tracebacks_are_cleaned(logger: logging.Logger) -> None:
    """Message, arguments and traceback of a record reach the handler without the secret."""
    try:
        raise ValueError("it was s3cret-value")
    except ValueError:
        logger.exception("failed with %s", "s3cret-value")
    (line,) = logger.handlers[0].lines  # type: ignore[attr-defined]
    assert "s3cret-value" not in line
    assert line.startswith(f"failed with {MASK}")
    assert f"ValueError: it was {MASK}" in line


def test_a_log_call_with_wrong_arguments_does_not_raise(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without the filter: a mistake in a log call never becomes one of the code around it."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("%d", "s3cret-value")
    assert "s3cret-value" not in capsys.readouterr().err + "".join(sys.argv[:0])


@pytest.mark.parametrize(
    "name",
    [
        "DBPASS",
        "DB_PW",
        "HMACKEY",
        "SESSIONKEY",
        "API_BEARER",
        "HASH_SALT",
        "SmtpPass",
        "API_TOKENS",
        "DB_CREDS",
        "REDIS_AUTH",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ],
)
def test_names_that_others_use_for_secrets_are_known(name: str) -> None:
    """Providers name their variables as they like."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["COMPASS", "BYPASS", "TRESPASS", "SALTED_HASH", "PASSENGERS"])
def test_a_word_that_only_contains_one_is_no_secret(name: str) -> None:
    """What is masked for nothing cannot be read by whoever searches for a mistake."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/?access_token={}",
        "https://h/cb?state=1&client_secret={}&x=2",
        "https://h/?api_key={}",
        "https://h/?Api-Key={}",
        "host=db.example user=app password={} sslmode=require",
        "host=db.example password = '{}'",
        "Server=db.example;Password={};Encrypt=true",
    ],
)
def test_a_password_is_masked_wherever_a_connection_string_has_it(text: str) -> None:
    """Also for whoever was never told that it is one."""
    assert "hunter2-of-it" not in mask_url(text.format("hunter2-of-it"))
    assert passwords_of(text.format("hunter2-of-it")) == {"hunter2-of-it"}


@pytest.mark.parametrize(
    "write",
    [
        lambda secret: quote(quote(secret, safe=""), safe=""),
        lambda secret: json.dumps(json.dumps({"key": secret})),
        lambda secret: secret.encode().hex(),
        lambda secret: secret.encode().hex().upper(),
        lambda secret: repr(secret.encode()),
    ],
    ids=["percent twice", "JSON in JSON", "hex", "HEX", "bytes"],
)
def test_a_secret_that_was_encoded_twice_or_as_bytes_is_found(write: Callable[[str], str]) -> None:
    """A URL as a parameter of another one, a message inside a message."""
    secret = 'pa"ss/wörd+of it'
    told = Redactor([secret])(f"before {write(secret)} after")
    assert MASK in told
    assert told.startswith("before ")
    assert told.endswith(" after")
    for piece in ("pa", "rd", secret.encode().hex()[4:-4], secret.encode().hex()[4:-4].upper()):
        assert piece not in told
