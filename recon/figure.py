"""Draw the one-page picture of a posterior with matplotlib's object-oriented interface (no global state).

Layout is computed in inches from the image's own aspect, so that panels of any size stay aligned: a header, one row of
maps, one row of samples and, for volumes, an overview of slices. Gray images share one window; maps of error and of
standard deviation carry their own colour bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from recon.errors import InputError
from recon.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND, TEXT, FAINT = "#101216", "#eceff4", "#a3acb9"
MARGIN, GAP, HEADER, TITLE, CAPTION, FOOTER, BANNER = 0.30, 0.10, 0.86, 0.27, 0.44, 0.38, 0.40
DPI = 150


@dataclass(frozen=True)
class Panel:
    """One image of the picture.

    ``image`` is real ``(y, x)``; ``limits`` its display window. With ``bar`` set, a colour bar with that label stands
    below the image in place of the ``caption``. With ``extent`` (left, right, bottom, top) the image has axes. With
    ``blank`` there is no image to show, but this text on an empty ground.
    """

    title: str
    image: NDArray
    limits: tuple[float, float]
    caption: str = ""
    cmap: str = "gray"
    bar: str | None = None
    smooth: bool = True
    extent: tuple[float, float, float, float] | None = None
    blank: str = ""


@dataclass(frozen=True)
class Row:
    """Panels side by side; the full width holds ``columns`` of them (by default all). ``label`` is a heading."""

    panels: Sequence[Panel]
    label: str = ""
    columns: int = 0


def draw(
    rows: Sequence[Row],
    title: str,
    subtitle: str,
    footer: str,
    *,
    width: float,
    aspect: float,
    banner: tuple[str, str] | None = None,
) -> Figure:
    """Return a figure of the given width in inches; ``aspect`` is the height of a pixel over its width.

    ``banner`` is a text and its colour, on top of everything.

    Raises
    ------
    InputError
        When matplotlib is not installed.
    """
    boxes = [_row_size(row, width, aspect) for row in rows]
    height = HEADER + sum(box[1] for box in boxes) + FOOTER
    figure = blank(width, height + (BANNER if banner else 0), dpi=DPI, facecolor=BACKGROUND)
    if banner:
        _banner(figure, height, *banner)
    _text(figure, MARGIN, height - 0.36, title, size=15, weight="bold", color=TEXT, room=width - 2 * MARGIN)
    _text(figure, MARGIN, height - 0.64, subtitle, size=9.5, color=FAINT, room=width - 2 * MARGIN)
    _text(figure, MARGIN, 0.17, footer, size=8, color=FAINT, room=width - 2 * MARGIN)
    top = height - HEADER
    for row, (panel_width, row_height) in zip(rows, boxes, strict=True):
        _draw_row(figure, row, top, panel_width, row_height, aspect)
        top -= row_height
    return figure


def _banner(figure: Figure, bottom: float, text: str, colour: str) -> None:
    """Draw a bar of one colour with a text over the whole width, at a height in inches."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    figure.add_artist(Rectangle((0, bottom / height), 1, 1 - bottom / height, facecolor=colour, linewidth=0))
    _text(figure, MARGIN, bottom + 0.12, text, size=10, weight="bold", color=BACKGROUND, room=width - 2 * MARGIN)


def blank(width: float, height: float, **options: Any) -> Figure:
    """Return an empty figure of a size in inches, outside matplotlib's global state.

    Raises
    ------
    InputError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a report needs matplotlib: pip install diffrecon[report]") from error
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def colour_table(name: str, count: int = 256) -> list[tuple[int, int, int]]:
    """Return the colours of one of matplotlib's colour maps, 8 bits each."""
    from matplotlib import colormaps

    return [(int(red), int(green), int(blue)) for red, green, blue, _ in colormaps[name](range(count), bytes=True)]


def _row_size(row: Row, width: float, aspect: float) -> tuple[float, float]:
    """Width of one panel and height of the whole row, in inches."""
    count = max(len(row.panels), row.columns)
    panel_width = (width - 2 * MARGIN - GAP * (count - 1)) / count
    tallest = max(panel.image.shape[0] / panel.image.shape[1] for panel in row.panels) * aspect
    has_caption = any(panel.caption or panel.bar for panel in row.panels)
    has_title = any(panel.title for panel in row.panels)
    extra = (TITLE if has_title else 0) + (TITLE if row.label else 0) + (CAPTION if has_caption else GAP)
    return panel_width, panel_width * tallest + extra


