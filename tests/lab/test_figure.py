"""Figures: whatever a check has left, they can be read, say what they left out, and harm nothing."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import make_dataclass
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssot.lab.figure import Theme, draw, duration, graph, strip, stylesheet
from ssot.lab.figure.lanes import arrange, read
from ssot.lab.figure.palette import COLOURS, COMPONENTS
from ssot.lab.figure.scale import Scale
from ssot.lab.figure.svg import clipped, element, number, text_width

from . import recorded

SVG = "{http://www.w3.org/2000/svg}"


def drawn(found: dict[str, Any], **options: Any) -> ET.Element:
    """The figure of a check of an evidence file, parsed: it is well-formed XML."""
    options = {"seconds": found["seconds"], "theme": "light"} | options
    return ET.fromstring(draw(found["timeline"], found["spans"], found["faults"], **options))


def texts(figure: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in figure.iter(f"{SVG}text")]


def titles(figure: ET.Element) -> list[str]:
    return [title.text or "" for title in figure.iter(f"{SVG}title")]


def boxes(figure: ET.Element, css: str) -> list[ET.Element]:
    return [each for each in figure.iter(f"{SVG}rect") if css in (each.get("class") or "").split()]


# What is drawn


def test_lanes_follow_the_way_of_the_data():
    """Users first, then what their question meets on its way; what a client did is its user's."""
    found = recorded.one_question()
    happened = read(found["timeline"], found["spans"], (), found["seconds"])
    lanes = arrange(happened)
    names = [lane.name for lane in lanes]
    assert names == ["alice", "lab", "auth", "node a", "redis", "worker a", "postgresql"]
    clients = {span.name for span in lanes[0].spans}
    assert clients == {"auth.request", "websocket.connect", "websocket.send", "websocket.receive"}
    assert {span.server for span in lanes[-1].spans} == {"postgresql"}


def test_a_failure_shows_faults_and_the_moment():
    """Each fault lies on its target's lane with its length, and a line says when it failed."""
    found = recorded.worker_frozen()
    figure = drawn(found, failed_at=found["seconds"])
    told = texts(figure)
    assert "frozen 1.20 s" in told
    assert "killed 60 ms" in told
    assert f"✕ failed at {duration(found['seconds'])}" in told
    assert any(title.startswith("worker a frozen\nfrom") for title in titles(figure))
    assert "1 of" not in figure.get("aria-label", "")
    assert "2 faults; failed at" in figure.get("aria-label", "")


def test_a_fault_of_a_link_lies_on_both_of_its_lanes_and_is_named_once():
    """Whoever looks at either end sees it; `client` is every user."""
    found = recorded.slow_link()
    lanes = {
        lane.name: lane
        for lane in arrange(read((), found["spans"], found["faults"], found["seconds"]))
    }
    assert [band.what for band in lanes["redis"].bands] == ["latency"]
    assert lanes["redis"].bands == lanes["worker a"].bands
    assert sum("latency" in text for text in texts(drawn(found))) == 1
    cut = [{"what": "cut", "target": "client → node a", "begin": 0.01, "end": None}]
    lanes = {lane.name: lane for lane in arrange(read((), found["spans"], cut, 1))}
    assert lanes["alice"].bands == lanes["node a"].bands != []


def test_a_lock_lies_on_postgresql_and_names_the_table():
    """A table is no process."""
    fault = {"what": "locked", "target": "llm_usage", "begin": 0.1, "end": 0.3}
    (lane,) = arrange(read((), (), [fault], 1))
    assert (lane.name, lane.bands[0].label) == ("postgresql", "locked llm_usage 200 ms")


def test_every_span_is_drawn_once_or_said_to_be_merged():
    """The counts of merged bars and of single ones add up."""
    found = recorded.many_users(4)
    figure = drawn(found)
    lanes = arrange(read(found["timeline"], found["spans"], (), found["seconds"]))
    wanted = sum(len(lane.spans) for lane in lanes)
    several = [int(n) for t in titles(figure) for n in re.findall(r"^(\d+) spans", t)]
    legend = len({span["component"] for span in found["spans"]})
    assert len(boxes(figure, "b")) - legend - len(several) + sum(several) == wanted


def test_too_much_is_merged_and_the_figure_says_so():
    """Thousands of spans stay a figure of some hundred bars; arrows give way first."""
    randomness = random.Random(1)
    spans = [
        {
            "id": str(i),
            "parent": str(randomness.randrange(5000)),
            "name": "database.transaction",
            "component": randomness.choice(COMPONENTS),
            "process": f"worker {randomness.choice('abc')}",
            "start": (start := randomness.uniform(0, 20)),
            "end": start + randomness.expovariate(20),
        }
        for i in range(5000)
    ]
    text = draw((), spans, (), seconds=20, theme="page", limit=300)
    figure = ET.fromstring(text)
    assert len(boxes(figure, "b")) < 400
    assert len(text) < 150_000
    (note,) = [told for told in texts(figure) if "merged" in told]
    assert "causal arrows are left out" in note


