"""Real PostgreSQL and Valkey/Redis servers for a lab, and the watchdog that cleans up after it."""

from ssot.lab.services.errors import ServiceError
from ssot.lab.services.external import ExternalPostgres, ExternalRedis
from ssot.lab.services.postgres import EmbeddedPostgres
from ssot.lab.services.server import PostgresServer, RedisServer, Server
from ssot.lab.services.services import Kind, Services, open_services
from ssot.lab.services.valkey import EmbeddedValkey
from ssot.lab.services.workspace import MARK, Workspace

__all__ = [
    "MARK",
    "EmbeddedPostgres",
    "EmbeddedValkey",
    "ExternalPostgres",
    "ExternalRedis",
    "Kind",
    "PostgresServer",
    "RedisServer",
    "Server",
    "ServiceError",
    "Services",
    "Workspace",
    "open_services",
]
