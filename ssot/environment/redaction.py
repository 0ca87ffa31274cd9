"""What must never be read by people: which names are secret, and how text is cleaned of secrets."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, quote_from_bytes, unquote, unquote_plus, urlsplit

__all__ = [
    "MASK",
    "RedactingFilter",
    "Redactor",
    "is_secret_name",
    "mask_url",
    "mask_value",
    "passwords_of",
    "printable",
    "repeats_secret",
    "secrets_among",
    "user_of",
]

MASK = "********"

_SHORTEST = 8
"""In characters: what is shorter occurs in ordinary words, and is protected by name only."""

_SECRET_NAME = re.compile(
    r"(^|_)(SECRETS?|TOKEN|CREDENTIALS?|CREDS?|PRIVATE|DSN|JWT|PASSPHRASE|PASSCODE|PAT|"
    r"AUTHORIZATION|COOKIES?|BEARER|SALT|HMAC|OTP|PW|CONNECTION_STRING)(_|$)"
    # What goes with every request to a receiver: often a key.
    r"|OTLP_(\w+_)?HEADERS$|_AUTH$"
    # CLIENTSECRET, ACCESSTOKEN: names of one word, as a whole or at the end of a longer one.
    r"|SECRET$|[A-Z]TOKEN$|(^|_)(API|ACCESS|AUTH|REFRESH)_?TOKENS$"
    r"|(SECRET|PRIVATE|ACCESS|API|SIGNING|ENCRYPTION|HMAC|SESSION|MASTER)KEYS?(_|$)"
    # Not of any word before PASS: a COMPASS is none.
    r"|(DB|SQL|PG|REDIS|SMTP|MAIL|LDAP|FTP|USER|ADMIN|ROOT)PASS(_|$)"
    # PGPASSWORD and MYSQL_PWD are names that others have given; PWD is a folder.
    r"|PASSWORD|PASSWD|(^|_)PASS$|_PWD$|(^|_)KEYS?$|_KEY_",
    re.IGNORECASE,
)
# Where secrets lie is none: whoever reads a log has to find the file.
_PLACE = re.compile(r"_(DIR|DIRECTORY|FILES?|PATH)$", re.IGNORECASE)
# How long a secret lasts, who gives it and for whom is none, nor is what everybody may know.
_ABOUT = re.compile(
    r"_(TTL|LIFETIME|EXPIRY|TIMEOUT|ISSUER|AUDIENCE|ALGORITHM)(_(MS|S|SECONDS|MINUTES|HOURS|DAYS))?$"
    r"|(^|_)PUBLIC_?KEYS?$",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")
# What stands before a password. Without the scheme: to look for one in a long word that has none
# takes the square of its length.
_BEFORE_PASSWORD = re.compile(r"://[^:/@]*:")
_USER = re.compile(r"[^:/@]*://(?P<user>[^:/@]*):")
_QUERY_PASSWORD = re.compile(
    # In OAuth and the APIs of others: access_token, client_secret, api-key. Of bounded length, so
    # that a long word without any of them is looked through once.
    r"(?P<head>[?&](?:[\w.-]{0,64}?(?:password|passwd|pwd|secret|token|(?:api|access)[_-]?key))=)"
    r"(?P<password>[^&\s]+)",
    re.IGNORECASE,
)
# Of a value that is one URL as a whole: what is in it belongs to it, spaces as well.
_VALUE_QUERY_PASSWORD = re.compile(
    _QUERY_PASSWORD.pattern.replace(r"[^&\s]", "[^&]"), re.IGNORECASE
)
# Of a connection string that is no URL: libpq's ``host=… password=…``, and those with ``;``.
_KEYWORD_PASSWORD = re.compile(
    r"(?P<head>(?:^|[\s;])(?:password|passwd|pwd)\s?=\s?)(?P<password>'[^']+'|[^\s;']+)",
    re.IGNORECASE,
)
_FRAME = re.compile(r"-----(BEGIN|END) .*-----")
# The longest keys have about 200 lines; what has more is a whole file of something.
_MOST_LINES = 256
# What is longer holds no character that only some escape, or is no password: a key in a file.
_LONGEST_ESCAPED = 256


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret, judged by its name alone."""
    if _PLACE.search(name) or _ABOUT.search(name):
        return False
    return _SECRET_NAME.search(name) is not None


