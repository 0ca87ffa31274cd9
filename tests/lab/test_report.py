"""The report of a run: complete, harmless, and clear about what it cannot read."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ssot.lab.notebook import CannotRun
from ssot.lab.report import write_report
from ssot.lab.report.markup import Markup, rendered, tag

from . import recorded

EVIL = "</script><img src=x onerror=alert(1)>\"'&\x00"


def check(check_id: str, title: str, verdict: str = "pass", **more: Any) -> dict[str, Any]:
    content = {
        "id": check_id, "title": title, "cell": check_id.lower(), "verdict": verdict,
        "seconds": 0.4, "message": "", "printed": "",
        "bvj": ["Users", "Trust", f"value of {check_id}", f"strategy of {check_id}"],
        "why": f"### {check_id} · {title}\n\nWhy **{check_id}** matters.\n\nBVJ: Users | Trust",
    }  # fmt: skip
    return content | more


def notebook(name: str, *checks: dict[str, Any], **more: Any) -> dict[str, Any]:
    worst = max((each["verdict"] for each in checks), key=["pass", "unknown", "fail"].index)
    content = {
        "name": name, "path": f"notebooks/{name}.ipynb", "output": f"{name}.ipynb",
        "parameters": {"users": 3, "seed": 7, "services": "embedded", "latency_ms": 0},
        "verdict": worst, "seconds": 9.5, "error": "", "checks": [*checks],
    }  # fmt: skip
    return content | more


def results(*notebooks: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = {
        "run": "20261122T214603351Z-c911", "stopped": False, "verdict": "fail", "seed": None,
        "parameters": {"users": 3}, "notebooks": [*notebooks],
    }  # fmt: skip
    return content | more


def mixed() -> tuple[dict[str, Any], dict[str, Any]]:
    """A run with a check of each verdict, and its evidence."""
    found = results(
        notebook(
            "00_golden_path",
            check("GP-05", "One question, five events, in order"),
            check("GP-13", "A frozen worker is fenced", "fail", message="AssertionError: types"),
            check("GP-15", "TLS is verified", "unknown", message="this server has no SSL"),
        )
    )
    return found, {
        "00_golden_path": {"GP-05": recorded.one_question(), "GP-13": recorded.worker_frozen()}
    }


def repeated() -> tuple[dict[str, Any], dict[str, Any]]:
    """Three rounds; GP-13 fails in the second."""
    rounds, found = [], {}
    for number in (1, 2, 3):
        bad = number == 2
        rounds.append(
            notebook(
                "00_golden_path",
                check("GP-05", "One question, five events, in order"),
                check("GP-13", "A frozen worker is fenced", "fail" if bad else "pass"),
                round=number,
                output=f"00_golden_path.{number}.ipynb",
                parameters={"users": 3, "seed": 6 + number},
            )
        )
        found[f"00_golden_path.{number}"] = {
            "GP-05": recorded.one_question(),
            "GP-13": recorded.worker_frozen() if bad else recorded.one_question(),
        }
    more = {"seeds": [7, 8, 9], "began": "2026-11-22T21:46:03+00:00", "seconds": 33.1}
    return results(*rounds, **more), found


class Page(HTMLParser):
    """What a browser would find in a page: elements, their attributes, and the text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self._raw = ""
        self.feed(content)
        self.text = "".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self._texts.append(f"{data} ")

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def report(folder: Path, found: dict[str, Any], evidence: dict[str, Any] | None = None) -> Page:
    recorded.write_run(folder / "outputs" / found["run"], found, evidence or {})
    path = write_report(folder / "outputs" / found["run"])
    assert path == folder / "outputs" / found["run"] / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_verdict_is_told_at_a_glance(tmp_path: Path):
    """Counts, when, seed, parameters, versions, and a sign for each check that leads to it."""
    page = report(tmp_path, *mixed())
    for words in (
        "1 of 3 checks failed", "1 failed", "1 unknown", "1 passed",
        "22 November 2026, 21:46:03 UTC", "seed 7", "users 3", "PostgreSQL 18.6",
        "Redis Valkey 9.1.2", "took 9.50 s",
    ):  # fmt: skip
        assert words in page.words
    links = [a["href"] for a in page.named("a") if (a.get("href") or "").startswith("#GP")]
    assert links[:3] == ["#GP-05", "#GP-13", "#GP-15"]
    checks = [each for each in page.named("details") if "check" in (each["class"] or "")]
    assert [each["id"] for each in checks] == ["GP-05", "GP-13", "GP-15"]
    assert ["open" in each for each in checks] == [False, True, True]


