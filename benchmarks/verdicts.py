"""What a run says about its own result: right runs and planted faults, with every default.

    python benchmarks/verdicts.py --data FOLDER [--only NAME ...] [--samples 8] [--precision float32] [--again]
        [--output benchmarks/results/verdicts.json] [--pictures FOLDER]

FOLDER is the one of the real data. Each case goes through the public API. "verdict" is that of the run ("refused": no
image at all, with exit status 2), "chi2" the data residual, "held": held-out chi2, "excess": error over spread,
squared, of withheld data beyond their noise. "PSNR" and "cover": of the magnitude where the truth is known, in the
object (above a tenth of its maximum). A case that OUTPUT holds is kept unless --again. ``--pictures`` also writes the
truth, mean, |error| and std of each case as PNG.

Faults are planted in the data or in what is said about them, never in the engine. A fault with a right image is no
fault: the prior for brains reconstructs a knee, and then the verdict must be "ok".
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from robustness_mri import decibels
from robustness_scans import rss, scans, to_kspace, with_noise
from scipy import ndimage

import recon
from operators.mri.espirit import espirit_maps
from recon.errors import InputError
from recon.modalities.ct.options import CT
from recon.modalities.ct.prepare import prepare_image
from recon.posterior import Posterior
from samplers import Problem

#: Slices of two patients of whom nothing is in the training data.
CHESTS = {"A": ("lungdx_A0001_512", 32), "B": ("lidc_0314_512", 20)}
OUTPUT = Path(__file__).parent / "results" / "verdicts.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Arguments of `recon.reconstruct`, the truth above ``air`` where it is known, and whether the result is right."""

    source: Any
    options: dict[str, Any]
    truth: np.ndarray | None
    right: bool
    air: float = 0.0

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Return an image of the result as the truth is given."""
        return np.abs(image) if np.iscomplexobj(image) else image - self.air


def mri(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray] = lambda kspace: kspace, **more: Any
) -> Case:
    """A scan of the robustness table, with other k-space or further options."""
    scan = scans(folder)[name]()
    fault = bool(more) or change.__name__ != "<lambda>"
    return Case(change(scan.kspace), {**scan.options, **more}, scan.reference, not fault)


def overrated_noise(folder: Path, name: str) -> Case:
    """A noise level that the user gives 20 times too high: the data say so, and the result is right."""
    return dataclasses.replace(mri(folder, name, noise_std=130.0), right=True)


def given_maps(folder: Path, name: str, shift: int) -> Case:
    """The same with given coil maps, of which the image is ``shift`` pixels beside."""
    scan = scans(folder)[name]()
    maps = np.roll(np.asarray(espirit_maps(torch.as_tensor(scan.kspace))), shift, -1)
    return Case(scan.kspace, {**scan.options, "coil_maps": maps}, scan.reference, shift == 0)


def moved(kspace: np.ndarray) -> np.ndarray:
    """The head moves by 4 pixels (y) before the last lines are measured."""
    y = np.arange(kspace.shape[-2]) - kspace.shape[-2] // 2
    ramp = np.exp(8j * np.pi * y / len(y))[:, None]
    late = np.arange(kspace.shape[-1]) > kspace.shape[-1] // 2 + 14
    return np.where(late, kspace * ramp, kspace).astype(kspace.dtype)


def flipped_coil(kspace: np.ndarray) -> np.ndarray:
    """Half of the lines of every second coil have the wrong sign."""
    sign = np.ones(kspace.shape, np.float32)
    sign[::2, :, ::2] = -1
    return kspace * sign


def spike(kspace: np.ndarray) -> np.ndarray:
    """A spike on the central line of k-space, a third as bright as the centre, in all coils."""
    out = kspace.copy()
    y, x = out.shape[-2] // 2 + out.shape[-2] // 5, out.shape[-1] // 2
    out[:, y, x] += np.abs(out).max() / 3
    return out


def wrong_mask(folder: Path, name: str) -> Case:
    """Undersampled k-space with the mask of another scan: one line beside."""
    scan = scans(folder)[name]()
    mask = np.zeros((1, scan.kspace.shape[-1]), bool)
    mask[:, ::4] = True
    mask[:, 36:60] = True
    return Case(scan.kspace * mask, {"mask": np.roll(mask, 1, -1)}, scan.reference, False)


def knee(folder: Path) -> Case:
    """A knee with simulated coils under the prior for brains."""
    image = pydicom.dcmread(folder / "mri_images" / "knee_19frames.dcm").pixel_array[9].astype(np.float32)[::2, ::2]
    image = np.pad(image, 8) / np.quantile(image, 0.99)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    turns = 2 * np.pi * np.arange(8) / 8
    maps = np.stack([np.exp(-((y - np.sin(t)) ** 2 + (x - np.cos(t)) ** 2) / 1.5 + 1j * (t + x)) for t in turns])
    images = image * maps / rss(maps)
    return Case(with_noise(to_kspace(images), 0.02), {"mask": "random", "acceleration": 4}, image, True)


def ct(folder: Path, name: str, views: int, roll: int = 0, turn: float = 0.0) -> Case:
    """A slice of a chest, with the centre of rotation ``roll`` elements beside, or views in the wrong order."""
    file, index = CHESTS[name]
    with np.load(folder / "ct_volumes" / f"{file}.npz") as volume:
        image = volume["hu"][index].astype(np.float32)
    return _projected(image.reshape(128, 4, 128, 4).mean((1, 3)), 3.0, views, roll, turn)


def dendrites(views: int) -> Case:
    """A two-phase texture, such as of a cast metal, under the prior for bodies."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-64:64, -64:64]
    phases = np.where(ndimage.gaussian_filter(rng.standard_normal((128, 128)), 1.5) > 0, 700.0, -300.0)
    image = np.where(x**2 + y**2 < 55**2, phases, -1000.0).astype(np.float32)
    return dataclasses.replace(_projected(image, 3.0, views), right=False)


