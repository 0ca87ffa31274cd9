"""Redis: the event log, the command stream, leases, and the connections under them."""

from ssot.streams.client import RedisClient
from ssot.streams.commands import Claim, CommandStream
from ssot.streams.event_log import Append, EventLog
from ssot.streams.event_writer import EventWriter, RunSink
from ssot.streams.leases import Lease, Leases
from ssot.streams.subscriber import Listener, Subscriber

__all__ = [
    "Append",
    "Claim",
    "CommandStream",
    "EventLog",
    "EventWriter",
    "Lease",
    "Leases",
    "Listener",
    "RedisClient",
    "RunSink",
    "Subscriber",
]
