"""The HDF5 file of a `Posterior`.

Readable with plain h5py; complex arrays are HDF5 compounds (r, i), as h5py writes them. Version 1:

    /                   attributes: format = "diffrecon-posterior", format_version = 1, description
    samples             (n, [slice,] y, x) complex64 or float32, in the units of the input
    mean, std           ([slice,] y, x): complex posterior mean, total standard deviation of the valid samples
    interval            (2, [slice,] y, x): lower and upper end; attributes level, method; needs 2 samples
    magnitude_mean, magnitude_std   the same for |samples|
    images/<name>       zero_filled, reference, mask, ...
    diagnostics/<name>  valid (n,) bool, residual (n,), ...
    geometry, provenance   JSON text

Only `samples`, `images`, `diagnostics`, `geometry` and `provenance` are read back; the summaries are recomputed.
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
from recon.files.atomic import atomic_path
from recon.files.plain_values import plain

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

FORMAT = "diffrecon-posterior"
VERSION = 1
_LEVEL = 0.9
_MAX_JSON = 16 * 2**20
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
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        # Text that is read back has a fixed length: damage in HDF5's heap of variable-length strings is hard to detect.
        file.attrs.update({"format": np.bytes_(FORMAT), "format_version": VERSION, "description": _DESCRIPTION})
        _write_arrays(file, posterior)
        for name, image in posterior.images.items():
            file.create_dataset(f"images/{name}", data=np.asarray(image))
        for name, value in posterior.diagnostics.items():
            _write_diagnostic(file, name, value)
        for name in ("geometry", "provenance"):
            _write_json(file, name, getattr(posterior, name))
            file[name].attrs["description"] = f"{name} as JSON"


def _write_arrays(file: h5py.File, posterior: PosteriorSamples) -> None:
    axes = " ".join(("slice", "y", "x")[4 - posterior.samples.ndim :])
    units = str(posterior.geometry.get("units", "units of the input"))

    def put(name: str, data: np.ndarray, axes: str, description: str, **more: Any) -> None:
        file.create_dataset(name, data=data)
        file[name].attrs.update({"axes": axes, "units": units, "description": description, **more})

    put("samples", posterior.samples, f"sample {axes}", "samples from the posterior distribution of the image")
    file.create_group("images")
    file.create_group("diagnostics")
    if not posterior.n_valid:
        return
    magnitude = posterior.magnitude
    known = "expectation" in posterior.images
    put("mean", posterior.mean, axes, "posterior mean" if known else "mean of the valid samples")
    put("std", posterior.std, axes, "sqrt(sum_k |x_k - mean|^2 / (n - 1)); zero if there is only one sample")
    put(
        "magnitude_mean", magnitude.mean, axes, "magnitude of the posterior mean" if known else "mean of the magnitudes"
    )
    put("magnitude_std", magnitude.std, axes, "standard deviation of the magnitudes of the valid samples")
    if posterior.n_valid > 1:
        interval = np.stack(posterior.interval(_LEVEL))
        text = "lower and upper end of the predictive interval of the magnitude"
        put("interval", interval, f"end {axes}", text, level=_LEVEL, method="student")


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
        for k in range(len(values)) if diagnostics.get("valid") is None else np.flatnonzero(diagnostics["valid"]):
            if k < len(values) and not np.isfinite(values[k]).all():
                raise InputError(
                    f"{file_path}: samples: number {k} is marked as valid but is not finite; the file is damaged"
                )
        return {
            "samples": values,
            "geometry": geometry,
            "provenance": provenance,
            "diagnostics": diagnostics,
            "images": images,
        }


def _images(file: h5py.File, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    images = {}
    for name in _names(file, "images"):
        image = hdf5.dataset(file, f"images/{name}")
        # A mask may be a list of the columns; anything else is shown, and needs rows and columns.
        if not (1 if name == "mask" else 2) <= image.ndim <= len(shape):
            raise InputError(
                f"{file.filename}: images/{name}: shape {image.shape} does not match samples of shape {shape}"
            )
        images[name] = image[()]
    return images


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
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{found.file.filename}: {found.name}: is not JSON ({error})") from error
