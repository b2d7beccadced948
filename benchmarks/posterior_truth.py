"""Every sampler against posteriors that are known exactly: is the spread right, and at what cost?

    python benchmarks/posterior_truth.py [--samplers moment-matching dds ...] [--problems fourier-gaussian ...]
        [--errors 0 0.03 0.1] [--draws 256] [--output RESULTS.json] [--table TABLE.md]

24 x 24 complex images; Fourier columns at acceleration 4, 30 % of the pixels, or a random matrix with a quarter of the
rows; a Gaussian and a mixture prior; noise .02. ``--errors`` gives the denoiser the errors of a network
(recon.uncertainty.known_posteriors.Flawed).
The floor is what as many exact draws reach. Columns: rms error of the mean in posterior std (zerr), std over true std
(median and 5 - 95 % over the pixels), coverage of the central 90 % interval, std ratio along measured and unmeasured
directions (row, null), sliced Wasserstein distance over that of the floor, network calls, back-propagations, seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from operators.errors import DivergenceError
from recon.uncertainty.known_posteriors import (
    OPERATORS,
    PRIORS,
    Counted,
    Flawed,
    TruthProblem,
    prior_draws,
    truth_problem,
    truth_scores,
)
from samplers import (
    DAPS,
    DDS,
    DPS,
    PULA,
    CovarianceModel,
    Denoiser,
    DiffPIR,
    MomentMatching,
    PiGDM,
    PnPDM,
    REDDiff,
    Sampler,
    ScoreALD,
    ScoreMRI,
    Uniform,
    sample,
)

#: The range that every strategy runs over; the priors have a standard deviation of .3.
RANGE: dict[str, Any] = {"sigma_max": 20.0, "sigma_min": 0.003}
#: Network calls in brackets: the flagship may use 100.
STRATEGIES: dict[str, Sampler] = {
    "moment-matching": MomentMatching(30, "sde-2m", jacobian_below=0.4, **RANGE),
    "moment-matching-2m": MomentMatching(20, "2m", jacobian_below=0.4, **RANGE),
    "moment-matching-model": MomentMatching(30, "sde-2m", **RANGE),
    "moment-matching-jacobian": MomentMatching(20, "2m", jacobian_below=100.0, iterations=3, **RANGE),
    "pigdm": PiGDM(100, **RANGE),
    "pigdm-published": PiGDM(100, weight="published", **RANGE),
    "pula": PULA(**RANGE),
    "pnp-dm": PnPDM(**RANGE),
    "daps": DAPS(steps=100, **RANGE),
    "daps-exact": DAPS(steps=100, likelihood="exact", **RANGE),
    "diffpir": DiffPIR(steps=100, **RANGE),
    "diffpir-zeta-1": DiffPIR(steps=100, zeta=1.0, **RANGE),
    "dds-published": DDS(50),
    "dds-noise-free": DDS(50, gamma="noise-free"),
    "dds-rule": DDS(50, gamma="rule", spread=Uniform(0.3), spacing="karras", **RANGE),
    "dds-rule-ddim": DDS(50, gamma="rule", spread=Uniform(0.3), noise="ddim", eta=1.0, spacing="karras", **RANGE),
    "dps": DPS(steps=1000, **RANGE),
    "score-ald": ScoreALD(steps=300, **RANGE),
    "score-ald-code": ScoreALD(steps=300, rule="code", **RANGE),
    "score-mri": ScoreMRI(steps=500, scaling="norm", **RANGE),
    "red-diff": REDDiff(steps=500, **RANGE),
}


def main() -> None:
    """Run the table and print it."""
    arguments = _arguments()
    rows = []
    for name in arguments.problems:
        case = truth_problem(*name.split("-"))
        reference = case.draws(2048, seed=1)
        floor = truth_scores(case.draws(arguments.draws, seed=2), case, reference)
        rows.append({"problem": name, "sampler": "floor", "error": 0.0, **floor, "sw_over_floor": 1.0})
        print(_line(rows[-1]), flush=True)
        for sampler in arguments.samplers:
            for error in arguments.errors:
                row = _run(sampler, case, error, arguments.draws, reference)
                if "sw" in row:
                    row["sw_over_floor"] = row["sw"] / floor["sw"]
                    row["gate"] = bool(
                        all(0.9 <= row[key] <= 1.1 for key in ("ratio", "row", "null"))
                        and 0.88 <= row["cov90"] <= 0.92
                        and row["sw_over_floor"] <= 1.3
                    )
                rows.append(row)
                print(_line(row), flush=True)
                if arguments.output:
                    arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.table:
        arguments.table.write_text("\n".join(_table(rows)) + "\n")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as a Markdown table."""
    titles = ["problem", "sampler", "error", "calls + vjps"]
    titles += ["zerr", "std ratio [5, 95 %]", "cov90", "row / null", "SW", "s"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [row["problem"], row["sampler"], f"{row['error']:.0%}", f"{row.get('calls', 0)} + {row.get('vjps', 0)}"]
        if "sw" in row:
            cells += [f"{row['zerr']:.3f}", f"{row['ratio']:.2f} [{row['ratio_5']:.2f}, {row['ratio_95']:.2f}]"]
            cells += [f"{row['cov90']:.3f}", f"{row['row']:.2f} / {row['null']:.2f}", f"{row['sw_over_floor']:.2f}"]
        else:
            cells += ["diverged", "", "", "", ""]
        cells.append(f"{row.get('seconds', 0):.0f}")
        bold = "**" if row.get("gate") else ""
        lines.append("| " + " | ".join([cells[0], f"{bold}{cells[1]}{bold}", *cells[2:]]) + " |")
    return lines


def _run(name: str, case: TruthProblem, error: float, draws: int, reference: torch.Tensor) -> dict[str, Any]:
    """Draw with one strategy and score the draws."""
    prior: Denoiser = case.prior if error == 0 else Flawed(case.prior, error)
    denoiser = Counted(prior)
    sampler = STRATEGIES[name]
    if any(field.name == "covariance" for field in dataclasses.fields(sampler)):  # type: ignore[arg-type]
        sampler = dataclasses.replace(sampler, covariance=_covariance(case))  # type: ignore[type-var]
    started = time.perf_counter()
    row: dict[str, Any] = {"problem": case.name, "sampler": name, "error": error}
    try:
        drawn = sample(sampler, case.problem, denoiser, draws, seed=3)
        row |= truth_scores(drawn, case, reference)
        row |= {"chi2": float(drawn.residual.mean()), "invalid": int((~drawn.valid).sum())}
    except DivergenceError:
        row["diverged"] = True
    return row | {"calls": denoiser.calls, "vjps": denoiser.vjps, "seconds": time.perf_counter() - started}


def _covariance(case: TruthProblem) -> CovarianceModel:
    """Estimate the covariance model as one would for a network: from 64 draws of the prior."""
    return CovarianceModel.estimate(prior_draws(case.prior, 64), smooth=2)


def _line(row: dict[str, Any]) -> str:
    head = f"{row['problem']:20s} {row['sampler']:26s} {row['error']:4.2f} "
    if "sw" not in row:
        return head + "diverged"
    return head + (
        f"zerr {row['zerr']:5.3f}  std {row['ratio']:5.3f} [{row['ratio_5']:4.2f}, {row['ratio_95']:4.2f}]  "
        f"cov {row['cov90']:5.3f}  row {row['row']:4.2f} null {row['null']:4.2f}  SW {row['sw_over_floor']:4.2f}  "
        f"calls {row.get('calls', 0):4d} + {row.get('vjps', 0):4d}  {row.get('seconds', 0):5.1f} s"
        f"{'  gate' if row.get('gate') else ''}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [f"{operator}-{prior}" for operator in OPERATORS for prior in PRIORS]
    parser.add_argument("--problems", nargs="+", default=known, choices=known)
    parser.add_argument("--samplers", nargs="+", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--errors", nargs="+", type=float, default=[0.0])
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", type=Path, help="write the rows as Markdown too; bold: keeps the gate")
    return parser.parse_args()


if __name__ == "__main__":
    main()
