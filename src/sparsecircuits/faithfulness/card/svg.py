"""Small plots as SVG text: axes, lines, bars, dots, histograms. No script, no font, no colour but by CSS class."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 52, 28, 56
LINE = 12  # pixels between lines of words


@dataclass
class Plot:
    """One pair of axes that things are drawn into. x_log: the horizontal axis is logarithmic (of 1 + x)."""

    title: str
    x_title: str
    y_title: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_log: bool = False
    parts: list[str] = field(default_factory=list)
    _words_at: list[float] = field(default_factory=list)
    """Heights at which words of levels stand."""

    def x(self, value: float) -> float:
        """Pixels of a value."""
        low, high = (self._scaled(v) for v in self.x_range)
        return LEFT + (WIDTH - LEFT - RIGHT) * (self._scaled(value) - low) / max(1e-9, high - low)

    def y(self, value: float) -> float:
        """Pixels of a value."""
        low, high = self.y_range
        value = min(max(value, low), high)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / max(1e-9, high - low)

    def _scaled(self, value: float) -> float:
        return math.log10(1 + value) if self.x_log else value

    def line(self, points: Sequence[tuple[float, float]], kind: str, title: str) -> None:
        """A polyline with a tooltip."""
        shown = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        self.parts.append(f'<polyline class="{kind}" points="{shown}">{_tip(title)}</polyline>')

    def band(self, upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], kind: str) -> None:
        """The area between two lines."""
        shown = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in [*upper, *reversed(lower)])
        self.parts.append(f'<polygon class="{kind}" points="{shown}"/>')

    def dot(self, a: float, b: float, kind: str, title: str) -> None:
        """A dot with a tooltip."""
        self.parts.append(
            f'<circle class="{kind}" cx="{self.x(a):.1f}" cy="{self.y(b):.1f}" r="3.5">{_tip(title)}</circle>'
        )

    def level(self, value: float, words: str) -> None:
        """A dashed horizontal line with words beside it, above those of a level that is near."""
        y = self.y(value)
        at = y + 4
        while any(abs(at - other) < LINE for other in self._words_at):
            at -= 1
        self._words_at.append(at)
        self.parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        self.parts.append(f'<text class="note" x="{WIDTH - RIGHT + 4}" y="{at:.1f}">{html.escape(words)}</text>')

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """What the colours mean, above the plot: (class, words)."""
        x = float(LEFT)
        for kind, words in entries:
            self.parts.append(f'<rect class="{kind}" x="{x:.1f}" y="5" width="14" height="9"/>')
            self.parts.append(f'<text class="key" x="{x + 19:.1f}" y="13">{html.escape(words)}</text>')
            x += 34 + 6.4 * len(words)

    def bar(self, low: float, high: float, height: float, kind: str, title: str) -> None:
        """A bar from the bottom. One that is longer than the axis ends in an arrow and its value."""
        left, right, top = self.x(low), self.x(high), self.y(height)
        self.parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
            f'height="{max(0.0, HEIGHT - BOTTOM - top):.1f}">{_tip(title)}</rect>'
        )
        if height > self.y_range[1]:
            self.parts.append(
                f'<text class="clipped" x="{(left + right) / 2:.1f}" y="{TOP - 3}" text-anchor="middle">'
                f"▲ {height:.3g}</text>"
            )

    def whisker(self, at: float, low: float, high: float) -> None:
        """An interval as a vertical line."""
        x = self.x(at)
        self.parts.append(
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"/>'
        )

    def x_label(self, at: float, words: str) -> None:
        """Words under the axis, in as many lines as they have."""
        for place, line in enumerate(words.split("\n")):
            self.parts.append(
                f'<text class="tick" x="{self.x(at):.1f}" y="{HEIGHT - BOTTOM + 15 + LINE * place}" '
                f'text-anchor="middle">{html.escape(line)}</text>'
            )

    def svg(self, x_ticks: Sequence[float] = (), y_ticks: Sequence[float] = ()) -> str:
        """The picture, with a title that screen readers read."""
        axes = []
        for value in y_ticks:
            y = self.y(value)
            axes.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            axes.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in x_ticks:
            axes.append(
                f'<text class="tick" x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
                f"{value:g}</text>"
            )
        axes.append(
            f'<text class="axis" x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{html.escape(self.x_title)}</text>"
        )
        axes.append(
            f'<text class="axis" transform="translate(13 {(HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(self.y_title)}</text>"
        )
        return (
            f'<figure><figcaption>{html.escape(self.title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{html.escape(self.title)}">{"".join(axes)}{"".join(self.parts)}</svg></figure>'
        )


def _tip(words: str) -> str:
    return f"<title>{html.escape(words)}</title>"


def powers(high: float) -> list[float]:
    """0 and the powers of ten up to a value."""
    return [0.0, *(float(10**power) for power in range(int(math.log10(max(1.0, high))) + 1))]


def ticks(high: float, count: int = 5) -> list[float]:
    """Round steps from 0 to a value."""
    step = 10 ** math.floor(math.log10(max(high, 1e-9) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if high / (factor * step) <= count + 1)
    return [step * i for i in range(int(high / step + 1e-9) + 1)]
