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


@pytest.fixture(params=["earliest", "latest", "userblock"])
def described(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file with text attributes of variable length, whose headers are of the old or the new form."""
    path = tmp_path / f"{request.param}.h5"
    options = {"userblock_size": 1024} if request.param == "userblock" else {"libver": request.param}
    with h5py.File(path, "w", **options) as file:
        for item in (file, file.create_dataset("data", data=np.arange(3), track_times=request.param == "latest")):
            item.attrs.update({"units": "radians", "empty": "", "several": ["a", "Grüße"], "number": 3.5})
            item.attrs["fixed"] = np.bytes_("plain")
    return path


EXPECTED = {"units": "radians", "empty": "", "several": ["a", "Grüße"], "number": 3.5, "fixed": "plain"}


def test_text_attributes_are_read_without_the_library(described: Path) -> None:
    with h5py.File(described, "a") as file:
        for k in range(40):  # so that the old form continues elsewhere in the file
            file.attrs[f"note{k}"] = f"{k}" * k
            if k < 2:
                file["data"].attrs[f"note{k}"] = "x" * 3000
    with hdf5.open_hdf5(described) as file:
        assert EXPECTED.items() <= hdf5.attributes(file["data"]).items()
        assert hdf5.attributes(file["data"])["note1"] == "x" * 3000
        found = hdf5.attributes(file)
        assert found["number"] == 3.5 and found["fixed"] == "plain"
        if described.stem != "latest":  # the new form keeps more than eight attributes outside of the header
            assert found["note39"] == "39" * 39 and EXPECTED.items() <= found.items()


def test_text_outside_of_the_header_is_refused_where_it_matters(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.attrs.update({f"a{k}": str(k) for k in range(20)})
    with hdf5.open_hdf5(tmp_path / "a.h5") as file:
        assert hdf5.attributes(file) == {}
        with pytest.raises(InputError, match="attribute 'a3' of / is text of variable length outside"):
            hdf5.attributes(file, ("a3",))


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (8, 2**50), (24, 2**40), (24, 2**64 - 8)])
def test_attributes_with_damaged_heaps_are_refused(described: Path, offset: int, value: int) -> None:
    content = bytearray(described.read_bytes())
    for heap in (k for k in range(0, len(content), 8) if content[k : k + 4] == b"GCOL"):
        content[heap + offset : heap + offset + 8] = value.to_bytes(8, "little")
    described.write_bytes(content)
    with hdf5.open_hdf5(described) as file, pytest.raises(InputError, match=r"the attribute '\w+' of /.*heap"):
        hdf5.attributes(file)


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"shuffle": True}])
def test_packed_text_is_read_and_checked(tmp_path: Path, filters: dict) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("text", data=["hello"], dtype=h5py.string_dtype(), chunks=(1,), **filters)
    with hdf5.open_hdf5(path) as file:
        assert hdf5.text(hdf5.dataset(file, "text")) == "hello"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"GCOL\x01\0\0\0", b"GCOL\x02\0\0\0"))
    with pytest.raises(InputError, match="there is no heap"):
        read(path, "text")


def test_texts_within_the_header_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        kind, space = h5py.h5t.py_create(h5py.string_dtype(), logical=True), h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.Dataset(h5py.h5d.create(file.id, b"text", kind, space, plist))[()] = "hello"
    with pytest.raises(InputError, match="text: 1 values of variable length, or within the header"):
        read(tmp_path / "a.h5", "text")
