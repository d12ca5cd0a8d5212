"""The chart is well-formed, readable anywhere, and the same for the same figures."""

from __future__ import annotations

import re

import pytest
from defusedxml import ElementTree

from codeforge.bench import chart
from codeforge.bench.chart import WIDTH, Bar, horizontal_bars, milliseconds

SVG = "{http://www.w3.org/2000/svg}"
BARS = [
    Bar("docker run", 369.5, 528.9),
    Bar('a <peer> & "friends"', 243, 300),
    Bar("bare python", 14.9, 18),
    Bar("codeforge, warm", 5.3, 7.1, ours=True, note="1/70 of docker run"),
]


def draw(bars: list[Bar] = BARS) -> str:
    return horizontal_bars("print('hello') < all", bars, footer="2026 & later")


def test_the_chart_is_well_formed_and_describes_itself() -> None:
    root = ElementTree.fromstring(draw())
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title desc"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert (title.attrib["id"], title.text) == ("title", "print('hello') < all")
    assert desc.attrib["id"] == "desc"
    for bar in BARS:
        assert f"{bar.label}: {milliseconds(bar.median)}" in (desc.text or "")


def test_the_same_figures_give_the_same_chart() -> None:
    assert draw() == draw(list(BARS))
    assert draw().isascii()


def test_the_chart_loads_nothing_from_elsewhere() -> None:
    picture = draw().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"http|url\(|@import|<script|<image|href", picture)


def test_the_dark_setting_changes_every_colour() -> None:
    style = re.search("<style>(.*)</style>", draw(), re.DOTALL)
    assert style is not None
    light, _, dark = style[1].partition("@media(prefers-color-scheme:dark)")
    coloured = set(re.findall(r"([.\w]+)\{[^}]*(?:fill|stroke):", light))
    assert coloured == {"text", ".small", ".card", ".bar", ".bar.ours", ".tail"}
    assert coloured == set(re.findall(r"([.\w]+)\{[^}]*(?:fill|stroke):", dark))


def test_bars_are_in_proportion_and_every_text_fits() -> None:
    root = ElementTree.fromstring(draw())
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect") if "bar" in bar.attrib["class"]]
    for bar, width in zip(BARS, widths, strict=True):
        assert width / widths[0] == pytest.approx(bar.median / BARS[0].median, abs=0.001)
    for text in root.iter(f"{SVG}text"):
        x, width = float(text.attrib["x"]), 6 * len("".join(text.itertext()))
        if "value" in text.attrib["class"]:
            assert x + width < WIDTH


@pytest.mark.parametrize("ours", [False, True])
def test_the_longest_label_begins_inside_the_margin(ours: bool) -> None:
    label = "codeforge, warm"
    root = ElementTree.fromstring(draw([Bar("docker run", 9, 9), Bar(label, 5, 5, ours=ours)]))
    (end,) = {float(row.attrib["x"]) for row in root.iter(f"{SVG}text") if "label" in row.attrib["class"]}
    widest = 9.0 if ours else 7.6  # as DejaVu Sans, a wide font, has it at 14 px
    assert end - widest * len(label) >= chart._MARGIN


def test_the_legend_names_only_what_is_drawn() -> None:
    assert "thin lines: 95th percentiles" in draw()
    once = draw([Bar("docker run", 9), Bar("bare python", 5)])
    assert "percentiles" not in once
    assert "<line" not in once


def test_our_bars_stand_out() -> None:
    root = ElementTree.fromstring(draw())
    classes = [bar.attrib["class"] for bar in root.iter(f"{SVG}rect")]
    assert classes == ["card", "bar", "bar", "bar", "bar ours"]


@pytest.mark.parametrize("median", [1e-9, 1e9])
def test_any_figure_can_be_drawn(median: float) -> None:
    ElementTree.fromstring(draw([Bar("a", median, median), Bar("b", 1, 2)]))


def test_milliseconds_are_rounded_for_reading() -> None:
    shown = [milliseconds(value) for value in (0.04, 5.32, 9.96, 14.9, 369.5, 999.4, 999.6, 1234)]
    assert shown == ["0.0 ms", "5.3 ms", "10 ms", "15 ms", "370 ms", "999 ms", "1.00 s", "1.23 s"]
