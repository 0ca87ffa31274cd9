"""UnifiedConfiguration: typed settings with one schema, one precedence and one revision number."""

from ssot.configuration.settings import (
    AgentSettings,
    AuthSettings,
    DatabaseSettings,
    NodeSettings,
    RedisSettings,
    Settings,
    TokenSettings,
    WorkerSettings,
)
from ssot.configuration.unified import SECTIONS, Revision, UnifiedConfiguration, variables

__all__ = [
    "SECTIONS",
    "AgentSettings",
    "AuthSettings",
    "DatabaseSettings",
    "NodeSettings",
    "RedisSettings",
    "Revision",
    "Settings",
    "TokenSettings",
    "UnifiedConfiguration",
    "WorkerSettings",
    "variables",
]
