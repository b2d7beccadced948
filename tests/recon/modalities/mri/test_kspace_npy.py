"""The NumPy reader, on files by numpy.save and on hand-made malicious ones."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recon.errors import InputError
from recon.modalities.mri.files.readers import open_kspace


def noise(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def raw(path: Path, header: bytes, data: bytes = b"", announced: int | None = None) -> Path:
    """Write a version-2 file with any header text."""
    length = len(header) if announced is None else announced
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + header + data)
    return path


@pytest.mark.parametrize(
    ("shape", "expected", "length"), [((6, 5), (1, 6, 5), 1), ((3, 6, 5), (3, 6, 5), 1), ((2, 3, 6, 5), (3, 6, 5), 2)]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_layouts(tmp_path: Path, shape: tuple, expected: tuple, length: int, order: str) -> None:
    kspace = noise(*shape)
    scan = open_kspace(save(tmp_path / "a.npy", np.asarray(kspace, order=order)))
    assert (scan.shape, len(scan), scan.readout_axis) == (expected, length, None)
    for i, one in enumerate(scan):
        np.testing.assert_array_equal(one, kspace.reshape(length, *expected)[i])
        assert one.flags.c_contiguous
        assert one.flags.writeable


@pytest.mark.parametrize("dtype", [">c8", "<c16", ">c16"])
def test_precision_and_byte_order(tmp_path: Path, dtype: str) -> None:
    kspace = noise(2, 4, 4)
    np.testing.assert_array_equal(open_kspace(save(tmp_path / "a.npy", kspace.astype(dtype)))[0], kspace)


@pytest.mark.parametrize("mask_shape", [(5,), (1, 5), (6, 5), (1, 6, 5)])
@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_archive_with_a_mask(tmp_path: Path, mask_shape: tuple, writer) -> None:
    mask = np.random.default_rng(1).random(mask_shape) > 0.4
    kspace = noise(2, 3, 6, 5)
    writer(tmp_path / "a.npz", kspace=kspace, mask=mask)
    scan = open_kspace(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan[1], kspace[1] * mask)
    assert scan.mask is not None
    np.testing.assert_array_equal(scan.mask, mask.reshape(-1, 5))


def test_real_prospective_scan(realdata: Path) -> None:
    scan = open_kspace(realdata / "mri_kspace" / "brain_8ch_poisson_r8.npy")
    assert (scan.format, scan.shape) == ("npy", (8, 230, 180))
    assert np.mean(scan[0][0] != 0) == pytest.approx(0.124, abs=0.002)


def test_objects_are_refused_without_unpickling(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        open_kspace(path)


@pytest.mark.parametrize(
    ("header", "announced", "words"),
    [
        (
            b"{'descr': '<c8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n",
            None,
            "declares .* bytes, but contains 16",
        ),
        (b"{'descr': '<c8', 'fortran_order': False, 'shape': (-1, -2), }\n", None, "declares"),
        (b"{'descr': '<c8', 'fortran_order': False, 'shape': (2.5, 1), }\n", None, "cannot be read"),
        (b"{'descr': '<c8', 'shape': (1, 2), }\n", None, "cannot be read"),
        (b"(" * 5000 + b"\n", None, "cannot be read"),
        (b"__import__('os').abort()\n", None, "cannot be read"),
        (b"", 0, "NumPy header of 0 bytes"),
        (b"", 2**32 - 1, "NumPy header of 4294967295 bytes"),
        (b"\xff\xfe\n", None, "cannot be read"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: bytes, announced: int | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_kspace(raw(tmp_path / "a.npy", header, bytes(16), announced))


def test_truncated(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", noise(2, 8, 8))
    content = path.read_bytes()
    for length in (8, 60, 500, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.npy"):
            open_kspace(path)


@pytest.mark.parametrize("array", [np.ones((4, 4)), np.ones((4, 4), np.int32), np.full((4, 4), "x")])
def test_real_arrays_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"a\.npy: k-space must be complex"):
        open_kspace(save(tmp_path / "a.npy", array))


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 1, 4, 4)])
def test_other_ranks_are_refused(tmp_path: Path, shape: tuple) -> None:
    with pytest.raises(InputError, match=r"expected \(y, x\), \(coil, y, x\) or \(slice, coil, y, x\)"):
        open_kspace(save(tmp_path / "a.npy", noise(*shape)))


def test_axes_without_elements_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="axis 'coil' has length 0"):
        open_kspace(save(tmp_path / "a.npy", noise(0, 4, 4)))


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or inf"), (0, "is zero")])
def test_unusable_values(tmp_path: Path, value: float, words: str) -> None:
    scan = open_kspace(save(tmp_path / "a.npy", np.full((2, 4, 4), value, np.complex64)))
    with pytest.raises(InputError, match=f"a.npy: array, slice 0: .*{words}"):
        scan[0]


def test_archive_without_kspace(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=noise(4, 4))
    with pytest.raises(InputError, match=r"with 'kspace' \[and 'mask'\], got \['images'\]"):
        open_kspace(tmp_path / "a.npz")


def test_archive_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        content = io.BytesIO()
        np.save(content, np.zeros((1, 1), np.complex64))
        with archive.open("kspace.npy", "w") as stream:
            stream.write(content.getvalue())
            for _ in range(80):
                stream.write(bytes(2**20))
    with pytest.raises(InputError, match="decompression bomb"):
        open_kspace(tmp_path / "a.npz")


def test_archive_that_is_damaged(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", kspace=noise(2, 16, 16))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    (tmp_path / "a.npz").write_bytes(content[:-40])
    with pytest.raises(InputError, match="damaged or truncated"):
        open_kspace(tmp_path / "a.npz")
    content[1500] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        open_kspace(tmp_path / "a.npz")[0]


def test_archive_with_an_object_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", kspace=np.array([[{}]], dtype=object))
    with pytest.raises(InputError, match="kspace: contains Python objects"):
        open_kspace(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["../evil", "/evil", "kspace/../../evil", "..\\\\evil"])
@pytest.mark.parametrize("also", [False, True])
def test_members_outside_of_the_archive_are_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, also: bool
) -> None:
    """Members are read by their names, and never unpacked to a disk."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    content = io.BytesIO()
    np.save(content, noise(2, 4, 4))
    with zipfile.ZipFile(tmp_path / "in" / "a.npz", "w") as archive:
        archive.writestr(f"{name}.npy", content.getvalue())
        if also:
            archive.writestr("kspace.npy", content.getvalue())
    if also:
        np.testing.assert_array_equal(open_kspace(tmp_path / "in" / "a.npz")[0], noise(2, 4, 4))
    else:
        with pytest.raises(InputError, match="with 'kspace'"):
            open_kspace(tmp_path / "in" / "a.npz")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.npz"]
    assert not Path("/evil.npy").exists()


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: not a file that can be read here; expected fastMRI"):
        open_kspace(tmp_path / "notes.txt")
