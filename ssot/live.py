"""Changed settings brought to what is running, one revision after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from ssot.configuration import Settings, UnifiedConfiguration
from ssot.configuration.unified import Revision
from ssot.errors import SsotError
from ssot.tracing import apart, continuing

__all__ = ["LiveChanges"]

_log = logging.getLogger(__name__)

Apply = Callable[[Settings], Awaitable[None] | None]


class LiveChanges:
    """Follows a configuration and applies what can be changed while it is used.

    An async context manager. :meth:`on` says for a setting, or a whole section, who applies it.
    What nobody applies takes effect at the next start, and is logged so. What cannot be applied (a
    credential that the server refuses) is logged with its reason, the component goes on with what
    it had, and the next revision tries again, or :meth:`retry`.
    """

    def __init__(self, configuration: UnifiedConfiguration) -> None:
        self._configuration = configuration
        self._appliers: list[tuple[tuple[str, ...], Apply]] = []
        # What each applier has, and what the process was started with where there is none.
        self._applied = configuration.current
        # By the place of the applier: two may have the same paths.
        self._failed: dict[int, tuple[str, str]] = {}
        self._newer = asyncio.Event()
        self._done = asyncio.Condition()
        self._passes = 0
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LiveChanges:
        self._configuration.subscribe(self._wake)
        with apart():
            self._task = asyncio.create_task(self._follow(), name="live changes")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Follow no longer; what is being applied is given up. Idempotent."""
        self._configuration.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def on(self, apply: Apply, *paths: str) -> None:
        """Call ``apply`` with the settings when one of those ``paths`` has changed.

        A path is a setting (``auth.access_ttl``) or a section with all that is in it (``oauth``).
        Of several that a change concerns each is called, one after the other, in the order in which
        they were given here.
        """
        self._appliers.append((paths, apply))

    async def applied(self) -> tuple[str, ...]:
        """Wait until the newest revision is applied; what of it could not be, each with why."""
        async with self._done:
            await self._done.wait_for(
                lambda: self._applied.number >= self._configuration.current.number
            )
        return tuple(f"{path}: {why}" for path, why in self._failed.values())

    async def retry(self) -> None:
        """Try again what could not be applied: what refused it may have been mended elsewhere.

        Returns when it has been tried; :meth:`applied` tells what came of it.
        """
        if self._failed:
            passes = self._passes
            self._newer.set()
            async with self._done:
                await self._done.wait_for(lambda: self._passes > passes)

    def _wake(self, _: Revision) -> None:
        # In whichever thread made the change; the loop may be closed by then.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._newer.set)

    async def _follow(self) -> None:
        while True:
            await self._newer.wait()
            self._newer.clear()
            revision = self._configuration.current
            with continuing(revision.trace):
                await self._apply(revision)
            async with self._done:
                self._applied = revision
                self._passes += 1
                self._done.notify_all()

    async def _apply(self, revision: Revision) -> None:
        changed = _differences(self._applied.settings, revision.settings)
        left = set(changed)
        for place, (paths, apply) in enumerate(self._appliers):
            below = tuple(f"{path}." for path in paths)
            mine = {each for each in changed if f"{each}.".startswith(below)}
            left -= mine
            told = ", ".join(paths)
            if not mine and place not in self._failed:
                continue
            try:
                applying = apply(revision.settings)
                if applying is not None:
                    await applying
            except Exception as error:  # the others are applied all the same
                # Our own errors hold no secret; of another only the kind is told.
                why = str(error) if isinstance(error, SsotError) else type(error).__name__
                self._failed[place] = (told, why)
                _log.error("revision %d: %s: not applied: %s", revision.number, told, why)
            else:
                self._failed.pop(place, None)
                applied = ", ".join(sorted(mine)) or told
                _log.info("revision %d: %s: applied", revision.number, applied)
        for path in sorted(left):
            _log.warning("revision %d: %s: takes effect at the next start", revision.number, path)


def _differences(old: BaseModel | None, new: BaseModel | None, prefix: str = "") -> set[str]:
    """The paths of all settings whose values differ."""
    found: set[str] = set()
    known = old or new
    for name in type(known).model_fields if known is not None else ():
        before, after = getattr(old, name, None), getattr(new, name, None)
        if isinstance(before, BaseModel) or isinstance(after, BaseModel):
            found |= _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.add(f"{prefix}{name}")
    return found
