"""The BART reader on pairs written by six independent lines, and on a real scan."""

from pathlib import Path

import numpy as np
import pytest

from recon.errors import InputError
from recon.modalities.mri.files.readers import open_kspace


def noise(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def write_pair(path: Path, array: np.ndarray, dims: str | None = None) -> Path:
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims or ' '.join(map(str, array.shape))} \n")
    with open(path.with_suffix(".cfl"), "wb") as stream:
        stream.write(array.astype("<c8").tobytes(order="F"))
    return path


@pytest.mark.parametrize("suffix", ["", ".cfl", ".hdr"])
def test_one_slice_by_any_name(tmp_path: Path, suffix: str) -> None:
    kspace = noise(10, 6, 1, 3)
    write_pair(tmp_path / "scan.v2", kspace)
    # "scan.v2" has a suffix of its own: write_pair replaced it, the pair is scan.hdr and scan.cfl
    scan = open_kspace(tmp_path / f"scan{suffix}")
    assert (scan.format, scan.shape, len(scan), scan.mask) == ("bart", (3, 10, 6), 1, None)
    np.testing.assert_array_equal(scan[0], kspace[:, :, 0].transpose(2, 0, 1))
    assert scan[0].flags.c_contiguous


def test_single_coil_without_trailing_dimensions(tmp_path: Path) -> None:
    kspace = noise(10, 6)
    np.testing.assert_array_equal(open_kspace(write_pair(tmp_path / "a", kspace))[0], kspace[None])


def test_slices_in_dimension_13(tmp_path: Path) -> None:
    kspace = noise(8, 6, 1, 2, *(1,) * 9, 3, 1, 1)
    scan = open_kspace(write_pair(tmp_path / "a", kspace))
    assert len(scan) == 3
    np.testing.assert_array_equal(scan[2], kspace.reshape(8, 6, 2, 3)[..., 2].transpose(2, 0, 1))


def test_volume_is_split_along_the_readout(tmp_path: Path) -> None:
    # Truth: one bright readout position, so that only that slice holds its plane.
    plane = noise(6, 4, 2)
    n, position = 10, 7
    readout = np.exp(-2j * np.pi * (np.arange(n) - n // 2) * (position - n // 2) / n) / np.sqrt(n)
    plane[3, 2] *= 100  # a volume's energy sits in the centre of k-space
    scan = open_kspace(write_pair(tmp_path / "a", readout[:, None, None, None] * plane))
    assert (len(scan), scan.shape, scan.readout_axis) == (10, (2, 6, 4), None)
    np.testing.assert_allclose(scan[position], plane.transpose(2, 0, 1), atol=1e-4)
    assert np.abs(scan[0]).max() < 1e-3


def test_single_coil_volume_is_not_taken_for_coils(tmp_path: Path) -> None:
    kspace = noise(10, 6, 8)
    kspace[:, :, 4] *= 30
    assert open_kspace(write_pair(tmp_path / "a", kspace)).shape == (1, 6, 8)


def test_coils_in_dimension_2(tmp_path: Path) -> None:
    kspace = noise(10, 6, 8)
    scan = open_kspace(write_pair(tmp_path / "a", kspace, "10 6 8 1 1"))
    assert scan.shape == (8, 10, 6)
    assert scan.attributes["coil_dimension"] == 2
    np.testing.assert_array_equal(scan[0], kspace.transpose(2, 0, 1))


def test_real_brain(realdata: Path) -> None:
    scan = open_kspace(realdata / "mri_kspace" / "brain_8ch_full.cfl")
    assert scan.shape == (8, 230, 180)
    peak = np.unravel_index(np.abs(scan[0]).sum(0).argmax(), (230, 180))
    np.testing.assert_allclose(peak, (115, 90), atol=1)  # centred k-space, up to the scanner's own echo shift


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ("10 6 1 4", "has 1440 bytes, but a.hdr declares 10 x 6 x 1 x 4 complex64 = 1920 bytes"),
        ("10 6 1 0", "expected 1 to 16 positive dimensions"),
        ("10 6 1 -3", "expected 1 to 16 positive dimensions"),
        ("10 six 1 3", "expected 1 to 16 positive dimensions"),
        ("99999999999999999999 1", "expected 1 to 16 positive dimensions"),
        ("2000000000 2000000000 2000000000", "does not belong together or is truncated"),
        (" ".join("1" * 17), "expected 1 to 16 positive dimensions"),
        ("10 6 1 1 3", r"dimension 4 \(map\) has length 3"),
        ("10 6 1 1 1 1 1 1 1 1 3", r"dimension 10 \(time\) has length 3"),
    ],
)
def test_refused_dimensions(tmp_path: Path, dims: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_kspace(write_pair(tmp_path / "a", noise(10, 6, 1, 3), dims))


def test_volume_with_slices_is_refused(tmp_path: Path) -> None:
    kspace = noise(4, 4, 2, 2, *(1,) * 9, 3)
    with pytest.raises(InputError, match="both phase 2"):
        open_kspace(write_pair(tmp_path / "a", kspace))


@pytest.mark.parametrize("missing", [".cfl", ".hdr"])
def test_half_a_pair(tmp_path: Path, missing: str) -> None:
    write_pair(tmp_path / "a", noise(4, 4))
    (tmp_path / f"a{missing}").unlink()
    with pytest.raises(InputError, match=rf"a\{missing}: no such file; a BART scan is a pair"):
        open_kspace(tmp_path / ("a.cfl" if missing == ".hdr" else "a.hdr"))


def test_header_without_dimensions(tmp_path: Path) -> None:
    write_pair(tmp_path / "a", noise(4, 4))
    (tmp_path / "a.hdr").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="a line '# Dimensions'"):
        open_kspace(tmp_path / "a.hdr")


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinite"), (0, "every value is zero")])
def test_unusable_values(tmp_path: Path, value: float, words: str) -> None:
    with pytest.raises(InputError, match=f"a.cfl: data, slice 0: .*{words}"):
        open_kspace(write_pair(tmp_path / "a", np.full((4, 4, 1, 2), value, np.complex64)))[0]
