"""The schema of all settings: each is defined here once, with its variable, default and meaning."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

__all__ = [
    "AgentSettings",
    "AuthSettings",
    "DatabaseSettings",
    "NodeSettings",
    "OAuthSettings",
    "RedisSettings",
    "Section",
    "Settings",
    "TokenSettings",
    "WorkerSettings",
    "is_protected",
    "name_in",
    "variable",
]

_LONGEST = 2_000_000
"""In seconds: PostgreSQL counts the milliseconds of a timeout in 32 bits."""


def variable(
    name: str,
    default: Any = ...,
    /,
    *,
    what: str,
    own: str | None = None,
    by_environment: bool = False,
    test: str | None = None,
    **limits: Any,
) -> Any:
    """A setting that is read from the environment variable ``name``.

    See :class:`ssot.configuration.schema.Field` for ``own``, ``by_environment`` and ``test``.
    """
    given = {"own": own, "by_environment": by_environment, "test": test}
    return Field(
        default,
        description=what,
        validate_default=False,
        json_schema_extra={"variable": name, **{k: v for k, v in given.items() if v}},
        **limits,
    )


def name_in(environment: str, variable: str) -> str:
    """The real name, in this environment, of a variable that has another one in each."""
    return f"{variable}_{environment.upper()}"


class Section(BaseModel):
    """A group of settings: typed, frozen, and strict about names it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class DatabaseSettings(Section):
    """How this process reaches PostgreSQL.

    ``url_variable`` is no setting: it is the variable that the URL was read from, for whoever must
    say that the server refuses it.
    """

    url: SecretStr = variable(
        "SSOT_DATABASE_URL",
        what="PostgreSQL as this service's own login role: a postgresql:// URL",
        own="DATABASE_URL",
    )
    url_variable: str = "SSOT_DATABASE_URL"
    pool_size: int = variable(
        "SSOT_DATABASE_POOL_SIZE", 10, what="connections at most", ge=1, le=1000
    )
    acquire_timeout: float = variable(
        "SSOT_DATABASE_ACQUIRE_TIMEOUT",
        5.0,
        what="seconds to wait for a connection of the pool",
        gt=0,
    )
    connect_timeout: float = variable(
        "SSOT_DATABASE_CONNECT_TIMEOUT", 5.0, what="seconds to wait for a new connection", gt=0
    )
    statement_timeout: float = variable(
        "SSOT_DATABASE_STATEMENT_TIMEOUT",
        30.0,
        what="seconds that one statement may run",
        gt=0,
        le=_LONGEST,
    )
    idle_transaction_timeout: float = variable(
        "SSOT_DATABASE_IDLE_TRANSACTION_TIMEOUT",
        5.0,
        what="seconds that a transaction may stand still before the server ends it; "
        "whoever takes over from a frozen process waits so long at most",
        gt=0,
        le=_LONGEST,
    )
    retry_deadline: float = variable(
        "SSOT_DATABASE_RETRY_DEADLINE",
        20.0,
        what="seconds to wait through a restart of PostgreSQL",
        gt=0,
    )

    @field_validator("url")
    @classmethod
    def _postgresql(cls, url: SecretStr) -> SecretStr:
        return _checked_url(url, {"postgresql", "postgres"}, needs_path="a database name")


class RedisSettings(Section):
    """How this process reaches Redis or Valkey."""

    url: SecretStr = variable("SSOT_REDIS_URL", what="Redis or Valkey: a redis:// URL")
    prefix: str = variable(
        "SSOT_REDIS_PREFIX", "ssot", what="what every key of this platform begins with",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
    )  # fmt: skip
    timeout: float = variable(
        "SSOT_REDIS_TIMEOUT", 5.0, what="seconds to wait for one answer", gt=0
    )
    retry_deadline: float = variable(
        "SSOT_REDIS_RETRY_DEADLINE", 20.0, what="seconds to wait through a restart of Redis", gt=0
    )
    keep_events: int = variable(
        "SSOT_REDIS_KEEP_EVENTS", 10_000, what="events kept in each user's log", ge=10
    )

    @field_validator("url")
    @classmethod
    def _redis(cls, url: SecretStr) -> SecretStr:
        checked = _checked_url(url, {"redis", "rediss"})
        parts = urlsplit(url.get_secret_value())
        if parts.query or parts.fragment:
            # They would win over what the client needs, such as answers in bytes.
            raise ValueError("takes no options behind ? or #; timeouts are settings of their own")
        if not re.fullmatch(r"(/[0-9]{0,4})?", parts.path):
            raise ValueError("ends with the number of a database, such as /0")
        return checked


class TokenSettings(Section):
    """What the auth service signs into a token and everybody else demands of it.

    One definition for both sides: when issuer or audience differ between services, every
    WebSocket is refused.
    """

    issuer: str = variable(
        "SSOT_TOKEN_ISSUER", "ssot-auth", what="`iss` of every token", min_length=1
    )
    audience: str = variable(
        "SSOT_TOKEN_AUDIENCE", "ssot-platform", what="`aud` of every token", min_length=1
    )


