"""The ratios as a drawing: a panel for each workload, a bar for each peer.

SVG as text, which follows the reader's light or dark scheme wherever it is shown, as an image of a
page as well. All panels have the same logarithmic scale: twice as much is as long as half.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from tests.benchmarks.roster import PEERS, TRIOWEB
from tests.benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.results import Results, Spread
    from tests.benchmarks.workloads import Workload

# Pixels.
_MARGIN = 16
_NAMES = 190
_BARS = 216
_NUMBERS = 40
_GAP = 24
_PANEL = _NAMES + _BARS + _NUMBERS
_COLUMNS = 2
_ROW = 17
_BAR = 11
_TITLE = 26
_HEAD = 66
_BELOW = 18

# Of GitHub's two schemes: the text, the faint text, and bars that stand out from both grounds.
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 13px }
.head { font-weight: 600; font-size: 15px }
.faint { fill: #59636e }
.number { font-variant-numeric: tabular-nums }
.ahead { fill: #2f9e8f }
.behind { fill: #d9813d }
.line { stroke: #59636e }
.spread { stroke: #1f2328; stroke-opacity: .55 }
.tick { stroke: #59636e; stroke-opacity: .25 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.faint { fill: #9198a1 }
.line { stroke: #9198a1 }
.spread { stroke: #e6edf3 }
.tick { stroke: #9198a1 }
}"""


class _Scale:
    """Where a ratio is, from the left of the bars."""

    def __init__(self, ratios: Sequence[float]) -> None:
        self.low = min(-1, math.floor(math.log2(min(ratios))))
        self.high = max(1, math.ceil(math.log2(max(ratios))))

    def place(self, ratio: float) -> float:
        return (math.log2(ratio) - self.low) / (self.high - self.low) * _BARS

    def ticks(self) -> list[float]:
        return [2.0**power for power in range(self.low, self.high + 1)]


def draw_ratios(results: Results, head: Mapping[str, str]) -> str:
    """Draw the ratios of all workloads.

    Args:
        results: what was measured.
        head: what the numbers depend on; its lines about machine and Python are shown.
    """
    panels: list[tuple[Workload, list[tuple[str, Spread]]]] = []
    for workload in WORKLOADS.values():
        bars = [
            (peer.title, ratio)
            for peer in PEERS.values()
            if peer is not TRIOWEB
            and (ratio := results.ratio(workload.name, peer.name)) is not None
            and ratio.low > 0
        ]
        if bars:
            panels.append((workload, bars))
    width = 2 * _MARGIN + _COLUMNS * _PANEL + (_COLUMNS - 1) * _GAP
    lines = [
        _text(_MARGIN, 26, "What a peer's server needs ÷ what trioweb's needs", "head"),
        _text(
            _MARGIN,
            45,
            "CPU, or memory where it says so; right of the line trioweb needs less · "
            f"{head['Python']} on {head['machine']}",
            "faint",
        ),
    ]
    top = _HEAD
    if panels:
        scale = _Scale([edge for _, bars in panels for _, ratio in bars for edge in ratio])
        for first in range(0, len(panels), _COLUMNS):
            row = panels[first : first + _COLUMNS]
            for column, (workload, bars) in enumerate(row):
                left = _MARGIN + column * (_PANEL + _GAP)
                own = results.cost(workload.name, TRIOWEB.name)
                lines += _draw_panel(left, top, _title(workload, own), bars, scale)
            top += _TITLE + max(len(bars) for _, bars in row) * _ROW + _BELOW + _GAP
    height = top
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" '
            "aria-label=\"What the servers of trioweb's peers need, as ratios to trioweb's\">",
            f"<style>{_STYLE}</style>",
            *lines,
            "</svg>\n",
        ]
    )


def _title(workload: Workload, own: Spread | None) -> str:
    if own is None:
        return workload.title
    cost = f"{own.middle / 1024:.1f} KiB" if workload.memory else f"{own.middle * 1e6:.1f} µs"
    return f"{workload.title} · trioweb {cost}"


def _draw_panel(
    left: int, top: int, title: str, bars: Sequence[tuple[str, Spread]], scale: _Scale
) -> list[str]:
    origin = left + _NAMES
    first, last = top + _TITLE, top + _TITLE + len(bars) * _ROW
    lines = [_text(left, top + 14, title, "title")]
    for tick in scale.ticks():
        x = origin + scale.place(tick)
        lines.append(_line(x, first, x, last, "line" if tick == 1 else "tick"))
        label = f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"
        lines.append(_text(x, last + 13, label, "faint number", "middle"))
    for row, (name, ratio) in enumerate(bars):
        y = first + row * _ROW + (_ROW - _BAR) / 2
        one, end = scale.place(1), scale.place(ratio.middle)
        kind = "ahead" if ratio.middle >= 1 else "behind"
        lines += [
            _text(origin - 8, y + _BAR - 1.5, name, "", "end"),
            f'<rect class="{kind}" x="{origin + min(one, end):.1f}" y="{y:.1f}" '
            f'width="{abs(end - one):.1f}" height="{_BAR}" rx="1.5"/>',
            _line(
                origin + scale.place(ratio.low),
                y + _BAR / 2,
                origin + scale.place(ratio.high),
                y + _BAR / 2,
                "spread",
            ),
            _text(
                origin + max(one, end, scale.place(ratio.high)) + 5,
                y + _BAR - 1.5,
                f"{ratio.middle:.2f}",
                "number",
            ),
        ]
    return lines


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text, quote=False)}</text>"
    )
