"""Values of variable length: damaged heaps are refused before the HDF5 library reads them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from recon.errors import InputError
from recon.files import hdf5

RECORD = np.dtype([("a", "<i2"), ("s", h5py.string_dtype()), ("b", "<f8"), ("v", h5py.vlen_dtype("<i2"))])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with strings and sequences, alone, in chunks, and inside of records."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["text"] = "hello"
        file.create_dataset("texts", data=["a", "bb", ""], dtype=h5py.string_dtype())
        file.create_dataset("sequences", (10,), dtype=h5py.vlen_dtype("<f4"), chunks=(4,))
        file.create_dataset("records", (5,), RECORD, chunks=(2,))
        for i in range(5):
            file["sequences"][i] = np.arange(i)
            file["records"][i] = (i, "abc" * i, 2.0, np.arange(i + 1))
        file.create_dataset("packed", data=["c", "dd"], dtype=h5py.string_dtype(), chunks=(2,), compression="gzip")
        file.create_dataset("none", (0,), dtype=h5py.string_dtype(), chunks=(2,), maxshape=(None,))
    return path


def read(path: Path, name: str) -> np.ndarray:
    with hdf5.open_hdf5(path) as file:
        return hdf5.dataset(file, name)[()]


def test_intact_files_are_read(path: Path) -> None:
    assert read(path, "text") == b"hello"
    assert list(read(path, "texts")) == [b"a", b"bb", b""]
    assert [len(one) for one in read(path, "sequences")] == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]
    assert [(one["s"], len(one["v"])) for one in read(path, "records")] == [(b"abc" * i, i + 1) for i in range(5)]
    assert list(read(path, "packed")) == [b"c", b"dd"] and len(read(path, "none")) == 0


@pytest.mark.parametrize("name", ["text", "texts", "sequences", "records"])
@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, 0, "there is no heap"),
        (8, 0, "there is no heap"),
        (8, 2**50, "there is no heap"),
        (24, 2**40, "contradicts itself"),
        (24, 2**64 - 8, "contradicts itself"),
    ],
)
def test_damaged_heaps_are_refused(path: Path, name: str, offset: int, value: int, words: str) -> None:
    content = bytearray(path.read_bytes())
    heaps = [k for k in range(0, len(content), 8) if content[k : k + 4] == b"GCOL"]
    for heap in heaps:
        content[heap + offset : heap + offset + 8] = value.to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a.h5: {name}: .*{words}.*; the file is damaged"):
        read(path, name)


def test_a_reference_longer_than_its_object_is_refused(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file["text"].id.get_offset()
    content = bytearray(path.read_bytes())
    assert content[offset] == len("hello")
    content[offset] = 200
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text: object 1 of the heap at .* is missing or too short"):
        read(path, "text")


def test_an_unknown_kind_of_variable_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("sequences", (1,), dtype=h5py.vlen_dtype("<f4"))[0] = np.arange(3)
    content = path.read_bytes()
    # Datatype message of a sequence: class 9 and version 1, three bytes of bits, the size 16.
    message = bytes([0x19, 0, 0, 0, 16, 0, 0, 0])
    assert content.count(message) == 1
    path.write_bytes(content.replace(message, bytes([0x19, 15, 0, 0, 16, 0, 0, 0])))
    with pytest.raises(InputError, match="sequences: values of variable length of the unknown kind 15"):
        read(path, "sequences")
