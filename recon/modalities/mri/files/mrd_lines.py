"""The acquisitions of an ISMRMRD file: their headers, what they were acquired for, and their samples.

Samples and headers are read with h5py. The package `ismrmrd` would open the whole dataset twice for every line and
check none of the sizes; its layout is one compound type that HDF5 describes by itself. Source: Inati et al., ISMRM Raw
data format, MRM 77:411, 2017 (https://ismrmrd.github.io).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5

#: Bits of `flags`, counted from 1 as in the standard.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSE = 19, 20, 21, 22
#: Acquisitions that are not lines of the image.
_OTHER = {
    23: "navigator",
    24: "phase correction",
    26: "feedback (HP)",
    27: "dummy",
    28: "feedback (RT)",
    29: "surface coil correction",
    30: "phase stabilization reference",
    31: "phase stabilization",
}
_FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir", "idx"),
)
#: Counters that make an image of its own, in the order of the slices.
COUNTERS = ("slice", "contrast", "phase", "repetition", "set")
_STEPS = ("kspace_encode_step_1", "kspace_encode_step_2")
_RUN = 256  # neighbouring acquisitions that are read together


def read_heads(data: h5py.Dataset, where: str) -> np.ndarray:
    """Return the headers of all acquisitions, after checking that these are ISMRMRD acquisitions.

    Raises
    ------
    InputError
        If the dataset has another layout or is empty.
    """
    names = data.dtype.names or ()
    head = data.dtype["head"].names or () if "head" in names else ()
    counters = data.dtype["head"]["idx"].names or () if "idx" in head else ()
    missing = [name for name in ("head", "data") if name not in names]
    missing += [name for name in _FIELDS if name not in head]
    missing += [name for name in (*_STEPS, *COUNTERS) if name not in counters]
    if missing or data.ndim != 1:
        raise InputError(f"{where}: expected a list of ISMRMRD acquisitions, these have no {', '.join(missing[:4])}")
    if not len(data):
        raise InputError(f"{where}: there are no acquisitions")
    return data.fields("head")[:]


def has_flag(heads: np.ndarray, bit: int) -> np.ndarray:
    """Return where a flag (counted from 1) is set."""
    return (heads["flags"].astype(np.uint64) >> np.uint64(bit - 1)) & np.uint64(1) != 0


def is_noise(heads: np.ndarray) -> np.ndarray:
    """Return where an acquisition is noise without signal."""
    return has_flag(heads, _NOISE)


def is_reverse(heads: np.ndarray) -> np.ndarray:
    """Return where a line was read out backwards."""
    return has_flag(heads, _REVERSE)


def is_calibration_only(heads: np.ndarray) -> np.ndarray:
    """Return the lines acquired for calibration and not for the image."""
    return has_flag(heads, _CALIBRATION) & ~has_flag(heads, _CALIBRATION_AND_IMAGING)


def image_lines(heads: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Return where an acquisition is a line of k-space, and the numbers of the others by what they are."""
    lines = ~is_noise(heads)
    skipped = {}
    for bit, name in _OTHER.items():
        other = lines & has_flag(heads, bit)
        if other.any():
            skipped[name] = int(other.sum())
        lines &= ~other
    return lines, skipped


def read_samples(path: Path, dataset: str, heads: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number and samples `(coil, sample)` of the wanted acquisitions, without those to be discarded.

    Lines that were read out backwards are turned round.

    Parameters
    ----------
    path : Path
    dataset : str
    heads : array
        The headers of all acquisitions.
    wanted : array of int
        Their numbers, ascending.

    Raises
    ------
    InputError
        If an acquisition does not hold the samples that its header declares.
    """
    backwards = is_reverse(heads)
    with hdf5.open_hdf5(path) as file:
        stored = file[dataset].fields("data")  # `read_heads` got it checked
        for run in _runs(wanted):
            for i, values in zip(run, stored[run[0] : run[-1] + 1], strict=True):
                head = heads[i]
                coils, n = int(head["active_channels"]), int(head["number_of_samples"])
                samples = _complex(values)
                if samples is None or samples.size != coils * n:
                    held = "no numbers" if samples is None else f"{samples.size} values"
                    raise InputError(
                        f"{path}: {dataset}: acquisition {i} declares {coils} coil(s) x {n} samples, but holds {held}; "
                        "the file is damaged"
                    )
                line = samples.reshape(coils, n)[:, int(head["discard_pre"]) : n - int(head["discard_post"])]
                yield int(i), line[:, ::-1] if backwards[i] else line


def _runs(numbers: np.ndarray) -> list[np.ndarray]:
    """Split ascending numbers into runs of neighbours."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [run[k : k + _RUN] for run in runs for k in range(0, len(run), _RUN)]


def _complex(values: np.ndarray) -> np.ndarray | None:
    """Return samples as complex64: pairs of float32, or compound real and imaginary parts; None for anything else."""
    values = np.asarray(values)
    if values.dtype.kind == "c":
        return values.astype(np.complex64)
    if values.dtype.names is not None and len(values.dtype.names) == 2:
        real, imaginary = (values[name].astype(np.float32) for name in values.dtype.names)
        return real + np.complex64(1j) * imaginary
    if values.dtype.kind == "f" and values.size % 2 == 0:
        return np.ascontiguousarray(values, dtype=np.float32).view(np.complex64)
    return None
