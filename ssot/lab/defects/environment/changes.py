"""Defects of what depends on what, and of changes that must arrive."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    # What depends on what
    Defect(
        id="roles-fail-one-by-one",
        title="`all` starts its roles without asking whether the others can be configured",
        symptom="an empty environment is found out in four crashes, one missing name after another",
        caught_by=("ENV-23",),
        control=("ENV-25",),
        incidents=(3,),
        edits=(Edit("ssot/serve.py", "            _refuse_if_wrong(os.environ)\n", ""),),
    ),
    Defect(
        id="only-the-first-who-needs-it",
        title="A missing variable is told for the first service that lacks it, and for no other",
        symptom="it is set for that service alone, and the next deployment fails again",
        caught_by=("ENV-23",),
        control=("ENV-25",),
        incidents=(3,),
        edits=(
            Edit(
                "ssot/serve.py",
                "[f\"[{', '.join(who)}] {problem}\"",
                '[f"[{who[0]}] {problem}"',
            ),
        ),
    ),
    Defect(
        id="signing-key-made-up",
        title="Without its secret the auth service signs with a key that it has made up",
        symptom="it looks well, and every token is worthless after the next start",
        caught_by=("ENV-24",),
        control=("ENV-25",),
        incidents=(2,),
        edits=(
            Edit("ssot/configuration/settings.py", "import re\n", "import re\nimport secrets\n"),
            Edit(
                "ssot/configuration/settings.py",
                '        "AUTH_SIGNING_KEY", what=',
                '        "AUTH_SIGNING_KEY", SecretStr(secrets.token_urlsafe(32)), what=',
            ),
        ),
    ),
    Defect(
        id="breaker-stays-open",
        title="A node whose first fetch of the keys has failed never fetches again",
        symptom="the auth service is repaired, and everybody is refused until nodes are restarted",
        caught_by=("ENV-24",),
        control=("ENV-25",),
        incidents=(2,),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "if kid not in self._keys and self._answered <= arrived:",
                "if self._failure is None and self._answered <= arrived:",
            ),
        ),
    ),
    Defect(
        id="absent-reference-is-empty",
        title="A reference to a variable that is not set is taken as empty",
        symptom="a service is told that its URL has no host, or runs with half of an address",
        caught_by=("ENV-25",),
        control=("ENV-26",),
        incidents=(3,),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "        elif part.default is not None:\n"
                "            yield from self._fill(making, part.default)\n",
                "        elif part.default is not None or part.demand is None:\n"
                "            yield from self._fill(making, part.default or ())\n",
            ),
        ),
    ),
    Defect(
        id="symptoms-told-as-causes",
        title="What could not be expanded is told as not set, besides what it lacks",
        symptom="two problems for one cause; whoever sets the wrong one hides the other",
        caught_by=("ENV-25",),
        control=("ENV-26",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "            if snapshot.broken.isdisjoint(names):\n",
                "            if names:\n",
            ),
        ),
    ),
    # Changes that must arrive
    Defect(
        id="all-names-means-none",
        title="Who may see the secrets of every name hears of none",
        symptom="callbacks never fire; every change waits for the next restart",
        caught_by=("ENV-49",),
        control=("ENV-25",),
        incidents=(12, 18),
        edits=(
            Edit(
                "ssot/environment/subscribers.py",
                "            subscription.names is not None and change.name not in "
                "subscription.names\n",
                "            (subscription.secrets or subscription.names is not None)\n"
                "            and change.name not in (subscription.names or ())\n",
            ),
        ),
    ),
    Defect(
        id="failure-silences-others",
        title="After a subscriber that fails, no other hears of the change",
        symptom="one broken listener, and the pool keeps a password that is good no longer",
        caught_by=("ENV-49",),
        control=("ENV-25",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/subscribers.py",
                "            self.failed += 1\n",
                "            self.failed += 1\n            self._waiting.clear()\n",
            ),
        ),
    ),
    Defect(
        id="subscribers-see-secrets",
        title="Every subscriber is handed the values of secrets",
        symptom="who only counts changes has the new password, and so has their log",
        caught_by=("ENV-26",),
        control=("ENV-25",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/subscribers.py",
                "subscription.callback(change if subscription.secrets else change.masked())",
                "subscription.callback(change)",
            ),
        ),
    ),
    Defect(
        id="delete-ignores-protection",
        title="A protected name can be deleted",
        symptom="what nothing may change is gone, and a default takes its place",
        caught_by=("ENV-40",),
        control=("ENV-25",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "ill=lambda: protection_of(names, self._protected)",
                "ill=list",
            ),
            Edit(
                "ssot/environment/isolated.py",
                "if built.get(name) != self._snapshot.get(name):",
                "if built.get(name) not in (None, self._snapshot.get(name)):",
            ),
        ),
    ),
    Defect(
        id="signing-key-kept",
        title="The auth service signs with the key of its start for as long as it runs",
        symptom="a leaked key is replaced, the service says so, and goes on using it",
        caught_by=("ENV-27",),
        control=("ENV-25",),
        incidents=(20,),
        edits=(
            Edit(
                "ssot/auth/service.py",
                "rotated = self._keys.rotate(key, keep=keep)",
                "rotated = self._keys.newest != before and bool(key)",
            ),
        ),
    ),
    Defect(
        id="keys-fetched-once",
        title="A node keeps the first set of public keys that it has fetched",
        symptom="after a rotation every new log-in is refused until the node is restarted",
        caught_by=("ENV-27",),
        control=("ENV-25",),
        incidents=(20,),
        edits=(
            Edit(
                "ssot/auth/jwks.py",
                "if kid not in self._keys and self._answered <= arrived:",
                "if not self._keys and self._answered <= arrived:",
            ),
        ),
    ),
    Defect(
        id="old-key-withdrawn",
        title="With a new key the one before is published no longer",
        symptom="a rotation throws out everybody who is logged in",
        caught_by=("ENV-27",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/auth/keyring.py",
                "return [self._newest.public_jwk, "
                "*(jwk for jwk, _ in reversed(self._earlier.values()))]",
                "return [self._newest.public_jwk]",
            ),
        ),
    ),
    Defect(
        id="settings-not-followed",
        title="A role builds its settings once and does not follow its environment",
        symptom="files are read again and reported as changed, and nothing changes",
        caught_by=("ENV-27", "ENV-28"),
        control=("ENV-25",),
        incidents=(18,),
        edits=(Edit("ssot/platform.py", "    configuration.follow(environment)\n", ""),),
    ),
    Defect(
        id="untried-credential",
        title="New database settings are used without being tried",
        symptom="a mistyped password is applied, and every run fails from then on",
        caught_by=("ENV-28",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "                    await self._try(new)\n",
                "",
            ),
        ),
    ),
    Defect(
        id="old-sessions-stay",
        title="A connection that was lent when the role changed is kept when it comes back",
        symptom="the role that had leaked cannot be dropped: it is still logged in",
        caught_by=("ENV-28",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/database/generation.py",
                '        event.listen(self._engine.sync_engine.pool, "checkin", _close)\n',
                "",
            ),
        ),
    ),
    Defect(
        id="limit-for-newcomers-only",
        title="A raised limit does not reach those who wait already",
        symptom="the operator raises it, and the user whose question waits goes on waiting",
        caught_by=("ENV-29",),
        control=("ENV-25",),
        incidents=(18,),
        edits=(
            Edit(
                "ssot/agents/engine.py",
                "            places.limit.resize(settings.max_runs_per_user)\n",
                "            places.interested += 0\n",
            ),
        ),
    ),
    Defect(
        id="half-refused-reload",
        title="What is wrong in a file is left out when it is read again, and the rest is used",
        symptom="a limit that is no number falls back to the default, and nobody is told",
        caught_by=("ENV-29",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            problems += self._validate(built)\n",
                "            problems += () if self._revision else self._validate(built)\n",
            ),
        ),
    ),
    Defect(
        id="old-value-is-the-new",
        title="A change tells the new value as the old one, and where the old one came from",
        symptom="who compares the two sees that nothing has changed, and who asks why is misled",
        caught_by=("ENV-26",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "yield Change(name, was, now, after.origin if after else None, secret)",
                "yield Change(name, now, now, before.origin if before else None, secret)",
            ),
        ),
    ),
    Defect(
        id="everybody-hears-everything",
        title="A subscriber of some names is told of all",
        symptom="what follows one variable is made anew at every change of another",
        caught_by=("ENV-26",),
        control=("ENV-25",),
        edits=(
            Edit(
                "ssot/environment/subscribers.py",
                "subscription.names is not None and change.name not in subscription.names",
                "subscription.names is not None and not change.name",
            ),
        ),
    ),
    Defect(
        id="overlay-ignores-protection",
        title="An overlay deletes names that are protected",
        symptom="the work of one user goes on with another database",
        caught_by=("ENV-26",),
        control=("ENV-25",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "if problems := protection_of(names, self._protected()):",
                "if problems := protection_of((), self._protected()):",
            ),
        ),
    ),
    Defect(
        id="url-told-to-everybody",
        title="Who watches is told a URL as it is, when its name is no secret's",
        symptom="the password of a URL is wherever somebody counts changes",
        caught_by=("ENV-26",),
        control=("ENV-25",),
        incidents=(12,),
        edits=(
            Edit(
                "ssot/environment/snapshot.py",
                "return MASK if self.secret and value else mask_value(value)",
                "return MASK if self.secret and value else value",
            ),
        ),
    ),
)
