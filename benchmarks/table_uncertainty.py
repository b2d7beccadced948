"""The tables of docs/uncertainty.md: every sampler on held-out slices, from what quality_uncertainty.py has written.

    python benchmarks/table_uncertainty.py benchmarks/results/quality_uncertainty.json

Where slices are too few to calibrate on, intervals are stretched by what other slices asked for (the same sampler,
acceleration and number of samples), and the last columns say what that is worth on these.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATED = "NiChart T1w and FLAIR, 4 samples"
FEW = ("open_ms patient20, 4 samples", "measured 8-coil brain, 4 samples")
HEAD = (
    "| sampler | slices | mean (dB), SSIM | raw covers, length | spread / error | stretched by "
    "| calibrated covers, length | CRPS | s |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print a table for each kind of image and acceleration, sorted by CRPS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    rows = json.loads(parser.parse_args().results.read_text())
    for kind in (CALIBRATED, *FEW):
        for acceleration in (4.0, 8.0):
            chosen = [row for row in rows if (row["slices_of"], row["acceleration"]) == (kind, acceleration)]
            print(f"\n{kind}, x{acceleration:.0f}\n\n{HEAD}")
            for row in sorted(chosen, key=lambda row: row["crps"]):
                print(line(row, rows))


def line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return one line of a table."""
    stretch, covered, length = calibrated(row, rows)
    return (
        f"| `{row['sampler']}` | {row['slices']} | {row['psnr']:.1f}, {row['ssim']:.3f} | {row['raw_coverage']:.1%}, "
        f"{row['raw_length']:.3f} | {row['spread_skill']:.2f} | {stretch:.2f} | {covered:.1%}, {length:.3f} | "
        f"{row['crps']:.4f} | {row['seconds']:.0f} |"
    ).replace("%", " %")


def calibrated(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Return how far the raw interval is stretched, and what the stretched one covers and how long it is."""
    if "stretch" in row:
        return row["stretch"], row["calibrated_coverage"], row["calibrated_length"]
    same = [(r["slices_of"], r["sampler"], r["acceleration"]) for r in rows]
    stretch = rows[same.index((CALIBRATED, row["sampler"], row["acceleration"]))]["stretch"]
    table = row["stretched"]
    covered = float(np.interp(stretch, table["factor"], table["covered"], right=np.nan))  # no guess beyond the table
    return stretch, covered, stretch * row["raw_length"]


if __name__ == "__main__":
    main()
