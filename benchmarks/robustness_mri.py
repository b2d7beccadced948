"""MRI with every default on scans that differ: patterns, accelerations, noise, few central lines, folding, low field.

    python benchmarks/robustness_mri.py --data FOLDER [--only NAME ...] [--samples 8] [--precision bfloat16] [--again]
        [--output benchmarks/results/robustness_mri.json]

Each scan of ``robustness_scans.py`` goes through the public API with its pattern and acceleration (and coil maps where
its name says so); centre, noise level, maps and scale are what the defaults make of it. A row that OUTPUT holds is kept
unless --again; ``--only`` chooses rows whose name holds one of the words. A scan that is refused is a row, too.

"head": PSNR where the reference is above 10 % of its maximum; PSNR are of magnitudes, data range = maximum of the
reference. "A^H y": that of the zero-filled image. "kept": share of the head where the mean is above 10 % of the
reference. "cover": share of the head that the 90 % interval holds. "spread": spread / error,
sqrt(mean std^2 (1 + 1/K)) / rms error in the head. "chi2": data residual. "held": held-out chi2; "excess": squared
error of withheld data beyond their noise, over the spread of the samples (its standard error is in the JSON). "noise",
"scale": found / true. "prep", "run": seconds. "TV": total variation at its best weight against the truth. Notes of the
run stand in brackets.

The low-field scans have no truth without noise. Their error is that against the fully sampled image less the noise of
that; the two share the noise of the measured samples, so the PSNR flatters and x1 has none. "withheld" is free of this:
rms error of the k-space that was not sampled, less the noise, in units of its signal (1: nothing was known of it).
Their noise is not white (FSE: .13 in the first columns, .04 in the last, and 1.6 times as loud at one end of y): its
true level is that of the air beside the head.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from robustness_scans import Scan, scans, to_kspace

import recon
from recon import baselines
from recon.device import resolve_device
from recon.errors import ReconError
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.sampling import Sampling
from recon.posterior import Posterior

OUTPUT = Path(__file__).parent / "results" / "robustness_mri.json"
#: Weights of total variation, in units of one over the noise level in the scale of the problem.
WEIGHTS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
COLUMNS = {
    "psnr_head": ("head", "5.1f"),
    "psnr": ("whole", "5.1f"),
    "zero_filled": ("A^H y", "5.1f"),
    "nrmse": ("nrmse", "5.3f"),
    "kept": ("kept", "4.2f"),
    "coverage": ("cover", "5.2f"),
    "spread_error": ("spread", "6.2f"),
    "residual": ("chi2", "8.3g"),
    "held_out": ("held", "5.2f"),
    "excess": ("excess", "6.2f"),
    "noise": ("noise", "5.2f"),
    "scale": ("scale", "5.2f"),
    "seconds_prepare": ("prep", "5.1f"),
    "seconds": ("run", "4.0f"),
}
EXTRAS = {"total_variation": "TV {:.1f} dB", "fold_error": "error in the fold x {:.1f}", "withheld": "withheld {:.2f}"}


def main() -> None:
    """Run the rows that are missing and print the table."""
    arguments = _arguments()
    rows = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    print(_heading(), flush=True)
    shown = []
    for name, make in chosen(arguments.data, arguments.only).items():
        if name not in rows or arguments.again:
            rows[name] = measure(make(), arguments.samples, arguments.precision)[0]
            arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
        print(_line(name, rows[name]), flush=True)
        shown.append(rows[name])
    print(_summary(shown))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mri_kspace/ and mri_images/")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows whose name holds one of these")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--precision", default="bfloat16", help="arithmetic of the network: float32 or bfloat16")
    parser.add_argument("--again", action="store_true", help="measure rows that are there once more")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def chosen(folder: Path, words: list[str]) -> dict[str, Any]:
    """Return the scans whose name holds one of the words."""
    found = {name: make for name, make in scans(folder).items() if any(word in name for word in words)}
    if not found:
        raise SystemExit(f"no row holds {' or '.join(words)}; there are: {', '.join(scans(folder))}")
    return found


def measure(scan: Scan, samples: int, precision: str) -> tuple[dict[str, Any], Posterior | None]:
    """Return the row of a scan and the posterior, or the row that says why there is none."""
    row: dict[str, Any] = {"samples": samples, "precision": precision}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            row["seconds_prepare"] = _preparation(scan)
            started = time.perf_counter()
            posterior = recon.reconstruct(
                scan.kspace, samples=samples, precision=precision, progress=False, **scan.options
            )
            row["seconds"] = time.perf_counter() - started
            row |= scores(posterior, scan)
            if scan.total_variation:
                row["total_variation"] = _total_variation(scan)
        except ReconError as error:
            return {**row, "refused": f"{type(error).__name__}: {error}"}, None
        except Exception as error:  # a defect: worth a row, and no reason to lose the others
            return {**row, "crashed": f"{type(error).__name__}: {error}"}, None
    row["notes"] = list(posterior.provenance["notes"])
    row["warnings"] = sorted({str(w.message) for w in caught} - set(row["notes"]))
    return {key: _finite(value) for key, value in row.items()}, posterior


def _prepared(scan: Scan) -> Any:
    options = dict(scan.options)
    pattern, rate = options.pop("mask", None), options.pop("acceleration", None)
    if rate is None:
        return prepare(scan.kspace, pattern, device=resolve_device("auto"), **options)
    return prepare(scan.kspace, sampling=Sampling(pattern, rate), device=resolve_device("auto"), **options)


def _preparation(scan: Scan) -> float:
    started = time.perf_counter()
    _prepared(scan)
    return time.perf_counter() - started


def scores(posterior: Posterior, scan: Scan) -> dict[str, Any]:
    """Compare a posterior with the truth of its scan."""
    found = posterior.provenance["measured"][0]
    reference, head = np.abs(scan.reference), scan.head
    row: dict[str, Any] = {
        "residual": float(np.mean(posterior.diagnostics["residual"])),
        "scale": found["scale"] / float(np.quantile(reference, 0.99)),
        "kept": float((np.abs(posterior.mean) > 0.1 * reference)[head].mean()),
    }
    row["steps"] = posterior.provenance.get("network_calls")
    test = posterior.provenance["held_out"][0]
    if test is not None:
        row |= {"held_out": test["chi2"], "excess": test["excess"], "excess_error": test["excess_error"]}
    row["verdict"] = posterior.verdict.level
    if scan.noise:
        row["noise"] = found["noise_std"] / scan.noise
    if scan.noisy_truth:
        return row | _against_noisy(posterior, scan)
    mean = np.abs(posterior.mean)
    error, spread = mean - reference, posterior.magnitude.std
    lower, upper = posterior.interval(0.9)
    row |= {
        "psnr_head": decibels(error[head], reference),
        "psnr": decibels(error, reference),
        "zero_filled": decibels(np.abs(posterior.images["zero_filled"])[head] - reference[head], reference),
        "nrmse": float(np.linalg.norm(error) / np.linalg.norm(reference)),
        "coverage": float(((lower <= reference) & (reference <= upper))[head].mean()),
        "spread_error": rms(spread[head]) * math.sqrt(1 + 1 / posterior.n_valid) / rms(error[head]),
    }
    if scan.folded is not None:
        row["fold_error"] = rms(error[head & scan.folded]) / rms(error[head & ~scan.folded])
    return row


def _against_noisy(posterior: Posterior, scan: Scan) -> dict[str, float]:
    """Return the errors against a fully sampled image with noise, less that noise; none where all was sampled."""
    unsampled = ~np.asarray(posterior.images["mask"], bool)
    if unsampled.mean() < 0.01:  # single samples of a complete scan may be zero
        return {}
    assert scan.noise is not None
    power, error, head = scan.noise**2, posterior.mean - scan.reference, scan.head
    mse = {name: max(float((np.abs(error[where]) ** 2).mean()) - power, 0) for name, where in _areas(head).items()}
    largest = np.abs(scan.reference).max()
    row = {name: 20 * math.log10(largest / math.sqrt(value)) for name, value in mse.items() if value}
    missed = np.abs(to_kspace(error[None])[0][unsampled]) ** 2
    signal = float((np.abs(scan.kspace[0][unsampled]) ** 2).mean()) - power
    return row | {"withheld": math.sqrt(max(float(missed.mean()) - power, 0) / signal)}


def _areas(head: np.ndarray) -> dict[str, np.ndarray]:
    return {"psnr_head": head, "psnr": np.ones_like(head)}


def _total_variation(scan: Scan) -> float:
    """Return the PSNR in the head of the best weight against the truth, from the same Problem."""
    prepared = _prepared(scan)
    problem, reference, head = prepared.problem, np.abs(scan.reference), scan.head
    noise = float(np.mean(np.asarray(problem.noise_std)))
    tried = []
    for weight in WEIGHTS:
        image = baselines.total_variation(problem, weight / noise) * prepared.intensity * problem.scale
        tried.append(decibels(np.abs(image.cpu().numpy())[head] - reference[head], reference))
    return max(tried)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((np.abs(values) ** 2).mean()))


def decibels(error: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR of an error, data range = maximum of the reference."""
    return float(20 * np.log10(np.abs(reference).max() / rms(error)))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _heading() -> str:
    names = " ".join(f"{short:>{int(form[0])}s}" for short, form in COLUMNS.values())
    return f"{'scan':38s} {names}"


