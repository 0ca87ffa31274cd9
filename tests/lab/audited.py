"""A notebook with a run and a proof of it, good until a test takes something away."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nbformat
from notebooks.samples import PASS, recorded

from ssot.lab.audit import audit
from ssot.lab.digest import digest

GOOD: dict[str, Any] = {
    "title": "claim holds",
    "verdict": "pass",
    "users": ["alice", "bob"],
    "chains": {"auth → database": ["auth.login", "database.transaction"]},
    "asserted": [{"component": "database", "expression": "rows", "value": "[]"}],
    "servers": {"postgresql": {"statements": 3, "started": "2026-01-01T00:00:00Z"}, "redis": {}},
    "links": [{"from": "client", "to": "node a", "frames": 4, "bytes": 100}],
    "events": {"alice": 5},
    "errors": [{"kind": "AuthenticationError", "text": "no"}],
    "spans": [],
    "leaks": [],
    "mocks": [],
}


class House:
    """A notebook, and outputs with a run and a proof of it."""

    def __init__(self, folder: Path, checks: int = 4, package: Path | None = None) -> None:
        self.path = folder / "09_sample.ipynb"
        self.package = package or folder / "package"
        if package is None:
            self.package.mkdir()
            (self.package / "a.py").write_text("x = 1\n")
        self.outputs = folder / "outputs"
        self.node = recorded(*[PASS] * checks)
        self.ids = [f"GP-{number:02}" for number in range(1, checks + 1)]
        self.evidence = {check_id: copy.deepcopy(GOOD) for check_id in self.ids}
        self.caught = dict.fromkeys(self.ids, "some-defect")

    def excuse(self, check_id: str, item: str, reason: str) -> None:
        cell = next(c for c in self.node.cells if c.id == f"{check_id.lower()}-text")
        cell.source += f"\n\nExcused: {item} ({reason})"

    def write(self, name: str = "20260101T000000000Z-aaaa") -> None:
        self.path.write_text(nbformat.writes(self.node), encoding="utf-8")
        now = digest([self.package, self.path])
        folder = self.outputs / name
        folder.mkdir(parents=True, exist_ok=True)
        put(folder / "results.json", {"digests": {"09_sample": now}})
        put(folder / "09_sample.evidence.json", {"version": 1, "checks": self.evidence})
        defects = [
            {"id": name, "outcome": "caught", "checks": [{"id": check_id, "role": "caught_by"}]}
            for check_id, name in self.caught.items()
        ]
        proof = {"notebooks": {"09_sample": {"digest": now}}, "defects": defects, "complete": True}
        put(folder / "proof.json", proof)

    def audit(self) -> Any:
        return audit([self.path], outputs=self.outputs, package=self.package)


def put(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