def test_a_failure_explains_itself(tmp_path: Path):
    """The assertion with its values, the figure, what was open, logs, and what to type."""
    page = report(tmp_path, *mixed())
    order = [
        "AssertionError alice.types(run) == FIVE",
        "failed at 1.36 s",
        "ssot run 00_golden_path --only GP-13 -p users 3 -p seed 7",
        "ssot explore outputs/20261122T214603351Z-c911/00_golden_path.ipynb GP-13",
        "received 4, duplicates 0",
        "append refused: the lease of run-8d1f0c52 has a newer token",
        "Traceback (most recent call last)",
        "Why GP-13 matters.",
    ]
    places = [page.words.index(words, page.words.index("What failed")) for words in order]
    assert places == sorted(places)


def test_evidence_is_told(tmp_path: Path):
    """Business value by its four parts, components, servers, links, users, errors, values."""
    page = report(tmp_path, *mixed())
    for words in (
        "Segment Users", "Business goal Trust", "Value impact value of GP-05",
        "Strategic impact strategy of GP-05", "streams → redis 7", "15 statements",
        "Redis (Valkey 9.1.2), up since 2026-11-22 21:36:02 UTC", "restarted once",
        "client → node a 3,345 12", "5 events received, 5 to alice",
        "AuthenticationError wrong name or password", "alice.sequence [1, 2, 3, 4, 5]",
    ):  # fmt: skip
        assert words in page.words, words
    assert "BVJ:" not in page.words


def test_a_check_without_evidence_still_has_its_reason_and_its_command(tmp_path: Path):
    """A kernel that died left none; the parameters of the run are in the command."""
    page = report(tmp_path, mixed()[0])
    assert "this server has no SSL" in page.words
    assert "Nothing was recorded beyond the verdict." in page.words
    assert "ssot run 00_golden_path --only GP-15 -p users 3" in page.words


def test_evidence_of_another_verdict_says_so(tmp_path: Path):
    """What was written before a kernel died is not passed off as the end."""
    found, evidence = mixed()
    evidence["00_golden_path"]["GP-13"]["verdict"] = "pass"
    page = report(tmp_path, found, evidence)
    assert "recorded before the check ended otherwise" in page.words


def test_a_flaky_check_is_called_flaky(tmp_path: Path):
    """Rounds are gathered by check; the one that failed is shown, one that passed beside it."""
    page = report(tmp_path, *repeated())
    assert "1 of 2 checks is flaky" in page.words
    assert "1 flaky" in page.words
    assert "Flaky: passed in 2 of 3 rounds" in page.words
    assert "seeds 7, 8, 9" in page.words
    assert "took 33.1 s" in page.words
    assert "Round 1 passed" in page.words
    assert "outputs/20261122T214603351Z-c911/00_golden_path.2.ipynb GP-13" in page.words
    links = {a["href"] for a in page.named("a")}
    assert {f"./00_golden_path.{n}.ipynb" for n in (1, 2, 3)} <= links


def test_a_stopped_run_says_so(tmp_path: Path):
    """And a notebook that failed outside its checks tells how."""
    found, _ = mixed()
    found["stopped"] = True
    found["notebooks"][0]["error"] = "setup failed: OSError: no server"
    page = report(tmp_path, found)
    assert "The run was stopped before it was done" in page.words
    assert "setup failed: OSError: no server" in page.words


@pytest.mark.parametrize("notebooks", [[], [notebook("00_a", check("GP-01", "a"))]])
def test_small_runs_have_a_report(tmp_path: Path, notebooks: list[dict[str, Any]]):
    """Nothing was run, or one check passed."""
    page = report(tmp_path, results(*notebooks))
    assert ("The check passed" if notebooks else "No check was run") in page.words


def _poisoned(value: Any, name: str = "") -> Any:
    """The same with every text that is not part of the format replaced by an attack."""
    if isinstance(value, dict):
        keep = {"version", "verdict", "output", "round"}
        return {k: v if k in keep else _poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poisoned(each, name) for each in value]
    return f"{value}{EVIL}" if isinstance(value, str) and name != "id" else value


def test_what_comes_from_outside_does_no_harm(tmp_path: Path):
    """Whatever a title, a log or a value says, it is text: no element, attribute or script."""
    found, evidence = mixed()
    poisoned = _poisoned(copy.deepcopy(found))
    poisoned["run"] = "evil"
    hurt = _poisoned(evidence)
    hurt["00_golden_path"]["GP-05"]["components"][EVIL] = 3
    hurt["00_golden_path"]["GP-05"]["events"][EVIL] = 3
    clean = report(tmp_path / "clean", found, evidence)
    page = report(tmp_path / "evil", poisoned, hurt)
    assert page.named("img") == []
    assert len(page.named("script")) == len(clean.named("script")) == 2
    assert "onerror=alert(1)" in page.text
    for name, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")], name
    for link in page.named("a"):
        assert re.match(r"#|\./", link["href"] or "")


