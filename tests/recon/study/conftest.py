"""Small volumes, and runs of them with an analytic prior."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pytest

from recon.cli import main
from recon.engine.reconstruction import Reconstruction
from recon.posterior import Posterior

SIZE = 16
#: Slices of the volumes.
SLICES = 4
OPTIONS = {"prior": "gaussian", "samples": 2, "steps": 2, "device": "cpu", "acceleration": 2, "center_fraction": 0.3}
FLAGS = [word for name, value in OPTIONS.items() for word in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture
def options() -> dict[str, object]:
    """Arguments of `recon.reconstruct` for a fast run."""
    return dict(OPTIONS)


@pytest.fixture
def flags() -> list[str]:
    """The same for the command line."""
    return list(FLAGS)


@pytest.fixture
def volume(tmp_path: Path) -> Callable[..., Path]:
    """Write a fully sampled two-coil scan with noise; slices named in `bad` are NaN, of which nothing can be made."""

    def write(name: str = "scan.npy", slices: int = SLICES, bad: Collection[int] = (), seed: int = 0) -> Path:
        y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
        coils = np.stack([np.exp(-((x - c) ** 2) - y**2 / 2 + 0.5j * c * y) for c in (-0.8, 0.8)])
        rng = np.random.default_rng(seed)
        kspace = np.empty((slices, 2, SIZE, SIZE), np.complex64)
        for index in range(slices):
            image = np.where(y**2 / 0.6 + x**2 / 0.4 < 1, 1 + 0.5 * np.cos((3 + index) * y) * np.cos(4 * x), 0)
            centred = np.fft.ifftshift(coils * image, axes=(1, 2))
            kspace[index] = np.fft.fftshift(np.fft.fft2(centred, norm="ortho"), axes=(1, 2))
            noise = rng.normal(size=kspace[index].shape) + 1j * rng.normal(size=kspace[index].shape)
            kspace[index] += (0.01 * noise).astype(np.complex64)
        kspace[list(bad)] = np.nan
        np.save(tmp_path / name, kspace)
        return tmp_path / name

    return write


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """`recon run FILES -o tmp_path/out` in this process, with fast options and words of the test's own."""

    def call(*words: str | Path, out: str = "out", workers: int = 1, report: bool = False) -> int:
        fixed = ["-o", str(tmp_path / out), *FLAGS, "--workers", str(workers), *([] if report else ["--no-report"])]
        return main(["run", *fixed, *map(str, words)])

    return call


class Draws:
    """Counts the slices that are drawn, and fails where a test wants it.

    Attributes
    ----------
    units : list of tuple of int
        What was drawn, in order.
    fail : dict
        What is raised instead, by slice.
    """

    def __init__(self) -> None:
        self.units: list[tuple[int, ...]] = []
        self.fail: dict[int, BaseException] = {}


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Draws]:
    """What is drawn in this process."""
    seen = Draws()
    draw = Reconstruction.draw

    def counted(self: Reconstruction, unit: tuple[int, ...], *more: object) -> object:
        if unit[0] in seen.fail:
            raise seen.fail[unit[0]]
        seen.units.append(tuple(unit))
        return draw(self, unit, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Reconstruction, "draw", counted)
    return seen


@pytest.fixture
def same() -> Callable[[Path, Path], None]:
    """Compare the arrays of two results bit by bit, and what they say of their making."""

    def compare(first: Path, second: Path) -> None:
        a, b = Posterior.load(first), Posterior.load(second)
        np.testing.assert_array_equal(a.samples, b.samples)
        assert a.images.keys() == b.images.keys() and a.diagnostics.keys() == b.diagnostics.keys()
        for name in a.images:
            np.testing.assert_array_equal(a.images[name], b.images[name], err_msg=name)
        for name in a.diagnostics.keys() - {"seconds"}:
            np.testing.assert_array_equal(a.diagnostics[name], b.diagnostics[name], err_msg=name)
        for name in a.provenance.keys() - {"date_utc"}:
            assert a.provenance[name] == b.provenance[name], name

    return compare


@pytest.fixture
def files() -> Callable[[Path], set[str]]:
    """The files below a folder."""
    return lambda folder: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines of errors since the last call, without their prefix."""

    def read() -> list[str]:
        lines = capsys.readouterr().err.splitlines()
        return [line.removeprefix("recon: error: ") for line in lines if line.startswith("recon: error: ")]

    return read
