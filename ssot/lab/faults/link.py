"""A link between two ends of the platform, and the ways in which it can be broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ssot.lab.checks import Unknown
from ssot.lab.faults.fault import Fault, until
from ssot.lab.faults.log import FaultLog, What
from ssot.lab.faults.probes import Kind, ask
from ssot.lab.faults.proxy import Proxy, Traffic
from ssot.lab.faults.shape import (
    Bandwidth,
    BlackHole,
    Cut,
    Direction,
    Effect,
    Injection,
    Latency,
)

__all__ = ["Link", "LinkFault", "Recovered", "name_of"]

Recovered = Callable[["Link", Callable[[str], None]], Awaitable[None]]


def name_of(near: str, far: str) -> str:
    """How a link is written: ``worker a → redis``."""
    return f"{near} → {far}"


class Link:
    """One process's way to one server. ``to`` is toward the ``far`` end, ``from`` is from it.

    Each of its faults is an async context manager that begins at once, after ``after_bytes`` bytes
    of its direction (byte N is delivered, byte N+1 is not), or ``after`` seconds; it heals, and
    waits for recovery, on leaving. Faults of one link add up. A link that cannot have a proxy, for
    the reason ``direct``, raises :class:`~ssot.lab.checks.Unknown` for each of them.
    """

    def __init__(
        self,
        near: str,
        far: str,
        *,
        kind: Kind,
        proxy: Proxy | None,
        direct: str,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Recovered,
    ) -> None:
        self.near = near
        self.far = far
        self.name = name_of(near, far)
        self.kind: Kind = kind
        self._proxy = proxy
        self._direct = direct
        self._log = log
        self._open = open_faults
        self._recovered = recovered

    def __repr__(self) -> str:
        return f"<link {self.name}: {self._direct or self.traffic()}>"

    @property
    def proxied(self) -> bool:
        """Whether it can be broken and its traffic counted."""
        return self._proxy is not None

    @property
    def port(self) -> int | None:
        """The port of 127.0.0.1 where it begins; ``None`` without a proxy."""
        return self._proxy.port if self._proxy else None

    @property
    def suffering(self) -> bool:
        """Whether a fault acts on it now."""
        return self._proxy is not None and self._proxy.suffering

    def traffic(self) -> Traffic:
        """What went over it since it was opened; nothing is known of one without a proxy."""
        return self._proxy.traffic() if self._proxy else Traffic()

    def addresses(self) -> set[tuple[str, int]]:
        """Host and port of each of its connections, as the far end sees them."""
        return self._proxy.addresses() if self._proxy else set()

    def latency(
        self,
        seconds: float,
        *,
        jitter: float = 0.0,
        direction: Direction = "both",
        after_bytes: int | None = None,
        after: float | None = None,
    ) -> LinkFault:
        """Each piece comes ``seconds`` later, and up to ``jitter`` s more, in each direction.

        Order is kept. The jitter is drawn from the lab's seed and the link's name.
        """
        effect = Latency(seconds, jitter)
        return self._fault("latency", effect, direction, after_bytes, after)

    def bandwidth(
        self,
        rate: float,
        *,
        direction: Direction = "both",
        after_bytes: int | None = None,
        after: float | None = None,
    ) -> LinkFault:
        """All connections together carry ``rate`` bytes a second, in each direction."""
        return self._fault("bandwidth", Bandwidth(rate), direction, after_bytes, after)

    def cut(
        self,
        *,
        refuse: bool = True,
        direction: Direction = "both",
        after_bytes: int | None = None,
        after: float | None = None,
    ) -> LinkFault:
        """Both ends of every connection get a reset (RST).

        New connections are refused while it lasts; with ``refuse=False`` they are accepted.
        ``direction`` says whose bytes are counted: a reset hits both.
        """
        return self._fault("cut", Cut(refuse), direction, after_bytes, after)

    def black_hole(
        self,
        *,
        direction: Direction = "both",
        after_bytes: int | None = None,
        after: float | None = None,
    ) -> LinkFault:
        """Nothing arrives, nobody is told, and writes succeed until the buffers are full.

        A new connection is accepted and then nothing answers on it. On healing, what was held back
        goes on, as TCP would send it again.
        """
        return self._fault("black hole", BlackHole(), direction, after_bytes, after)

    async def answers(self) -> str:
        """What is wrong with a fresh connection over it, or nothing. Raises :class:`OSError`."""
        assert self._proxy is not None
        return await ask(self.kind, "127.0.0.1", self._proxy.port)

    async def carries(self, say: Callable[[str], None]) -> None:
        """Return when its ends have talked: from now on bytes have gone both ways."""
        before = self.traffic()

        async def probe() -> str:
            now = self.traffic()
            if now.bytes_to == before.bytes_to:
                return f"{self.near} says nothing to {self.far}"
            if now.bytes_from == before.bytes_from:
                return f"{self.near} hears nothing from {self.far}"
            return ""

        await until(probe, say)

    def _fault(
        self,
        what: What,
        effect: Effect,
        direction: Direction,
        after_bytes: int | None,
        after: float | None,
    ) -> LinkFault:
        if self._proxy is None:
            raise Unknown(f"{self.name} cannot be broken: {self._direct}")
        injection = Injection(effect, direction, after_bytes=after_bytes, after=after)
        return LinkFault(
            what,
            self,
            self._proxy,
            injection,
            log=self._log,
            open_faults=self._open,
            recovered=self._recovered,
        )


class LinkFault(Fault):
    """A fault of a link; see :class:`Link`."""

    def __init__(
        self,
        what: What,
        link: Link,
        proxy: Proxy,
        injection: Injection,
        *,
        log: FaultLog,
        open_faults: dict[Fault, None],
        recovered: Recovered,
    ) -> None:
        super().__init__(what, link.name, log=log, open_faults=open_faults)
        self.link = link
        self._proxy = proxy
        self._injection = injection
        self._recovered = recovered

    async def _make(self) -> None:
        await self._proxy.inject(self._injection, self._struck)

    async def _undo(self) -> None:
        await self._proxy.heal(self._injection)

    async def _recover(self, say: Callable[[str], None]) -> None:
        await self._recovered(self.link, say)

    def _struck(self) -> None:
        injection = self._injection
        effect = injection.effect
        detail = _detail(effect)
        if injection.direction != "both" and not isinstance(effect, Cut):
            detail += f" {'toward' if injection.direction == 'to' else 'from'} {self.link.far}"
        self._begun(detail.strip())

    def _progress(self) -> str:
        injection = self._injection
        if injection.after_bytes is None:
            return f"it was to begin after {injection.after:g} s"
        return f"{injection.left} of {injection.after_bytes} bytes have not gone by yet"


def _detail(effect: Effect) -> str:
    if isinstance(effect, Latency):
        jitter = f" and up to {effect.jitter:g} s more" if effect.jitter else ""
        return f"of {effect.seconds:g} s{jitter}"
    if isinstance(effect, Bandwidth):
        return f"of {effect.rate:g} bytes/s"
    if isinstance(effect, Cut):
        return "" if effect.refuse else "once"
    return ""
