"""Defects of references, quotes and programs in files."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="own-name-only-in-same-layer",
        title="A shared name of a stronger layer wins over the service's own one",
        symptom="a service logs in as another one, since somebody set the shared name",
        caught_by=("ENV-21",),
        edits=(
            Edit(
                "ssot/configuration/unified.py",
                "        for name in field.names(service, kind):\n"
                "            if name in snapshot:\n"
                "                _put(data, field.path",
                "        from ssot.environment import LAYERS\n"
                "        rank = {n: -LAYERS.index(v.origin.layer) for n, v in "
                "snapshot.variables.items() if v.origin.layer in LAYERS}\n"
                "        for name in sorted(field.names(service, kind), key=lambda "
                "n: rank.get(n, 1)):\n"
                "            if name in snapshot:\n"
                "                _put(data, field.path",
            ),
        ),
    ),
    Defect(
        id="default-not-for-empty",
        title="${X:-text} is the empty value when X is empty",
        symptom="a page of nowhere is let in, and the right one is not",
        caught_by=("ENV-35",),
        incidents=(10,),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "if result is not None and (result.value or (part.default, "
                "part.demand) == (None, None)):",
                "if result is not None and (result.value or part.demand is None):",
            ),
        ),
    ),
    Defect(
        id="demand-takes-empty",
        title="${X:?text} takes an empty value",
        symptom="what must be set is set to nothing, and that does",
        caught_by=("ENV-35",),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "if result is not None and (result.value or (part.default, "
                "part.demand) == (None, None)):",
                "if result is not None and (result.value or part.default is None):",
            ),
        ),
    ),
    Defect(
        id="own-name-is-circle",
        title="A reference to the own name means itself, not what lies below",
        symptom="a list cannot be extended in a stronger file",
        caught_by=("ENV-35",),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "            target = (name, level + 1)",
                "            target = (name, level)",
            ),
        ),
    ),
    Defect(
        id="reference-reads-file-first",
        title="A reference takes the value of a file, though the process sets another",
        symptom="the process sets a region, and addresses are made of another",
        caught_by=("ENV-35",),
        incidents=(15,),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "        result = None\n"
                "        if target in self._nodes:\n"
                "            result = yield target",
                "        while target in self._nodes and self._nodes[target].where "
                'in ("process", "override") and (part.name, target[1] + 1) in '
                "self._nodes:\n"
                "            target = (part.name, target[1] + 1)\n"
                "        result = None\n"
                "        if target in self._nodes:\n"
                "            result = yield target",
            ),
        ),
    ),
    Defect(
        id="secret-files-expanded",
        title="A dollar in a secret file is expanded",
        symptom="a password with a dollar is refused by PostgreSQL",
        caught_by=("ENV-36",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                "entries.append(Entry(name, value, path, None, literal=True))",
                "entries.append(Entry(name, value, path, None, literal=False))",
            ),
        ),
    ),
    Defect(
        id="single-quotes-expanded",
        title="What stands in single quotes is expanded as well",
        symptom="quotes do not protect a password",
        caught_by=("ENV-36",),
        edits=(
            Edit(
                "ssot/environment/files.py",
                'literal = match is not None and match["quote"] == "\'"',
                "literal = False",
            ),
        ),
    ),
    Defect(
        id="process-expanded",
        title="Values of the process are expanded, a dollar in a password is lost",
        symptom="a password of the process with a dollar is refused",
        caught_by=("ENV-36",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "    literal: bool = True\n\n    def __repr__",
                "    literal: bool = False\n\n    def __repr__",
            ),
        ),
    ),
    Defect(
        id="commands-run-once-ever",
        title="A program of $(...) runs once for the life of the process",
        symptom="a key that was replaced in the vault signs on",
        caught_by=("ENV-48",),
        incidents=(20,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "        return replace(self, files=tuple(layers)",
                "        commands = self.commands if self.files else commands\n"
                "        return replace(self, files=tuple(layers)",
            ),
        ),
    ),
    Defect(
        id="kill-only-the-child",
        title="Only the program of $(...) is ended, not what it has started",
        symptom="each reload leaves processes behind",
        caught_by=("ENV-48",),
        edits=(
            Edit(
                "ssot/environment/commands.py",
                "        os.killpg(group, signal.SIGKILL)",
                "        os.kill(group, signal.SIGKILL)",
            ),
        ),
    ),
    Defect(
        id="commands-in-shell",
        title="The command is run by a shell",
        symptom="$(cat file; anything) runs anything, though only cat is listed",
        caught_by=("ENV-09",),
        edits=(
            Edit(
                "ssot/environment/commands.py",
                "                words,\n                executable=program,\n",
                "                text,\n                shell=True,\n",
            ),
        ),
    ),
    Defect(
        id="listed-by-basename",
        title="A program is allowed when the last part of its path is listed",
        symptom="a .env runs any file that is called cat",
        caught_by=("ENV-09",),
        edits=(
            Edit(
                "ssot/environment/commands.py",
                "        if program not in self._allowed:\n",
                "        if os.path.basename(program) not in self._allowed:\n",
            ),
        ),
    ),
    Defect(
        id="cascade-one-level",
        title="Of what falls with a missing name only the first step is told",
        symptom="what is made of what is made of it is not told, nor why it is missing",
        caught_by=("ENV-25",),
        edits=(
            Edit(
                "ssot/environment/expansion.py",
                "                        reached.add(node)\n"
                "                        waiting.append(node)\n",
                "                        reached.add(node)\n",
            ),
        ),
    ),
)
