"""CT image folders written with plain pydicom: order, units, padding, series; real slices; hostile and broken files."""

import logging
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recon.errors import InputError, ReconError
from recon.files.dispatch import is_known
from recon.modalities.ct.data import CTImages
from recon.modalities.ct.files.dicom_images import pair_by_position
from recon.modalities.ct.files.readers import READERS, open_ct

pydicom = pytest.importorskip("pydicom")
Writer = Callable[..., Path]


def stored(seed: int = 0, shape: tuple[int, int] = (12, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, shape).astype(np.uint16)


def series(folder: Path, write_ct: Writer, heights: list[float], **tags: object) -> Path:
    """Write slices in an order that their names do not tell."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(1).permutation(len(heights))
    for k, z in enumerate(heights):
        write_ct(folder / f"L067_FD_3_1.CT.{names[k]:04d}.IMA", stored(k), z, InstanceNumber=99 - k, **tags)
    return folder


def test_slices_are_sorted_by_position(tmp_path: Path, write_ct: Writer) -> None:
    heights = [3.0, -6.0, 12.0, 0.0, -3.0, 9.0, 6.0]
    found = open_ct(series(tmp_path / "full_3mm", write_ct, heights))
    assert isinstance(found, CTImages)
    assert (found.format, found.units, len(found), found.shape) == ("dicom", "HU", 7, (12, 10))
    np.testing.assert_allclose(found.positions_mm, sorted(heights))
    for image, k in zip(found, np.argsort(heights), strict=True):
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, stored(int(k)).astype(np.float32) - 1024)
    assert found.pixel_spacing_mm == (0.7421875, 0.7421875)
    assert found.scanner == {"source_to_detector_mm": 1085.6, "source_to_iso_mm": 595.0}
    assert found.attributes["ConvolutionKernel"] == "B30F" or found.attributes["ConvolutionKernel"] == "B30f"


def test_position_is_along_the_normal(tmp_path: Path, write_ct: Writer) -> None:
    """A tilted gantry, and slices that also move sideways: x and y of the position must not decide."""
    c, s = np.cos(0.3), np.sin(0.3)
    axes, normal = [1, 0, 0, 0, float(c), float(-s)], np.array([0, s, c])
    for k, distance in enumerate([4.0, 0.0, 8.0, -4.0]):
        place = [float(f"{v:.6f}") for v in normal * distance + 50 * k * np.array([1, 0, 0])]
        write_ct(tmp_path / f"{k}.dcm", stored(k), ImagePositionPatient=place, ImageOrientationPatient=axes)
    found = open_ct(tmp_path)
    np.testing.assert_allclose(found.positions_mm, [-4, 0, 4, 8], atol=1e-4)
    np.testing.assert_array_equal(found[0], stored(3).astype(np.float32) - 1024)


def test_units_and_padding(tmp_path: Path, write_ct: Writer) -> None:
    raw = np.array([[-2000, -1500, 0, 1000], [-32768, 30, 3000, -1024]], np.int16)
    one = write_ct(tmp_path / "a.dcm", raw, RescaleSlope="2", RescaleIntercept="-10")
    expected = np.maximum(raw.astype(np.float32) * 2 - 10, -1024)
    np.testing.assert_array_equal(open_ct(one)[0], expected)
    high = np.array([[0, 63536, 1024, 4000]], np.uint16)
    one = write_ct(tmp_path / "b.dcm", high, BitsStored=16, HighBit=15, PixelPaddingValue=63536)
    np.testing.assert_array_equal(open_ct(one)[0], [[-1024, -1024, 0, 2976]])
    one = write_ct(tmp_path / "c.dcm", np.array([[-2000, 24]], np.int16), PixelPaddingValue=-2000)
    np.testing.assert_array_equal(open_ct(one)[0], [[-1024, -1000]])
    # a padding value that is an ordinary tissue is not believed
    one = write_ct(tmp_path / "d.dcm", np.array([[0, 24]], np.int16), RescaleIntercept="0", PixelPaddingValue=0)
    np.testing.assert_array_equal(open_ct(one)[0], [[0, 24]])


def test_bits_that_are_not_used(tmp_path: Path, write_ct: Writer) -> None:
    raw = np.array([[0x0FFF, 0x0001, 0x0800]], np.int16)  # 12 bits, the sign not repeated: -1, 1, -2048
    one = write_ct(tmp_path / "a.dcm", raw, BitsStored=12, HighBit=11, RescaleIntercept="2000")
    np.testing.assert_array_equal(open_ct(one)[0], [[1999, 2001, -48]])
    one = write_ct(tmp_path / "b.dcm", np.array([[5000, 1]], np.uint16))
    with pytest.raises(InputError, match="more bits than BitsStored"):
        open_ct(one)[0]


@pytest.mark.parametrize("syntax", [f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99")])
def test_transfer_syntaxes(tmp_path: Path, write_ct: Writer, syntax: str) -> None:
    values = stored()
    kept = values.astype(">u2") if syntax.endswith(".2.2") else values
    one = write_ct(tmp_path / "a.dcm", values, syntax=syntax, PixelData=kept.tobytes())
    np.testing.assert_array_equal(open_ct(one)[0], values.astype(np.float32) - 1024)


def test_compressed(tmp_path: Path, write_ct: Writer) -> None:
    write_ct(tmp_path / "a.dcm", stored())
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(open_ct(tmp_path / "a.dcm")[0], stored().astype(np.float32) - 1024)


def test_several_series(tmp_path: Path, write_ct: Writer) -> None:
    series(tmp_path, write_ct, [0.0, 1.0, 2.0])
    for k in range(2):
        write_ct(tmp_path / f"other{k}.dcm", stored(), float(k), SeriesInstanceUID="1.9.9", SeriesNumber=7)
    (tmp_path / "README.txt").write_text("not DICOM and not named like it")
    with pytest.raises(InputError, match=r"several series; choose with series=.*3: 3 files.*7: 2 files, 1\.9\.9"):
        open_ct(tmp_path)
    assert [len(open_ct(tmp_path, series=choice)) for choice in (3, 7, "7", "1.9.9")] == [3, 2, 2, 2]
    with pytest.raises(InputError, match="series=5 does not match exactly one series"):
        open_ct(tmp_path, series=5)


def test_full_and_quarter_dose_are_paired_by_position(tmp_path: Path, write_ct: Writer) -> None:
    full = open_ct(series(tmp_path / "L067" / "full_3mm", write_ct, [0.0, 3.0, 6.0, 9.0]))
    quarter = open_ct(series(tmp_path / "L067" / "quarter_3mm", write_ct, [9.02, 3.01, 12.0, 5.98]))
    assert isinstance(full, CTImages)
    assert isinstance(quarter, CTImages)
    assert pair_by_position(full, quarter) == [(1, 0), (2, 1), (3, 2)]
    far = open_ct(series(tmp_path / "far", write_ct, [100.0, 103.0]))
    with pytest.raises(InputError, match="no slice position in common"):
        pair_by_position(full, far)
    with pytest.raises(InputError, match=r"name one of its folders: full_3mm, quarter_3mm"):
        open_ct(tmp_path / "L067")


def test_slices_that_are_not_one_stack(tmp_path: Path, write_ct: Writer) -> None:
    for name, tags in {
        "Rows": {"stored": stored(shape=(8, 10))},
        "PixelSpacing": {"PixelSpacing": ["1", "1"]},
        "ImageOrientationPatient": {"ImageOrientationPatient": [1, 0, 0, 0, 0.9, 0.43589]},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        write_ct(folder / "a.dcm", stored())
        write_ct(folder / "b.dcm", tags.pop("stored", stored()), 1.0, **tags)
        with pytest.raises(InputError, match=f"{name} differs from"):
            open_ct(folder)
    write_ct(tmp_path / "a.dcm", stored(), 2.0)
    write_ct(tmp_path / "b.dcm", stored(), 2.0)
    with pytest.raises(InputError, match="show the same position"):
        open_ct(tmp_path)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelData": None}, "contains no pixels"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels of 16 bits are 8589672450 bytes, but the file has"),
        ({"Rows": None}, "Rows is missing"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "PixelData has 240 bytes, but 12 x 10 .* are 120"),
        ({"BitsAllocated": 32}, "pixels of 32 bits are 480"),
        ({"BitsStored": 17}, "BitsStored 17 and BitsAllocated 16"),
        ({"HighBit": 15}, r"expected HighBit = BitsStored - 1 = 11"),
        ({"BitsAllocated": 12}, "contradict"),
        ({"SamplesPerPixel": 3}, "a colour image"),
        ({"NumberOfFrames": 4}, "multi-frame"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, r"no CT images \(Modality: MR\)"),
        ({"RescaleSlope": None}, "RescaleSlope or RescaleIntercept is missing"),
        ({"RescaleSlope": "0"}, "are invalid"),
        ({"PixelSpacing": ["0", "1"]}, "PixelSpacing must be two positive"),
    ],
)
def test_contradicting_headers(tmp_path: Path, write_ct: Writer, tags: dict, words: str) -> None:
    path = write_ct(tmp_path / "a.dcm", stored(), **tags)
    started = time.perf_counter()
    with pytest.raises(InputError, match=rf"a\.dcm: .*{words}") as caught:
        open_ct(path)
    assert time.perf_counter() - started < 1
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_slices_without_positions(tmp_path: Path, write_ct: Writer) -> None:
    one = write_ct(tmp_path / "a.dcm", stored(), ImagePositionPatient=None)
    assert open_ct(one).positions_mm is None
    write_ct(tmp_path / "b.dcm", stored())
    with pytest.raises(InputError, match=r"a\.dcm: slices cannot be sorted without ImagePositionPatient"):
        open_ct(tmp_path)


def test_not_dicom(tmp_path: Path, write_ct: Writer) -> None:
    good = write_ct(tmp_path / "a.dcm", stored())
    (tmp_path / "b.dcm").write_bytes(good.read_bytes()[132:])
    with pytest.raises(InputError, match=r"b\.dcm: not a DICOM file \(no 'DICM' at byte 128\)"):
        open_ct(tmp_path)
    with pytest.raises(InputError, match=r"b\.dcm: not a file that can be read here; .*no 'DICM' at byte 128"):
        open_ct(tmp_path / "b.dcm")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "1.IMA").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"1\.IMA and 0 more are named like DICOM but none has 'DICM'"):
        open_ct(tmp_path / "only")
    with pytest.raises(InputError, match="no such file"):
        open_ct(tmp_path / "c")
    with pytest.raises(InputError, match="has no option part"):
        open_ct(good, part="test")
    assert is_known(READERS, good)
    assert not is_known(READERS, tmp_path / "b.dcm")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.99", "1.2.3", "SECRET"])
def test_bad_transfer_syntax(tmp_path: Path, write_ct: Writer, syntax: str) -> None:
    path = write_ct(tmp_path / "a.dcm", stored())
    content = path.read_bytes()
    known = b"1.2.840.10008.1.2.1\0"
    path.write_bytes(content.replace(known, syntax.encode().ljust(len(known), b"\0")))
    with pytest.raises(InputError, match=r"a\.dcm: .* is not a DICOM transfer syntax"):
        open_ct(path)


def test_compressed_pixels_that_are_not(tmp_path: Path, write_ct: Writer) -> None:
    path = write_ct(tmp_path / "a.dcm", stored())
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0\0", b"1.2.840.10008.1.2.5\0\0")
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    with pytest.raises(InputError, match=r"a\.dcm: "):
        open_ct(path)[0]


def test_compression_bomb(tmp_path: Path, write_ct: Writer) -> None:
    write_ct(tmp_path / "a.dcm", stored())
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(pydicom.uid.RLELossless)
    dataset.Rows = dataset.Columns = 60000
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"60000 x 60000 pixels in .* refused as a bomb"):
        open_ct(tmp_path / "a.dcm")


def test_truncated_anywhere(tmp_path: Path, write_ct: Writer) -> None:
    path = write_ct(tmp_path / "a.dcm", stored())
    content = path.read_bytes()
    for length in [*range(0, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"a\.dcm: ") as caught:
            open_ct(path)[0]
        assert "SECRET" not in str(caught.value)


def test_random_damage_gives_an_image_or_a_clear_error(tmp_path: Path, write_ct: Writer) -> None:
    path = write_ct(tmp_path / "a.dcm", stored())
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(132, len(content) - 240, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert np.isfinite(open_ct(path)[0]).all()
        except InputError as error:
            refused += 1
            assert "SECRET" not in str(error)
    assert refused > 50


def test_patient_is_in_no_message_no_log_and_no_repr(
    tmp_path: Path, write_ct: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Values that pydicom warns about by quoting them."""
    path = write_ct(tmp_path / "a.dcm", stored())
    content = path.read_bytes().replace(b"SECRET-ID ", b"SECRET\x01ID ").replace(b"1.2.3.4.2\0", b"SECRET.x2\0")
    path.write_bytes(content)
    with caplog.at_level(logging.DEBUG):
        found = open_ct(path)
        found[0]
    assert "SECRET" not in caplog.text + repr(found)


def test_without_pydicom(tmp_path: Path, write_ct: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ct(tmp_path / "a.dcm", stored())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ReconError, match=r"pip install 'diffrecon\[dicom\]'"):
        open_ct(path)


REAL = {
    "cornerstone_CTImage": (0.675781, 4.7, 1378),
    "dcmqi_01": (0.810547, -126.690002, 1381),
    "dcmqi_02": (0.810547, -127.690002, 1340),
    "dcmqi_03": (0.810547, -128.690002, 1366),
    "fodicom_GH1308": (0.253906, -165.982116, 1376),
    "fodicom_cspine": (0.291015625, -249.65, 1456),
    "fodicom_ct": (0.675781, -107.799995, 1225),
    "pydicomdata_bad_sequence_neck": (0.287109375, 1687.5, 1243),
    "pydicomdata_explicit_VR-UN_pancreas0001": (0.859375, 121.0, 1186),
}


@pytest.mark.parametrize("name", REAL)
def test_real_slices(realdata: Path, name: str) -> None:
    found = open_ct(realdata / "ct_dicom" / "slices" / f"{name}.dcm")
    assert isinstance(found, CTImages)
    spacing, position, largest = REAL[name]
    image = found[0]
    assert image.shape == (512, 512)
    assert found.pixel_spacing_mm == pytest.approx((spacing, spacing))
    assert found.positions_mm == pytest.approx([position], abs=1e-4)
    assert -1024 <= image.min() < -900
    assert image.max() == largest
    # Soft tissue between fat and muscle is a good part of every slice: the scale is HU.
    assert ((image > -150) & (image < 150)).mean() > 0.1


def test_real_series(realdata: Path) -> None:
    found = open_ct(realdata / "ct_dicom" / "ge_head")
    assert (len(found), found.shape, found.format) == (28, (512, 512), "dicom")
    assert found.positions_mm is not None
    assert (np.diff(found.positions_mm) > 0.5).all()
    assert found.positions_mm[-1] - found.positions_mm[0] == pytest.approx(144.09, abs=0.01)
    image = found[10]
    assert image.min() == -1024  # the padding is -1500
    assert np.median(image[200:300, 200:300]) == pytest.approx(30, abs=25)  # brain


def test_mixed_folder_of_real_slices(realdata: Path) -> None:
    with pytest.raises(InputError, match="several series; choose with"):
        open_ct(realdata / "ct_dicom" / "slices")


def test_binary_numbers_that_look_like_text(tmp_path: Path) -> None:
    from recon.files.dicom import numbers

    header = pydicom.Dataset()
    for value, count, expected in [
        (struct.pack("<H", 50), 1, [50]),
        (b"64", 1, [64]),
        (b"2 ", 1, [2]),
        (struct.pack("<f", 2816.0), 1, [2816]),
        (struct.pack("<f", 0.0), 1, [0]),
        (struct.pack("<d", 595.5), 1, [595.5]),
        (struct.pack("<2f", 369.5, 32.5), 2, [369.5, 32.5]),
        (b"369.625\\32.5", 2, [369.625, 32.5]),
    ]:
        header.add_new(0x70311033, "UN", value)
        found = numbers(header, 0x70311033, tmp_path, count)
        assert found is not None
        assert found.tolist() == expected
    header.add_new(0x70311033, "UN", b"abc")
    with pytest.raises(InputError, match=r"expected numbers in \(7031,1033\)"):
        numbers(header, 0x70311033, tmp_path)
