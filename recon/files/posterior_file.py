"""The HDF5 file of a `Posterior`.

Readable with plain h5py; complex arrays are HDF5 compounds (r, i), as h5py writes them. Version 1:

    /                   attributes: format = "diffrecon-posterior", format_version = 1, description
    samples             (n, [slice,] y, x) complex64 or float32, in the units of the input
    mean, std           ([slice,] y, x): complex posterior mean, total standard deviation of the valid samples
    interval            (2, [slice,] y, x): lower and upper end; attributes level, method; needs 2 samples
    magnitude_mean, magnitude_std   the same for |samples|
    summary/<name>      statistics of all samples, if not all of them are kept (`recon.posterior_summary`); attribute n
    images/<name>       zero_filled, reference, mask, ...
    diagnostics/<name>  valid (n,) bool, residual (n,), ...
    geometry, provenance   JSON text

Only `samples`, `summary`, `images`, `diagnostics`, `geometry` and `provenance` are read back; the other statistics are
computed again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.files.documents import parse_json
from recon.files.hdf5_write import write_hdf5
from recon.files.plain_values import plain
from recon.posterior_summary import ARRAYS, LEVELS, Summary

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

FORMAT = "diffrecon-posterior"
VERSION = 1
_LEVEL = 0.9
_MAX_JSON = 16 * 2**20
#: Statistics with an axis before the slices.
_LEADING = {"interval": "end", "summary/quantiles": "quantile"}
_DESCRIPTION = (
    "Posterior samples of an image given its measurement, with their mean, standard deviation and interval. "
    "Axes, units and meaning are attributes of each dataset; geometry and provenance are JSON."
)


def is_posterior(path: Path) -> bool:
    """Tell whether a file was written by `Posterior.save`."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return hdf5.attributes(file, ("format",)).get("format") == FORMAT


def write_posterior(path: str | os.PathLike[str], posterior: PosteriorSamples) -> None:
    """Write a posterior atomically: `path` is either as before or complete."""
    with write_hdf5(path) as file:
        # Text that is read back has a fixed length: damage in HDF5's heap of variable-length strings is hard to detect.
        file.attrs.update({"format": np.bytes_(FORMAT), "format_version": VERSION, "description": _DESCRIPTION})
        _write_arrays(file, posterior)
        if posterior.summary is not None and posterior.n_valid:
            file["summary"].attrs["n"] = posterior.summary.n
        for name, image in posterior.images.items():
            file.create_dataset(f"images/{name}", data=np.asarray(image))
        for name, value in posterior.diagnostics.items():
            _write_diagnostic(file, name, value)
        for name in ("geometry", "provenance"):
            _write_json(file, name, getattr(posterior, name))
            file[name].attrs["description"] = f"{name} as JSON"


def _write_arrays(file: h5py.File, posterior: PosteriorSamples) -> None:
    """Write samples and statistics, a volume slice by slice so that no copy of it is made."""
    volume = posterior.samples.ndim == 4
    axes = "slice y x" if volume else "y x"
    units = str(posterior.geometry.get("units", "units of the input"))
    file.create_dataset("samples", data=posterior.samples)
    file["samples"].attrs.update(
        {
            "axes": f"sample {axes}",
            "units": units,
            "description": "samples from the posterior distribution of the image",
        }
    )
    for group in ("images", "diagnostics"):
        file.create_group(group)
    if not posterior.n_valid:
        return
    for place in range(posterior.samples.shape[1]) if volume else (None,):
        part = posterior if place is None else posterior.slice(place)
        for name, values in _statistics(part).items():
            leading = _LEADING.get(name, "")
            if name not in file:
                shape = list(values.shape)
                if place is not None:
                    shape.insert(1 if leading else 0, posterior.samples.shape[1])
                file.create_dataset(name, shape=shape, dtype=values.dtype)
                _describe(file[name], name, posterior, f"{leading} {axes}".strip(), units)
            if place is None:
                file[name][...] = values
            else:
                file[name][(slice(None), place) if leading else place] = values


def _statistics(posterior: PosteriorSamples) -> dict[str, np.ndarray]:
    """Return the statistics of one slice by the names of their datasets."""
    magnitude = posterior.magnitude
    found = {
        "mean": posterior.mean,
        "std": posterior.std,
        "magnitude_mean": magnitude.mean,
        "magnitude_std": magnitude.std,
    }
    if posterior.n_valid > 1:
        found["interval"] = np.stack(posterior.interval(_LEVEL))
    if posterior.summary is not None:
        found |= {f"summary/{name}": np.asarray(values) for name, values in posterior.summary.arrays().items()}
    return found


def _describe(found: h5py.Dataset, name: str, posterior: PosteriorSamples, axes: str, units: str) -> None:
    """Write what a dataset holds beside it."""
    known = "expectation" in posterior.images
    texts = {
        "mean": "posterior mean" if known else "mean of the valid samples",
        "std": "sqrt(sum_k |x_k - mean|^2 / (n - 1)); zero if there is only one sample",
        "magnitude_mean": "magnitude of the posterior mean" if known else "mean of the magnitudes",
        "magnitude_std": "standard deviation of the magnitudes of the valid samples",
        "interval": "lower and upper end of the predictive interval of the magnitude",
    }
    found.attrs.update({"axes": axes, "units": units, "description": texts.get(name, "see recon.posterior_summary")})
    if name == "interval":
        found.attrs.update({"level": _LEVEL, "method": "student"})


