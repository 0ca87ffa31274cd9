"""IsolatedEnvironment: the one place where environment variables are read."""

from ssot.environment.isolated import SERVICES, IsolatedEnvironment, Layer, Snapshot, Variable
from ssot.environment.redaction import MASK, RedactingFilter, Redactor, is_secret_name, mask_url

__all__ = [
    "MASK",
    "SERVICES",
    "IsolatedEnvironment",
    "Layer",
    "RedactingFilter",
    "Redactor",
    "Snapshot",
    "Variable",
    "is_secret_name",
    "mask_url",
]