def _line(name: str, row: dict[str, Any]) -> str:
    for key in ("refused", "crashed"):
        if key in row:
            return f"{name:38s} {key}: {row[key]}"
    cells = []
    for key, (_, form) in COLUMNS.items():
        value = row.get(key)
        cells.append("-".rjust(int(form[0])) if value is None else f"{value:{form}}")
    extras = [text.format(row[key]) for key, text in EXTRAS.items() if row.get(key) is not None]
    return "  ".join([f"{name:38s} {' '.join(cells)}", *extras, *(f"[{_short(note)}]" for note in row["notes"])])


def _short(note: str, length: int = 60) -> str:
    return note if len(note) <= length else note[: length - 4] + " ..."


def _summary(rows: list[dict[str, Any]]) -> str:
    """Say in how many rows the 90 % interval covers what it should, and how many gave no image."""
    covered = [row["coverage"] for row in rows if row.get("coverage") is not None]
    good = sum(0.85 <= value <= 0.95 for value in covered)
    none = sum("refused" in row or "crashed" in row for row in rows)
    share = f"{good / len(covered):.0%}" if covered else "none"
    return (
        f"coverage .85 to .95 in {good} of {len(covered)} rows ({share}); {none} of {len(rows)} rows without an image"
    )


if __name__ == "__main__":
    main()
