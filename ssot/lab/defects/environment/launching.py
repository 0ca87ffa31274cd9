"""Defects of what a child process is given, and of what was set by hand."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="overlay-keeps-foreign",
        title="An overlay's own values are not limited to the service's namespace",
        symptom="a task that holds the signing key hands it to a worker",
        caught_by=("ENV-01",),
        control=("ENV-05",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "if value is None or name.startswith(foreign):",
                "if value is None:",
            ),
        ),
    ),
    Defect(
        id="child-extra-loses",
        title="What the launcher adds for one child loses against its own value",
        symptom="every child runs under the name and the settings of its launcher",
        caught_by=("ENV-01",),
        control=("ENV-05",),
        edits=(
            Edit("ssot/environment/view.py", "return {**child, **own}", "return {**own, **child}"),
        ),
    ),
    Defect(
        id="helper-child-non-secrets",
        title="A child that is no service gets everything whose NAME is no secret's",
        symptom="any helper program gets the addresses of every server",
        caught_by=("ENV-01",),
        control=("ENV-05",),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "child = {name: snapshot[name] for name in _MACHINE if name in snapshot}",
                "child = {name: each.value for name, each in "
                "snapshot.variables.items() if not each.secret}",
            ),
        ),
    ),
    Defect(
        id="all-gives-everything",
        title="`all` starts each role with its own whole os.environ",
        symptom="with one launcher, the worker holds the key that signs",
        caught_by=("ENV-32",),
        edits=(
            Edit(
                "ssot/serve.py",
                "env=environment.child_env(service=role), stdin",
                "env=dict(os.environ), stdin",
            ),
        ),
    ),
    Defect(
        id="all-reads-files",
        title="`all` reads the files itself, so its children never read them again",
        symptom="a rotation reaches nobody until the next start",
        caught_by=("ENV-32",),
        edits=(
            Edit(
                "ssot/serve.py",
                "asyncio.run(_all(IsolatedEnvironment(os.environ), hang_ups))",
                "asyncio.run(_all(IsolatedEnvironment.load(os.environ), hang_ups))",
            ),
        ),
    ),
    Defect(
        id="child-loses-environment",
        title="A child of a launcher that reads files is not told which environment it is",
        symptom="a child of production runs with the rights of a developer's machine",
        caught_by=("ENV-33",),
        incidents=(5, 7),
        edits=(
            Edit(
                "ssot/environment/view.py",
                '_READING = frozenset(each.name for each in BOOTSTRAP) - {"SSOT_ENVIRONMENT"}',
                "_READING = frozenset(each.name for each in BOOTSTRAP)",
            ),
        ),
    ),
    Defect(
        id="overlay-child-reads-again",
        title="The child of an overlay reads the files again",
        symptom="what a task has deleted is back in its child",
        caught_by=("ENV-50",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        return self._below.reads_files",
                "        return False",
            ),
        ),
    ),
    Defect(
        id="override-foreign-silent",
        title="An override of another service's name is accepted, and dropped",
        symptom="an override is accepted and has no effect",
        caught_by=("ENV-21",),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "ill=lambda: _ill(values, self._protected, self.service),",
                "ill=lambda: _ill(values, self._protected),",
            ),
        ),
    ),
    Defect(
        id="get-falls-back-to-os-environ",
        title="get() of an absent name asks os.environ",
        symptom="a deleted name comes back from the process",
        caught_by=("ENV-33",),
        incidents=(9, 11),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "        return self._snapshot.get(name, default)",
                "        import os\n"
                "\n"
                "        return self._snapshot.get(name, os.environ.get(name, default))",
            ),
        ),
    ),
    Defect(
        id="reload-undoes-delete",
        title="A reload brings back what was deleted",
        symptom="what was closed by hand is open after the next reload",
        caught_by=("ENV-33",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands)",
                "return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands, deleted=frozenset())",
            ),
        ),
    ),
    Defect(
        id="reload-undoes-override",
        title="A reload takes back what was overridden",
        symptom="a limit that was set by hand is gone after the next reload",
        caught_by=("ENV-33",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands)",
                "return replace(self, files=tuple(layers), problems=tuple(problems), "
                "commands=commands, overrides={})",
            ),
        ),
    ),
    Defect(
        id="deleted-for-ever",
        title="A name that was deleted once cannot be set again",
        symptom="what was deleted once cannot be set again, and nobody is told",
        caught_by=("ENV-33",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "deleted=(self.deleted | gone) - values.keys(),",
                "deleted=self.deleted | gone,",
            ),
        ),
    ),
    Defect(
        id="overlay-cache-own",
        title="An overlay that was read once does not see its own later changes",
        symptom="a task that changes a value goes on with the one before",
        caught_by=("ENV-50",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "if merged is not None and merged[0] is below and merged[1] is mine:",
                "if merged is not None and merged[0] is below:",
            ),
        ),
    ),
    Defect(
        id="narrowed-get",
        title="get() of an overlay for one service asks the whole environment",
        symptom="code that was given the worker's view reads the signing key",
        caught_by=("ENV-01",),
        control=("ENV-02",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        if self.service == self._below.service:\n"
                "            return self._below.get(name, default)\n"
                "        return self.snapshot().get(name, default)\n",
                "        return self._below.get(name, default)\n",
            ),
        ),
    ),
    Defect(
        id="empty-files-reads-folder",
        title="SSOT_ENV_FILES set to nothing is taken as not set",
        symptom="the child of a launcher reads the .env of its working folder",
        caught_by=("ENV-33",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/sources.py",
                'if "SSOT_ENV_FILES" not in process and kind',
                "if not named and kind",
            ),
        ),
    ),
    Defect(
        id="overlay-over",
        title="A value of an overlay does not say what it won over",
        symptom="explain of a task's value tells no story",
        caught_by=("ENV-50",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "                over=(before, *before.over) if before else (),\n",
                "",
            ),
        ),
    ),
)
