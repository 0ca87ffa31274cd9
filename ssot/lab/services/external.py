"""PostgreSQL and Redis that were there before: verified, used, never started or killed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NoReturn
from urllib.parse import SplitResult, quote, urlsplit

import asyncpg

from ssot.lab.services.errors import ServiceError

__all__ = ["ExternalPostgres", "ExternalRedis", "compose_urls", "environment_urls"]

_PATIENCE = 5.0
_OLDEST_POSTGRES = 14
_OLDEST_REDIS = 7
_COMPOSE = "docker-compose.yml"


class _External:
    """What a server that the lab did not start has in common with the others.

    ``source`` says in errors where the URL came from; ``advice`` what to do when nothing answers.
    """

    what: ClassVar[str]

    def __init__(self, url: str, *, source: str, advice: str = "start it, or correct it") -> None:
        self._source = source
        self._advice = advice
        self._url, self._parts = self._parse(url)

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._parts.hostname or "localhost"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._parts.port or self._default_port

    @property
    def pid(self) -> int:
        """Refused: it is not ours."""
        self._refuse("has no pid here")

    @property
    def running(self) -> bool:
        """Always: nobody here ends it."""
        return True

    @property
    def log_path(self) -> None:
        """Out of reach."""
        return None

    def log_position(self) -> int:
        """Out of reach."""
        return 0

    def log_lines(self, since: int = 0) -> list[str]:
        """Out of reach: nothing."""
        del since
        return []

    async def stop(self) -> None:
        """Refused: it is not ours."""
        self._refuse("cannot be stopped")

    async def kill(self) -> None:
        """Refused: it is not ours."""
        self._refuse("cannot be killed")

    async def restart(self) -> None:
        """Refused: it is not ours."""
        self._refuse("cannot be restarted")

    def freeze(self) -> None:
        """Refused: it is not ours."""
        self._refuse("cannot be frozen")

    def thaw(self) -> None:
        """Refused: it is not ours."""
        self._refuse("cannot be frozen or thawed")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.host}:{self.port} from {self._source}>"

    _schemes: ClassVar[tuple[str, ...]]
    _default_port: ClassVar[int]
    _example: ClassVar[str]

    def _refuse(self, what: str) -> NoReturn:
        raise ServiceError(f"this {self.what} was not started by the lab and {what}")

    def _problem(self, text: str) -> ServiceError:
        return ServiceError(f"{self.what} of {self._source}: {text}")

    def _malformed(self, text: str) -> ServiceError:
        # No part of the URL: a password with an unquoted slash or colon ends up anywhere in it.
        return self._problem(f"the URL is malformed: {text}; it should look like {self._example}")

    def _parse(self, url: str) -> tuple[str, SplitResult]:
        url = url.strip()
        quoting = "percent-encode special characters in the password"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise self._malformed(f"its host or port cannot be read ({quoting})") from None
        scheme = parts.scheme.split("+")[0]
        if "://" not in url or not scheme:
            raise self._malformed("it has no scheme")
        if scheme not in self._schemes:
            raise self._malformed(f"its scheme is not one of {', '.join(self._schemes)}")
        if not parts.hostname:
            raise self._malformed("it has no host")
        if port == 0:
            raise self._malformed("its port is 0")
        if parts.fragment or url.endswith("#"):
            raise self._malformed(f"it has a '#' ({quoting})")
        if "@" in parts.path + parts.query:
            # The rest of a password, which the server would be asked for and repeat.
            raise self._malformed(f"it has an '@' behind the host ({quoting})")
        # Without the driver that SQLAlchemy writes there (postgresql+asyncpg).
        return url.replace(parts.scheme, scheme, 1), parts

    def _unreachable(self, error: BaseException) -> ServiceError:
        where = f"{self.host}:{self.port}"
        if isinstance(error, TimeoutError):
            reason = f"did not answer within {_PATIENCE:g} s"
        elif isinstance(error, ConnectionRefusedError):
            reason = "refused the connection"
        elif isinstance(error, socket.gaierror):
            reason = "cannot be found: no such host"
        elif isinstance(error, ssl.SSLError):
            reason = "did not agree on TLS"
        else:
            reason = f"cannot be reached ({type(error).__name__})"
        return self._problem(f"{where} {reason}; {self._advice}")


class ExternalPostgres(_External):
    """A PostgreSQL given by its URL; its user may create databases and roles.

    :raises ServiceError: when the URL is malformed.
    """

    what: ClassVar[str] = "PostgreSQL"
    _schemes: ClassVar[tuple[str, ...]] = ("postgresql", "postgres")
    _default_port: ClassVar[int] = 5432
    _example: ClassVar[str] = "postgresql://user:password@host:5432/postgres"

    def __init__(self, url: str, *, source: str, advice: str = "start it, or correct it") -> None:
        super().__init__(url, source=source, advice=advice)
        self.ssl = False

    @property
    def admin_url(self) -> str:
        """The URL as it was given, without a driver in its scheme."""
        return self._url

    async def start(self) -> None:
        """Verify it with a real connection; afterwards :attr:`ssl` says whether it speaks TLS.

        :raises ServiceError: one line, when it cannot be used.
        """
        connection = await self._connect()
        try:
            row = await connection.fetchrow(
                "select current_setting('ssl') = 'on' as ssl, "
                "current_setting('server_version_num')::int / 10000 as version, "
                "pg_is_in_recovery() as standby, rolname as name, "
                "rolsuper or (rolcreatedb and rolcreaterole) as able "
                "from pg_roles where rolname = current_user",
                timeout=_PATIENCE,
            )
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise self._unreachable(error) from None
        finally:
            connection.terminate()
        if row["version"] < _OLDEST_POSTGRES:
            raise self._problem(f"version {row['version']} is older than {_OLDEST_POSTGRES}")
        if row["standby"]:
            raise self._problem(f"{self.host}:{self.port} is a read-only standby; name the primary")
        if not row["able"]:
            raise self._problem(
                f"the user {row['name']} may not create databases and roles; as a superuser: "
                f'ALTER ROLE "{row["name"]}" CREATEDB CREATEROLE'
            )
        self.ssl = row["ssl"]

    async def _connect(self) -> asyncpg.Connection:
        until = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                return await asyncpg.connect(self._url, timeout=_PATIENCE)
            except asyncpg.CannotConnectNowError as error:
                # It is starting up.
                if asyncio.get_running_loop().time() > until:
                    raise self._unreachable(TimeoutError()) from error
                await asyncio.sleep(0.05)
            except asyncpg.InvalidPasswordError:
                raise self._problem("it refused the password") from None
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                # The user is unknown, or pg_hba.conf has no line for it; the server says which.
                raise self._problem(f"it refused the user: {_first_line(error)}") from None
            except asyncpg.InvalidCatalogNameError as error:
                raise self._problem(_first_line(error)) from None
            except asyncpg.TooManyConnectionsError:
                raise self._problem("it has no connection left; close some") from None
            except (OSError, TimeoutError) as error:
                raise self._unreachable(error) from None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
                # The message may quote the URL.
                raise self._problem(
                    f"it cannot be used with this URL ({type(error).__name__})"
                ) from None


class ExternalRedis(_External):
    """A Valkey or Redis given by its URL.

    :raises ServiceError: when the URL is malformed.
    """

    what: ClassVar[str] = "Redis"
    _schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss")
    _default_port: ClassVar[int] = 6379
    _example: ClassVar[str] = "redis://:password@host:6379/0"

    @property
    def url(self) -> str:
        """The URL as it was given."""
        return self._url

    async def start(self) -> None:
        """Verify it with a real connection.

        :raises ServiceError: one line, when it cannot be used.
        """
        # Here, because it takes a while to import and an embedded lab needs none of it.
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        path = self._parts.path.strip("/")
        if path and not path.isdecimal():
            raise self._malformed("what follows the host is not a database number")
        client = redis.asyncio.Redis.from_url(
            self._url,
            socket_connect_timeout=_PATIENCE,
            socket_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(2 * _PATIENCE):
                await client.ping()
                try:
                    version = str((await client.info("server")).get("redis_version", ""))
                except redis.exceptions.NoPermissionError:
                    version = ""
        except redis.exceptions.AuthenticationError:
            given = "refused the password" if self._parts.password else "wants a password"
            raise self._problem(f"it {given}") from None
        except (redis.exceptions.TimeoutError, TimeoutError):
            raise self._unreachable(TimeoutError()) from None
        except redis.exceptions.ConnectionError as error:
            raise self._unreachable(_root_cause(error)) from None
        except redis.exceptions.RedisError as error:
            raise self._problem(self._without_password(str(error))) from None
        finally:
            await client.aclose()
        major = version.split(".")[0]
        if major.isdecimal() and int(major) < _OLDEST_REDIS:
            raise self._problem(f"version {version} is older than {_OLDEST_REDIS}")

    def _without_password(self, text: str) -> str:
        password = self._parts.password
        return text.replace(password, "***") if password else text


def environment_urls() -> tuple[ExternalPostgres, ExternalRedis]:
    """The servers that ``SSOT_DATABASE_URL`` and ``SSOT_REDIS_URL`` name.

    :raises ServiceError: when one is not set or malformed.
    """
    names = ("SSOT_DATABASE_URL", "SSOT_REDIS_URL")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ServiceError(
            f"not set: {' and '.join(missing)}; services=url needs the URLs of a PostgreSQL "
            "and a Redis"
        )
    database, cache = (os.environ[name] for name in names)
    return (
        ExternalPostgres(database, source=names[0]),
        ExternalRedis(cache, source=names[1]),
    )


def compose_urls(folder: Path | None = None) -> tuple[ExternalPostgres, ExternalRedis]:
    """The servers of ``docker-compose.yml`` in ``folder``, on this machine.

    Its variables come from the environment, else from the ``.env`` beside it, as for Docker.

    :raises ServiceError: when a password is not set, or a port is not a number.
    """
    folder = folder or _compose_folder()
    values = {**_dotenv(folder / ".env"), **os.environ}
    missing = [name for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD") if not values.get(name)]
    if missing:
        raise ServiceError(
            f"not set: {' and '.join(missing)}, neither in the environment nor in "
            f"{folder / '.env'}; services=compose needs what docker-compose.yml was started with"
        )
    ports = {}
    for name, default in (("POSTGRES_PORT", "55432"), ("REDIS_PORT", "56379")):
        text = values.get(name) or default
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise ServiceError(f"{name} is not a port number")
        ports[name] = int(text)
    passwords = {
        name: quote(values[name], safe="") for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD")
    }
    advice = "start it with `docker compose up -d --wait`"
    return (
        ExternalPostgres(
            f"postgresql://postgres:{passwords['POSTGRES_PASSWORD']}"
            f"@127.0.0.1:{ports['POSTGRES_PORT']}/postgres",
            source=_COMPOSE,
            advice=advice,
        ),
        ExternalRedis(
            f"redis://:{passwords['REDIS_PASSWORD']}@127.0.0.1:{ports['REDIS_PORT']}/0",
            source=_COMPOSE,
            advice=advice,
        ),
    )


def _compose_folder() -> Path:
    """The repository: of this package, else of the working directory."""
    here = Path.cwd()
    for folder in (Path(__file__).parents[3], here, *here.parents):
        if (folder / _COMPOSE).is_file():
            return folder
    return here


def _dotenv(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    try:
        from dotenv import dotenv_values
    except ImportError:
        raise ServiceError(
            f"{path} cannot be read without the package python-dotenv; install it, or set the "
            "variables in the environment"
        ) from None
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]


def _root_cause(error: BaseException) -> BaseException:
    """What lies under an error of redis-py, which puts its own around the system's."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