def test_many_users_share_a_lane():
    """No figure is higher than a screen for the number of its users."""
    found = recorded.many_users(40)
    lanes = arrange(read(found["timeline"], found["spans"], (), found["seconds"]))
    assert [lane.kind for lane in lanes].count("user") == 8
    assert [lane.name for lane in lanes if "more" in lane.name] == ["33 more users"]
    assert sum(len(lane.spans) for lane in lanes if lane.kind == "user") == 40 * 8


def test_a_burst_in_a_long_check_is_seen():
    """Idle stretches are cut, with their length, so that two milliseconds of thirty seconds show."""
    recorder = recorded.Recorder(3)
    recorder.question("alice", 12.0)
    figure = ET.fromstring(draw(recorder.timeline, recorder.spans, (), seconds=30, theme="light"))
    widest = max(float(box.get("width", 0)) for box in boxes(figure, "b"))
    assert widest > 300
    assert {"12.0 s", "30.000 s"} & set(texts(figure))
    assert "idle stretches are cut short" in texts(figure)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e-7, 0.01, 3e5])
def test_nothing_is_drawn_of_nothing(seconds: float):
    """A check without evidence has an axis, and says so."""
    figure = ET.fromstring(draw((), (), (), seconds=seconds, theme="light"))
    assert "nothing was recorded" in texts(figure)


def test_mappings_and_objects_are_the_same():
    """What is read may be JSON or records."""
    found = recorded.one_question()
    entry = make_dataclass("Entry", ["at", "who", "what"])
    entries = [entry(**each) for each in found["timeline"]]
    assert draw(entries, found["spans"], (), seconds=1) == draw(
        found["timeline"], found["spans"], (), seconds=1
    )


@pytest.mark.parametrize("theme", ["light", "dark", "auto", "page"])
def test_the_same_evidence_gives_the_same_bytes(theme: Theme):
    """In any order in which it was written down."""
    found = recorded.worker_frozen()
    options: dict[str, Any] = {"seconds": found["seconds"], "theme": theme}
    first = draw(found["timeline"], found["spans"], found["faults"], **options)
    again = draw(found["timeline"], found["spans"][::-1], found["faults"][::-1], **options)
    assert first == again


def test_text_from_outside_stays_text():
    """Names and messages cannot end an element; what XML cannot hold is replaced."""
    evil = "</title></svg><script>alert(1)</script>\x00\ud800"
    text = draw(
        [{"at": 0.1, "who": evil, "what": evil}],
        [{"id": 1, "name": evil, "component": evil, "process": evil, "start": 0, "end": 1,
          "error": evil}],
        [{"what": evil, "target": evil, "begin": 0, "end": 1}],
        seconds=1,
    )  # fmt: skip
    figure = ET.fromstring(text)
    assert [each.tag for each in figure.iter() if each.tag.endswith("script")] == []
    mapped = graph({evil: 1}, [(evil, "redis", 1)], between=[evil])
    assert "<script" not in mapped
    ET.fromstring(mapped)


_anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=2),
)  # fmt: skip
_mess = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["id", "parent", "links", "name", "component", "process", "user", "server", "start",
             "end", "error", "at", "who", "what", "target", "begin"]
        ),
        _anything,
    ),
    max_size=6,
)  # fmt: skip


@given(timeline=_mess, spans=_mess, faults=_mess, seconds=st.floats(0, 100))
def test_a_mess_is_drawn_all_the_same(
    timeline: list[Any], spans: list[Any], faults: list[Any], seconds: float
):
    """Evidence that was cut off, or of another version, never keeps a report from being written."""
    ET.fromstring(draw(timeline, spans, faults, seconds=seconds, failed_at=seconds))
    ET.fromstring(strip(timeline, spans, faults, seconds=seconds, failed_at=seconds))


# Time


@given(
    st.floats(1e-6, 1e4),
    st.lists(st.floats(0, 1), max_size=30),
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_time_runs_from_left_to_right(seconds: float, shares: list[float], asked: list[float]):
    """A later moment never stands left of an earlier one, cut or not; both ends are kept."""
    x = Scale(seconds, [share * seconds for share in shares], left=100, right=900)
    places = [x(share * seconds) for share in sorted(asked)]
    assert places == sorted(places)
    assert x(0) == 100
    assert x(seconds) == pytest.approx(900)
    assert all(100 - 1e-6 <= place <= 900 + 1e-6 for place in places)


@given(st.floats(1e-6, 1e4), st.lists(st.floats(0, 1), max_size=30))
def test_ticks_have_room(seconds: float, shares: list[float]):
    """Labels of ticks do not touch each other."""
    x = Scale(seconds, [share * seconds for share in shares], left=100, right=900)
    ticks = x.ticks()
    assert all(b.x - a.x >= 60 for a, b in itertools.pairwise(ticks))
    assert all(text_width(tick.label, 10) < 80 for tick in ticks)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 ms"), (2e-7, "0.2 µs"), (9.4e-5, "94 µs"), (0.0034, "3.4 ms"), (0.00996, "10 ms"),
        (0.99949, "999 ms"), (0.9996, "1.00 s"), (1.41, "1.41 s"), (9.996, "10.0 s"),
        (59.94, "59.9 s"), (119.6, "2 min 0 s"), (3725, "62 min 5 s"),
    ],
)  # fmt: skip
def test_durations_read_well(seconds: float, told: str):
    """Two or three digits that say something, and a unit."""
    assert duration(seconds) == told


