"""Evidence as a run writes it, along the way of the data: for tests of what is made from it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FIVE = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]
BEGAN = 1795383000.0


class Recorder:
    """Writes down spans and a timeline of users who ask questions, from one seed."""

    def __init__(self, seed: int = 7) -> None:
        self.spans: list[dict[str, Any]] = []
        self.timeline: list[dict[str, Any]] = []
        self._random = random.Random(seed)

    def note(self, at: float, who: str, what: str) -> None:
        self.timeline.append({"at": at, "who": who, "what": what})

    def span(
        self,
        name: str,
        process: str,
        start: float,
        end: float,
        *,
        user: str = "",
        parent: dict[str, Any] | None = None,
        links: list[dict[str, Any]] | None = None,
        server: str = "",
        error: str = "",
        component: str | None = None,
    ) -> dict[str, Any]:
        made = {
            "id": f"{self._random.getrandbits(64):016x}",
            "parent": parent["id"] if parent else "",
            "links": [link["id"] for link in links or []],
            "trace": parent["trace"] if parent else f"{self._random.getrandbits(128):032x}",
            "name": name,
            "component": name.partition(".")[0] if component is None else component,
            "process": process,
            "user": user,
            "server": server,
            "start": round(start, 6),
            "end": round(end, 6),
            "error": error,
        }
        self.spans.append(made)
        return made

    def between(self, low: float, high: float) -> float:
        """Milliseconds, in seconds."""
        return self._random.uniform(low, high) / 1000

    def login(self, user: str, at: float) -> float:
        """A login and a connection; return when it was done."""
        end = at + self.between(24, 40)
        request = self.span("auth.request", "kernel", at, end, user=user)
        login = self.span("auth.login", "auth", at + 0.0012, end - 0.001, user=user, parent=request)
        query = self.span(
            "database.transaction", "auth", at + 0.002, at + 0.0045, user=user, parent=login
        )
        self.span(
            "database.attempt", "auth", at + 0.0023, at + 0.0041, parent=query, server="postgresql"
        )
        begin, end = end + 0.0006, end + 0.0006 + self.between(3, 5)
        connect = self.span("websocket.connect", "kernel", begin, end, user=user)
        admit = self.span(
            "websocket.admit", "node a", begin + 0.0008, end - 0.0006, user=user, parent=connect
        )
        self.span("auth.verify", "node a", begin + 0.001, begin + 0.0014, parent=admit)
        self.note(end, user, "connected")
        return end

    def question(
        self,
        user: str,
        at: float,
        *,
        worker: str = "worker a",
        first_seq: int = 1,
        waits: float = 0.0,
        tool_waits: float = 0.0,
        attempts: int = 1,
        events: int = 5,
        text: str = "What did my models cost?",
    ) -> float:
        """A question and the events of its run; return when the last one came.

        The command lies there for ``waits`` seconds, the tool's transaction for ``tool_waits``.
        """
        self.note(at, user, f"asks {text!r}")
        run = f"run-{self._random.getrandbits(32):08x}"
        send = self.span("websocket.send", "kernel", at, at + self.between(3, 4), user=user)
        t = at + self.between(0.6, 1)
        message = self.span("websocket.message", "node a", t, t + 0.0016, user=user, parent=send)
        submit = self.span(
            "streams.submit", "node a", t + 0.0003, t + 0.0013, user=user, parent=message,
            server="redis",
        )  # fmt: skip
        t += 0.0018 + waits
        claim = self.span("streams.claim", worker, t, t + 0.0012, user=user, parent=submit)
        t += 0.0014
        agent = self.span("agents.run", worker, t, t, user=user, parent=claim)
        lease = self.span(
            "streams.lease", worker, t + 0.0002, t + 0.0009, parent=agent, server="redis"
        )
        t = lease["end"] + 0.0004
        emitted: list[dict[str, Any]] = []
        position = 0
        for number, event in enumerate(FIVE[:events]):
            if event == "tool_completed":
                tool = self.span("agents.tool", worker, t, t, user=user, parent=agent)
                transaction = self.span(
                    "database.transaction", worker, t + 0.0003, t, user=user, parent=tool
                )
                t += 0.0006
                for attempt in range(attempts):
                    last = attempt == attempts - 1
                    took = self.between(2.5, 5) + (tool_waits / attempts)
                    self.span(
                        "database.attempt", worker, t, t + took, parent=transaction,
                        server="postgresql", error="" if last else "ConnectionDoesNotExistError",
                    )  # fmt: skip
                    t += took + (0.0 if last else 0.004)
                transaction["end"] = t + 0.0003
                tool["end"] = t = t + 0.0006
            emitted.append(agent)
            append = self.span(
                "streams.append", worker, t, t + self.between(0.6, 1.1), links=[agent],
                server="redis",
            )  # fmt: skip
            deliver = self.span(
                "websocket.deliver", "node a", append["end"] - 0.0001,
                append["end"] + self.between(0.3, 0.6), user=user, links=[append],
            )  # fmt: skip
            arrived = deliver["end"] + self.between(0.2, 0.5)
            self.span(
                "websocket.receive", "kernel", arrived, arrived + 0.0002, user=user,
                parent=deliver,
            )  # fmt: skip
            position = first_seq + number
            self.note(arrived, user, f"{event} at 1763848562-{position} of {run}")
            t = append["end"] + self.between(0.4, 1.6)
        if events == 5:
            self.span(
                "database.transaction", worker, t - 0.0004, t + 0.0014, user=user, parent=agent,
                server="postgresql",
            )  # fmt: skip
            t += 0.0016
        agent["end"] = t
        return t + 0.002


def evidence(
    recorder: Recorder,
    title: str,
    *,
    verdict: str = "pass",
    faults: list[dict[str, Any]] | None = None,
    failure: dict[str, Any] | None = None,
    errors: list[dict[str, str]] | None = None,
    asserted: list[dict[str, str]] | None = None,
    seconds: float | None = None,
    restarts: int = 0,
) -> dict[str, Any]:
    """One check of an evidence file, its counts taken from what was recorded."""
    spans = sorted(recorder.spans, key=lambda span: span["start"])
    timeline = sorted(recorder.timeline, key=lambda entry: entry["at"])
    by_id = {span["id"]: span for span in spans}
    edges: dict[tuple[str, str], int] = {}
    components: dict[str, int] = {}
    processes: dict[str, int] = {}
    events: dict[str, int] = {}

    def lead(a: str, b: str) -> None:
        if a != b:
            edges[a, b] = edges.get((a, b), 0) + 1

    for span in spans:
        components[span["component"]] = components.get(span["component"], 0) + 1
        processes[span["process"]] = processes.get(span["process"], 0) + 1
        for cause in [span["parent"], *span["links"]]:
            if cause in by_id:
                lead(by_id[cause]["component"], span["component"])
        if span["server"]:
            lead(span["component"], span["server"])
    for entry in timeline:
        if entry["what"].partition(" ")[0] in FIVE:
            events[entry["who"]] = events.get(entry["who"], 0) + 1
    users = sorted({span["user"] for span in spans if span["user"]})
    ends = [span["end"] for span in spans] + [entry["at"] for entry in timeline]
    statements = 3 * components.get("database", 0)
    return {
        "title": title,
        "verdict": verdict,
        "began": BEGAN,
        "seconds": round(seconds or max([*ends, 0.001]), 6),
        "between": ["websocket", "agents"],
        "users": users,
        "components": components,
        "processes": processes,
        "edges": [{"from": a, "to": b, "count": n} for (a, b), n in sorted(edges.items())],
        "servers": {
            "postgresql": {
                "statements": statements,
                "started": "2026-11-22T21:36:02Z",
                "restarts": restarts,
            },
            "redis": {
                "commands": 4 * components.get("streams", 0) + 12,
                "started": "2026-11-22T21:36:02Z",
                "restarts": 0,
            },
        },
        "links": [
            {"from": "client", "to": "node a", "bytes": 3345, "frames": 12},
            {"from": "node a", "to": "redis", "bytes": 9120, "frames": 0},
            {"from": "worker a", "to": "redis", "bytes": 18_421, "frames": 0},
            {"from": "worker a", "to": "postgresql", "bytes": 7_204, "frames": 0},
        ],
        "events": events,
        "errors": errors or [],
        "asserted": asserted
        if asserted is not None
        else [
            {"component": "websocket", "expression": "alice.types(run)", "value": repr(FIVE)},
            {"component": "websocket", "expression": "alice.sequence", "value": "[1, 2, 3, 4, 5]"},
        ],
        "leaks": [],
        "spans": spans,
        "timeline": timeline,
        "faults": faults or [],
        "failure": failure,
    }


def one_question() -> dict[str, Any]:
    recorder = Recorder(5)
    recorder.note(0.0002, "lab", "GP-05 begins")
    recorder.question("alice", recorder.login("alice", 0.001) + 0.001)
    return evidence(recorder, "One question, five events, in order")


def many_users(count: int = 3) -> dict[str, Any]:
    recorder = Recorder(count)
    recorder.note(0.0002, "lab", "GP-07 begins")
    for number in range(count):
        user = ["alice", "bob", "carol", "dave"][number] if number < 4 else f"user {number + 1}"
        at = recorder.login(user, 0.001 + recorder.between(0, 4))
        recorder.question(user, at + recorder.between(1, 6), text="What did I spend?")
    return evidence(recorder, "Users at once never receive each other's events")


def worker_frozen() -> dict[str, Any]:
    """A failure: the worker is frozen for 1.2 s, and PostgreSQL is killed in the middle."""
    recorder = Recorder(13)
    recorder.note(0.0002, "lab", "GP-13 begins")
    at = recorder.login("alice", 0.001)
    recorder.login("bob", 0.002)
    recorder.question("bob", at + 0.004, text="And mine?")
    begin = at + 0.018
    end = begin + 1.2
    recorder.note(begin, "worker a", "SIGSTOP")
    killed = begin + 0.16
    recorder.note(killed, "postgresql", "SIGKILL")
    recorder.note(killed + 0.06, "postgresql", "ready")
    recorder.note(end, "worker a", "SIGCONT")
    done = recorder.question(
        "alice", begin + 0.002, waits=end - begin, tool_waits=0.03, attempts=2, events=4
    )
    recorder.note(done - 0.004, "alice", "waits for the end of run-8d1f0c52")
    failed = done + 0.05
    value = "['agent_started', 'agent_thinking', 'tool_executing', 'tool_completed']"
    failure = {
        "kind": "AssertionError",
        "text": f"alice.types(run) == FIVE\n  alice.types(run) = {value}\n  FIVE             = {FIVE!r}",
        "values": [["alice.types(run)", value], ["FIVE", repr(FIVE)]],
        "traceback": "Traceback (most recent call last):\n"
        '  File "gp-13-frozen-worker", line 12, in <module>\n'
        "    assert alice.types(run) == FIVE\n"
        "AssertionError: alice.types(run) == FIVE\n",
        "statistics": [
            ["client", "alice", "received 4, duplicates 0, resets 0, reconnects 0"],
            ["client", "bob", "received 5, duplicates 0, resets 0, reconnects 0"],
            ["worker", "worker a", "running"],
            ["node", "node a", "running"],
            ["postgresql", "ssot-worker", "connections 2, active 0"],
        ],
        "logs": [
            ["worker a", "2026-11-22 21:43:21,902 WARNING ssot.database: the connection was lost: ConnectionDoesNotExistError; attempt 2 in 0.004 s"],
            ["worker a", "2026-11-22 21:43:21,987 INFO ssot.agents: run-8d1f0c52 tool_completed"],
            ["worker a", "2026-11-22 21:43:22,011 ERROR ssot.streams: append refused: the lease of run-8d1f0c52 has a newer token 4, ours is 3"],
            ["node a", "2026-11-22 21:43:20,640 INFO ssot.websocket: alice connected"],
            ["postgresql", "2026-11-22 21:43:20.861 UTC [71] LOG:  database system was not properly shut down; automatic recovery in progress"],
            ["postgresql", "2026-11-22 21:43:20.904 UTC [68] LOG:  database system is ready to accept connections"],
        ],
        "again": "ssot run 00_golden_path --only GP-13 -p users 3 -p seed 7",
    }  # fmt: skip
    return evidence(
        recorder,
        "A frozen worker wakes too late and is fenced",
        verdict="fail",
        seconds=failed,
        restarts=1,
        faults=[
            {"what": "frozen", "target": "worker a", "begin": begin, "end": end},
            {"what": "killed", "target": "postgresql", "begin": killed, "end": killed + 0.06},
        ],
        failure=failure,
        errors=[{"kind": "AuthenticationError", "text": "wrong name or password"}],
    )


def slow_link() -> dict[str, Any]:
    recorder = Recorder(21)
    recorder.note(0.0, "lab", "GP-14 begins")
    at = recorder.login("alice", 0.001)
    done = recorder.question("alice", at + 0.002, tool_waits=0.09, worker="worker a")
    recorder.question("alice", done, first_seq=6, text="And now?")
    return evidence(
        recorder,
        "A slow link delays a user and nobody else",
        faults=[
            {"what": "latency", "target": "worker a → redis", "begin": at, "end": done + 0.004}
        ],
    )


def write_run(
    folder: Path, results: dict[str, Any], found: dict[str, dict[str, dict[str, Any]]]
) -> Path:
    """Write a run's results and the evidence of its notebooks, by the stem of their outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for stem, checks in found.items():
        content = {
            "version": 1,
            "notebook": stem,
            "servers": {"postgresql": "18.6", "redis": "Valkey 9.1.2", "kind": "embedded"},
            "checks": checks,
        }
        (folder / f"{stem}.evidence.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
