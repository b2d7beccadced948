"""Derived DICOM series: geometry of the source, new identities, all or nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recon.cli import main
from recon.errors import InputError, ShapeError, StorageError
from recon.modalities.ct.data import CTImages
from recon.modalities.ct.files.dicom_write import write_dicom
from recon.modalities.ct.files.readers import open_ct

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def source(tmp_path: Path, write_ct: Callable[..., Path]) -> CTImages:
    (tmp_path / "source").mkdir()
    for k, z in enumerate([6.0, 0.0, 3.0]):
        private = np.random.default_rng(k).integers(0, 3000, (9, 7)).astype(np.uint16)
        tags = {"PixelPaddingValue": 63536, "InstanceNumber": k, "LossyImageCompression": "01"}
        write_ct(tmp_path / "source" / f"{k}.IMA", private, z, **tags)
    found = open_ct(tmp_path / "source")
    assert isinstance(found, CTImages)
    return found


def test_series_that_can_be_read_back(source: CTImages, tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(-1024, 3000, (3, 9, 7))
    std = np.random.default_rng(1).uniform(0, 40, (3, 9, 7))
    written = write_dicom(tmp_path / "out", source, {"mean": mean, "std": std}, note="8 samples.")
    assert [path.relative_to(tmp_path).as_posix() for path in written[:3]] == [
        f"out/mean/mean_000{k}.dcm" for k in (1, 2, 3)
    ]
    for name, expected in (("mean", mean), ("std", std)):
        found = open_ct(tmp_path / "out" / name)
        assert isinstance(found, CTImages)
        np.testing.assert_allclose(np.stack(list(found)), expected, atol=0.0501)
        np.testing.assert_allclose(found.positions_mm, source.positions_mm)
        assert (found.pixel_spacing_mm, found.scanner) == (source.pixel_spacing_mm, source.scanner)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_headers(source: CTImages, tmp_path: Path) -> None:
    written = write_dicom(tmp_path / "out", source, {"mean": np.zeros((3, 9, 7)), "std": np.ones((3, 9, 7))})
    datasets, originals = [pydicom.dcmread(path) for path in written], [pydicom.dcmread(path) for path in source.files]
    assert len({dataset.SOPInstanceUID for dataset in datasets} | {one.SOPInstanceUID for one in originals}) == 9
    assert len({dataset.SeriesInstanceUID for dataset in datasets} | {one.SeriesInstanceUID for one in originals}) == 3
    for dataset, original in zip(datasets, originals * 2, strict=True):
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert "derived, research use" in dataset.SeriesDescription
        assert "research use only" in dataset.DerivationDescription
        assert dataset.ContributingEquipmentSequence[-1].Manufacturer == "diffrecon"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation) == (16, 16, 1)
        assert "PixelPaddingValue" not in dataset
        assert dataset.LossyImageCompression == "01"  # once lossy, always lossy
        for name in (
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"),
            *("StudyInstanceUID", "PatientID", "Rows", "Columns", "SliceThickness"),
        ):
            assert dataset[name].value == original[name].value


def test_some_slices_and_large_values(source: CTImages, tmp_path: Path) -> None:
    image = np.full((9, 7), 9000.0)
    written = write_dicom(tmp_path / "out", source, {"mean": image}, slices=[1])
    found = open_ct(written[0])
    assert isinstance(found, CTImages)
    np.testing.assert_array_equal(found[0], image)
    assert found.positions_mm == pytest.approx([3.0])


def test_a_full_disk_leaves_no_folder(source: CTImages, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    images = {"mean": np.zeros((3, 9, 7)), "std": np.ones((3, 9, 7))}
    largest = max(path.stat().st_size for path in write_dicom(tmp_path / "whole", source, images))
    present = set(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 100, largest // 2, largest - 16):  # the length of random UIDs varies
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(StorageError, match=r"/out: cannot be written \(File too large\)$"):
                write_dicom(tmp_path / "out", source, images)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(tmp_path.iterdir()) == present


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ({"mean": np.zeros((2, 9, 7))}, ShapeError, r"mean: expected real images \(3, 9, 7\)"),
        ({"mean": np.zeros((3, 9, 7), complex)}, ShapeError, "expected real images"),
        ({"mean": np.full((3, 9, 7), np.nan)}, InputError, "holds NaN"),
        ({"ok": np.zeros((3, 9, 7)), "mean": np.full((3, 9, 7), 1e7)}, InputError, "do not fit; expected HU"),
        ({"../mean": np.zeros((3, 9, 7))}, InputError, "plain names"),
        ({}, InputError, "plain names"),
    ],
)
def test_nothing_is_left_of_a_failure(source: CTImages, tmp_path: Path, maps: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        write_dicom(tmp_path / "out", source, maps)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_existing_folders_and_other_sources(source: CTImages, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="already exists"):
        write_dicom(tmp_path / "out", source, {"mean": np.zeros((3, 9, 7))})
    np.save(tmp_path / "out" / "1.npy", np.ones((4, 4)))
    other = open_ct(tmp_path / "out")
    assert isinstance(other, CTImages)
    with pytest.raises(InputError, match="needs DICOM images as its source, got npy-folder"):
        write_dicom(tmp_path / "new", other, {"mean": np.zeros((1, 4, 4))})
    with pytest.raises(InputError, match="slices must be between 0 and 2"):
        write_dicom(tmp_path / "new", source, {"mean": np.zeros((1, 9, 7))}, slices=[5])


def test_the_option_is_refused_for_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "1.npy", np.ones((16, 16)))
    words = ["--views", "8", "--prior", "gaussian", "--device", "cpu", "--dicom", "--no-report"]
    assert main(["run", str(tmp_path / "images"), "-o", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("images: derived DICOM needs DICOM images as its source, got npy-folder")
    assert not (tmp_path / "out").exists()


def test_real_series(realdata: Path, tmp_path: Path) -> None:
    source = open_ct(realdata / "ct_dicom" / "ge_head")
    assert isinstance(source, CTImages)
    chosen = [4, 5]
    images = np.stack([source[i] for i in chosen])
    write_dicom(tmp_path / "out", source, {"mean": images}, slices=chosen)
    found = open_ct(tmp_path / "out" / "mean")
    assert isinstance(found, CTImages)
    np.testing.assert_allclose(np.stack(list(found)), images, atol=0.01)
    assert found.positions_mm == pytest.approx(source.positions_mm[chosen])
