"""UnifiedConfiguration: typed settings with one schema, one precedence and one revision number."""

from ssot.configuration.schema import SECTIONS, Field, fields
from ssot.configuration.settings import (
    AgentSettings,
    AuthSettings,
    DatabaseSettings,
    NodeSettings,
    OAuthSettings,
    RedisSettings,
    Settings,
    TokenSettings,
    WorkerSettings,
    is_protected,
    name_in,
)
from ssot.configuration.unified import Revision, UnifiedConfiguration, environment_options

__all__ = [
    "SECTIONS",
    "AgentSettings",
    "AuthSettings",
    "DatabaseSettings",
    "Field",
    "NodeSettings",
    "OAuthSettings",
    "RedisSettings",
    "Revision",
    "Settings",
    "TokenSettings",
    "UnifiedConfiguration",
    "WorkerSettings",
    "environment_options",
    "fields",
    "is_protected",
    "name_in",
]
