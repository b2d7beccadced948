"""The reader of MATLAB files agrees with scipy, and refuses what scipy would unpack or loop over."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat, whosmat

from recon.errors import InputError
from recon.files.mat5 import MatFile

KINDS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(word: int, shape: tuple[int, ...], name: bytes, *parts: bytes) -> bytes:
    dims = struct.pack(f"<{len(shape)}i", *shape)
    return element(14, element(6, struct.pack("<II", word, 0)) + element(5, dims) + element(1, name) + b"".join(parts))


def mat_file(path: Path, *elements: bytes) -> Path:
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements))
    return path


def packed(content: bytes) -> bytes:
    squeezed = zlib.compress(content)
    return struct.pack("<II", 15, len(squeezed)) + squeezed


@pytest.mark.parametrize("compressed", [False, True])
def test_agrees_with_scipy(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    stored = {f"a_{kind}": (100 * rng.random((3, 4, 2))).astype(kind) for kind in KINDS}
    stored |= {f"c{bits}": (rng.random((5, 1)) + 1j).astype(f"c{bits // 8}") for bits in (64, 128)}
    stored |= {"one": np.array([[7.0]]), "none": np.zeros((0, 3)), "true": np.array([[True, False]])}
    path = tmp_path / "a.mat"
    savemat(path, stored, do_compression=compressed)
    file = MatFile(path)
    assert [(one.name, one.shape, one.kind) for one in file.variables.values()] == whosmat(path)
    for name, expected in loadmat(path).items():
        if not name.startswith("__"):
            found = file.read(name)
            assert isinstance(found, np.ndarray) and np.iscomplexobj(found) == np.iscomplexobj(expected)
            np.testing.assert_array_equal(found, expected)


def test_cells_and_structs(tmp_path: Path) -> None:
    cells = np.empty((1, 3), object)
    cells[0] = [np.eye(2), np.arange(3.0), "text"]
    savemat(tmp_path / "a.mat", {"RF": cells, "param": {"fs": 2.5, "inner": {"x": np.ones((2, 2))}}, "word": "hello"})
    file = MatFile(tmp_path / "a.mat")
    found = file.read("RF")
    assert isinstance(found, list) and len(found) == 3 and found[2] is None
    np.testing.assert_array_equal(found[0], np.eye(2))
    param = file.read("param")
    assert isinstance(param, list) and param[0]["fs"].item() == 2.5
    np.testing.assert_array_equal(param[0]["inner"][0]["x"], np.ones((2, 2)))
    assert file.read("word") is None


def test_other_byte_order_and_small_storage(tmp_path: Path) -> None:
    def big(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    content = big(6, struct.pack(">II", 6, 0)) + big(5, struct.pack(">ii", 2, 3)) + struct.pack(">HH4s", 1, 1, b"x")
    content = big(14, content + big(3, np.arange(6, dtype=">i2").tobytes()))  # integers that MATLAB calls double
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + content)
    np.testing.assert_array_equal(MatFile(path).read("x"), loadmat(path)["x"])
    np.testing.assert_array_equal(MatFile(path).read("x"), [[0, 2, 4], [1, 3, 5]])


DOUBLES = element(9, np.zeros(6).tobytes())


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ([packed(matrix(6, (2, 3), b"x", DOUBLES)[:-8])], "declares .* unpacks to less"),
        ([packed(matrix(6, (2, 3), b"x", DOUBLES) + bytes(8))], "unpacks to more"),
        ([matrix(6, (2, 4), b"x", DOUBLES)], "declares 8 numbers .* contains 6"),
        ([matrix(6, (2**30, 2**30), b"x", DOUBLES)], "declares .* contains 6"),
        ([matrix(0x0806, (2, 3), b"x", DOUBLES)], "missing or truncated"),
        ([matrix(6, (2, 3), b"x", element(14, DOUBLES))], "expected numbers"),
        ([matrix(1, (2**30, 1), b"x")], "declares 1073741824 nested arrays; refused"),
        ([matrix(1, (2, 1), b"x", DOUBLES)], "expected a nested array"),
        ([matrix(2, (1, 1), b"x", element(5, struct.pack("<i", 0)), element(1, b"ab"))], "names of the fields"),
        ([packed(matrix(6, (2, 3), b"x", DOUBLES))[:-3] + b"\0\0\0"], "incorrect data check"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, elements: list[bytes], words: str) -> None:
    path = mat_file(tmp_path / "bad.mat", *elements)
    with pytest.raises(InputError, match=rf"bad\.mat: (x: )?.*{words}"):
        MatFile(path).read("x")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    inner = matrix(6, (2, 3), b"", DOUBLES)
    for _ in range(10):
        inner = matrix(1, (1, 1), b"x", inner)
    with pytest.raises(InputError, match=r"bad\.mat: x: nested more than 8 deep"):
        MatFile(mat_file(tmp_path / "bad.mat", inner)).read("x")


def test_variables_together_are_bounded(tmp_path: Path) -> None:
    zeros = element(9, bytes(24 * 2**20))
    names = [f"x{k}" for k in range(4)]
    path = mat_file(tmp_path / "a.mat", *(packed(matrix(6, (3, 2**20), name.encode(), zeros)) for name in names))
    file = MatFile(path)
    with pytest.raises(InputError, match=r"x2: unpacks .*; refused as a decompression bomb"):
        [file.read(name) for name in names]


def test_complex_numbers_in_a_smaller_type_are_bounded(tmp_path: Path) -> None:
    part = element(2, bytes(range(6)))
    found = MatFile(mat_file(tmp_path / "a.mat", matrix(0x0806, (2, 3), b"x", part, part))).read("x")
    assert isinstance(found, np.ndarray) and found.dtype == np.complex128 and found[1, 2] == 5 + 5j
    zeros = element(2, bytes(5 * 2**20))
    path = mat_file(tmp_path / "a.mat", packed(matrix(0x0806, (5, 2**20), b"x", zeros, zeros)))
    with pytest.raises(InputError, match=r"x: 5242880 complex numbers unpack to too many bytes; refused"):
        MatFile(path).read("x")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"MATLAB 5.0 MAT-file".ljust(128)])
def test_damaged_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or truncated"):
        MatFile(path)
