"""Every link of a lab, by the names of its ends."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from ssot.lab.faults.fault import Fault
from ssot.lab.faults.link import Link, Recovered, name_of
from ssot.lab.faults.log import FaultLog
from ssot.lab.faults.probes import Kind
from ssot.lab.faults.proxy import Proxies

__all__ = ["Links"]


class Links:
    """Opens each link once and keeps it, also when its process is started again.

    ``seed`` decides the randomness of all of them; ``recovered`` waits until a link works again.
    """

    def __init__(
        self,
        *,
        seed: int,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Recovered,
    ) -> None:
        self._proxies = Proxies(seed=seed)
        self._log = log
        self._open = open_faults
        self._recovered = recovered
        self._links: dict[str, Link] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links.values()))

    def open(
        self,
        near: str,
        far: str,
        target: Callable[[], tuple[str, int]],
        *,
        kind: Kind,
        round_trip: float = 0.0,
        direct: str = "",
    ) -> Link:
        """The link, made if it is not there yet; blocks for a millisecond then.

        ``target`` says at each connection where the far end is; ``round_trip`` is in seconds.
        ``direct`` is the reason why there can be no proxy.
        """
        name = name_of(near, far)
        link = self._links.get(name)
        if link is None:
            proxy = None
            if not direct:
                # Frames are on the ways of clients; Redis and PostgreSQL speak no HTTP.
                proxy = self._proxies.open(
                    name, target, round_trip=round_trip, frames=kind == "http"
                )
            link = self._links[name] = Link(
                near,
                far,
                kind=kind,
                proxy=proxy,
                direct=direct,
                log=self._log,
                open_faults=self._open,
                recovered=self._recovered,
            )
        return link

    def find(self, near: str, far: str) -> Link:
        """The link between two ends; :class:`LookupError` with the nearest when there is none."""
        name = name_of(near, far)
        link = self._links.get(name)
        if link is None:
            near_names = difflib.get_close_matches(name, self._links, n=1, cutoff=0.5)
            hint = f"did you mean {near_names[0]}?" if near_names else ""
            known = hint or f"there are {', '.join(self._links) or 'none yet'}"
            raise LookupError(f"no link {name}: {known}")
        return link

    async def aclose(self) -> None:
        """Close all of them. Idempotent."""
        await self._proxies.aclose()
