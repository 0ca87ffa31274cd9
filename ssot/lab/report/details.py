"""What the report tells of one check: why it matters, what was seen, and how it failed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssot.lab.figure import draw_apart, duration, graph
from ssot.lab.notebook import Verdict
from ssot.lab.report.markup import Markup, join, rendered, tag
from ssot.lab.report.reading import CheckOfRun, NotebookOfRun, Round, RunOfReport

__all__ = ["details", "entries", "icon", "mapping", "plural", "table"]

_PARTS = ("Segment", "Business goal", "Value impact", "Strategic impact")
_LOG_LINES = 400
_VALUES = 60
_VALUE = 2000
_LEVEL = re.compile(r"\b(?:(WARNING|WARN)|(ERROR|CRITICAL|FATAL|PANIC))\b")
_SERVERS = {"postgresql": "PostgreSQL", "redis": "Redis"}
_WORDS = {"pass": "passed", "fail": "failed", "unknown": "unknown", "flaky": "flaky"}


# Reading evidence that may be incomplete


def mapping(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object of this name, or an empty one."""
    found = source.get(name)
    return found if isinstance(found, dict) else {}


def entries(source: Mapping[str, Any], name: str) -> list[Any]:
    """The list of this name, or an empty one."""
    found = source.get(name)
    return found if isinstance(found, list) else []


