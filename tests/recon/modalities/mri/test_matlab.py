"""The MATLAB reader on files written by scipy and by plain h5py."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from recon import modalities
from recon.errors import InputError, ShapeError
from recon.modalities.mri.files.readers import open_kspace

PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])


def kspace(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def write_v5(path: Path, compressed: bool = False, **variables: object) -> Path:
    scipy.io.savemat(path, variables, do_compression=compressed)
    return path


def write_v73(path: Path, signature: bool = True, **variables: np.ndarray) -> Path:
    """Write what `save -v7.3` writes: reversed axes, pairs of real and imaginary parts, a text before the HDF5 part."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in variables.items():
            stored = array.T
            if np.iscomplexobj(array):
                stored = np.empty(array.T.shape, PAIR)
                stored["real"], stored["imag"] = array.T.real, array.T.imag
            file.create_dataset(name, data=stored).attrs["MATLAB_class"] = np.bytes_("single")
        file.create_group("#refs#")
    if signature:
        with open(path, "r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


WRITERS = pytest.mark.parametrize("write", [write_v5, write_v73])


@WRITERS
def test_slices(tmp_path: Path, write) -> None:
    array = kspace(20, 24, 4, 3)
    scan = open_kspace(write(tmp_path / "scan.mat", kspace=array, fov=np.array([[220.0, 180.0]])))
    assert (scan.format, scan.dataset, scan.shape, len(scan)) == ("matlab", "kspace", (4, 20, 24), 3)
    assert scan.attributes["axes"] == "(y, x, coil, slice)"
    np.testing.assert_array_equal(scan[2], np.moveaxis(array[..., 2], 2, 0))


@WRITERS
@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 4)])
def test_one_slice(tmp_path: Path, write, shape: tuple[int, ...]) -> None:
    array = kspace(*shape)
    scan = open_kspace(write(tmp_path / "scan.mat", kspace=array))
    assert (scan.shape, len(scan)) == ((4 if len(shape) == 3 else 1, 20, 24), 1)
    np.testing.assert_array_equal(scan[0], np.moveaxis(array.reshape(20, 24, -1), 2, 0))


@WRITERS
@pytest.mark.parametrize("shape", [(4, 20, 24), (3, 4, 20, 24)])
def test_order_of_python(tmp_path: Path, write, shape: tuple[int, ...]) -> None:
    array = kspace(*shape)
    scan = open_kspace(write(tmp_path / "scan.mat", kspace=array))
    assert scan.attributes["axes"].endswith("coil, y, x)")
    np.testing.assert_array_equal(scan[len(scan) - 1], array.reshape(-1, 4, 20, 24)[-1])


@pytest.mark.parametrize("shape", [(20, 24, 16), (8, 24, 8), (64, 64, 100)])
def test_sizes_that_do_not_decide_are_in_the_order_of_matlab(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    scan = open_kspace(write_v5(tmp_path / "scan.mat", kspace=kspace(*shape)))
    assert scan.shape == (shape[2], shape[0], shape[1])


@WRITERS
def test_the_only_complex_array(tmp_path: Path, write) -> None:
    array = kspace(20, 24, 4)
    one, vector = np.array([[1 + 2j]]), kspace(1, 30)
    scan = open_kspace(write(tmp_path / "a.mat", rawdata=array, mask=np.ones((20, 24)), one=one, vector=vector))
    assert (scan.dataset, scan.shape) == ("rawdata", (4, 20, 24))


@WRITERS
def test_several_arrays_are_ambiguous_unless_one_is_called_kspace(tmp_path: Path, write) -> None:
    array = kspace(20, 24, 4)
    path = write(tmp_path / "a.mat", maps=array, data=array)
    with pytest.raises(InputError, match=r"a\.mat: 2 complex arrays could be the k-space \(data, maps\)"):
        open_kspace(path)
    assert open_kspace(write(tmp_path / "b.mat", maps=array, kspace=array)).dataset == "kspace"


def test_compressed(tmp_path: Path) -> None:
    array = kspace(20, 24, 4)
    scan = open_kspace(write_v5(tmp_path / "scan.mat", compressed=True, kspace=array))
    np.testing.assert_array_equal(scan[0], np.moveaxis(array, 2, 0))


def test_pairs_without_the_signature(tmp_path: Path) -> None:
    array = kspace(20, 24, 4)
    scan = open_kspace(write_v73(tmp_path / "scan.h5", signature=False, kspace=array))
    np.testing.assert_array_equal(scan[0], np.moveaxis(array, 2, 0))


def test_slices_of_new_files_are_read_on_demand(tmp_path: Path) -> None:
    array = kspace(20, 24, 4, 3)
    array[0, 0, 0, 1] = np.nan
    scan = open_kspace(write_v73(tmp_path / "scan.mat", kspace=array))
    assert scan[0].any()
    with pytest.raises(InputError, match="kspace, slice 1: 1 of 1920 values are NaN"):
        scan[1]


@WRITERS
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"kspace": np.ones((20, 24))}, "kspace: k-space must be complex"),
        (
            {"image": np.ones((20, 24)), "one": np.array([[1j]])},
            r"expected a complex array 'kspace' .*contains: .*image",
        ),
        ({"kspace": kspace(3, 3, 2, 2, 2)}, r"expected \(y, x\[, coil\[, slice\]\]\), got shape \(3, 3, 2, 2, 2\)"),
    ],
)
def test_no_kspace(tmp_path: Path, write, variables: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises((InputError, ShapeError), match=words):
        open_kspace(write(tmp_path / "a.mat", **variables))


@WRITERS
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated(tmp_path: Path, write, kept: float) -> None:
    path = write(tmp_path / "a.mat", kspace=kspace(40, 40, 4))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"a\.mat: cannot be read as"):
        open_kspace(path)


def test_damaged_compression(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "a.mat", compressed=True, kspace=kspace(40, 40, 4))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        open_kspace(path)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "a.mat", compressed=True, kspace=np.zeros((3000, 3000), np.complex64))
    with pytest.raises(InputError, match="decompression bomb"):
        open_kspace(path)


@WRITERS
def test_the_modality_follows_from_the_variables(tmp_path: Path, write) -> None:
    path = write(tmp_path / "scan.mat", kspace=kspace(20, 24, 4))
    assert modalities.open_recording(path).format == "matlab"
