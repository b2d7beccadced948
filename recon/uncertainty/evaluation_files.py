"""An evaluation as files: JSON with all results, a CSV table, and figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.figure import blank
from recon.files.atomic import atomic_path, make_folder
from recon.files.plain_values import plain
from recon.printable import printable

if TYPE_CHECKING:
    from recon.uncertainty.evaluation import Evaluation

TEXTS = ("evaluation.json", "evaluation.csv")
PICTURES = ("coverage.png", "spread_skill.png", "intervals.png")
COLOURS = {"raw": "#c4562f", "calibrated": "#2f6fb0", "constant": "#8a8f98"}
_COLUMNS = {
    "psnr": ("PSNR", ".1f"),
    "chi2": ("chi2", ".2f"),
    "spread_skill": ("spread/skill", ".2f"),
    "crps": ("CRPS", ".4f"),
    "raw_coverage": ("raw cov.", ".3f"),
    "raw_length": ("length", ".3f"),
    "calibrated_coverage": ("calibrated cov.", ".3f"),
    "calibrated_length": ("length", ".3f"),
    "constant_coverage": ("constant cov.", ".3f"),
    "constant_length": ("length", ".3f"),
}


def write_evaluation(found: Evaluation, folder: Path, pictures: bool = True) -> list[Path]:
    """Write the files into a folder, each atomically, and return their paths."""
    drawn = {name: draw(found) for name, draw in _DRAW.items()} if pictures else {}
    make_folder(folder)
    content = {
        "level": found.level,
        "summary": found.summary(),
        "rows": found.rows,
        "coverage_curve": {"levels": found.levels, "coverage": found.curves},
        "deciles": {"spread": found.spread, "error": found.error, "coverage": found.deciles},
        "rank_histograms": found.ranks,
    }
    with atomic_path(folder / TEXTS[0]) as temporary:
        temporary.write_text(json.dumps(_json(plain(content)), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_path(folder / TEXTS[1]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(found.rows[0]))
        table.writeheader()
        table.writerows({**row, "name": printable(row["name"])} for row in found.rows)
    for name, figure in drawn.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
    return [folder / name for name in (*TEXTS, *drawn)]


def table_lines(found: Evaluation) -> list[str]:
    """Return the table as aligned text; its last line is the mean."""
    columns = {name: text for name, text in _COLUMNS.items() if name in found.rows[0]}
    lines = [["", *(title for title, _ in columns.values())]]
    for row in [*found.rows, {"name": "mean", **found.summary()}]:
        seen = " *" if row.get("in_calibration") else ""
        lines.append([printable(row["name"]) + seen, *(format(row[name], form) for name, (_, form) in columns.items())])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    if any(row.get("in_calibration") for row in found.rows):
        text.append("* calibration image: not an independent test of the calibration, excluded from the mean")
    return text


def _coverage(found: Evaluation) -> Any:
    figure, (axes,) = _figure(1)
    axes.plot([0, 1], [0, 1], color="#9aa0a8", linewidth=1, linestyle="--", label="calibrated")
    for curve in found.curves:
        axes.plot(found.levels, curve, color=COLOURS["raw"], alpha=0.25, linewidth=0.8)
    mean = np.mean(found.curves, axis=0)
    axes.plot(found.levels, mean, color=COLOURS["raw"], marker="o", markersize=4, label="raw intervals, mean")
    summary = found.summary()
    if "calibrated_coverage" in summary:
        axes.plot(
            [found.level],
            [summary["calibrated_coverage"]],
            "D",
            color=COLOURS["calibrated"],
            label="calibrated interval",
        )
    axes.set(xlabel="level of the interval", ylabel="coverage (pixels with signal)", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Above the line: too wide. Below: too narrow.", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _spread_skill(found: Evaluation) -> Any:
    figure, (axes, ranks) = _figure(2)
    spread, error = (np.sqrt(np.mean(np.square(values), axis=0)) for values in (found.spread, found.error))
    ends = [min(spread.min(), error.min()), max(spread.max(), error.max())]
    axes.plot(ends, ends, color="#9aa0a8", linewidth=1, linestyle="--")
    axes.plot(spread, error, color=COLOURS["raw"], marker="o", markersize=4)
    axes.set(xlabel="predicted spread / brightness", ylabel="rms error / brightness")
    axes.set_title("Deciles of the predicted spread", fontsize=9)
    if ends[0] > 0:
        axes.set(xscale="log", yscale="log")
    counts = [histogram / histogram.sum() * len(histogram) for histogram in found.ranks]
    if all(len(histogram) == len(counts[0]) for histogram in counts):
        ranks.bar(np.arange(len(counts[0])), np.mean(counts, axis=0), color=COLOURS["raw"], width=0.9)
    ranks.axhline(1, color="#9aa0a8", linewidth=1, linestyle="--")
    ranks.set(xlabel="rank of the reference among the samples", ylabel="frequency / expected")
    ranks.set_title("A U shape: too narrow. A hump: too wide.", fontsize=9)
    return figure


def _intervals(found: Evaluation) -> Any:
    figure, (bars, axes) = _figure(2)
    summary = found.summary()
    for index, kind in enumerate(found.deciles):
        length, covered = summary[f"{kind}_length"], summary[f"{kind}_coverage"]
        bars.bar(index, length, color=COLOURS[kind], width=0.7)
        bars.text(index, length, f"holds {covered:.1%}", ha="center", va="bottom", fontsize=8)
        shares = np.nanmean(found.deciles[kind], axis=0)
        axes.plot(np.arange(1, len(shares) + 1), shares, color=COLOURS[kind], marker="o", markersize=4, label=kind)
    bars.set_xticks(range(len(found.deciles)), list(found.deciles))
    bars.set(ylabel="mean length / brightness")
    bars.set_title(f"Length of the {found.level:.0%} interval", fontsize=9)
    bars.margins(y=0.15)
    axes.axhline(found.level, color="#9aa0a8", linewidth=1, linestyle="--")
    axes.set(xlabel="decile of the predicted spread", ylabel="coverage", ylim=(0, 1.02))
    axes.set_title("Coverage by predicted spread", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return figure


_DRAW = dict(zip(PICTURES, (_coverage, _spread_skill, _intervals), strict=True))


def _figure(columns: int) -> tuple[Any, Sequence[Any]]:
    """Return an empty figure with axes side by side, outside of matplotlib's global state."""
    figure = blank(4.6 * columns, 4.0, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _json(value: Any) -> Any:
    """Replace numbers that JSON cannot represent (NaN, infinity) by null."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
