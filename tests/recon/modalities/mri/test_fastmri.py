"""The fastMRI reader on files written with plain h5py in exactly the published layout."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from recon.errors import InputError, ShapeError
from recon.modalities.mri.files.fastmri import write_fastmri
from recon.modalities.mri.files.readers import open_kspace

Writer = Callable[..., Path]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@contextmanager
def refused(words: str, seconds: float = 1.0, mebibytes: float = 256.0) -> Iterator[None]:
    """Expect one InputError that mentions `words`, quickly and without much memory."""
    before, started = _peak_mebibytes(), time.perf_counter()
    with pytest.raises(InputError, match=words) as caught:
        yield
    assert time.perf_counter() - started < seconds
    assert _peak_mebibytes() - before < mebibytes
    assert "\n" not in str(caught.value)


def _peak_mebibytes() -> float:
    """Return the peak memory and start counting it anew, where the system can (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return peak / 1024


def test_multicoil_knee_of_real_size(fastmri_file: Writer, mrd_header: Callable[..., str]) -> None:
    kspace = noise(1, 2, 640, 368)
    kspace[..., :18] = kspace[..., -18:] = 0
    scan = open_kspace(fastmri_file(kspace=kspace, ismrmrd_header=mrd_header(640, 368, 2, padding=18).encode()))
    assert (scan.format, scan.shape, len(scan)) == ("fastmri", (2, 640, 368), 1)
    assert scan.recon_shape == (320, 320)
    assert scan.readout_axis == -2
    assert scan.readout_oversampling == 2.0
    # padding_left = enc_y // 2 - center = 184 - 166 = 18, padding_right = 18 + maximum + 1 = 350
    assert scan.acquired == (18, 350)
    assert scan.voxel_size_mm == pytest.approx((3.0, 0.4375, 0.4375))
    assert scan.attributes["acquisition"] == "AXT2"
    np.testing.assert_array_equal(scan[0], kspace[0])
    assert scan[0].dtype == np.complex64


def test_slices_are_read_one_by_one(fastmri_file: Writer) -> None:
    kspace = noise(3, 2, 32, 20)
    scan = open_kspace(fastmri_file(kspace=kspace))
    assert len(list(scan)) == 3
    np.testing.assert_array_equal(scan[-1], kspace[2])
    with pytest.raises(IndexError, match="has 3 slices"):
        scan[3]


def test_single_coil_and_its_reference(fastmri_file: Writer) -> None:
    kspace = noise(2, 64, 40)
    path = fastmri_file(kspace=kspace)
    scan = open_kspace(path)
    assert scan.shape == (1, 64, 40)
    np.testing.assert_array_equal(scan[1], kspace[1:])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(scan.reference(1), file["reconstruction_esc"][1])


@pytest.mark.parametrize("dtype", [bool, np.float32, np.uint8])
def test_mask_of_a_test_file_leaves_padding_out(
    fastmri_file: Writer, mrd_header: Callable[..., str], dtype: type
) -> None:
    columns = np.zeros(40)
    columns[::4] = 1
    kspace = noise(1, 2, 64, 40)
    header = mrd_header(64, 40, padding=3).encode()
    scan = open_kspace(
        fastmri_file(kspace=kspace, mask=columns.astype(dtype), reconstruction_rss=None, ismrmrd_header=header)
    )
    expected = columns.astype(bool)
    expected[:3] = expected[-3:] = False
    assert scan.mask is not None
    assert scan.mask.dtype == bool
    np.testing.assert_array_equal(np.broadcast_to(scan.mask, (64, 40)), np.tile(expected, (64, 1)))
    np.testing.assert_array_equal(scan[0], kspace[0] * expected)
    assert scan.reference(0) is None


def test_without_a_header_the_reference_tells_the_geometry(fastmri_file: Writer) -> None:
    scan = open_kspace(fastmri_file(ismrmrd_header=None))
    assert (scan.recon_shape, scan.readout_oversampling) == ((32, 32), 2.0)
    assert scan.acquired is None
    assert scan.voxel_size_mm is None


def test_header_may_be_fixed_or_variable_text(fastmri_file: Writer, mrd_header: Callable[..., str]) -> None:
    for value in (mrd_header(64, 40), np.bytes_(mrd_header(64, 40).encode())):
        assert open_kspace(fastmri_file(ismrmrd_header=value)).recon_shape == (32, 32)


def test_content_decides_not_the_suffix(fastmri_file: Writer) -> None:
    assert open_kspace(fastmri_file("no_suffix")).format == "fastmri"


def test_compressed_files_are_read(tmp_path: Path) -> None:
    kspace = noise(1, 2, 16, 12)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", data=kspace, compression="gzip", shuffle=True, fletcher32=True)
    np.testing.assert_array_equal(open_kspace(tmp_path / "a.h5")[0], kspace[0])


def test_double_precision_is_accepted(fastmri_file: Writer) -> None:
    kspace = noise(1, 2, 64, 40).astype(np.complex128)
    np.testing.assert_array_equal(open_kspace(fastmri_file(kspace=kspace))[0], kspace[0].astype(np.complex64))


# Broken files: one InputError each, within a second and 256 MiB (reliability group B).


def test_empty_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    with refused("empty.h5.*is empty"):
        open_kspace(tmp_path / "empty.h5")
    with refused("no such file"):
        open_kspace(tmp_path / "absent.h5")
    with refused("is a folder"):
        open_kspace(tmp_path)


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.99])
def test_truncated(fastmri_file: Writer, fraction: float) -> None:
    path = fastmri_file()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with refused("file1000001.h5.*truncated"):
        open_kspace(path)[0]


