"""Write results where there is no room; run by test_full_disk.py in a process of its own, for a crash is a failure.

Usage: full_disk.py WRITER,WRITER,... limit|tmpfs FOLDER COUNT. Prints one JSON object; see `main`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from recon.errors import StorageError
from recon.posterior import Posterior

OLD = b"what was there before"


def posterior() -> Posterior:
    rng = np.random.default_rng(0)
    samples = (rng.normal(size=(3, 2, 32, 40)) + 1j * rng.normal(size=(3, 2, 32, 40))).astype(np.complex64)
    return Posterior(
        samples,
        geometry={"voxel_size_mm": [3.0, 1.0, 1.0], "slices": [0, 1], "recon_shape": [32, 32]},
        provenance={"source": {"name": "scan.h5"}, "seed": 0, "history": list(range(500))},
        diagnostics={"residual": np.ones(3), "note": "text"},
        images={f"image{k}": rng.random((2, 32, 40), np.float32) for k in range(12)},
    )


def fastmri(path: Path) -> None:
    from recon.modalities.mri.files.fastmri import write_fastmri

    write_fastmri(path, np.random.default_rng(0).random((2, 48, 40)))


def many(path: Path) -> None:
    """More tables than HDF5 holds in memory: it reads back what it believes to have written."""
    from recon.files.hdf5_write import write_hdf5

    with write_hdf5(path) as file:
        for k in range(70):
            group = file.create_group(f"g{k % 7}/{k}")
            for j in range(5):
                group.attrs[f"a{j}"] = "x" * 10_000
            group.create_dataset("chunked", data=np.arange(200.0), chunks=(20,), compression="gzip")
        file["g0/0/chunked"][3:50] = 1
        file.create_dataset("text", data=["some", "words"])


def report(path: Path) -> None:
    import recon.figure
    from recon.report import write_report

    recon.figure.DPI = 25
    write_report(posterior(), path)


def evaluation(path: Path) -> None:
    from recon.uncertainty.evaluation import Evaluation
    from recon.uncertainty.evaluation_files import write_evaluation

    rows = [{"name": f"scan{k}", "group": "all", "psnr": 30.0, "raw_coverage": 0.9} for k in range(200)]
    write_evaluation(Evaluation(0.9, rows), path.parent, pictures=False)


def calibration(path: Path) -> None:
    from recon.uncertainty.calibration_file import write_calibration

    write_calibration(path, {"factors": {"all": 1.0}, "sources": [f"scan{k}" for k in range(1000)]})


def prior(path: Path) -> None:
    from recon.priors.networks.files import write_prior

    write_prior(path, {"a": torch.ones(100, 100)}, {"name": "x", "data": ["many words"] * 1000})


def covariance(path: Path) -> None:
    from recon.priors.covariance import write_covariance
    from samplers import CovarianceModel

    write_covariance(path, CovarianceModel(torch.ones(64, 64), torch.ones(64, 64)))


def checkpoint(path: Path) -> None:
    from recon.training.state import save_checkpoint

    save_checkpoint(path, {"a": torch.ones(100, 100), "b": {"c": torch.ones(3), "step": 1}})


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "posterior": ("a.h5", lambda path: posterior().save(path)),
    "fastmri": ("a.h5", fastmri),
    "many": ("a.h5", many),
    "nifti": ("a.nii", lambda path: posterior().to_nifti(path)),
    "nifti.gz": ("a.nii.gz", lambda path: posterior().to_nifti(path)),
    "report": ("a", report),
    "evaluation": ("a", evaluation),
    "calibration": ("a.json", calibration),
    "prior": ("a.safetensors", prior),
    "covariance": ("a.safetensors", covariance),
    "checkpoint": ("a.pt", checkpoint),
}


@contextmanager
def limited(kind: str, folder: Path, size: int) -> Iterator[None]:
    """No file may grow beyond ``size``, or a disk of that size is mounted on the folder."""
    if kind == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


def main(writers: str, kind: str, place: str, count: str) -> None:
    """Count how often the files were complete ("written") and how often refused; anything else is a "fault"."""
    print(json.dumps({name: attempts(name, kind, Path(place), int(count)) for name in writers.split(",")}))


def attempts(writer: str, kind: str, place: Path, count: int) -> dict[str, object]:
    """Let one writer write at many sizes, from next to nothing to enough."""
    name, write = WRITERS[writer]
    folder, whole = place / "disk", place / writer
    whole.mkdir()
    write(whole / name)
    complete = {path.name: path.read_bytes() for path in whole.iterdir()}
    sizes = np.linspace(0, max(map(len, complete.values())) + 1, count).astype(int).tolist()
    if kind == "tmpfs":  # a disk of n pages, on which the old files take one each
        pages = sum(-(-len(content) // 4096) for content in complete.values()) + len(complete)
        sizes = [4096 * n for n in np.linspace(len(complete) + 1, pages + 1, count).round().astype(int).tolist()]
    counts, faults = {"written": 0, "refused": 0}, []
    for size in sizes:
        for file in complete:
            (folder / file).write_bytes(OLD)
        try:
            with limited(kind, folder, size):
                write(folder / name)
            outcome = "written"
        except StorageError:
            outcome = "refused"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        whole_or_old = found.keys() == complete.keys() and all(
            content in (complete[file], *([OLD] if outcome == "refused" else [])) for file, content in found.items()
        )
        if whole_or_old and outcome in ("written", "refused") and (outcome == "written" or OLD in found.values()):
            counts[outcome] += 1
        else:
            faults.append(f"{size}: {outcome}, { ({file: len(content) for file, content in found.items()}) }")
    for file in folder.iterdir():
        file.unlink()
    return {**counts, "faults": faults}


if __name__ == "__main__":
    main(*sys.argv[1:])