def test_a_page_fetches_nothing(tmp_path: Path):
    """No address but those of its own folder; the policy allows its own two scripts only."""
    page = report(tmp_path, *mixed())
    content = (tmp_path / "outputs/20261122T214603351Z-c911/index.html").read_text()
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", content))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "url(#" in content
    assert not re.search(r"url\((?!#)|@import", content)
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 2
    assert "script-src 'unsafe-inline'" not in policy


@pytest.mark.long
def test_a_large_run_stays_small(tmp_path: Path):
    """130 checks with evidence of three users each: less than 6 MB, and anchors are their own."""
    evidence = {"00_a": {}, "01_b": {}}
    notebooks = []
    for name, letters in (("00_a", "GP"), ("01_b", "GP")):
        checks = []
        for number in range(1, 66):
            bad = number % 20 == 0
            checks.append(check(f"{letters}-{number}", "A title", "fail" if bad else "pass"))
            made = recorded.worker_frozen() if bad else recorded.many_users(3)
            evidence[name][f"{letters}-{number}"] = made
        notebooks.append(notebook(name, *checks))
    page = report(tmp_path, results(*notebooks), evidence)
    size = (tmp_path / "outputs/20261122T214603351Z-c911/index.html").stat().st_size
    assert size < 6_000_000
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    anchors = [each for each in ids if each and "GP" in each]
    assert len(anchors) == len(set(anchors)) == 130


def test_ids_are_not_given_twice(tmp_path: Path):
    """Patterns of figures too: an id that is taken would shade one figure with another's hatch."""
    page = report(tmp_path, *repeated())
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, "results.json is not there: no run was written to"),
        ("results.json", "{", "results.json cannot be read: Expecting"),
        ("results.json", "[]", "results.json is not a JSON object"),
        ("results.json", '{"run": "x"}', "results.json is not a run's results: KeyError"),
        ("results.json", '{"run": 1, "notebooks": [3]}', "is not a run's results: TypeError"),
        ("00_golden_path.evidence.json", "nonsense", "evidence.json cannot be read: Expecting"),
        ("00_golden_path.evidence.json", "{}", "has version None, this report reads 1"),
        ("00_golden_path.evidence.json", '{"version": 1}', "has no object 'checks'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | None, message: str):
    """The file, and what is wrong with it; no page is written, and an older one stays."""
    recorded.write_run(tmp_path, *mixed())
    (tmp_path / "index.html").write_text("older")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(CannotRun, match=re.escape(message)):
        write_report(tmp_path)
    assert (tmp_path / "index.html").read_text() == "older"
    assert not (tmp_path / ".index.html.draft").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    """Not with a traceback."""
    recorded.write_run(tmp_path, *mixed())
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OSError, match=r"index\.html"):
        write_report(tmp_path)


@pytest.mark.parametrize("missing", ["spans", "timeline", "faults", "servers", "links", "failure",
                                     "edges", "components", "seconds", "events", "asserted"])  # fmt: skip
def test_evidence_may_be_incomplete(tmp_path: Path, missing: str):
    """What is not there, or is something else, is left out."""
    found, evidence = mixed()
    for value in (None, 7, "text", [3], [None], {"a": None}):
        for each in evidence["00_golden_path"].values():
            each[missing] = value
        page = report(tmp_path, found, evidence)
        assert "1 of 3 checks failed" in page.words


def test_markup_is_text_unless_it_says_otherwise():
    """Only what was made by `tag` is HTML; attributes are escaped too."""
    made = tag("a", "<b>", tag("i", "x"), Markup("<u>"), None, href='"', hidden=True, open=False)
    assert made == '<a href="&quot;" hidden>&lt;b&gt;<i>x</i><u></a>'


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "![x](https://example.org/x.png)", "[x](javascript:alert(1))"],
)
def test_markdown_brings_no_html_picture_or_script(text: str):
    """A notebook's words are rendered, and nothing of them runs or is fetched."""
    page = Page(rendered(text))
    assert {name for name, _ in page.elements} <= {"p", "a"}
    assert all("javascript" not in (a.get("href") or "") for a in page.named("a"))


def test_an_empty_file_is_no_run(tmp_path: Path):
    """Also where JSON is valid and says nothing."""
    (tmp_path / "results.json").write_text(json.dumps(None))
    with pytest.raises(CannotRun, match="is not a JSON object"):
        write_report(tmp_path)