def test_missing_dataset_lists_what_is_there(fastmri_file: Writer) -> None:
    path = fastmri_file()
    with h5py.File(path, "r+") as file:
        file.move("kspace", "data")
    with refused(r"unknown layout \(it holds: data, ismrmrd_header"):
        open_kspace(path)


@pytest.mark.parametrize(
    "kspace", [np.ones((2, 3, 8, 8), np.float32), np.ones((2, 3, 8, 8), np.int16), np.full((2, 3, 8, 8), b"x")]
)
def test_wrong_dtype(tmp_path: Path, kspace: np.ndarray) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace
    with refused("a.h5: kspace: k-space must be complex"):
        open_kspace(tmp_path / "a.h5")


@pytest.mark.parametrize("shape", [(8,), (8, 8), (1, 1, 2, 8, 8)])
def test_wrong_rank(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = noise(*shape)
    with refused("a.h5: kspace: expected .slice, .coil,. readout, phase."):
        open_kspace(tmp_path / "a.h5")


def test_no_coils(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = noise(1, 0, 8, 8)
    with refused("axis 'coil' has length 0"):
        open_kspace(tmp_path / "a.h5")


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 1, 640, 64)}, {"chunks": (1, 1, 640, 64), "compression": 9}])
def test_small_file_that_declares_200_gib(tmp_path: Path, options: dict) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", shape=(1000, 15, 640, 2796), dtype=np.complex64, **options)
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with refused("a.h5: kspace: declares 200.0 GiB"):
        open_kspace(tmp_path / "a.h5")