def _draw_row(figure: Figure, row: Row, top: float, panel_width: float, row_height: float, aspect: float) -> None:
    if row.label:
        _text(figure, MARGIN, top - 0.16, row.label, size=9.5, color=TEXT, weight="bold")
        top -= TITLE
        row_height -= TITLE
    has_caption = any(panel.caption or panel.bar for panel in row.panels)
    has_title = any(panel.title for panel in row.panels)
    image_height = row_height - (TITLE if has_title else 0) - (CAPTION if has_caption else GAP)
    image_top = top - (TITLE if has_title else 0)
    for index, panel in enumerate(row.panels):
        left = MARGIN + index * (panel_width + GAP)
        if panel.title:
            _text(figure, left, image_top + 0.10, panel.title, size=10, color=TEXT, room=panel_width)
        axes = _axes(figure, left, image_top - image_height, panel_width, image_height)
        if panel.blank:
            _blank(axes, panel.blank)
            continue
        drawn = axes.imshow(
            panel.image,
            cmap=panel.cmap,
            vmin=panel.limits[0],
            vmax=panel.limits[1],
            aspect=aspect if panel.extent is None else "auto",
            interpolation="bicubic" if panel.smooth else "nearest",
            extent=panel.extent,
        )
        if panel.extent is None:
            axes.set_axis_off()
        else:
            _scale(axes)
        below = image_top - image_height
        if panel.bar is not None:
            _colour_bar(figure, drawn, left, below, panel_width, panel.bar)
        elif panel.caption:
            _text(figure, left, below - 0.17, panel.caption, size=8.5, color=FAINT, room=panel_width)


def _blank(axes: Axes, text: str) -> None:
    """Show an empty ground with a text, which nobody takes for a dark image."""
    axes.set(facecolor="#2a2f38", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linestyle="--")
    axes.text(0.5, 0.5, text, color=TEXT, fontsize=9, ha="center", va="center", transform=axes.transAxes)


def _scale(axes: Axes) -> None:
    """Put ticks and numbers inside the image to save space; outlined, as an image may be white."""
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FixedLocator, MaxNLocator

    for axis, pad in ((axes.xaxis, -11), (axes.yaxis, -5)):
        low, high = sorted(axis.get_view_interval())
        room = 0.05 * (high - low)
        ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low + room < tick < high - room]))
        axis.set_tick_params(direction="in", length=3, width=0.6, color=TEXT, labelcolor=TEXT, labelsize=6.5, pad=pad)
        for label in axis.get_ticklabels():
            label.set_path_effects([withStroke(linewidth=1.2, foreground=BACKGROUND)])
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colour_bar(figure: Figure, drawn: Any, left: float, below: float, width: float, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes = _axes(figure, left, below - 0.14, 0.66 * width, 0.08)
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=4, steps=[1, 2, 5, 10])
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.update_ticks()
    axes.get_xticklabels()[0].set_horizontalalignment("left")  # aligned with the panel's edge
    axes.tick_params(labelsize=7.5, colors=FAINT, length=2, pad=1.5, width=0.5)
    _text(figure, left + 0.69 * width, below - 0.14, label, size=7.5, color=FAINT, room=0.31 * width)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def _text(
    figure: Figure,
    left: float,
    bottom: float,
    text: str,
    *,
    size: float,
    color: str,
    weight: str = "normal",
    room: float | None = None,
) -> None:
    """Write one line; with ``room`` in inches, shrink the type (to 80 %) and then cut the text until it fits."""
    full_width, full_height = figure.get_size_inches()
    text = printable(text)
    # File names may hold "$": parse_math off keeps them from being read as formulas.
    artist = figure.text(
        left / full_width,
        bottom / full_height,
        text,
        fontsize=size,
        color=color,
        fontweight=weight,
        ha="left",
        va="baseline",
        parse_math=False,
    )
    if room is None:
        return
    wide = artist.get_window_extent().width / figure.dpi
    if wide > room:
        artist.set_fontsize(size * max(0.8, room / wide))
        wide = artist.get_window_extent().width / figure.dpi
    if wide > room:
        artist.set_text(text[: max(1, int(len(text) * room / wide) - 2)].rstrip() + "…")