def _projected(image: np.ndarray, pixel: float, views: int, roll: int = 0, turn: float = 0.0) -> Case:
    problem: Problem = prepare_image(image, pixel, CT(views=views, photons=1e5)).problem
    y = problem.y.roll(roll, -1)
    y = y.flip(0) if turn else y
    return Case(dataclasses.replace(problem, y=y), {}, image + 1000, not roll and not turn, air=-1000.0)


def ultrasound(folder: Path, name: str, speed: float, **options: Any) -> Case:
    """Channel data of which the sound speed is said to be ``speed`` times that of the file."""
    data = recon.open(folder / "ultrasound" / name)
    geometry = dataclasses.replace(data.geometry, sound_speed=data.geometry.sound_speed * speed)
    return Case(dataclasses.replace(data, geometry=geometry), {**options, "slices": 0}, None, speed == 1)


def cases(folder: Path) -> dict[str, Callable[[], Case]]:
    """Return a function for each name, which reads or simulates the case."""
    small, brain = "sense96 random x4", "brain 2.0% random x4"
    muscle = {"name": "muscle_invivo_1angle.hdf5", "depth": "10:20", "width": "-6:6"}
    field2 = {"name": "field2_3pw_192el.hdf5", "depth": "20:30", "width": "-8:8", "elements": 64}
    return {
        "MRI, 16 coils x4": partial(mri, folder, small),
        "MRI, 16 coils x4, maps given": partial(given_maps, folder, small, 0),
        "MRI, knee x4 under brain-mri": partial(knee, folder),
        "MRI, noise_std 20 times too high": partial(overrated_noise, folder, small),
        "MRI, maps 6 pixels beside": partial(given_maps, folder, small, 6),
        "MRI, brain, maps 8 pixels beside": partial(given_maps, folder, brain, 8),
        "MRI, head moves 4 pixels": partial(mri, folder, small, moved),
        "MRI, wrong signs": partial(mri, folder, small, flipped_coil),
        "MRI, spike": partial(mri, folder, small, spike),
        "MRI, mask one line beside": partial(wrong_mask, folder, small),
        "CT, chest, 64 views": partial(ct, folder, "A", 64),
        "CT, chest, 32 views": partial(ct, folder, "B", 32),
        "CT, rotation centre 2 elements beside": partial(ct, folder, "A", 64, 2),
        "CT, views in reverse": partial(ct, folder, "A", 64, 0, 1.0),
        "CT, dendrites, 64 views": partial(dendrites, 64),
        "CT, dendrites, 32 views": partial(dendrites, 32),
        "US, simulated": partial(ultrasound, folder, speed=1.0, **field2),
        "US, muscle": partial(ultrasound, folder, speed=1.0, **muscle),
        "US, simulated, sound speed + 3 %": partial(ultrasound, folder, speed=1.03, **field2),
        "US, simulated, sound speed - 3 %": partial(ultrasound, folder, speed=0.97, **field2),
        "US, muscle, sound speed - 3 %": partial(ultrasound, folder, speed=0.97, **muscle),
    }


