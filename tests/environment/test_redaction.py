"""Redaction: no known secret survives in any text, however it is encoded."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable
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

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda s: quote(s, safe=""),
    "percent, slashes kept": quote,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "json": lambda s: json.dumps(s)[1:-1],
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


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    """The longer one is taken first."""
    assert Redactor(["12345678", "12345678-and-more"])("a 12345678-and-more b") == f"a {MASK} b"


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
                                  "APIKEY", "AWS_ACCESS_KEY_ID", "GOOGLE_CREDENTIALS", "PRIVATE_KEY"])  # fmt: skip
def test_secret_names(name: str) -> None:
    """Names that hold secrets are known as such."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PATH", "MONKEY", "KEYBOARD", "SSOT_REDIS_PREFIX", "NODE_PORT"])
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