def _write_diagnostic(file: h5py.File, name: str, value: Any) -> None:
    array = np.asarray(value)
    if array.dtype.kind in "biufc":
        file.create_dataset(f"diagnostics/{name}", data=array)
    else:
        _write_json(file, f"diagnostics/{name}", value)


def _write_json(file: h5py.File, name: str, value: Any) -> None:
    content = json.dumps(plain(value), indent=2).encode("utf-8")
    file.create_dataset(name, data=content, dtype=h5py.string_dtype(length=len(content)))


def read_posterior(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments of the `Posterior` in a file.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or has another format or version.
    """
    file_path = Path(path)
    if not file_path.is_file():
        raise InputError(f"{file_path}: no such file")
    if not is_posterior(file_path):
        raise InputError(
            f"{file_path}: not a diffrecon result (expected an HDF5 file with the attribute format = {FORMAT!r})"
        )
    with hdf5.open_hdf5(file_path) as file:
        written = hdf5.attributes(file, ("format_version",)).get("format_version")
        if written != VERSION:
            raise InputError(
                f"{file_path}: has format version {written}, but this release reads version {VERSION}; update diffrecon"
            )
        samples = hdf5.dataset(file, "samples")
        if samples.dtype.kind not in "fc" or samples.ndim not in (3, 4):
            raise InputError(f"{file_path}: samples: expected (n, [slice,] y, x), got {samples.dtype} {samples.shape}")
        images = _images(file, samples.shape[1:])
        diagnostics = {name: _read_diagnostic(file, name) for name in _names(file, "diagnostics")}
        geometry, provenance = (_json(file, name) for name in ("geometry", "provenance"))
        values = samples[()]
        known = diagnostics.get("slice_valid")
        filled = slice(None) if known is None or np.shape(known) != values.shape[1:2] else np.asarray(known, bool)
        for k in range(len(values)) if diagnostics.get("valid") is None else np.flatnonzero(diagnostics["valid"]):
            if k < len(values) and not np.isfinite(values[k][filled]).all():
                raise InputError(
                    f"{file_path}: samples: number {k} is marked as valid but is not finite; the file is damaged"
                )
        return {
            "samples": values,
            "geometry": geometry,
            "provenance": provenance,
            "diagnostics": diagnostics,
            "images": images,
            "summary": _read_summary(file, samples.shape[1:]),
        }


def _read_summary(file: h5py.File, shape: tuple[int, ...]) -> Summary | None:
    """Return the statistics of samples that are not kept; None if all are."""
    names = [name for name in _names(file, "summary") if name in ARRAYS]
    if not names:
        return None
    arrays = {name: hdf5.dataset(file, f"summary/{name}")[()] for name in names}
    expected = {name: shape[:-2] if name == "lowest" else shape for name in ARRAYS}
    expected["quantiles"] = (len(LEVELS), *shape)
    missing = {"mean", "std", "lowest", "quantiles"} - set(arrays)
    wrong = sorted(missing | {name for name, values in arrays.items() if values.shape != expected[name]})
    n = hdf5.attributes(file["summary"], ("n",)).get("n")
    if wrong or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(
            f"{file.filename}: summary/{', '.join(wrong) or 'n'}: missing or of another shape; the file is damaged"
        )
    return Summary.of_arrays(int(n), arrays)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the provenance in a file, and nothing else of it."""
    with hdf5.open_hdf5(path) as file:
        return _json(file, "provenance")


def _images(file: h5py.File, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    images = {}
    for name in _names(file, "images"):
        image = hdf5.dataset(file, f"images/{name}")
        if image.dtype.kind not in "biufc":
            raise InputError(f"{file.filename}: images/{name}: expected numbers, got {image.dtype}")
        if not _fits(name, image.shape, shape):
            raise InputError(
                f"{file.filename}: images/{name}: shape {image.shape} does not match samples of shape {shape}"
            )
        images[name] = image[()]
    return images


def _fits(name: str, image: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Tell whether an auxiliary image fits samples of a shape: ``(y, x)``, for a volume also one for each slice.

    A reference may be larger or smaller than the samples; a mask may leave out axes.
    """
    if 0 in image or not 1 <= len(image) <= len(shape):
        return False
    if name == "expectation":
        return image == shape
    if name == "mask":
        return True
    return len(image) == 2 or (len(image) == 3 and image[0] == shape[0])


def _names(file: h5py.File, group: str) -> list[str]:
    if not hdf5.has(file, group) or not isinstance(file.get(group, getlink=True), h5py.HardLink):
        return []
    return list(file[group])


def _read_diagnostic(file: h5py.File, name: str) -> Any:
    found = hdf5.dataset(file, f"diagnostics/{name}")
    if h5py.check_string_dtype(found.dtype) is not None:
        return _parse(hdf5.text(found, _MAX_JSON), found)
    return found[()]


def _json(file: h5py.File, name: str) -> dict[str, Any]:
    found = hdf5.dataset(file, name)
    content = _parse(hdf5.text(found, _MAX_JSON), found)
    if not isinstance(content, dict):
        raise InputError(f"{file.filename}: {name}: expected a JSON object, got {type(content).__name__}")
    return content


def _parse(content: str, found: h5py.Dataset) -> Any:
    return parse_json(content, f"{found.file.filename}: {str(found.name).removeprefix('/')}")
