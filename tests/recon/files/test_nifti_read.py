"""The reader of NIfTI volumes agrees with nibabel, and names the field of a header that cannot be right."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from recon.errors import InputError
from recon.files.nifti_read import read_nifti

TURNED = np.array([[0, 0, -3.0, 5], [2, 0, 0, 1], [0, -1.5, 0, 0], [0, 0, 0, 1]])


def volume(path: Path, dtype: str = "<i2", kind: type = nibabel.Nifti1Image, slope: float | None = None) -> Path:
    values = (100 * np.random.default_rng(0).random((4, 5, 6))).astype(dtype)
    header = kind.header_class(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(values.dtype)
    image = kind(values, TURNED, header)
    if slope:
        image.header.set_slope_inter(slope, 3.0)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(("dtype", "slope"), [("<i2", None), (">i2", 0.5), ("<f4", None), (">f8", None), ("u1", 2.0)])
def test_agrees_with_nibabel(tmp_path: Path, name: str, kind: type, dtype: str, slope: float | None) -> None:
    path = volume(tmp_path / name, dtype, kind, slope)
    expected = nibabel.as_closest_canonical(nibabel.load(path))
    data, zooms = read_nifti(path)
    assert data.dtype == np.float32 and data.shape == (6, 4, 5) and zooms == (3.0, 2.0, 1.5)
    np.testing.assert_allclose(data, expected.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize(
    ("offset", "layout", "values", "words"),
    [
        (0, "<i", [347], "sizeof_hdr"),
        (0, ">i", [348], "dim: expected"),  # the other fields are in another byte order
        (344, "4s", [b"abc"], "magic"),
        (40, "<h", [4], "dim: expected three axes, none of them empty, got the lengths"),
        (42, "<3h", [-4, 5, 6], "dim: expected"),
        (42, "<3h", [0, 5, 6], "dim: expected"),
        (42, "<3h", [32000, 32000, 32000], "dim: 32000 x 32000 x 32000 values"),
        (70, "<h", [128], "datatype: expected real numbers, got code 128"),
        (108, "<f", [1e9], "vox_offset"),
        (108, "<f", [float("nan")], "vox_offset"),
        (80, "<f", [float("nan")], "pixdim"),
        (280, "<f", [float("nan")], "srow"),
        (280, "<12f", [0.0] * 12, "header is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_damaged_fields_are_named(
    tmp_path: Path, name: str, offset: int, layout: str, values: list, words: str
) -> None:
    path = volume(tmp_path / name)
    content = bytearray(gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(InputError, match=rf"{name}: .*{words}"):
        read_nifti(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0, 100, 200, 0.7, -1])
def test_truncated(tmp_path: Path, name: str, kept: float) -> None:
    path = volume(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(InputError, match=name):
        read_nifti(path)


def test_checksum(tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="CRC"):
        read_nifti(path)


def test_voxels_that_are_not_finite(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="NaN"):
        read_nifti(tmp_path / "a.nii")
