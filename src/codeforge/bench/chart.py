"""Draws a bar chart as SVG. The same values give the same text.

The chart has its own background. Background and text follow the reader's light or dark setting, so the chart
can be read on any page. It loads no script, font or picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 800
_MARGIN = 24
_ROW = 34
_BAR = 18
_TOP = 78
_FOOT = 44
_LETTER, _BOLD_LETTER = 8.0, 9.2
"""Generous widths of a letter of 14 px. Fonts differ."""

_STYLE = """\
text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:17px;font-weight:600}.small{font-size:12px;font-weight:400;fill:#59636e}
.label{text-anchor:end}.ours{font-weight:600}
.card{fill:#fff;stroke:#d1d9e0}.bar{fill:#afb8c1}.bar.ours{fill:#1a7f37}.tail{stroke:#59636e}
@media(prefers-color-scheme:dark){
text{fill:#f0f6fc}.small{fill:#9198a1}
.card{fill:#0d1117;stroke:#3d444d}.bar{fill:#656c76}.bar.ours{fill:#3fb950}.tail{stroke:#9198a1}
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the chart.

    Attributes:
        label: the text before the bar.
        median: the length of the bar, in milliseconds.
        p95: where the thin line after the bar ends, in milliseconds; None draws no line.
        ours: whether the bar stands out.
        note: the text after the value.
    """

    label: str
    median: float
    p95: float | None = None
    ours: bool = False
    note: str = ""

    @property
    def end(self) -> float:
        """Where the bar and its line end, in milliseconds."""
        return max(self.median, self.p95 or 0)

    @property
    def letter(self) -> float:
        """The width of a letter in this row."""
        return _BOLD_LETTER if self.ours else _LETTER


def milliseconds(value: float) -> str:
    """Format a time in milliseconds: ``5.3 ms``, ``42 ms``, ``1.23 s``."""
    if value >= 999.5:
        return f"{value / 1000:.2f} s"
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


def horizontal_bars(title: str, bars: Sequence[Bar], *, footer: str) -> str:
    """Return the chart as an SVG document. All bars start at 0 and share one scale."""
    height = _TOP + _ROW * len(bars) + _FOOT
    left = _MARGIN + max(len(bar.label) * bar.letter for bar in bars)
    scale = _scale(bars, WIDTH - _MARGIN - left)
    medians = "; ".join(f"{bar.label}: {milliseconds(bar.median)}" for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">Medians. {escape(medians)}. {escape(footer)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{_MARGIN}" y="36">{escape(title)}</text>',
        f'<text class="small" x="{_MARGIN}" y="57">{_legend(bars)}</text>',
    ]
    for number, bar in enumerate(bars):
        lines += _row(bar, _TOP + number * _ROW, left, scale)
    lines += [f'<text class="small" x="{_MARGIN}" y="{height - 17}">{escape(footer)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def _legend(bars: Sequence[Bar]) -> str:
    lines = "; thin lines: 95th percentiles" if any(bar.p95 is not None for bar in bars) else ""
    return f"Less is better. Bars: medians{lines}."


def _scale(bars: Sequence[Bar], room: float) -> float:
    """Return pixels for each millisecond, so that every bar and the text after it have room."""
    return min((room - len(_value(bar)) * bar.letter - 24) / bar.end for bar in bars)


def _value(bar: Bar) -> str:
    return f"{milliseconds(bar.median)} {bar.note}".strip()


def _row(bar: Bar, top: float, left: float, scale: float) -> Iterator[str]:
    ours = " ours" if bar.ours else ""
    middle, start = top + _ROW / 2, left + 12
    end, tail = start + bar.median * scale, start + bar.end * scale
    width = max(bar.median * scale, 1.5)
    yield f'<text class="label{ours}" x="{left:.1f}" y="{middle + 5:g}">{escape(bar.label)}</text>'
    if bar.p95 is not None:
        yield f'<line class="tail" x1="{end:.1f}" y1="{middle:g}" x2="{tail:.1f}" y2="{middle:g}"/>'
    yield (
        f'<rect class="bar{ours}" x="{start:.1f}" y="{middle - _BAR / 2:g}" width="{width:.1f}" '
        f'height="{_BAR}" rx="2"/>'
    )
    note = f' <tspan class="small">{escape(bar.note)}</tspan>' if bar.note else ""
    yield (
        f'<text class="value{ours}" x="{tail + 8:.1f}" y="{middle + 5:g}">'
        f"{milliseconds(bar.median)}{note}</text>"
    )