class AuthSettings(Section):
    """The auth service alone."""

    signing_key: SecretStr = variable(
        "AUTH_SIGNING_KEY", what="Ed25519 private key that signs tokens: 32 bytes, base64url"
    )

    @field_validator("signing_key")
    @classmethod
    def _ed25519(cls, key: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=?", key.get_secret_value()):
            raise ValueError("must be 32 bytes in base64url: 43 characters")
        return key

    host: str = variable("AUTH_HOST", "127.0.0.1", what="address to listen on")

    @field_validator("host")
    @classmethod
    def _listens(cls, host: str) -> str:
        return _checked_address(host)

    port: int = variable(
        "AUTH_PORT", 8081, what="port to listen on; 0: any free one", ge=0, le=65535
    )
    access_ttl: float = variable(
        "AUTH_ACCESS_TTL", 900.0, what="seconds until an access token expires", gt=0
    )
    scrypt_log_n: int = variable(
        "AUTH_SCRYPT_LOG_N", 16, what="cost of a password hash, as a power of two", ge=10, le=20
    )


class OAuthSettings(Section):
    """Log-in through an OAuth provider. Off until all three are set: empty stands for not set."""

    client_id: str = variable(
        "AUTH_OAUTH_CLIENT_ID",
        "",
        what="this environment's client id at the OAuth provider; empty: no log-in through it",
        by_environment=True,
        test="ssot-test-client",
    )
    client_secret: SecretStr = variable(
        "AUTH_OAUTH_CLIENT_SECRET",
        SecretStr(""),
        what="this environment's client secret at the OAuth provider",
        by_environment=True,
        test="ssot-test-client-secret",
    )
    provider_url: str = variable(
        "AUTH_OAUTH_PROVIDER_URL",
        "",
        what="the OAuth provider, as it calls itself in its OpenID configuration; "
        "empty: no log-in through one",
    )
    timeout: float = variable(
        "AUTH_OAUTH_TIMEOUT", 10.0, what="seconds to wait for the OAuth provider", gt=0
    )

    @field_validator("client_id", "client_secret")
    @classmethod
    def _visible(cls, value: str | SecretStr) -> str | SecretStr:
        text = value if isinstance(value, str) else value.get_secret_value()
        if not re.fullmatch(r"[!-~]*", text):
            raise ValueError("must be letters, digits and punctuation of ASCII, without spaces")
        return value

    @field_validator("provider_url")
    @classmethod
    def _protected(cls, url: str) -> str:
        if url and not is_protected(url):
            raise ValueError("must be https://host, or http:// on this machine (127.0.0.1)")
        return url.rstrip("/")

    def missing(self, environment: str) -> tuple[str, ...]:
        """The variables that a log-in through the provider needs and does not have."""
        needed = {
            name_in(environment, "AUTH_OAUTH_CLIENT_ID"): self.client_id,
            name_in(environment, "AUTH_OAUTH_CLIENT_SECRET"): self.client_secret.get_secret_value(),
            "AUTH_OAUTH_PROVIDER_URL": self.provider_url,
        }
        return tuple(name for name, value in needed.items() if not value)


class NodeSettings(Section):
    """A WebSocket node."""

    host: str = variable("NODE_HOST", "127.0.0.1", what="address to listen on")

    @field_validator("host")
    @classmethod
    def _listens(cls, host: str) -> str:
        return _checked_address(host)

    port: int = variable(
        "NODE_PORT", 8082, what="port to listen on; 0: any free one", ge=0, le=65535
    )
    auth_url: str = variable("SSOT_AUTH_URL", what="where the auth service is, for its public keys")
    origins: str = variable(
        "NODE_ORIGINS", "", what="browser origins to accept, separated by commas; empty: no browser"
    )
    ring_size: int = variable(
        "NODE_RING_SIZE", 1024, what="encoded events kept in memory for each connected user", ge=8
    )
    stall_timeout: float = variable(
        "NODE_STALL_TIMEOUT", 10.0, what="seconds that a client may take none of its events", gt=0
    )
    max_connections: int = variable(
        "NODE_MAX_CONNECTIONS", 20, what="connections of one user on this node", ge=1
    )
    max_message_bytes: int = variable(
        "NODE_MAX_MESSAGE_BYTES", 65_536, what="size of one message from a client", ge=256
    )
    ping_interval: float = variable(
        "NODE_PING_INTERVAL", 20.0, what="seconds between pings to a client and to Redis", gt=0
    )

    @field_validator("auth_url")
    @classmethod
    def _http(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
            # It is no secret, and so must hold none.
            good = good and parts.username is None and not parts.query
            good = good and not _unusable_host(parts.hostname or "")
        except ValueError:
            good = False
        if not good:
            raise ValueError("must be http://host:port or https://host:port")
        return url.rstrip("/")


class AgentSettings(Section):
    """Limits of the execution engine."""

    run_timeout: float = variable(
        "WORKER_RUN_TIMEOUT", 120.0, what="seconds that one run may take", gt=0
    )
    tool_timeout: float = variable(
        "WORKER_TOOL_TIMEOUT", 60.0, what="seconds that one tool call may take", gt=0
    )
    max_runs: int = variable("WORKER_MAX_RUNS", 32, what="runs at a time in this worker", ge=1)
    max_runs_per_user: int = variable(
        "WORKER_MAX_RUNS_PER_USER", 8, what="runs of one user at a time in this worker", ge=1
    )


class WorkerSettings(Section):
    """How a worker claims commands and keeps its runs."""

    lease_ttl: float = variable(
        "WORKER_LEASE_TTL",
        10.0,
        what="seconds after which a silent worker's run is taken over",
        gt=0,
    )
    max_claims: int = variable(
        "WORKER_MAX_CLAIMS",
        128,
        what="commands held at a time, running or waiting for a place",
        ge=1,
    )
    drain_timeout: float = variable(
        "WORKER_DRAIN_TIMEOUT", 10.0, what="seconds that a stopping worker waits for its runs", gt=0
    )


class Settings(Section):
    """All settings of one process. Sections that its service does not use are ``None``."""

    environment: Literal["development", "test", "staging", "production"] = variable(
        "SSOT_ENVIRONMENT", "development", what="which environment this is"
    )
    database: DatabaseSettings
    redis: RedisSettings | None = None
    tokens: TokenSettings | None = None
    auth: AuthSettings | None = None
    oauth: OAuthSettings | None = None
    node: NodeSettings | None = None
    worker: WorkerSettings | None = None
    agents: AgentSettings | None = None

    @field_validator("oauth")
    @classmethod
    def _both_or_neither(
        cls, oauth: OAuthSettings | None, info: ValidationInfo
    ) -> OAuthSettings | None:
        # Here, and not in the section: the variables' names depend on the environment.
        environment = info.data.get("environment")
        if oauth is not None and environment is not None:
            both = [
                name_in(environment, "AUTH_OAUTH_CLIENT_ID"),
                name_in(environment, "AUTH_OAUTH_CLIENT_SECRET"),
            ]
            absent = [name for name in both if name in oauth.missing(environment)]
            if len(absent) == 1:
                (there,) = (name for name in both if name not in absent)
                raise ValueError(f"{there} is set and {absent[0]} is not: set both, or neither")
        return oauth


def is_protected(url: str) -> bool:
    """Whether a secret may be sent there: over TLS, or to this machine; no password in it."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        good = good and not _unusable_host(parts.hostname or "")
    except ValueError:
        return False
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return good and (parts.scheme == "https" or (parts.scheme == "http" and local))


_TWICE = {"host", "hostaddr", "port", "user", "password", "dbname"}


def _checked_url(url: SecretStr, schemes: set[str], *, needs_path: str = "") -> SecretStr:
    """Messages never contain the URL: it holds a password."""
    text = url.get_secret_value()
    if re.search(r"\s", text):
        # Where it stands, readers of URLs differ: some drop it, and some take it as it is.
        raise ValueError("has white space in it; of a password it must be percent-encoded")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # The standard library's message repeats what it could not read.
        raise ValueError(
            "is not a URL whose port is a number; "
            "a password with / ? # @ : in it must be percent-encoded"
        ) from None
    # Not of `parts`, which are in small letters.
    if text.partition("://")[0] not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{s}://' for s in sorted(schemes))}")
    if not parts.hostname:
        raise ValueError("names no host; a password with / @ : # in it must be percent-encoded")
    if wrong := _unusable_host(parts.hostname):
        # Not the host itself: what stands there may be the end of a password.
        raise ValueError(f"names a host that {wrong}")
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "has an @ behind the host; a password with / ? # @ in it must be percent-encoded"
        )
    if parts.netloc.count("@") > 1:
        # Which of them ends the password, readers of URLs differ: a part of it could be the host.
        raise ValueError("has two @; a password with @ in it must be percent-encoded (%40)")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    if parts.netloc.endswith(":"):
        raise ValueError("has a : and no port behind its host")
    if both := {name for name, _ in parse_qsl(parts.query)} & _TWICE:
        raise ValueError(f"says {', '.join(sorted(both))} behind the ?, which stands before it")
    if needs_path and not parts.path.strip("/"):
        raise ValueError(f"lacks {needs_path} after the host")
    return url


def _checked_address(host: str) -> str:
    if not host:
        # To the operating system it stands for every address, which nobody says with nothing.
        raise ValueError("names no address; 127.0.0.1 is this machine alone, 0.0.0.0 all networks")
    if wrong := _unusable_host(host):
        raise ValueError(f"is an address that {wrong}")
    return host


def _unusable_host(host: str) -> str:
    """Why no resolver would even be asked for a host; empty: it would be."""
    try:
        # What the standard library does with it before it asks; it raises in each connection.
        host.encode("idna")
    except UnicodeError:
        return "has an empty part, or one of more than 63 characters, between its dots"
    if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?", host):
        return "is no single name and no address"
    return ""
