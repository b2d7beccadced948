"""Results of raw data with a position as DICOM series: read back, and compared with the NIfTI of the same result."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

import recon
from recon.cli import main
from recon.errors import InputError, StorageError
from recon.modalities.mri.files.dicom_write import write_dicom
from recon.posterior import Posterior

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

ROWS, COLUMNS, SLICES = 16, 12, 3
HEADER = f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>{2 * ROWS}</x><y>{COLUMNS}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{4 * ROWS}</x><y>{3 * COLUMNS}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{ROWS}</x><y>{COLUMNS}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{2 * ROWS}</x><y>{3 * COLUMNS}</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>cartesian</trajectory><encodingLimits></encodingLimits></encoding></ismrmrdHeader>"""
FLAGS = ["--prior", "gaussian", "--samples", "3", "--steps", "2", "--device", "cpu", "--no-report", "--no-holdout"]
FAST = {"prior": "gaussian", "samples": 2, "steps": 2, "device": "cpu", "holdout": False, "progress": False}


def written(path: Path, *, position: bool = True, slices: int = SLICES, last: float = 0.0) -> Path:
    """Oblique slices, 6 mm apart, the last one further by `last`; the readout is oversampled two-fold."""
    axes = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    rng = np.random.default_rng(0)
    data = ismrmrd.Dataset(str(path), create_if_needed=True)
    data.write_xml_header(HEADER.encode())
    for number in range(slices):
        for line in range(COLUMNS):
            samples = rng.normal(size=(2, 2 * ROWS)) + 1j * rng.normal(size=(2, 2 * ROWS))
            one = ismrmrd.Acquisition.from_array(samples.astype(np.complex64))
            one.center_sample, one.idx.kspace_encode_step_1, one.idx.slice = ROWS, line, number
            if position:
                one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = axes
                one.position[:] = (
                    np.array([10.0, -20.0, 30.0]) + (6.0 * number + last * (number == slices - 1)) * axes[2]
                )
            data.append_acquisition(one)
    data.close()
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return written(tmp_path / "scan.h5")


def place(image: object, column: int, row: int) -> np.ndarray:
    """Where the middle of a pixel is in the frame of NIfTI (DICOM PS3.3, C.7.6.2.1.1)."""
    along_row, along_column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    dy, dx = map(float, image.PixelSpacing)
    found = np.array(image.ImagePositionPatient, float) + column * dx * along_row + row * dy * along_column
    return found * [-1, -1, 1]


def series(folder: Path, name: str) -> list[object]:
    return [pydicom.dcmread(path) for path in sorted((folder / name).glob("*.dcm"))]


@pytest.mark.slow
def test_position_and_values_are_those_of_the_nifti(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["run", str(scan), "-o", str(out), *FLAGS, "--nifti"]) == 0
    assert not (out / "scan_dicom").exists()
    result = (out / "scan.h5").stat().st_mtime_ns
    assert main(["run", str(scan), "-o", str(out), *FLAGS, "--nifti", "--dicom"]) == 0
    assert (out / "scan.h5").stat().st_mtime_ns == result, "the result was there"
    for name in ("mean", "std"):
        volume = nibabel.load(out / f"scan_{name}.nii.gz")
        images = series(out / "scan_dicom", name)
        assert len(images) == SLICES
        for number, image in enumerate(images):
            for column, row in ((0, 0), (COLUMNS - 1, 0), (5, ROWS - 1)):
                expected = (volume.affine @ [column, row, number, 1])[:3]
                np.testing.assert_allclose(place(image, column, row), expected, atol=1e-4)
            assert [float(value) for value in image.PixelSpacing] == pytest.approx([2.0, 3.0])
            assert (float(image.SliceThickness), float(image.SpacingBetweenSlices)) == pytest.approx((5.0, 6.0))
            slope = float(image.RescaleSlope)
            values = image.pixel_array * slope + float(image.RescaleIntercept)
            np.testing.assert_allclose(values, volume.get_fdata()[..., number].T, atol=0.501 * slope)
    assert max(int(image.pixel_array.max()) for image in images) == 32767, "all of the 16 bits are used"


@pytest.mark.filterwarnings("ignore:the slices are not evenly spaced")
def test_slices_that_are_not_evenly_spaced_have_a_position_each(tmp_path: Path) -> None:
    scan = written(tmp_path / "scan.h5", last=5.0)
    affines = recon.open(scan).affine
    recon.reconstruct_many([scan], tmp_path / "out", dicom=True, **FAST)
    images = series(tmp_path / "out" / "scan_dicom", "mean")
    for image, affine in zip(images, affines, strict=True):
        np.testing.assert_allclose(place(image, 3, 4), (affine @ [3, 4, 0, 1])[:3], atol=1e-4)
    steps = np.diff([place(image, 0, 0) for image in images], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), [6.0, 11.0], atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of noise as data
