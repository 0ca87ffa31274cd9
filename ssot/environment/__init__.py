"""IsolatedEnvironment: the one place where environment variables are read."""

from ssot.environment.isolated import (
    EnvironmentStatistics,
    IsolatedEnvironment,
    Validator,
    examine,
    read_files,
)
from ssot.environment.overlay import Overlay
from ssot.environment.redaction import (
    MASK,
    RedactingFilter,
    Redactor,
    is_secret_name,
    mask_url,
    secrets_among,
)
from ssot.environment.singleton import Singleton, process_environment
from ssot.environment.snapshot import LAYERS, Change, Layer, Origin, Snapshot, Variable
from ssot.environment.sources import BOOTSTRAP, KINDS, Kind, Sources, detect, nearest
from ssot.environment.subscribers import Subscription
from ssot.environment.view import SERVICES, View, owner_of

__all__ = [
    "BOOTSTRAP",
    "KINDS",
    "LAYERS",
    "MASK",
    "SERVICES",
    "Change",
    "EnvironmentStatistics",
    "IsolatedEnvironment",
    "Kind",
    "Layer",
    "Origin",
    "Overlay",
    "RedactingFilter",
    "Redactor",
    "Singleton",
    "Snapshot",
    "Sources",
    "Subscription",
    "Validator",
    "Variable",
    "View",
    "detect",
    "examine",
    "is_secret_name",
    "mask_url",
    "nearest",
    "owner_of",
    "process_environment",
    "read_files",
    "secrets_among",
]