# Ink


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_shapes_stand_out(theme: str):
    """WCAG AA: 4.5 to 1 for text, 3 to 1 for what has to be told apart from its ground."""
    colours = COLOURS[theme]
    for ground in ("ground", "stripe"):
        for ink in ("ink", "muted"):
            assert contrast(colours[ink], colours[ground]) >= 4.5
        for shape in ("axis", "arrow", "severed", "slowed", *(f"{c}-edge" for c in COMPONENTS)):
            assert contrast(colours[shape], colours[ground]) >= 3, shape
    for name in (*COMPONENTS, "other", "severed", "slowed"):
        fill = colours.get(f"{name}-fill", colours.get(name, ""))
        assert contrast(colours[f"{name}-ink"], fill) >= 4.5, name


def test_a_figure_of_a_page_brings_no_style():
    """A page with a hundred figures holds their rules once; all rules are the figure's own."""
    assert "<style" not in draw((), (), (), seconds=1, theme="page")
    for theme in ("light", "dark"):
        rules = re.findall(r"([^{}]+){", stylesheet(theme))
        assert all(part.strip().startswith(f".sf-{theme}") for r in rules for part in r.split(","))
        assert "var(" not in stylesheet(theme)


@given(st.text(max_size=60), st.floats(0, 200))
def test_clipped_text_fits(text: str, room: float):
    """Never wider than its room."""
    assert text_width(clipped(text, room, 10), 10) <= room + 1e-6


def test_elements_are_escaped():
    """Text and attributes alike; numbers are short."""
    made = element("text", text="a<b", class_="x", text_anchor='"', x=1.0, y=-0.04)
    assert made == '<text class="x" text-anchor="&quot;" x="1" y="0">a&lt;b</text>'
    assert [number(v) for v in (2.25, -0.5, 10.0, -3.0)] == ["2.2", "-0.5", "10", "-3"]


# The small ones


def test_a_strip_is_small():
    """It stands in every row of a report."""
    found = recorded.worker_frozen()
    text = strip(found["timeline"], found["spans"], found["faults"], seconds=2, theme="page")
    assert len(text) < 4000
    assert "<text" not in text


def test_the_map_has_every_component_at_its_place():
    """What was touched is marked, edges say how often; what is not known finds room."""
    found = recorded.one_question()
    edges = [(edge["from"], edge["to"], edge["count"]) for edge in found["edges"]]
    figure = ET.fromstring(graph(found["components"], edges, between=found["between"]))
    assert {*COMPONENTS, "redis", "postgresql"} <= set(texts(figure))
    assert "streams → redis: 7" in titles(figure)
    assert "platform" in texts(ET.fromstring(graph({"platform": 2}, [("platform", "auth", 1)])))
    circle = ET.fromstring(graph({"auth": 1}, [("auth", "auth", 3)]))
    assert "auth" in texts(circle)


def test_no_way_leaves_the_map_or_runs_behind_a_box_it_does_not_lead_to():
    """Whatever leads where, but from corner to corner; counts are drawn after lines and boxes."""
    names = [*COMPONENTS, "lab", "platform", "redis", "postgresql"]
    corners = ({"environment", "postgresql"}, {"lab", "platform"})
    pairs = [(a, b, 7) for a in names for b in names if a != b and {a, b} not in corners]
    text = graph(dict.fromkeys(names, 1), pairs)
    figure = ET.fromstring(text)
    left, top, width, height = (float(part) for part in figure.attrib["viewBox"].split())
    rects = [each for each in figure.iter() if each.tag.endswith("rect")][1:]
    boxes = [[float(box.attrib[name]) for name in ("x", "y", "width", "height")] for box in rects]
    hidden = 0
    for path in re.findall(r'd="M([^"]*Q[^"]*)"', text):
        x0, y0, x1, y1, x2, y2 = (float(part) for part in re.findall(r"-?[\d.]+", path))
        for t in (step / 20 for step in range(1, 19)):
            x = (1 - t) ** 2 * x0 + 2 * t * (1 - t) * x1 + t * t * x2
            y = (1 - t) ** 2 * y0 + 2 * t * (1 - t) * y1 + t * t * y2
            assert left < x < left + width
            assert top < y < top + height
            hidden += sum(
                math.hypot(max(abs(x - bx - w / 2) - w / 2 + h / 2, 0), y - by - h / 2) < h / 2
                for bx, by, w, h in boxes
            )
    assert hidden == 0
    assert max(text.rindex("<path"), text.rindex("<rect")) < text.index(">7<")
