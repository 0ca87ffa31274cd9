"""Defects of first calls that race, of reads while values change, and of connection strings."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    # The first calls
    Defect(
        id="first-calls-build-each-their-own",
        title="Whoever finds no environment builds one, and waits for nobody",
        symptom="threads of one process hold different environments: a change reaches one of them",
        caught_by=("ENV-13",),
        control=("ENV-15",),
        incidents=(24,),
        edits=(
            Edit(
                "ssot/environment/singleton.py",
                "            with self._lock:\n"
                "                if self._built is None:\n"
                "                    self._built = (self._build(**options), options)\n"
                "                built = self._built\n",
                "            built = self._built = (self._build(**options), options)\n",
            ),
        ),
    ),
    Defect(
        id="two-first-users-two-engines",
        title="The engine is made by the first user, after it has been found to answer",
        symptom="two first users at once make two engines, and one's connections nobody counts",
        caught_by=("ENV-13",),
        control=("ENV-15",),
        incidents=(24,),
        edits=(
            Edit(
                "ssot/database/generation.py",
                "        self._engine = create_async_engine(\n",
                "        self._found: Any = None\n"
                "        self._made: list[Any] = []\n"
                "        self._make = lambda: create_async_engine(\n",
            ),
            Edit(
                "ssot/database/generation.py",
                "    @property\n    def in_use(self) -> int:\n",
                "    @property\n"
                "    def _engine(self) -> Any:\n"
                "        self._found = self._found or self._make()\n"
                "        return self._found\n\n"
                "    @property\n"
                "    def in_use(self) -> int:\n",
            ),
            Edit(
                "ssot/database/generation.py",
                "        return await self._engine.connect()\n",
                "        if self._found is None:\n"
                "            engine = self._make()\n"
                "            self._made.append(engine)\n"
                "            connection = await engine.connect()\n"
                "            self._found = engine\n"
                "            return connection\n"
                "        return await self._found.connect()\n",
            ),
            Edit(
                "ssot/database/generation.py",
                "        await self._engine.dispose()\n",
                "        for engine in self._made:\n            await engine.dispose()\n",
            ),
        ),
    ),
    Defect(
        id="later-options-are-ignored",
        title="Whoever asks for the environment with other options is given the first one's",
        symptom="a node runs with the view of a worker, and does not know it",
        caught_by=("ENV-13",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/environment/singleton.py",
                "if different := [name for name, value in options.items() "
                "if first.get(name) != value]:",
                "if different := [name for name in options if name not in first]:",
            ),
        ),
    ),
    Defect(
        id="first-failure-is-kept",
        title="An environment that could not be built is never tried again",
        symptom="one wrong moment at the start, and every later caller has its error",
        caught_by=("ENV-13",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/environment/singleton.py",
                "                if self._built is None:\n"
                "                    self._built = (self._build(**options), options)\n",
                "                if failure := getattr(self, '_failure', None):\n"
                "                    raise failure\n"
                "                if self._built is None:\n"
                "                    try:\n"
                "                        self._built = (self._build(**options), options)\n"
                "                    except SettingsError as error:\n"
                "                        self._failure = error\n"
                "                        raise\n",
            ),
        ),
    ),
    # Reads while values change
    Defect(
        id="override-name-by-name",
        title="Several names are set one after the other",
        symptom="a reader finds the new issuer with the old audience",
        caught_by=("ENV-14",),
        control=("ENV-17",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        self._change(\n"
                "            lambda layers: layers.changed(values, label=label),\n"
                "            ill=lambda: _ill(values, self._protected, self.service),\n"
                "        )\n",
                "        for name in values:\n"
                "            one = {name: values[name]}\n"
                "            self._change(\n"
                "                lambda layers, one=one: layers.changed(one),\n"
                "                ill=lambda: _ill(values, self._protected, self.service),\n"
                "            )\n",
            ),
        ),
    ),
    Defect(
        id="settings-of-two-snapshots",
        title="A section of the settings is built of the environment as it is by then",
        symptom="settings are built of values that never stood together",
        caught_by=("ENV-14",),
        control=("ENV-17",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "            settings, origins = _build(snapshot, self.service, self._overrides)\n",
                "            settings, origins = _build(snapshot, self.service, self._overrides)\n"
                "            later = self._environment.snapshot()\n"
                "            tokens = _build(later, self.service, self._overrides)[0].tokens\n"
                '            settings = settings.model_copy(update={"tokens": tokens})\n',
            ),
        ),
    ),
    Defect(
        id="swapped-before-judged",
        title="A change is there before it is judged, and taken back when it is not valid",
        symptom="readers see values that were refused",
        caught_by=("ENV-14",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        if self._validate is not None:\n"
                "            problems += self._validate(built)\n",
                "        kept = getattr(self, '_snapshot', built)\n"
                "        self._snapshot = Snapshot(built.variables, trace=trace)\n"
                "        if self._validate is not None:\n"
                "            problems += self._validate(built)\n"
                "        self._snapshot = kept\n",
            ),
        ),
    ),
    # Connection strings
    Defect(
        id="options-are-arguments",
        title="Options behind the ? are handed to the driver as arguments",
        symptom="the URL of a provider, with its sslmode, ends the process with a TypeError",
        caught_by=("ENV-15",),
        control=("ENV-16",),
        edits=(
            Edit(
                "ssot/database/urls.py",
                'return url.set(drivername="postgresql+asyncpg", query=query)',
                'return url.set(drivername="postgresql+asyncpg")',
            ),
        ),
    ),
    Defect(
        id="password-decoded-twice",
        title="A password of a URL is decoded twice",
        symptom="a password with %25 in it is refused by the server, and nobody sees why",
        caught_by=("ENV-15",),
        control=("ENV-16",),
        edits=(
            Edit(
                "ssot/database/urls.py",
                "from urllib.parse import urlencode\n",
                "from urllib.parse import unquote, urlencode\n",
            ),
            Edit(
                "ssot/database/urls.py",
                "        url = make_url(text)\n",
                "        url = make_url(unquote(text))\n",
            ),
        ),
    ),
    Defect(
        id="absent-is-refused",
        title="Whatever goes wrong with a connection is told as a refusal",
        symptom="an operator changes passwords while the server is not there",
        caught_by=("ENV-30",),
        control=("ENV-16",),
        edits=(
            Edit(
                "ssot/database/manager.py",
                '                    if is_refused(error) or sqlstate(error) == "42501":\n'
                "                        raise _refused(generation.settings) from None\n"
                "                    if why",
                "                    if is_refused(error) or isinstance(error, OSError):\n"
                "                        raise _refused(generation.settings) from None\n"
                "                    if why",
            ),
            Edit(
                "ssot/database/manager.py",
                "is_transient(error) or isinstance(error, _PoolExhausted),",
                "not isinstance(error, AuthenticationError) and is_transient(error),",
            ),
        ),
    ),
    Defect(
        id="urls-are-always-valid",
        title="Whatever begins like a URL is taken for one",
        symptom="a mistyped URL is found by the first query, and a port in words by nobody",
        caught_by=("ENV-16",),
        control=("ENV-15",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "    # Not of `parts`, which are in small letters.\n",
                "    return url\n",
            ),
        ),
    ),
    Defect(
        id="last-at-ends-the-password",
        title="An @ in a password that is not encoded is taken as a part of it",
        symptom="half of the password becomes the host that the name server is asked for",
        caught_by=("ENV-16",),
        control=("ENV-15",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                '    if parts.netloc.count("@") > 1:\n',
                '    if parts.netloc.count("@") > 2:\n',
            ),
        ),
    ),
    Defect(
        id="port-is-quoted",
        title="What could not be read of a URL is quoted, and nothing is masked",
        symptom="half of a password stands in the log, as the port that it was taken for",
        caught_by=("ENV-16",),
        control=("ENV-15",),
        incidents=(13,),
        edits=(
            Edit(
                "ssot/configuration/settings.py",
                "        port = parts.port\n    except ValueError:\n",
                "        port = parts.port\n"
                "    except ValueError as error:\n"
                "        raise ValueError(f'{error}: {parts.netloc}') from None\n",
            ),
            Edit(
                "ssot/environment/isolated.py",
                "            raise SettingsError([clean(problem) for problem in problems])\n",
                "            raise SettingsError(problems)\n",
            ),
        ),
    ),
    # A credential that is refused
    Defect(
        id="new-settings-untried",
        title="New settings are used before the server was asked whether it takes them",
        symptom="a typing error in a password ends every query from that moment on",
        caught_by=("ENV-17",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/database/manager.py",
                "                    await self._try(new)\n",
                "                    await asyncio.sleep(0)\n",
            ),
        ),
    ),
    Defect(
        id="retired-connections-stay",
        title="A connection of the old role that comes back is kept open",
        symptom="a role that was to be dropped is in use for days",
        caught_by=("ENV-17",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/database/generation.py",
                '        event.listen(self._engine.sync_engine.pool, "checkin", _close)\n',
                "",
            ),
            Edit(
                "ssot/database/generation.py",
                "    async def close_idle(self) -> None:\n",
                "    async def close_idle(self) -> None:\n"
                "        if self.in_use:\n"
                "            return\n",
            ),
        ),
    ),
    Defect(
        id="refused-change-not-told",
        title="What could not be applied is logged, and counts as applied",
        symptom="whoever rotates is told that it is done",
        caught_by=("ENV-17",),
        control=("ENV-15",),
        edits=(
            Edit(
                "ssot/live.py",
                "                self._failed[place] = (told, why)\n",
                "",
            ),
        ),
    ),
    Defect(
        id="absent-database-is-a-crash",
        title="That the database does not exist is not known as a refusal",
        symptom="a mistyped name of a database is told in the words of a driver",
        caught_by=("ENV-30",),
        control=("ENV-16",),
        edits=(
            Edit(
                "ssot/database/resilience.py",
                '_REFUSED = frozenset({"28000", "28P01", "3D000"})',
                '_REFUSED = frozenset({"28000", "28P01"})',
            ),
        ),
    ),
)
