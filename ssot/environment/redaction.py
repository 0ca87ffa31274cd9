"""What must never be read by people: which names are secret, and how text is cleaned of secrets."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

__all__ = ["MASK", "RedactingFilter", "Redactor", "is_secret_name", "mask_url", "passwords_of"]

MASK = "********"

_SECRET_NAME = re.compile(
    r"(^|_)(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|PRIVATE|APIKEY|DSN)(_|$)|(^|_)KEY$|_KEY_",
    re.IGNORECASE,
)
# Up to the last @ of the word: a password that should have been encoded may hold / and @ itself.
_URL_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s:/@]*:)\S+@", re.IGNORECASE)
_QUERY_PASSWORD = re.compile(
    r"(?P<head>[?&](?:password|passwd|secret|token|sslpassword)=)[^&\s]+", re.IGNORECASE
)
_SHORTEST = 8


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret, judged by its name alone."""
    return _SECRET_NAME.search(name) is not None


def mask_url(text: str) -> str:
    """The text with the password of every URL in it masked."""
    text = _URL_PASSWORD.sub(lambda m: f"{m['head']}{MASK}@", text)
    return _QUERY_PASSWORD.sub(lambda m: f"{m['head']}{MASK}", text)


class Redactor:
    """Cleans text of known secrets, wherever they turn up.

    Knows each value also percent-, base64- and JSON-encoded. Values of fewer than eight
    characters are not replaced: they occur in ordinary words, and are protected by name only.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for secret in secrets:
            for value in {secret, *passwords_of(secret)}:
                if len(value) >= _SHORTEST:
                    forms.update(_encodings(value))
        # Longest first: a secret may contain another.
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """The text without any secret."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return mask_url(text)


class RedactingFilter(logging.Filter):
    """A log filter that cleans messages and tracebacks before any handler sees them."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record in place; never drops one."""
        try:
            message = record.getMessage()
        except Exception:
            # A log call with wrong arguments is a mistake, and no reason to fail its caller.
            message = f"{record.msg} {record.args!r}"
        record.msg, record.args = self._redactor(message), ()
        if record.exc_info:
            record.exc_text = self._redactor(self._formatter.formatException(record.exc_info))
        return True


def passwords_of(value: str) -> set[str]:
    """The password inside a URL, as it is written and decoded; nothing for any other value."""
    if "://" not in value:
        return set()
    try:
        password = urlsplit(value).password
    except ValueError:
        return set()
    return {password, unquote(password)} if password else set()


def _encodings(value: str) -> set[str]:
    encoded = base64.b64encode(value.encode()).decode()
    return {
        value,
        quote(value, safe=""),
        quote(value),
        encoded,
        encoded.rstrip("="),
        base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
    }
