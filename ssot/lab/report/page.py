"""The page of a report: its frame, the verdict at a glance, and the rows of its checks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from ssot.lab.figure import duration, strip, stylesheet
from ssot.lab.figure.palette import COMPONENTS, css_class
from ssot.lab.report.details import details, entries, icon, mapping, plural, table
from ssot.lab.report.markup import Markup, join, tag
from ssot.lab.report.reading import CheckOfRun, NotebookOfRun, RunOfReport

__all__ = ["page"]

_OPEN = 8
"""Of the checks that did not pass, as many are open from the beginning."""

_TOLD = {"fail": "failed", "flaky": "flaky", "unknown": "unknown", "pass": "passed"}
_SIGNS = {
    # a disc with a tick, a square with a cross, a lozenge with a question mark,
    # a triangle with a wave
    "pass": '<circle cx="10" cy="10" r="9"/><path d="M5.8 10.3l2.9 2.9l5.6 -6"/>',
    "fail": '<rect x="1.5" y="1.5" width="17" height="17" rx="3.5"/>'
    '<path d="M6.4 6.4l7.2 7.2M13.6 6.4l-7.2 7.2"/>',
    "unknown": '<path class="body" d="M10 .6l9.4 9.4l-9.4 9.4l-9.4 -9.4z"/>'
    '<path d="M7.7 8c0 -3 4.8 -3 4.8 -.1c0 1.9 -2.4 1.8 -2.4 3.7M10.1 13.9v.2"/>',
    "flaky": '<path class="body" d="M10 1l9.2 16.8h-18.4z"/>'
    '<path d="M6 13.6l2.6 -2.6l2.8 2.6l2.6 -2.6"/>',
}


def page(run: RunOfReport) -> str:
    """Return the whole page: one file, that fetches nothing and runs without scripts too."""
    early, script = _asset("theme.js"), _asset("report.js")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(early)} {_hash(script)}"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{_headline(run)} · {run.id}"),
        tag("style", Markup(stylesheet("page") + _asset("report.css"))),
        tag("script", Markup(early)),
    )
    slowest = max((each.seconds for check in run.checks for each in check.rounds), default=0.0)
    wrong = [check for check in run.checks if check.state != "pass"]
    opened = {check.anchor for check in wrong[:_OPEN]}
    body = tag(
        "body",
        _symbols(),
        tag("a", "Skip to the checks", href="#checks", class_="skip"),
        tag(
            "header",
            tag("div", tag("span", "ssot", class_="mark"), tag("span", "interplay"), class_="name"),
            tag("button", "Dark", type="button", id="theme", hidden=True),
        ),
        tag(
            "main",
            _overview(run),
            _attention(wrong),
            _tools(run),
            tag(
                "div",
                *(_notebook(run, each, slowest, opened) for each in run.notebooks),
                tag("p", "No check matches.", id="none", hidden=True, role="status"),
                id="checks",
            ),
        ),
        tag(
            "footer",
            tag("span", "This page is complete in itself. "),
            _link("results.json"),
            tag("span", " · "),
            _link("junit.xml"),
            tag(
                "span",
                " · keys: / search, j and k next and previous check, Enter open",
                class_="keys",
                hidden=True,
            ),
        ),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return (files("ssot.lab.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _symbols() -> Markup:
    symbols = "".join(
        f'<symbol id="sign-{state}" viewBox="0 0 20 20">{shape}</symbol>'
        for state, shape in _SIGNS.items()
    )
    return Markup(f'<svg width="0" height="0" class="symbols" aria-hidden="true">{symbols}</svg>')


def _link(name: str, told: str = "") -> Markup:
    return tag("a", told or name, href=quote(f"./{name}"))


# At a glance


def _headline(run: RunOfReport) -> str:
    counts = run.counts
    whole = sum(counts.values())
    if not whole:
        return "No check was run"
    if counts["pass"] == whole and any(notebook.errors for notebook in run.notebooks):
        return f"{plural(whole, 'check')} passed, a notebook failed"
    if counts["pass"] == whole:
        rounds = f" in {len(run.seeds)} rounds" if len(run.seeds) > 1 else ""
        return f"{f'All {whole} checks' if whole > 1 else 'The check'} passed{rounds}"
    for state in ("fail", "flaky", "unknown"):
        if counts[state]:
            verb = "are " if counts[state] > 1 else "is "
            return (
                f"{counts[state]} of {plural(whole, 'check')} "
                f"{'' if state == 'fail' else verb}{_TOLD[state]}"
            )
    raise AssertionError(counts)


def _overview(run: RunOfReport) -> Markup:
    counts = run.counts
    whole = sum(counts.values())
    state = str(run.verdict)
    if state == "fail" and not counts["fail"] and counts["flaky"]:
        state = "flaky"
    shares = [
        tag("span", class_=each, style=f"flex-grow:{count}", title=f"{count} {_TOLD[each]}")
        for each, count in counts.items()
        if count
    ]
    told = [
        tag("li", icon(each), tag("b", str(count)), f" {_TOLD[each]}")
        for each, count in counts.items()
        if count
    ]
    return tag(
        "section",
        tag("div", icon(state), tag("h1", _headline(run)), class_="headline"),
        tag(
            "p",
            "The run was stopped before it was done: what had not come to an end is unknown.",
            class_="stopped",
        )
        if run.stopped
        else None,
        tag("div", *shares, class_="share", aria_hidden="true") if whole else None,
        tag("ul", *told, class_="counts") if whole else None,
        tag("dl", *_facts(run), class_="tiles"),
        *(_dots(each) for each in run.notebooks),
        class_=f"overview {state}",
    )


def _facts(run: RunOfReport) -> list[Markup]:
    facts: list[tuple[str, str]] = []
    if run.began is not None:
        facts.append(("when", f"{run.began.astimezone(UTC):%-d %B %Y, %H:%M:%S} UTC"))
    seconds = run.seconds
    if seconds is None:
        seconds = sum(notebook.seconds for notebook in run.notebooks)
    if seconds:
        facts.append(("took", duration(seconds)))
    if run.seeds:
        seeds = ", ".join(map(str, run.seeds[:6])) + (" …" if len(run.seeds) > 6 else "")
        facts.append(("seeds", seeds))
    elif (seed := _seed(run)) is not None:
        facts.append(("seed", str(seed)))
    facts += [(name, str(value)) for name, value in _parameters(run).items() if name != "seed"]
    facts += _servers(run)
    facts.append(("run", run.id))
    return [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]


def _seed(run: RunOfReport) -> Any:
    return run.seed if run.seed is not None else _parameters(run).get("seed")


def _parameters(run: RunOfReport) -> Mapping[str, Any]:
    """What was given, and what all notebooks ran with alike."""
    shared: dict[str, Any] = dict(run.notebooks[0].parameters) if run.notebooks else {}
    for notebook in run.notebooks[1:]:
        shared = {k: v for k, v in shared.items() if notebook.parameters.get(k) == v}
    return shared | dict(run.parameters)


def _servers(run: RunOfReport) -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for notebook in run.notebooks:
        for name, value in notebook.servers.items():
            label = {"postgresql": "PostgreSQL", "redis": "Redis", "kind": "servers"}.get(
                name, name
            )
            if isinstance(value, str) and value not in found.setdefault(label, []):
                found[label].append(value)
    if any(name == "services" for name in _parameters(run)):
        found.pop("servers", None)
    return [(name, ", ".join(values)) for name, values in found.items()]


def _dots(notebook: NotebookOfRun) -> Markup:
    dots = [
        tag(
            "li",
            tag(
                "a",
                icon(check.state),
                href=f"#{check.anchor}",
                title=f"{check.id} {_TOLD[check.state]}: {check.title}",
            ),
        )
        for check in notebook.checks
    ]
    return tag(
        "div",
        tag("span", notebook.name, class_="quiet"),
        tag("ul", *dots, class_="dots", aria_label=f"Checks of {notebook.name}"),
        class_="line-of-dots",
    )


def _attention(wrong: list[CheckOfRun]) -> Markup | None:
    if not wrong:
        return None
    order = ("fail", "flaky", "unknown", "pass")
    rows = [
        tag(
            "li",
            icon(check.state),
            tag(
                "a",
                tag("b", check.id),
                f" {check.title}",
                href=f"#{check.anchor}",
            ),
            tag("code", check.telling.message.partition("\n")[0][:240], class_="message")
            if check.telling.message
            else None,
        )
        for check in sorted(wrong, key=lambda check: order.index(check.state))[:20]
    ]
    if len(wrong) > 20:
        rows.append(tag("li", f"and {len(wrong) - 20} more", class_="quiet"))
    return tag("section", tag("h2", "Look at these first"), tag("ul", *rows), class_="attention")


def _tools(run: RunOfReport) -> Markup:
    counts = run.counts
    buttons = [
        tag(
            "button",
            f"All {sum(counts.values())}",
            type="button",
            data_state="",
            aria_pressed="true",
        )
    ]
    buttons += [
        tag(
            "button",
            icon(state),
            f" {count} {_TOLD[state]}",
            type="button",
            data_state=state,
            aria_pressed="false",
        )
        for state, count in counts.items()
        if count
    ]
    return tag(
        "div",
        tag("div", *buttons, role="group", aria_label="Show checks that", class_="states"),
        tag(
            "input",
            type="search",
            id="search",
            placeholder="Search checks",
            aria_label="Search checks by id, title, component or message",
        ),
        tag("button", "Open all", type="button", id="fold"),
        class_="tools",
        hidden=True,
    )


# Notebooks and checks


def _notebook(
    run: RunOfReport, notebook: NotebookOfRun, slowest: float, opened: set[str]
) -> Markup:
    alike = _parameters(run)
    own = [
        (name, str(value))
        for name, value in notebook.parameters.items()
        if alike.get(name) != value
    ]
    several = len(notebook.outputs) > 1
    links = [
        _link(output, f"executed notebook, round {number}" if several else "executed notebook")
        for number, output in zip(notebook.rounds, notebook.outputs, strict=True)
    ]
    told = [
        plural(len(notebook.checks), "check"),
        *([duration(notebook.seconds)] if notebook.seconds else []),
    ]
    if several:
        told.append(plural(len(notebook.outputs), "round"))
    errors = [tag("pre", error, class_="said") for error in notebook.errors]
    return tag(
        "section",
        tag(
            "div",
            tag("h2", notebook.name),
            tag("span", " · ".join(told), class_="quiet"),
            tag("span", *(join([" ", link]) for link in links), class_="links"),
            class_="notebook-head",
        ),
        tag("div", *errors, class_="failure", role="note") if errors else None,
        table(("parameter", "value"), own) if own else None,
        *(
            _check(run, notebook, check, slowest, check.anchor in opened)
            for check in notebook.checks
        ),
        class_="notebook",
    )


def _check(
    run: RunOfReport, notebook: NotebookOfRun, check: CheckOfRun, slowest: float, is_open: bool
) -> Markup:
    it = check.telling
    found = it.evidence
    components = [str(name) for name in mapping(found, "components")]
    users = len(entries(found, "users"))
    events = sum(n for n in mapping(found, "events").values() if isinstance(n, int))
    share = min(it.seconds / slowest, 1.0) if slowest else 0.0
    words = " ".join([check.id, check.title, it.message, *components]).lower()
    counted = [
        *([plural(users, "user")] if users else []),
        *([plural(events, "event")] if events else []),
    ]
    summary = tag(
        "summary",
        icon(check.state),
        tag("span", check.id, class_="id"),
        tag("span", check.title, class_="title"),
        tag("span", _life(found, it.seconds), class_="life"),
        tag("span", ", ".join(counted), class_="counted"),
        tag("span", _chips(components), class_="chips"),
        tag(
            "span",
            tag("span", class_="bar", style=f"--share:{share:.3f}"),
            tag("span", duration(it.seconds) if it.seconds else "not run", class_="seconds"),
            class_="time",
        ),
    )
    return tag(
        "details",
        summary,
        details(run, notebook, check),
        class_=f"check {check.state}",
        id=check.anchor,
        data_state=check.state,
        data_words=words[:1000],
        open=is_open,
    )


def _life(evidence: Mapping[str, Any], seconds: float) -> Markup | None:
    if not evidence:
        return None
    length = evidence.get("seconds")
    length = length if isinstance(length, int | float) else seconds
    return Markup(
        strip(
            entries(evidence, "timeline"),
            entries(evidence, "spans"),
            entries(evidence, "faults"),
            seconds=length,
            failed_at=length if evidence.get("failure") else None,
            theme="page",
        )
    )


def _chips(components: list[str]) -> Markup | None:
    known = [name for name in COMPONENTS if name in components]
    if not known:
        return None
    dots = "".join(
        f'<circle class="b {css_class(name)}" cx="{6 + 12 * i}" cy="6" r="4.4"/>'
        for i, name in enumerate(known)
    )
    told = tag("title", f"touched {', '.join(known)}")
    width = 12 * len(known)
    return Markup(
        f'<svg class="sf-page" role="img" viewBox="0 0 {width} 12" width="{width}" height="12">'
        f"{told}{dots}</svg>"
    )
