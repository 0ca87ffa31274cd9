"""Defects of precedence, of which files are read, and of expansion."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    # Which value wins
    Defect(
        id="files-over-process",
        title="Files are laid over the process instead of below it",
        symptom="what an operator gives to a process is without effect wherever a file exists",
        caught_by=("ENV-04",),
        control=("ENV-05",),
        incidents=(15,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "(*self.below, *self.files, self.process, self.overrides)",
                "(*self.below, self.process, *self.files, self.overrides)",
            ),
        ),
    ),
    Defect(
        id="secret-files-below-env-files",
        title="Secret files are read first, so that every .env wins over them",
        symptom="a mounted secret is replaced by whatever a developer's file says",
        caught_by=("ENV-04",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "        return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands)",
                '        layers.sort(key=lambda each: not any(w.origin.layer == "secret file" '
                "for w in each.values()))\n"
                "        return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands)",
            ),
        ),
    ),
    Defect(
        id="env-file-everywhere",
        title="A .env in the folder is read in staging and production too",
        symptom="a file left in an image locks every user out of production",
        caught_by=("ENV-05",),
        control=("ENV-04",),
        incidents=(5,),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                'if "SSOT_ENV_FILES" not in process and kind in ("development", "test"):',
                "if not named:",
            ),
        ),
    ),
    Defect(
        id="named-files-not-in-production",
        title="In production, files are not even read when they are asked for by name",
        symptom="a deployment that names its file runs on defaults, and nothing says so",
        caught_by=("ENV-05",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                "        files: tuple[Path, ...] = tuple(map(_fixed, named))\n",
                '        named = [] if kind == "production" else named\n'
                "        files: tuple[Path, ...] = tuple(map(_fixed, named))\n",
            ),
        ),
    ),
    Defect(
        id="limit-read-at-import",
        title="The node's module reads its limit from os.environ when it is imported",
        symptom="a limit that stands in a file is never enforced: it came after the import",
        caught_by=("ENV-06",),
        control=("ENV-05",),
        incidents=(4,),
        edits=(
            Edit(
                "ssot/websocket/node.py",
                '_spans = Spans("websocket")\n',
                '_spans = Spans("websocket")\n'
                "_MOST = int(__import__('os').environ.get('NODE_MAX_CONNECTIONS', '20'))\n",
            ),
            Edit(
                "ssot/websocket/node.py",
                "        self._settings = settings\n        self._source = source\n",
                "        self._settings = settings.model_copy(update={'max_connections': _MOST})\n"
                "        self._source = source\n",
            ),
        ),
    ),
    Defect(
        id="beaten-layers-forgotten",
        title="A value remembers where it stands, and not whom it won over",
        symptom="two launchers set one variable, and nobody can tell who lost",
        caught_by=("ENV-06",),
        control=("ENV-05",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "over=tuple(Variable(name, each.text, each.origin, secret) for each in story[1:]),",
                "over=(),",
            ),
        ),
    ),
    Defect(
        id="first-named-file-wins",
        title="Of the files that are asked for, the first one wins",
        symptom="a team's own file is without effect behind the platform's",
        caught_by=("ENV-06",),
        control=("ENV-04",),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                "files: tuple[Path, ...] = tuple(map(_fixed, named))",
                "files: tuple[Path, ...] = tuple(map(_fixed, reversed(named)))",
            ),
        ),
    ),
    # Values made of values
    Defect(
        id="made-values-never-change",
        title="A change is told of what is written, not of what is made of it",
        symptom="the database moves, the line is edited, and the pools stay at the dead address",
        caught_by=("ENV-07",),
        control=("ENV-08",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        if was != now:\n",
                "        if was != now and not (before and after and after.references):\n",
            ),
            Edit(
                "ssot/configuration/unified.py",
                "environment.subscribe(lambda _: self._refresh())",
                "environment.subscribe(lambda _: self._refresh(), "
                '{each.partition(",")[0] for each in self._state.origins.values()})',
            ),
        ),
    ),
    Defect(
        id="default-before-value",
        title="The text after :- is taken also when the name has a value",
        symptom="every service of a region calls itself by the name of the example",
        caught_by=("ENV-07",),
        control=("ENV-08",),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "if result is not None and (result.value or (part.default, part.demand) == "
                "(None, None)):",
                "if result is not None and part.default is None:",
            ),
        ),
    ),
    Defect(
        id="files-hide-expansion",
        title="As long as a line cannot be read, references are not looked at",
        symptom="a broken file costs one restart for its lines and another for its references",
        caught_by=("ENV-08",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "problems = [*self.problems, *expansion.problems, *misplaced]",
                "problems = [*(self.problems or expansion.problems), *misplaced]",
            ),
        ),
    ),
    Defect(
        id="half-reloaded",
        title="A reload puts in force what it could read, whatever was wrong with the rest",
        symptom="a typo in the file of a running service is in force before anybody is told",
        caught_by=("ENV-08",),
        control=("ENV-07",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        if problems:\n            clean = ",
                "        if problems and not self._revision:\n            clean = ",
            ),
        ),
    ),
    Defect(
        id="second-line-wins",
        title="A name that is set twice in a file is taken from its last line",
        symptom="two people add one setting, and the upper line is without effect",
        caught_by=("ENV-08",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "elif first := entries.get(binding.key):",
                "elif (first := entries.get(binding.key)) and first.value == binding.value:",
            ),
        ),
    ),
    Defect(
        id="any-program-runs",
        title="The list of programs only switches commands on",
        symptom="who can write a .env can run any program in every service that reads it",
        caught_by=("ENV-09",),
        control=("ENV-08",),
        edits=(
            Edit(
                "ssot/environment/commands.py",
                "        if program not in self._allowed:\n",
                "        if not self._allowed:\n",
            ),
        ),
    ),
    Defect(
        id="failed-command-is-empty",
        title="What a failed program has printed is its value",
        symptom="the vault is down, and a service goes on with an empty password",
        caught_by=("ENV-09",),
        control=("ENV-07",),
        edits=(
            Edit(
                "ssot/environment/commands.py",
                "        if code != 0:\n",
                "        if code < 0:\n",
            ),
        ),
    ),
    Defect(
        id="file-secrets-in-logs",
        title="Logs are cleaned of the secrets of the process alone",
        symptom="a secret of a file stands in the log of the service that reads it",
        caught_by=("ENV-09",),
        control=("ENV-08",),
        edits=(
            Edit(
                "ssot/serve.py",
                "            cleaning.learn(environment.redact)\n",
                "",
            ),
        ),
    ),
    Defect(
        id="unreadable-file-is-empty",
        title="A .env that cannot be read counts as empty",
        symptom="a wrong mount takes every limit back to its default, and nobody is told",
        caught_by=("ENV-08",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "        return _unread(shown, reason)\n    if raw",
                "        return Contents((), ())\n    if raw",
            ),
        ),
    ),
    Defect(
        id="commands-get-everything",
        title="A program of $(…) gets the whole environment of the service",
        symptom="whatever a settings file may run is handed every secret of the process",
        caught_by=("ENV-09",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "for n, w in self.process.items() if n in _FOR_COMMANDS}",
                "for n, w in self.process.items()}",
            ),
        ),
    ),
    Defect(
        id="environment-of-a-file",
        title="A file that says which environment this is, is passed over in silence",
        symptom="a developer believes that tests run, while development does",
        caught_by=("ENV-05",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "problems = [*self.problems, *expansion.problems, *misplaced]",
                "problems = [*self.problems, *expansion.problems]",
            ),
        ),
    ),
    Defect(
        id="staging-reads-env",
        title="A .env in the folder is read in staging as well",
        symptom="a developer's file that was left in an image rules in staging",
        caught_by=("ENV-05",),
        incidents=(5,),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                'kind in ("development", "test"):',
                'kind != "production":',
            ),
        ),
    ),
    Defect(
        id="override-history",
        title="Of several overrides of a name only the last one is remembered",
        symptom="who set it before is not told",
        caught_by=("ENV-06",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "                stories[name][1:1] = earlier\n",
                "                pass\n",
            ),
        ),
    ),
    Defect(
        id="override-label",
        title="An override does not remember who made it",
        symptom="explain says: from override, and nobody knows whose",
        caught_by=("ENV-06",),
        incidents=(6,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                'overrides={**kept, **_layer("override", values, label)}',
                'overrides={**kept, **_layer("override", values)}',
            ),
        ),
    ),
    Defect(
        id="deleted-not-told",
        title="explain does not say that a name was deleted by hand",
        symptom="somebody sets it in the file again and again",
        caught_by=("ENV-33",),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "    if name in snapshot.deleted:\n",
                "    if False:\n",
            ),
        ),
    ),
)