def _rows(source: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [each for each in entries(source, name) if isinstance(each, dict)]


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0


def plural(count: int, one: str, many: str = "") -> str:
    """``1 user``, ``2 users``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


# Parts of pages


def icon(state: str) -> Markup:
    """The sign of a state: another shape for each, and its word for who does not see it."""
    return tag(
        "svg",
        tag("title", _WORDS[state]),
        tag("use", href=f"#sign-{state}"),
        class_=f"sign {state}",
        viewBox="0 0 20 20",
        role="img",
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str | None]], *, code: Sequence[int] = ()
) -> Markup | None:
    """A table that scrolls by itself where it is too wide; None without rows."""
    body = [
        tag(
            "tr", *(tag("td", tag("code", cell) if i in code else cell) for i, cell in enumerate(r))
        )
        for r in rows
    ]
    if not body:
        return None
    head = tag("thead", tag("tr", *(tag("th", each, scope="col") for each in heads)))
    return tag("div", tag("table", head, tag("tbody", *body)), class_="scroll", tabindex="0")


def _section(title: str, *children: str | None, class_: str = "") -> Markup | None:
    if not any(children):
        return None
    return tag("section", tag("h4", title), *children, class_=f"part {class_}".strip())


def _fold(title: str, *children: str | None, open_: bool = False, note: str = "") -> Markup:
    return tag(
        "details",
        tag("summary", title, tag("span", f" {note}", class_="quiet") if note else None),
        *children,
        class_="fold",
        open=open_,
    )


def _command(told: str, command: str) -> Markup:
    return tag(
        "div",
        tag("span", told, class_="quiet"),
        tag(
            "div",
            tag("code", command, tabindex="0"),
            tag("button", "Copy", type="button", class_="copy", hidden=True),
            class_="command",
        ),
    )


def details(run: RunOfReport, notebook: NotebookOfRun, check: CheckOfRun) -> Markup:
    """Everything of one check: the round that tells most, and the others below it."""
    first = check.telling
    others = [each for each in check.rounds if each is not first]
    parts: list[Markup | None] = []
    if check.rounds[1:]:
        parts.append(_rounds(check))
    parts.append(_round(run, notebook, check, first))
    shown = 0
    for each in others:
        # Of rounds that passed one is enough to compare with.
        wanted = each.verdict is not Verdict.PASS or (
            first.verdict is not Verdict.PASS and not shown
        )
        if wanted and each.evidence and shown < 4:
            shown += each.verdict is Verdict.PASS or 1
            word = _WORDS[str(each.verdict)]
            parts.append(_fold(f"Round {each.number} {word}", _what_happened(each, limit=140)))
    return tag("div", *parts, class_="body")


def _rounds(check: CheckOfRun) -> Markup | None:
    passed = sum(each.verdict is Verdict.PASS for each in check.rounds)
    told = f"passed in {passed} of {plural(len(check.rounds), 'round')}"
    rows = [
        (
            str(each.number),
            join([icon(str(each.verdict)), f" {_WORDS[str(each.verdict)]}"]),
            duration(each.seconds) if each.seconds else "",
            str(each.parameters.get("seed", "")),
            each.message.partition("\n")[0],
        )
        for each in check.rounds
    ]
    heads = ("round", "verdict", "time", "seed", "what it said")
    title = "Flaky: " if check.state == "flaky" else "Repeated: "
    return _section(title + told, table(heads, rows))


def _round(run: RunOfReport, notebook: NotebookOfRun, check: CheckOfRun, it: Round) -> Markup:
    why = _why(check)
    if it.verdict is Verdict.PASS:
        return join([why, _what_happened(it, limit=140), _evidence(notebook, it)])
    return join(
        [
            _failure(it),
            _what_happened(it, limit=400),
            _commands(run, notebook, check, it),
            _statistics(it),
            _logs(it),
            _traceback(it),
            why,
            _evidence(notebook, it),
        ]
    )


def _why(check: CheckOfRun) -> Markup | None:
    lines = [
        line for line in check.why.splitlines() if not line.startswith(("BVJ:", f"### {check.id}"))
    ]
    text = "\n".join(lines).strip()
    parts = [part for part in check.bvj if part]
    words = [
        tag("div", tag("dt", name), tag("dd", part))
        for name, part in zip(_PARTS, check.bvj, strict=False)
        if part
    ]
    return _section(
        "Why it matters",
        tag("div", rendered(text), class_="prose") if text else None,
        tag("dl", *words, class_="bvj") if parts else None,
    )


def _what_happened(it: Round, *, limit: int) -> Markup | None:
    if not it.evidence:
        return None
    seconds = it.evidence.get("seconds")
    seconds = seconds if isinstance(seconds, int | float) else it.seconds
    failed = it.verdict is not Verdict.PASS and bool(it.evidence.get("failure"))
    figure, legend = draw_apart(
        entries(it.evidence, "timeline"),
        entries(it.evidence, "spans"),
        entries(it.evidence, "faults"),
        seconds=seconds,
        failed_at=seconds if failed else None,
        theme="page",
        limit=limit,
    )
    return _section(
        "What happened",
        tag(
            "p",
            "This was recorded before the check ended otherwise than it says.",
            class_="quiet",
        )
        if it.stale
        else None,
        tag(
            "div",
            Markup(figure),
            tag("div", *(Markup(item) for item in legend), class_="legend") if legend else None,
            class_="figure scroll",
            tabindex="0",
            role="group",
            aria_label="Figure of what happened",
        ),
    )


# A failure


def _failure(it: Round) -> Markup | None:
    failure = mapping(it.evidence, "failure")
    text = str(failure.get("text") or it.message or it.printed or "it says nothing")
    pairs = [
        (str(pair[0]), str(pair[1]))
        for pair in entries(failure, "values")
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    lines = text.splitlines()
    if pairs:  # what the text says of the values stands in the table
        kept = next(
            (i for i, line in enumerate(lines) if line.startswith(f"  {pairs[0][0]}") and i), None
        )
        lines = lines[:kept]
    kind = str(failure.get("kind") or "")
    unknown = it.verdict is Verdict.UNKNOWN
    values = [
        tag("div", tag("dt", tag("code", name)), tag("dd", tag("code", value[:_VALUE])))
        for name, value in pairs[:_VALUES]
    ]
    return _section(
        "Why it is not known" if unknown else "What failed",
        tag(
            "div",
            tag("span", kind, class_="kind") if kind else None,
            tag("pre", "\n".join(lines)[: 4 * _VALUE], class_="said"),
            tag("dl", *values, class_="values") if values else None,
            class_="failure unknown" if unknown else "failure",
        ),
    )


def _commands(
    run: RunOfReport, notebook: NotebookOfRun, check: CheckOfRun, it: Round
) -> Markup | None:
    again = mapping(it.evidence, "failure").get("again")
    if not again:
        given = dict(run.parameters)
        if run.seeds and "seed" in it.parameters:
            given["seed"] = it.parameters["seed"]
        words = ["ssot", "run", notebook.name, "--only", check.id]
        for name, value in given.items():
            words += ["-p", name, str(value)]
        again = shlex.join(words)
    folder = run.folder.resolve()
    path = "/".join([folder.parent.name, folder.name, it.output])
    return _section(
        "Look into it",
        _command("Run just this check again", str(again)),
        _command("Open it in JupyterLab, live", shlex.join(["ssot", "explore", path, check.id])),
    )


def _statistics(it: Round) -> Markup | None:
    rows = [
        [str(cell) for cell in row]
        for row in entries(mapping(it.evidence, "failure"), "statistics")
        if isinstance(row, list | tuple) and len(row) == 3
    ]
    return _section("What was open", table(("what", "name", "state"), rows))


def _logs(it: Round) -> Markup | None:
    by_process: dict[str, list[str]] = {}
    for line in entries(mapping(it.evidence, "failure"), "logs"):
        if isinstance(line, list | tuple) and len(line) == 2:
            by_process.setdefault(str(line[0]), []).append(str(line[1]))
    if not by_process:
        return None
    folds = []
    for process, lines in by_process.items():
        left_out = max(len(lines) - _LOG_LINES, 0)
        loud = [line for line in lines if _LEVEL.search(line)]
        note = plural(len(lines), "line") + (f", {len(loud)} loud" if loud else "")
        shown = [_line(line) for line in lines[left_out:]]
        if left_out:
            shown.insert(0, tag("span", f"… {left_out} earlier lines", class_="line quiet"))
        folds.append(
            _fold(
                process,
                tag("pre", *shown, class_="log", tabindex="0"),
                open_=bool(loud),
                note=note,
            )
        )
    wanted = tag(
        "input",
        type="search",
        class_="log-filter",
        placeholder="only lines with …",
        aria_label="Show only log lines that contain this",
        hidden=True,
    )
    return _section("Logs since the check began", wanted, *folds, class_="logs")


def _line(text: str) -> Markup:
    found = _LEVEL.search(text)
    loud = "" if found is None else " warning" if found[1] else " error"
    return tag("span", text, class_=f"line{loud}")


def _traceback(it: Round) -> Markup | None:
    failure = mapping(it.evidence, "failure")
    text = str(failure.get("traceback") or "")
    printed = it.printed.strip()
    folds = []
    if text:
        folds.append(_fold("Traceback", tag("pre", text[-20_000:], tabindex="0")))
    if printed and not text:
        folds.append(_fold("What it printed", tag("pre", printed[-20_000:], tabindex="0")))
    return _section("In its own words", *folds) if folds else None


# Evidence


def _evidence(notebook: NotebookOfRun, it: Round) -> Markup | None:
    found = it.evidence
    if not found:
        told = "Nothing was recorded beyond the verdict."
        return _section("Evidence", tag("p", told, class_="quiet"))
    components = {str(k): _whole(v) for k, v in mapping(found, "components").items()}
    edges = [
        (str(edge.get("from", "?")), str(edge.get("to", "?")), _whole(edge.get("count")))
        for edge in _rows(found, "edges")
    ]
    between = [str(name) for name in entries(found, "between")]
    drawn = graph(components, edges, between=between, theme="page") if components else ""
    chain = [
        tag("li", f"{source} → {target}", tag("b", f" {count:,}"))
        for source, target, count in edges
    ]
    asserted = [
        (
            str(row.get("component") or ""),
            str(row.get("expression") or ""),
            str(row.get("value") or "")[:_VALUE],
        )
        for row in _rows(found, "asserted")[:_VALUES]
    ]
    caught = [(str(e.get("kind") or ""), str(e.get("text") or "")) for e in _rows(found, "errors")]
    leaks = [tag("li", str(leak)) for leak in entries(found, "leaks")]
    return _section(
        "Evidence",
        tag("div", Markup(drawn), class_="graph scroll", tabindex="0", role="group",
            aria_label="Components that it touched") if drawn else None,
        tag("ul", *chain, class_="chain", aria_label="Causes and effects") if chain else None,
        _facts(notebook, found),
        _titled("Left behind", tag("ul", *leaks)) if leaks else None,
        _titled("Asserted", table(("component", "expression", "value"), asserted, code=(1, 2))),
        _titled("Expected errors, caught", table(("error", "what it said"), caught, code=(0,))),
        _titled("Links", _links(found)),
    )  # fmt: skip


def _titled(title: str, content: str | None) -> Markup | None:
    return tag("div", tag("h5", title), content) if content else None


def _facts(notebook: NotebookOfRun, found: Mapping[str, Any]) -> Markup:
    facts: list[tuple[str, str]] = []
    users = [str(user) for user in entries(found, "users")]
    if users:
        more = f" and {len(users) - 8} more" if len(users) > 8 else ""
        facts.append((plural(len(users), "user"), ", ".join(users[:8]) + more))
    events = {str(user): _whole(count) for user, count in mapping(found, "events").items()}
    if events:
        each = [f"{count} to {user}" for user, count in [*events.items()][:8]]
        facts.append((plural(sum(events.values()), "event"), "received, " + ", ".join(each)))
    processes = {str(name): _whole(n) for name, n in mapping(found, "processes").items()}
    if processes:
        told = ", ".join(f"{name} {count}" for name, count in processes.items())
        facts.append((plural(sum(processes.values()), "span"), told))
    for name, counters in mapping(found, "servers").items():
        if not isinstance(counters, dict):
            continue
        version = notebook.servers.get(name)
        what = "statements" if name == "postgresql" else "commands"
        label = _SERVERS.get(name, name)
        if version:
            label += f" {version}" if name == "postgresql" else f" ({version})"
        notes = [label]
        if counters.get("started"):
            notes.append(f"up since {_clock(counters['started'])}")
        if restarts := _whole(counters.get("restarts")):
            notes.append(f"restarted {'once' if restarts == 1 else f'{restarts} times'}")
        facts.append((f"{_whole(counters.get(what)):,} {what}", ", ".join(notes)))
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", told)) for name, told in facts),
        class_="facts",
    )


def _clock(when: object) -> str:
    return str(when).replace("T", " ").removesuffix("Z") + " UTC"


def _links(found: Mapping[str, Any]) -> Markup | None:
    rows = [
        (
            f"{link.get('from', '?')} → {link.get('to', '?')}",
            f"{_whole(link.get('bytes')):,}",
            f"{_whole(link.get('frames')):,}" if link.get("frames") else "",
        )
        for link in _rows(found, "links")
    ]
    return table(("link", "bytes", "WebSocket frames"), rows)
