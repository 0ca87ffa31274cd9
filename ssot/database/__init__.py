"""DatabaseManager: PostgreSQL, with every row behind the user it belongs to."""

from ssot.database.manager import SCHEMA_VERSION, DatabaseManager, DatabaseStatistics
from ssot.database.models import Account, Applied, Base, LlmUsage, OAuthIdentity, Run
from ssot.database.roles import LOGIN_ROLES, provision
from ssot.database.runs import RunRecords

__all__ = [
    "LOGIN_ROLES",
    "SCHEMA_VERSION",
    "Account",
    "Applied",
    "Base",
    "DatabaseManager",
    "DatabaseStatistics",
    "LlmUsage",
    "OAuthIdentity",
    "Run",
    "RunRecords",
    "provision",
]