def test_gzip_bomb(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        bomb = file.create_dataset(
            "kspace", shape=(8, 8, 1024, 1024), dtype=np.complex64, chunks=(1, 1, 1024, 1024), compression=9
        )
        bomb[0, 0] = 0
        packed = bomb.id.read_direct_chunk((0, 0, 0, 0))[1]
        for i in range(64):
            bomb.id.write_direct_chunk((i // 8, i % 8, 0, 0), packed)
    assert (tmp_path / "a.h5").stat().st_size < 2**20
    with refused("decompression bomb"):
        open_kspace(tmp_path / "a.h5")


def test_external_link(fastmri_file: Writer, tmp_path: Path) -> None:
    fastmri_file("other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")
    with refused("kspace is a link to 'other.h5'"):
        open_kspace(tmp_path / "a.h5")


def test_external_raw_storage(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", shape=(1, 1, 16, 16), dtype=np.complex64, external=[(str(secret), 0, 2048)])
    with refused("stored in another file"):
        open_kspace(tmp_path / "a.h5")


def test_virtual_dataset(fastmri_file: Writer, tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((2, 3, 64, 40), np.complex64)
    layout[...] = h5py.VirtualSource(fastmri_file("other.h5"), "kspace", (2, 3, 64, 40))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("kspace", layout)
    with refused("virtual dataset"):
        open_kspace(tmp_path / "a.h5")


@pytest.mark.parametrize("target", ["/kspace", "/elsewhere"])
def test_soft_links(tmp_path: Path, target: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.SoftLink(target)
        file["elsewhere"] = h5py.SoftLink("/kspace") if target == "/elsewhere" else noise(1, 1, 8, 8)
    with refused("kspace is a link"):
        open_kspace(tmp_path / "a.h5")


def test_unknown_filter(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, 1, 8, 8))
        settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1, 1, 8, 8))
        kind = h5py.h5t.py_create(np.dtype(np.complex64))
        found = h5py.Dataset(h5py.h5d.create(file.id, b"kspace", kind, space, settings))
        found[...] = noise(1, 1, 8, 8)
    with refused("unknown HDF5 filter 32015"):
        open_kspace(tmp_path / "a.h5")


def test_xml_entity_bomb(fastmri_file: Writer, mrd_header: Callable[..., str]) -> None:
    laughs = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE h [<!ENTITY l0 "ha">{laughs}]><h>&l11;</h>'
    with refused("ismrmrd_header: the header declares a document type"):
        open_kspace(fastmri_file(ismrmrd_header=bomb))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("<ismrmrdHeader>", "not well-formed"),
        ("<a:h/>", "not well-formed XML .unbound prefix"),
        ("<h/>", "no <encoding>"),
        ('<?xml version="1.0" encoding="unheard-of"?><h/>', "no <encoding>"),
        ('<?xml version="1.0" encoding="big5"?><h/>', "no <encoding>"),
        (np.arange(3), "expected one string"),
        (b"x" * 2**21, "expected one string of at most"),
    ],
)
def test_unusable_header(fastmri_file: Writer, header: object, words: str) -> None:
    with refused(f"ismrmrd_header: .*{words}"):
        open_kspace(fastmri_file(ismrmrd_header=header))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"y": 128}, r"encodes \(128, 40\) .readout, phase., but kspace is \(64, 40\)"),
        ({"maximum": 60}, "outside of the 40 columns"),
        ({"maximum": "many"}, "<maximum> in the header must be a number, got 'many'"),
        ({"fov_x": -3}, "must be positive"),
        ({"recon_y": "nan"}, "must be positive"),
        ({"recon_y": 0.5}, "<matrixSize> must be whole numbers, got .0.5,"),
        ({"recon_fov_y": 1e-320}, "must be positive"),
        ({"fov_x": 1e-310}, "must be positive"),
    ],
)
def test_header_that_contradicts_the_data(
    fastmri_file: Writer, mrd_header: Callable[..., str], fields: dict, words: str
) -> None:
    header = mrd_header(**{"y": 64, "x": 40, **fields}).encode()
    with refused(words):
        open_kspace(fastmri_file(ismrmrd_header=header))


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.ones(39), "does not fit"), (np.full(40, 0.5), "only 0 and 1"), (np.full(40, np.nan), "only 0 and 1")],
)
def test_unusable_mask(fastmri_file: Writer, mask: np.ndarray, words: str) -> None:
    with refused(f"mask: .*{words}"):
        open_kspace(fastmri_file(mask=mask))


def test_reference_of_another_length(fastmri_file: Writer) -> None:
    with refused("reconstruction_rss: expected 2 real images"):
        open_kspace(fastmri_file(reconstruction_rss=np.ones((3, 32, 32), np.float32)))


# Broken values (group F): named with file, dataset and slice when the slice is read.


@pytest.mark.parametrize("value", [np.nan, np.inf, complex(0, -np.inf), complex(0, np.nan)])
def test_values_that_are_not_finite(fastmri_file: Writer, value: complex) -> None:
    kspace = noise(2, 3, 64, 40)
    kspace[1, 2, 3, 4] = value
    scan = open_kspace(fastmri_file(kspace=kspace))
    assert scan[0].any()
    with refused("file1000001.h5: kspace, slice 1: 1 of 7680 values are NaN or infinite"):
        scan[1]


def test_values_beyond_single_precision(fastmri_file: Writer) -> None:
    scan = open_kspace(fastmri_file(kspace=noise(1, 1, 64, 40).astype(np.complex128) * 1e60))
    with refused("NaN or infinite"):
        scan[0]


def test_slice_of_zeros(fastmri_file: Writer) -> None:
    kspace = noise(2, 3, 64, 40)
    kspace[1] = 0
    scan = open_kspace(fastmri_file(kspace=kspace))
    with refused("kspace, slice 1: every value is zero"):
        scan[1]


# The submission file.


def test_submission_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 40, 30))
    write_fastmri(tmp_path / "out.h5", images, (32, 32))
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].dtype == np.float32
        # the centre of 40 rows; 30 columns are fewer than wanted and stay
        np.testing.assert_array_equal(file["reconstruction"], images[:, 4:36].astype(np.float32))


@pytest.mark.parametrize("images", [np.ones((4, 4)), np.ones((1, 4, 4), np.complex64)])
def test_submission_wants_magnitudes(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="real magnitudes"):
        write_fastmri(tmp_path / "out.h5", images)
    assert not list(tmp_path.iterdir())


def test_real_brain_through_the_fastmri_layout(realdata: Path, fastmri_file: Writer) -> None:
    brain = open_kspace(realdata / "mri_kspace" / "brain_8ch_full.cfl")[0]
    scan = open_kspace(fastmri_file(kspace=brain[None]))
    np.testing.assert_array_equal(scan[0], brain)