def mask_url(text: str) -> str:
    """The text with the password of every URL in it masked."""
    if "://" in text and "@" in text:
        text = _WORD.sub(lambda word: _masked(word[0]), text)
    for written in (_QUERY_PASSWORD, _KEYWORD_PASSWORD):
        text = written.sub(lambda m: f"{m['head']}{MASK}", text)
    return text


def mask_value(value: str) -> str:
    """A value that is shown by itself, with every password in it masked, however ill it is formed.

    More may be masked than in running text: there, a space ends a URL.
    """
    if "://" not in value:
        return mask_url(value)
    for password in sorted(passwords_of(value), key=len, reverse=True):
        if len(password) >= _SHORTEST:
            value = value.replace(password, MASK)
    return _VALUE_QUERY_PASSWORD.sub(lambda m: f"{m['head']}{MASK}", _masked(value))


def printable(text: str) -> str:
    """The text on one line, with what is no letter to a terminal as Python would write it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


_Patterns = dict[str, re.Pattern[str] | None]
"""What finds each secret; nothing for one that is too short."""


class Redactor:
    """Cleans text of known secrets, wherever they turn up.

    Knows each value also without the white space around it, and each of its first 256 lines; all of
    them also percent-, base64-, JSON- and HTML-encoded and in hexadecimal digits, whichever
    characters an encoder leaves as they are, and inside of what was encoded as a whole in base64:
    of that, the two characters at its edges may stay. Values of fewer than eight characters are not
    replaced: they occur in ordinary words, and are protected by name only.

    Takes from the redactor that it is ``like`` what that knows already: one more secret is cheap.
    """

    def __init__(self, secrets: Iterable[str] = (), *, like: Redactor | None = None) -> None:
        # Of each secret by itself: what another redactor has made of it need not be made again.
        made: _Patterns = like._patterns if like else {}  # noqa: SLF001  # one of its kind
        self._patterns: _Patterns = {
            secret: made[secret] if secret in made else _pattern(secret) for secret in secrets
        }

    def __call__(self, text: str) -> str:
        """The text without any secret."""
        found = [
            match.span()
            for pattern in self._patterns.values()
            if pattern is not None
            for match in pattern.finditer(text)
        ]
        if found:
            text = _without(text, sorted(found))
        return mask_url(text)


class RedactingFilter(logging.Filter):
    """A log filter that cleans messages and tracebacks before any handler sees them."""

    def __init__(self, redactor: Callable[[str], str]) -> None:
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
    """The passwords inside a URL, as written and decoded, or inside another connection string.

    Before the host and in the query; also of what only looks like a URL, because a password in it
    should have been percent-encoded. Nothing for any other value.
    """
    if "://" not in value:
        return {match["password"].strip("'") for match in _KEYWORD_PASSWORD.finditer(value)}
    found = {match["password"] for match in _VALUE_QUERY_PASSWORD.finditer(value)}
    found |= {unquote_plus(password) for password in found}
    try:
        before = urlsplit(value).password
    except ValueError:
        before = None
    if before is None and (place := _password_in(value)):
        before = value[place]
    return found | ({before, unquote(before)} if before else set())


def secrets_among(
    variables: Mapping[str, object], secrecy: Mapping[str, bool] | None = None
) -> set[str]:
    """The secrets among variables or parameters, and the passwords of URLs.

    ``secrecy`` decides for the names in it whether they are secret; others are judged by name.
    """
    found: set[str] = set()
    for name, value in variables.items():
        text = str(value)
        secret = (secrecy or {}).get(name, is_secret_name(name))
        found |= {text} if secret else passwords_of(text)
    return found


def repeats_secret(value: str, secrets: Iterable[str]) -> bool:
    """Whether one of the secrets stands in the value, which makes it one, whatever its name is.

    Not in a URL: there the password is masked, and the rest may be shown.
    """
    if "://" in value:
        return False
    return any(len(secret) >= _SHORTEST and secret in value for secret in secrets)


def user_of(value: str) -> str:
    """Whom the password before the host of a URL belongs to; empty for any other value."""
    match = _USER.match(value)
    return unquote(match["user"]) if match else ""


def _password_in(url: str) -> slice | None:
    """Where the password before the host stands, in what is one URL as a whole.

    Up to the last @: a password that should have been encoded may hold / and @ itself. It is looked
    for once, and not from every place where a password could begin.
    """
    end = url.rfind("@")
    before = _BEFORE_PASSWORD.search(url, 0, max(end, 0))
    return slice(before.end(), end) if before and before.end() < end else None


def _masked(url: str) -> str:
    """One URL with the password before its host masked."""
    place = _password_in(url)
    return f"{url[: place.start]}{MASK}{url[place.stop :]}" if place else url


def _pattern(secret: str) -> re.Pattern[str] | None:
    """What finds a secret in each of its forms; ``None`` when it is too short for that."""
    # Each pattern with the length that is known of what it finds.
    forms: set[tuple[int, str]] = set()
    for value in {secret, secret.strip(), *_lines(secret), *passwords_of(secret)}:
        if len(value) >= _SHORTEST:
            forms.update((len(each), re.escape(each)) for each in _encodings(value))
            forms.update((len(value), each) for each in _escaped(value))
    # Longest first: a form may contain another.
    ordered = [pattern for _, pattern in sorted(forms, reverse=True)]
    return re.compile("|".join(ordered)) if ordered else None


def _without(text: str, places: Iterable[tuple[int, int]]) -> str:
    """The text with these places masked, in order; what overlaps is masked as one."""
    pieces: list[str] = []
    done = 0
    for begin, end in places:
        if begin >= done:
            pieces += [text[done:begin], MASK]
        done = max(done, end)
    return "".join([*pieces, text[done:]])


def _lines(secret: str) -> Iterable[str]:
    """The lines of a secret, such as a key in a file, but for those that every key has."""
    lines = (line.strip() for line in secret.splitlines()[:_MOST_LINES])
    return (line for line in lines if not _FRAME.fullmatch(line))


def _encodings(value: str) -> set[str]:
    raw = _bytes(value)
    encoded = base64.b64encode(raw).decode()
    percent = {quote_from_bytes(raw, safe=""), quote_from_bytes(raw)}
    percent |= {each.replace("%20", "+") for each in percent}
    percent |= {re.sub("%..", lambda found: found[0].lower(), each) for each in percent}
    # A URL that is a parameter of another one.
    percent |= {quote(each, safe="") for each in percent}
    inside = {encoded.rstrip("="), *(_inside(raw, offset) for offset in range(3))}
    return {
        value,
        encoded,
        *percent,
        *inside,
        *(each.translate(_URL_SAFE) for each in inside),
        raw.hex(),
        raw.hex().upper(),
        json.dumps(value)[1:-1],
        json.dumps(json.dumps(value))[3:-3],  # JSON that is a text in JSON
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        repr(raw)[2:-1],
        printable(value),
    }


def _escaped(value: str) -> Iterable[str]:
    """Patterns of a value in which each character may be escaped, or not, by itself.

    Encoders do not agree on which are: of ``!`` and ``+`` in a URL, of ``/`` and ``&`` in JSON.
    """
    if value.isalnum() or len(value) > _LONGEST_ESCAPED:
        return
    first, *rest = (_ways(char) for char in value)
    tail = "".join(ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})" for ways in rest)
    # Not as one group: by what each begins with, most of a text is passed over quickly.
    yield from (f"{way}{tail}" for way in first)


def _ways(char: str) -> list[str]:
    """Patterns of a character as it stands, and as encoders of URLs, JSON and HTML write it."""
    if char.isalnum() and char.isascii():
        return [char]
    wide = char.encode("utf-16-be", "surrogatepass")
    units = (wide[at : at + 2].hex() for at in range(0, len(wide), 2))
    ways = {
        re.escape(char),
        "".join(f"%(?i:{byte:02x})" for byte in _bytes(char)),
        "".join(rf"\\u(?i:{unit})" for unit in units),
        rf"&\#(?:0*{ord(char)}|[xX]0*(?i:{ord(char):x}));",
        re.escape(html.escape(char)),
        re.escape(json.dumps(char)[1:-1]),
    }
    if char == "/":
        ways.add(r"\\/")
    elif char == " ":
        ways.add(r"\+")
    return sorted(ways)


_URL_SAFE = str.maketrans("+/", "-_")


def _bytes(value: str) -> bytes:
    """The bytes of a value of the process, which need not be UTF-8."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def _inside(raw: bytes, offset: int) -> str:
    """What base64 makes of these bytes behind ``offset`` others, whatever stands around them."""
    encoded = base64.b64encode(bytes(offset) + raw).decode()
    # A character is six bits: those that are partly of the bytes around are left out.
    return encoded[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]