@pytest.mark.slow
def test_a_series_that_cannot_be_written_leaves_the_earlier_one(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior = recon.reconstruct(scan, **FAST)
    write_dicom(posterior, tmp_path / "series")
    before = {path: path.read_bytes() for path in (tmp_path / "series").rglob("*.dcm")}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("recon.files.dicom_series._put_pixels", full)
    with pytest.raises(StorageError):
        write_dicom(posterior, tmp_path / "series")
    assert {path: path.read_bytes() for path in (tmp_path / "series").rglob("*.dcm")} == before


@pytest.mark.slow
def test_headers(scan: Path, tmp_path: Path) -> None:
    outcomes = recon.reconstruct_many([scan], tmp_path / "out", dicom=True, **FAST)
    assert not outcomes[0].reasons
    images = series(tmp_path / "out" / "scan_dicom", "mean") + series(tmp_path / "out" / "scan_dicom", "std")
    assert len({image.SOPInstanceUID for image in images}) == 2 * SLICES
    assert len({image.SeriesInstanceUID for image in images}) == 2
    assert len({(image.StudyInstanceUID, image.FrameOfReferenceUID) for image in images}) == 1
    for image in images:
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == pydicom.uid.MRImageStorage
        assert image.Modality == "MR" and list(image.ImageType)[:3] == ["DERIVED", "SECONDARY", "OTHER"]
        assert image.PatientIdentityRemoved == "YES"
        assert not any((image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex))
        assert "research use only" in image.DerivationDescription and "derived" in image.SeriesDescription
        (made,) = image.ContributingEquipmentSequence
        assert (made.Manufacturer, made.SoftwareVersions) == ("diffrecon", recon.__version__)
        assert made.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert {len(str(value)) <= 16 for value in image.ImageOrientationPatient} == {True}


@pytest.mark.slow
def test_slices_that_are_not_evenly_chosen_keep_their_places(tmp_path: Path) -> None:
    source = recon.open(written(tmp_path / "scan.h5", slices=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no image
        posterior = recon.reconstruct(source, slices=[0, 1, 3], **FAST)
    posterior.export("dicom", tmp_path / "series", source)
    places = [place(image, 0, 0) for image in series(tmp_path / "series", "mean")]
    expected = [(source.affine @ [0, 0, number, 1])[:3] for number in (0, 1, 3)]
    np.testing.assert_allclose(places, expected, atol=1e-4)


def test_a_mask_along_the_readout_keeps_the_oversampling_and_the_place(scan: Path, tmp_path: Path) -> None:
    """The middle of the first image is where the header says, whether the outer field of view is cropped or not."""
    mask = np.random.default_rng(1).random((2 * ROWS, COLUMNS)) < 0.7
    mask[ROWS - 6 : ROWS + 6] = True
    for name, options, rows in (("cropped", {}, ROWS), ("whole", {"mask": mask}, 2 * ROWS)):
        (found,) = recon.reconstruct_many([scan], tmp_path / name, dicom=True, nifti=True, slices=0, **FAST, **options)
        image = series(tmp_path / name / "scan_dicom", "mean")[0]
        assert (image.Rows, found.reasons) == (rows, ())
        np.testing.assert_allclose(place(image, COLUMNS // 2, rows // 2), [-10.0, 20.0, 30.0], atol=1e-4)
        affine = nibabel.load(tmp_path / name / "scan_mean.nii.gz").affine
        np.testing.assert_allclose((affine @ [COLUMNS // 2, rows // 2, 0, 1])[:3], [-10.0, 20.0, 30.0], atol=1e-4)


def test_a_slice_without_a_result_is_left_out(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    samples = np.ones((2, 3, 4, 4), np.complex64)
    samples[:, 1] = np.nan
    geometry = {"affine": affine.tolist(), "voxel_size_mm": (5.0, 2.0, 2.0)}
    diagnostics = {"slice_valid": np.array([True, False, True])}
    posterior = Posterior(samples, geometry, {"slices": [0, 1, 2]}, diagnostics)
    write_dicom(posterior, tmp_path / "series")
    found = series(tmp_path / "series", "mean")
    assert [float(image.ImagePositionPatient[2]) for image in found] == [0.0, 10.0]
    assert float(found[0].pixel_array[0, 0] * found[0].RescaleSlope) == pytest.approx(1.0)
    write_dicom(posterior, tmp_path / "series")  # replaces what an earlier run wrote
    assert len(series(tmp_path / "series", "std")) == 2


@pytest.mark.parametrize("kind", ["positionless", "npy"])
def test_without_a_position_it_is_refused_before_anything_is_computed(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "npy":
        path = tmp_path / "scan.npy"
        np.save(path, np.ones((1, 2, 16, 16), np.complex64))
    else:
        path = written(tmp_path / "scan.h5", position=False)
    assert main(["run", str(path), "-o", str(tmp_path / "out"), *FLAGS, "--dicom"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"recon: error: {path}: DICOM series need the position and direction")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="DICOM series need the position"):
        Posterior(np.ones((2, 4, 4), np.complex64)).export("dicom", tmp_path / "series")
