"""Defects of changes that come in numbers, one upon the other, or to what is protected."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="lost-update",
        title="A change is built of the layers of before the lock",
        symptom="of two people who change settings at once, one changes nothing",
        caught_by=("ENV-39",),
        incidents=(24,),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            with self._writing:\n"
                "                try:\n"
                "                    if problems := ill():",
                "            layers = change(self._layers)\n"
                "            with self._writing:\n"
                "                try:\n"
                "                    if problems := ill():",
            ),
            Edit(
                "ssot/environment/isolated.py",
                "self._swap(change(self._layers), trace_of(span))",
                "self._swap(layers, trace_of(span))",
            ),
        ),
    ),
    Defect(
        id="reload-races-override",
        title="A reload reads the layers before it takes the lock: an override meanwhile is lost",
        symptom="what was set during a reload is gone after it",
        caught_by=("ENV-39",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            with self._writing:\n"
                "                try:\n"
                "                    layers = self._layers.read(self._sources, self._given_up)\n",
                "            layers = self._layers.read(self._sources, self._given_up)\n"
                "            with self._writing:\n"
                "                try:\n",
            ),
        ),
    ),
    Defect(
        id="unsubscribe-does-nothing",
        title="A subscription that was closed goes on",
        symptom="whoever has left is told for ever",
        caught_by=("ENV-41",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/subscribers.py",
                "        self.closed = True",
                "        self.names = self.names",
            ),
        ),
    ),
    Defect(
        id="told-by-a-thread",
        title="Subscribers are told by a thread of its own, some time later",
        symptom="whoever has made a change goes on before anybody knows of it",
        caught_by=("ENV-41",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "                    mark_failed(span, error)\n"
                "                    raise\n"
                "            self._subscribers.tell()\n"
                "\n"
                "    def _swap",
                "                    mark_failed(span, error)\n"
                "                    raise\n"
                "            threading.Thread(target=self._subscribers.tell).start()\n"
                "\n"
                "    def _swap",
            ),
        ),
    ),
    Defect(
        id="told-under-the-lock",
        title="Subscribers are told under the writer's lock",
        symptom="a subscriber that makes a change itself stops the process",
        caught_by=("ENV-49",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "                    self._swap(change(self._layers), trace_of(span))\n"
                "                except SettingsError as error:\n"
                "                    self._refused += 1\n"
                "                    mark_failed(span, error)\n"
                "                    raise\n"
                "            self._subscribers.tell()",
                "                    self._swap(change(self._layers), trace_of(span))\n"
                "                except SettingsError as error:\n"
                "                    self._refused += 1\n"
                "                    mark_failed(span, error)\n"
                "                    raise\n"
                "                self._subscribers.tell()",
            ),
        ),
    ),
    Defect(
        id="reload-changes-protected",
        title="A reload changes protected names",
        symptom="an edited file moves a running service to another database",
        caught_by=("ENV-40",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        if self._revision:\n            for name in sorted(self._protected):",
                "        if self._revision < 0:\n            for name in sorted(self._protected):",
            ),
        ),
    ),
    Defect(
        id="overlay-overrides-protected",
        title="An overlay may set protected names",
        symptom="one user's task runs on another database",
        caught_by=("ENV-40",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        if problems := [*problems, *protection_of(values, self._protected())]:",
                "        if problems:",
            ),
        ),
    ),
    Defect(
        id="protect-after-overlay",
        title="Overlays know what was protected when they were made",
        symptom="a task that was begun before knows of no protection",
        caught_by=("ENV-40",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            protected=lambda: self._protected,",
                "            protected=lambda kept=self._protected: kept,",
            ),
        ),
    ),
    Defect(
        id="change-before-follow-lost",
        title="What changes between the building and the following is never applied",
        symptom="what changes while a service starts has no effect",
        caught_by=("ENV-04",),
        incidents=(18,),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "        # What has changed since this was built.\n        self._refresh()\n",
                "",
            ),
        ),
    ),
    Defect(
        id="first-failure-stops-appliers",
        title="After one applier that fails, the others are not called",
        symptom="a typing error in a password keeps the queue closed",
        caught_by=("ENV-45",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/live.py",
                '                _log.error("revision %d: %s: not applied: %s", '
                "revision.number, told, why)\n",
                '                _log.error("revision %d: %s: not applied: %s", '
                "revision.number, told, why)\n"
                "                break\n",
            ),
        ),
    ),
    Defect(
        id="failed-not-tried-again",
        title="What could not be applied is not tried again with the next revision",
        symptom="after an outage, a credential is never applied",
        caught_by=("ENV-45",),
        edits=(
            Edit(
                "ssot/live.py",
                "            if not mine and place not in self._failed:",
                "            if not mine:",
            ),
        ),
    ),
    Defect(
        id="change-while-applying-lost",
        title="A change that comes while another is applied is lost",
        symptom="of two changes in a second, the second is lost",
        caught_by=("ENV-46",),
        incidents=(18,),
        edits=(
            Edit(
                "ssot/live.py",
                "            self._newer.clear()\n"
                "            revision = self._configuration.current\n"
                "            with continuing(revision.trace):\n"
                "                await self._apply(revision)\n",
                "            revision = self._configuration.current\n"
                "            with continuing(revision.trace):\n"
                "                await self._apply(revision)\n"
                "            self._newer.clear()\n",
            ),
        ),
    ),
    Defect(
        id="total-limit-not-applied",
        title="A changed limit of all runs reaches nobody",
        symptom="a raised limit starts nothing",
        caught_by=("ENV-45",),
        incidents=(18,),
        edits=(Edit("ssot/agents/engine.py", "        self._all.resize(settings.max_runs)\n", ""),),
    ),
    Defect(
        id="issuer-follows-at-auth-alone",
        title="The auth service changes its issuer while it runs, nodes do not",
        symptom="auth signs in a name that no node trusts, until all are restarted",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/service.py",
                "            self._now = _Applied.of(settings)\n            self._applied += 1",
                "            self._now = _Applied.of(settings)\n"
                "            self._tokens = settings.tokens or self._tokens\n"
                "            self._applied += 1",
            ),
        ),
    ),
    Defect(
        id="key-kept-by-new-ttl",
        title="The old key stays published as long as a NEW token lives",
        symptom="a shorter lifetime throws out who is logged in",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/service.py",
                "            keep = max(self._now.access_ttl, self._keys.remaining) + _KEEP_LONGER",
                "            keep = settings.auth.access_ttl + _KEEP_LONGER",
            ),
        ),
    ),
    Defect(
        id="one-earlier-key",
        title="Of the earlier keys only the last one is published",
        symptom="two rotations in an hour throw users out",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/keyring.py",
                "        self._earlier[self._newest.kid] = (self._newest.public_jwk, now + keep)",
                "        self._earlier = {self._newest.kid: (self._newest.public_jwk, now + keep)}",
            ),
        ),
    ),
    Defect(
        id="jwks-only-grows",
        title="A node never forgets a key that is published no longer",
        symptom="a key that was withdrawn signs on, for every node",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                '                self._keys = {key["kid"]: key for key in answer.json()["keys"]}',
                '                self._keys |= {key["kid"]: key for key in answer.json()["keys"]}',
            ),
        ),
    ),
    Defect(
        id="jwks-no-refresh",
        title="A node asks for keys only when a token names an unknown one",
        symptom="a key that was withdrawn is good until nodes are restarted",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "                await self._refresh()\n",
                "                pass\n",
            ),
        ),
    ),
    Defect(
        id="failed-fetch-empties-keys",
        title="A fetch that failed forgets the keys that are known",
        symptom="while auth is down, everybody is refused",
        caught_by=("ENV-44",),
        incidents=(2,),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "                self._failure = Unavailable(",
                "                self._keys = {}\n                self._failure = Unavailable(",
            ),
        ),
    ),
    Defect(
        id="refused-for-good",
        title="A signal after which no file has changed tries nothing again",
        symptom="the server is mended, and the process goes on with the role of before",
        caught_by=("ENV-45",),
        incidents=(18,),
        edits=(
            Edit("ssot/serve.py", "            await role.changes.retry()\n", "            pass\n"),
        ),
    ),
    Defect(
        id="lifetime-alone-not-applied",
        title="A changed lifetime of tokens is not applied unless the key changes with it",
        symptom="tokens live for as long as at the start",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/platform.py",
                '"auth.signing_key", "auth.access_ttl", "oauth"',
                '"auth.signing_key", "oauth"',
            ),
        ),
    ),
    Defect(
        id="key-kept-by-lifetime-of-now",
        title="A key is kept by the lifetime of now, whatever its tokens were promised",
        symptom="a shorter lifetime and a rotation throw out who logged in before",
        caught_by=("ENV-44",),
        edits=(
            Edit(
                "ssot/auth/service.py",
                "max(self._now.access_ttl, self._keys.remaining) + _KEEP_LONGER",
                "self._now.access_ttl + _KEEP_LONGER",
            ),
        ),
    ),
    Defect(
        id="timeouts-not-live",
        title="A pool follows a new URL and size, and no other setting",
        symptom="a statement timeout that was raised is logged as applied and is not in force",
        caught_by=("ENV-46",),
        incidents=(18,),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "            if settings == self.settings:\n                return\n",
                "            if (settings.url, settings.pool_size) == "
                "(self.settings.url, self.settings.pool_size):\n"
                "                return\n",
            ),
        ),
    ),
)