def measure(case: Case, samples: int, precision: str) -> tuple[dict[str, Any], Posterior | None]:
    """Return the row of a case, and the posterior where there is one."""
    started = time.perf_counter()
    row: dict[str, Any] = {"right": case.right, "samples": samples}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            posterior = recon.reconstruct(
                case.source, samples=samples, precision=precision, progress=False, **case.options
            )
        except InputError as error:
            return {**row, "verdict": "refused", "reasons": [str(error)]}, None
    row |= {"verdict": posterior.verdict.level, "reasons": list(posterior.verdict.reasons)}
    row["residual"] = float(np.median(posterior.diagnostics["residual"]))
    test = posterior.provenance["held_out"][0]
    row |= {} if test is None else {"held_out": test["chi2"], "excess": test["excess"]}
    if case.truth is not None:
        lower, upper = (case.shown(bound) for bound in posterior.interval(0.9))
        inside = case.truth > 0.1 * case.truth.max()
        row["psnr"] = decibels((case.shown(posterior.mean) - case.truth)[inside], case.truth)
        row["coverage"] = float(((lower <= case.truth) & (case.truth <= upper))[inside].mean())
    return {**row, "seconds": time.perf_counter() - started}, posterior


def draw(path: Path, case: Case, posterior: Posterior, row: dict[str, Any]) -> None:
    """Write truth, mean, |error| and std of a case as one picture, with its verdict as the title."""
    from matplotlib.figure import Figure

    mean, std = case.shown(posterior.mean), posterior.magnitude.std
    panels = [("mean", mean, float(mean.max())), ("std", std, float(np.quantile(std, 0.995)))]
    if case.truth is not None:
        error = np.abs(mean - case.truth)
        top, bright = float(np.quantile(error, 0.995)), float(case.truth.max())
        panels = [("truth", case.truth, bright), ("mean", mean, bright), ("|error|", error, top), ("std", std, top)]
    figure = Figure(figsize=(2.4 * len(panels), 2.9), layout="constrained")
    for k, (title, image, top) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), k + 1)
        axes.imshow(image, cmap="magma" if title in ("|error|", "std") else "gray", vmin=0, vmax=top)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.suptitle(f"{path.stem.replace('_', ' ')}: {row['verdict']}", fontsize=10)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Run the cases that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    rows = json.loads(given.output.read_text()) if given.output.is_file() else {}
    print(f"{'case':40s} {'verdict':9s} {'chi2':>7s} {'held':>7s} {'excess':>7s} {'PSNR':>6s} {'cover':>6s}")
    for name, make in cases(given.data).items():
        if not any(word in name for word in given.only):
            continue
        if name not in rows or given.again:
            case = make()
            rows[name], posterior = measure(case, given.samples, given.precision)
            given.output.write_text(json.dumps(rows, indent=1) + "\n")
            if given.pictures is not None and posterior is not None:
                given.pictures.mkdir(parents=True, exist_ok=True)
                draw(
                    given.pictures / f"{''.join(c if c.isalnum() else '_' for c in name)}.png",
                    case,
                    posterior,
                    rows[name],
                )
        print(_line(name, rows[name]), flush=True)
    good = [row["verdict"] == "ok" for row in rows.values() if row["right"]]
    bad = [row["verdict"] != "ok" for row in rows.values() if not row["right"]]
    print(
        f"right runs that are ok: {sum(good)} of {len(good)}; planted faults that are noticed: {sum(bad)} of {len(bad)}"
    )


def _line(name: str, row: dict[str, Any]) -> str:
    keys = {"residual": "7.3g", "held_out": "7.3g", "excess": "7.3g", "psnr": "6.1f", "coverage": "6.2f"}
    cells = [f"{row[key]:{form}}" if key in row else "-".rjust(int(form[0])) for key, form in keys.items()]
    return f"{name:40s} {row['verdict']:9s} {' '.join(cells)}  {'; '.join(row['reasons'])[:90]}"


if __name__ == "__main__":
    main()
