"""Defects of who sees what: auth and backend, one user's task, namespaces, deleted and empty."""

from __future__ import annotations

from ssot.lab.defects.model import Defect, Edit

__all__ = ["DEFECTS"]

DEFECTS = (
    Defect(
        id="child-gets-everything",
        title="A child process inherits every variable of its launcher",
        symptom="whoever takes a worker over finds the signing key in it, and is every user",
        caught_by=("ENV-01",),
        control=("ENV-03",),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "snapshot, unmade = self.seen_by(service)",
                "snapshot, unmade = self.snapshot(), ()",
            ),
        ),
    ),
    Defect(
        id="auth-names-are-shared",
        title="The names of the auth service count as shared: everybody checks tokens",
        symptom="each backend process holds the signing key, and the login that reads hashes",
        caught_by=("ENV-01", "ENV-02"),
        control=("ENV-03",),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "for name in SERVICES if name != service)",
                'for name in SERVICES if name not in (service, "auth"))',
            ),
        ),
    ),
    Defect(
        id="references-see-everything",
        title="A reference in a file is resolved before the view is limited to the service",
        symptom="a worker comes up with the login of the auth service, and everything works",
        caught_by=("ENV-02",),
        control=("ENV-01",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "stories = self._stories(rules.foreign)",
                "stories = self._stories(())",
            ),
            Edit(
                "ssot/environment/layers.py",
                "            if name in expansion.values\n",
                "            if name in expansion.values\n"
                "            and not name.startswith(rules.foreign)\n",
            ),
        ),
    ),
    Defect(
        id="foreign-reference-not-set",
        title="A reference to another service's name is told as a name that is not set",
        symptom="who reads 'not set: set it' finds it set in the same file, and gives it to all",
        caught_by=("ENV-02",),
        control=("ENV-01",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "unseen=rules.unseen",
                "unseen=lambda _: None",
            ),
        ),
    ),
    Defect(
        id="overlay-written-to-the-process",
        title="The values of an overlay are written into the process environment as well",
        symptom="the limits of one user's task are every later task's, until a restart",
        caught_by=("ENV-03",),
        control=("ENV-05",),
        incidents=(11,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "from collections.abc import Callable, Collection",
                "import os\nfrom collections.abc import Callable, Collection",
            ),
            Edit(
                "ssot/environment/overlay.py",
                "            self._mine = {**self._mine, **values}\n",
                "            self._mine = {**self._mine, **values}\n"
                "            os.environ.update(values)\n",
            ),
        ),
    ),
    Defect(
        id="overlay-written-below",
        title="An overlay sets its values in the environment below it",
        symptom="a worker that is started meanwhile has one user's limit for all of its users",
        caught_by=("ENV-03",),
        control=("ENV-01",),
        incidents=(11,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "            self._mine = {**self._mine, **values}\n",
                "            self._mine = {**self._mine, **values}\n"
                "            if (override := getattr(self._below, 'override', None)) is not None:\n"
                "                override(values)\n",
            ),
        ),
    ),
    Defect(
        id="overlays-share-values",
        title="All overlays keep their values in one dictionary",
        symptom="two users' tasks at the same time run with each other's settings",
        caught_by=("ENV-03",),
        control=("ENV-06",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "        self._mine: Mapping[str, str | None] = {}\n",
                "",
            ),
            Edit(
                "ssot/environment/overlay.py",
                '    needs no closing.\n    """\n',
                '    needs no closing.\n    """\n\n    _mine: Mapping[str, str | None] = {}\n',
            ),
            Edit(
                "ssot/environment/overlay.py",
                "            self._mine = {**self._mine, **values}\n",
                "            Overlay._mine = {**self._mine, **values}\n",
            ),
        ),
    ),
    Defect(
        id="shared-name-wins",
        title="The shared name is looked for first, and the service's own one after it",
        symptom="a service that was given a login of its own goes on with everybody's",
        caught_by=("ENV-21",),
        control=("ENV-22",),
        edits=(
            Edit(
                "ssot/configuration/schema.py",
                'return (f"{service.upper()}_{self.own}", self.variable)',
                'return (self.variable, f"{service.upper()}_{self.own}")',
            ),
        ),
    ),
    Defect(
        id="own-name-of-some-services",
        title="A service's own name is read in the services that somebody thought of",
        symptom="the node logs in as the worker does, and an audit cannot tell them apart",
        caught_by=("ENV-21",),
        control=("ENV-01",),
        edits=(
            Edit(
                "ssot/configuration/schema.py",
                "        if self.own is not None:\n",
                '        if self.own is not None and service != "node":\n',
            ),
        ),
    ),
    Defect(
        id="deleted-as-a-word",
        title="A deleted name is kept as a marker, which child processes take for a value",
        symptom="a node accepts the pages of the origin '__DELETED__' and of no other",
        caught_by=("ENV-22",),
        control=("ENV-01",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/isolated.py",
                "            lambda layers: layers.changed({}, deleted=names),\n",
                '            lambda layers: layers.changed(dict.fromkeys(names, "__DELETED__")),\n',
            ),
        ),
    ),
    Defect(
        id="deleted-from-overrides-alone",
        title="A deletion takes back the override and leaves what the process has",
        symptom="an origin that was taken away is let in by the next node that is started",
        caught_by=("ENV-22",),
        control=("ENV-01",),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "            deleted=(self.deleted | gone) - values.keys(),\n",
                "            deleted=self.deleted - values.keys(),\n",
            ),
        ),
    ),
    Defect(
        id="empty-is-missing",
        title="An empty value of the process reads as missing",
        symptom="a list of origins that was made empty is that of the file again",
        caught_by=("ENV-22",),
        control=("ENV-01",),
        incidents=(10,),
        edits=(
            Edit(
                "ssot/environment/layers.py",
                "                if name not in self.deleted and not name.startswith(foreign):\n",
                "                if not written.text and written.origin.path is None:\n"
                "                    continue\n"
                "                if name not in self.deleted and not name.startswith(foreign):\n",
            ),
        ),
    ),
    Defect(
        id="empty-not-handed-on",
        title="What is empty is left out of a child's environment",
        symptom="the launcher shows an empty list, and the node that it starts has the file's",
        caught_by=("ENV-22",),
        control=("ENV-01",),
        incidents=(10,),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "        return {**child, **own}\n",
                "        return {**{n: v for n, v in child.items() if v}, **own}\n",
            ),
        ),
    ),
    Defect(
        id="overlay-keeps-the-past",
        title="An overlay keeps what lay below it when it was first read",
        symptom="a process is started with the settings of an hour ago",
        caught_by=("ENV-50",),
        control=("ENV-01",),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "if merged is not None and merged[0] is below and merged[1] is mine:",
                "if merged is not None and merged[1] is mine:",
            ),
        ),
    ),
    Defect(
        id="auth-names-for-every-child",
        title="A child that is no service is given the names of the auth service",
        symptom="a helper program that a service runs has the signing key in its environment",
        caught_by=("ENV-01",),
        control=("ENV-03",),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "child = {name: snapshot[name] for name in _MACHINE if name in snapshot}",
                "machine = (*_MACHINE, *(n for n in snapshot if owner_of(n) == 'auth'))\n"
                "            child = {n: snapshot[n] for n in machine if n in snapshot}",
            ),
        ),
    ),
    Defect(
        id="overlay-deletes-as-empty",
        title="What an overlay deletes is empty in its children",
        symptom="a service that was to use its default runs with nothing",
        caught_by=("ENV-50",),
        control=("ENV-01",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/overlay.py",
                "self._mine = {**self._mine, **dict.fromkeys(names)}",
                'self._mine = {**self._mine, **dict.fromkeys(names, "")}',
            ),
        ),
    ),
    Defect(
        id="child-reads-again",
        title="A child reads the files that its launcher has read already",
        symptom="what the launcher has deleted is back in every process that it starts",
        caught_by=("ENV-33",),
        control=("ENV-01",),
        incidents=(9,),
        edits=(
            Edit(
                "ssot/environment/view.py",
                "if self.reads_files and not _READING & own.keys():",
                "if _READING <= own.keys():",
            ),
        ),
    ),
)
