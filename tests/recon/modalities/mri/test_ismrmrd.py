"""The ISMRMRD reader on files written with the package `ismrmrd`."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
import torch

import recon
from operators import fftc
from recon.affines import UNEVEN
from recon.errors import InputError
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.describe import inspect, lines
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.mri.options import MRI
from recon.modalities.mri.source import KspaceSource

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <acquisitionSystemInformation>{system}</acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>{rz}</z></matrixSize>
      <fieldOfView_mm><x>{rfx}</x><y>{rfy}</y><z>{rfz}</z></fieldOfView_mm></reconSpace>
    <trajectory>{trajectory}</trajectory>
    <encodingLimits>{limits}</encodingLimits>
    <parallelImaging><accelerationFactor><kspace_encoding_step_1>1</kspace_encoding_step_1>
      <kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
      <calibrationMode>{calibration}</calibrationMode></parallelImaging>
  </encoding>
</ismrmrdHeader>"""
LIMIT = "<{0}><minimum>0</minimum><maximum>{1}</maximum><center>{2}</center></{0}>"
COILS, X, Y = 3, 32, 20


def header(**fields: object) -> str:
    """A header of readout oversampled two-fold (x), phase (y) and, with z > 1, a second phase encoding."""
    values = {"x": X, "y": Y, "z": 1, "rx": X // 2, "ry": Y, "rz": 1, "trajectory": "cartesian"}
    values |= {"calibration": "embedded", "system": "", "limits": ""} | fields
    values = {"fx": 4.0 * values["rx"], "fy": 2.0 * values["y"], "fz": 7.5, "rfz": 5.0} | values
    values = {"rfx": 2.0 * values["rx"], "rfy": values["fy"]} | values
    return HEADER.format(**values)


def limits(center: int, maximum: int, step: int = 1) -> str:
    return LIMIT.format(f"kspace_encoding_step_{step}", maximum, center)


class Writer:
    """Writes acquisitions as a converter of scanner data does."""

    def __init__(self, path: Path) -> None:
        self.path, self.xml, self.acquisitions = path, header(), []

    def put(self, samples: np.ndarray, line: int = 0, flags: Sequence[int] = (), **fields: object) -> None:
        one = ismrmrd.Acquisition.from_array(np.asarray(samples, np.complex64))
        one.center_sample, one.sample_time_us = samples.shape[1] // 2, 5.0
        one.idx.kspace_encode_step_1 = line
        for name, value in fields.items():
            if hasattr(one.idx, name):
                setattr(one.idx, name, value)
            elif name in ("position", "read_dir", "phase_dir", "slice_dir"):
                getattr(one, name)[:] = value
            else:
                setattr(one, name, value)
        for flag in flags:
            one.setFlag(flag)
        self.acquisitions.append(one)

    def image(self, kspace: np.ndarray, lines: Sequence[int] | None = None, **fields: object) -> None:
        """Put lines of k-space `(coil, readout, phase)`, numbered like the columns."""
        for line in range(kspace.shape[2]) if lines is None else lines:
            self.put(kspace[:, :, line], line, **fields)

    def write(self) -> None:
        data = ismrmrd.Dataset(str(self.path), create_if_needed=True)
        data.write_xml_header(self.xml.encode())
        for one in self.acquisitions:
            data.append_acquisition(one)
        data.close()

    def open(self) -> KspaceScan:
        self.write()
        return open_kspace(self.path)


@pytest.fixture
def scan(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "scan.h5")


def complex_noise(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)).astype(np.complex64)


def refused(words: str) -> AbstractContextManager[pytest.ExceptionInfo[InputError]]:
    return pytest.raises(InputError, match=words)


def test_one_image(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace)
    found = scan.open()
    assert (found.format, found.shape, len(found), found.names) == ("ismrmrd", (COILS, X, Y), 1, None)
    assert (found.recon_shape, found.readout_axis, found.readout_oversampling) == ((X // 2, Y), -2, 2.0)
    assert found.voxel_size_mm == (5.0, 2.0, 2.0)
    assert (found.noise_covariance, found.affine, found.acquired) == (None, None, None)
    assert found.mask is not None and found.mask.shape == (1, Y) and found.mask.all()
    np.testing.assert_array_equal(found[0], kspace)


def test_partial_fourier_has_its_centre_in_the_middle(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    for line in range(14):  # lines 6 to 19 of the matrix: line 4 of the numbering is the centre, column 10
        scan.put(kspace[:, :, 6 + line], line)
    scan.xml = header(limits=limits(4, 13))
    found = scan.open()
    np.testing.assert_array_equal(found[0][:, :, 6:], kspace[:, :, 6:])
    assert not found[0][:, :, :6].any()
    assert found.mask is not None and np.array_equal(found.mask[0], np.arange(Y) >= 6)
    assert found.acquired is None  # what partial Fourier leaves out is not padding, it is part of the image


def test_padding_on_both_sides_was_never_encoded(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    for line in range(14):
        scan.put(kspace[:, :, 3 + line], line)
    scan.xml = header(limits=limits(7, 13))
    assert scan.open().acquired == (3, 17)


def test_calibration_lines_are_lines_of_the_same_kspace(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace, range(0, Y, 2))
    scan.image(kspace, range(7, 13, 2), flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    scan.image(kspace, [9], flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA])
    sampled = [line % 2 == 0 or 7 <= line < 13 for line in range(Y)]
    found = scan.open()
    assert found.mask is not None and np.array_equal(found.mask[0], sampled)
    np.testing.assert_array_equal(found[0], kspace * np.array(sampled))
    assert found.attributes["left out, navigator"] == "1 acquisition(s)"


@pytest.mark.parametrize("also", [(), (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)])
def test_calibration_and_imaging_lines_are_both(scan: Writer, also: tuple[int, ...]) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace, range(0, Y, 2))
    scan.image(kspace, range(1, Y, 2), flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING, *also])
    scan.xml = header(calibration="separate")
    np.testing.assert_array_equal(scan.open()[0], kspace)


def test_a_separate_calibration_scan_is_kept_apart(scan: Writer) -> None:
    kspace, other = complex_noise(2, COILS, X, Y), complex_noise(2, COILS, X, Y, seed=1)
    for k in range(2):
        scan.image(kspace[k], range(0, Y, 2), slice=k)
        scan.image(other[k], range(8, 12), slice=k, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    scan.xml = header(calibration="separate")
    found = scan.open()
    for k in range(2):
        np.testing.assert_array_equal(found[k], kspace[k] * (np.arange(Y) % 2 == 0))
        within = (np.arange(Y) >= 8) & (np.arange(Y) < 12)
        np.testing.assert_array_equal(found.calibration(k), other[k] * within)
    assert found.attributes["calibration scan"] == "used for the coil maps"
    assert not any("left out" in name for name in found.attributes)


def test_a_calibration_scan_of_one_slice_is_that_of_no_other(scan: Writer) -> None:
    kspace = complex_noise(2, COILS, X, Y)
    for k in range(2):
        scan.image(kspace[k], range(0, Y, 2), slice=k)
    scan.image(kspace[1], range(8, 12), slice=1, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    scan.xml = header(calibration="external")
    found = scan.open()
    assert found.calibration(0) is None and found.calibration(1) is not None


def test_a_calibration_scan_with_other_coils_is_left_out(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace, range(0, Y, 2))
    scan.image(kspace[:2], range(8, 12), flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    scan.xml = header(calibration="separate")
    found = scan.open()
    assert found.calibration(0) is None
    assert found.attributes["left out, calibration (separate scan)"] == "4 acquisition(s)"


def test_the_calibration_scan_gives_the_coil_maps(scan: Writer) -> None:
    """Lines of another intensity that the images lack; both are oversampled two-fold along the readout."""
    y, x = np.meshgrid(np.linspace(-1, 1, X), np.linspace(-1, 1, Y), indexing="ij")
    image = (((2 * y) ** 2 + x**2 < 0.5) * (1 + 0.3 * np.sin(9 * x))).astype(np.complex64)
    turns = 2 * np.pi * np.arange(COILS) / COILS
    maps = np.stack([np.exp(-((2 * y - np.sin(t)) ** 2 + (x - np.cos(t)) ** 2) / 3 + 1j * t * x) for t in turns])
    kspace = fftc(torch.as_tensor((maps * image).astype(np.complex64))).numpy()
    kspace = kspace + 0.01 * complex_noise(COILS, X, Y)
    scan.image(kspace, range(0, Y, 2))
    scan.image(3 * kspace, range(4, 16), flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
    scan.xml = header(calibration="separate")
    source = KspaceSource(scan.open(), MRI())
    ready = source.prepare(0, "cpu")
    assert ready.diagnostics["maps_from"].endswith("separate calibration scan")
    assert ready.problem.operator.domain.shape == (X // 2, Y)
    inside = np.abs(image[X // 4 : -X // 4]) > 0
    found, true = (
        ready.whitening.coloured_maps(ready.coil_maps).numpy()[..., inside],
        maps[:, X // 4 : -X // 4][:, inside],
    )
    # Maps are known up to a factor for each pixel.
    match = np.abs((found.conj() * true).sum(0)) / (np.linalg.norm(found, axis=0) * np.linalg.norm(true, axis=0))
    assert np.median(match) > 0.98
    given = KspaceSource(scan.path, MRI(coil_maps=np.ascontiguousarray(maps[:, X // 4 : -X // 4]).astype(np.complex64)))
    assert given.prepare(0, "cpu").diagnostics.get("maps_from") is None


def test_slices_contrasts_and_repetitions_have_names(scan: Writer) -> None:
    kspace = complex_noise(2, 2, 2, COILS, X, Y)
    for repetition in range(2):
        for contrast in range(2):
            for number in range(2):
                one = kspace[number, contrast, repetition]
                scan.image(one, range(contrast, Y), slice=number, contrast=contrast, repetition=repetition)
    found = scan.open()
    assert len(found) == 8 and found.mask is None  # the contrasts differ in their lines
    assert found.names is not None and found.names[5] == "slice 1, contrast 0, repetition 1"
    np.testing.assert_array_equal(found[5], kspace[1, 0, 1])
    assert not found[7][:, :, 0].any()
    assert any("1 = slice 0, contrast 0, repetition 1" in line for line in lines(found))
    assert "slice 5 (slice 1, contrast 0, repetition 1): fully sampled" in inspect(found).facts[5]


def test_slice_numbers_alone_need_no_names(scan: Writer) -> None:
    for number in range(3):
        scan.image(complex_noise(COILS, X, Y), slice=number)
    assert scan.open().names is None


def test_repeated_lines_are_averaged(scan: Writer) -> None:
    kspace = complex_noise(3, COILS, X, Y)
    for average, one in enumerate(kspace):
        scan.image(one, average=average)
    found = scan.open()
    np.testing.assert_allclose(found[0], kspace.mean(0), atol=1e-6)
    assert found.attributes["averages"] == 3


def test_lines_read_out_backwards(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace, range(0, Y, 2))
    scan.image(kspace[:, ::-1], range(1, Y, 2), flags=[ismrmrd.ACQ_IS_REVERSE])
    np.testing.assert_array_equal(scan.open()[0], kspace)


def test_samples_to_discard(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    padded = np.pad(kspace, ((0, 0), (3, 2), (0, 0)), constant_values=100)
    scan.image(padded, discard_pre=3, discard_post=2, center_sample=3 + X // 2)
    np.testing.assert_array_equal(scan.open()[0], kspace)


def smooth(n: int, width: float) -> np.ndarray:
    """A blob that fits into the middle half of the field of view, as k-space by a written-out DFT."""
    r = np.arange(n) - n // 2
    return np.exp(-2j * np.pi * np.outer(r, r) / n) / np.sqrt(n) @ np.exp(-0.5 * ((r - 2) / width) ** 2)


def test_an_asymmetric_echo_lies_at_its_centre(scan: Writer) -> None:
    # Truth: the middle half of the field of view, transformed by a written-out DFT.
    kspace = np.ones((COILS, 1, Y)) * smooth(X, 2.5)[:, None]
    r = np.arange(X // 2) - X // 4
    blob = np.exp(-0.5 * ((r - 2) / 2.5) ** 2)
    truth = np.exp(-2j * np.pi * np.outer(r, r) * 2 / X) / np.sqrt(X / 2) @ blob
    scan.image(kspace[:, 10:], center_sample=X // 2 - 10)
    found = scan.open()
    assert (found.shape, found.readout_oversampling) == ((COILS, X // 2, Y), 1.0)
    measured = np.arange(X // 2) >= 5  # sample 10 of 32 is sample 5 of 16
    assert found.mask is not None and np.array_equal(found.mask, np.repeat(measured[:, None], Y, axis=1))
    np.testing.assert_allclose(found[0][0, :, 3], truth * measured, atol=0.02 * np.abs(truth).max())


def test_partitions_of_a_volume_are_slices(scan: Writer) -> None:
    # Truth: one partition only has signal.
    plane, z, position = complex_noise(COILS, X, Y), 8, 5
    wave = np.exp(-2j * np.pi * (np.arange(z) - z // 2) * (position - z // 2) / z) / np.sqrt(z)
    for partition in range(z):
        scan.image(plane * wave[partition], range(4, Y), kspace_encode_step_2=partition)
    scan.xml = header(z=z, rz=6, fz=16.0, rfz=12.0, limits=limits(Y // 2, Y - 1) + limits(z // 2, z - 1, 2))
    found = scan.open()
    assert (len(found), found.shape, found.voxel_size_mm) == (6, (COILS, X, Y), (2.0, 2.0, 2.0))
    assert found.names == tuple(f"partition {k}" for k in range(1, 7))  # of 8, the middle 6 are reconstructed
    np.testing.assert_allclose(found[position - 1], plane * (np.arange(Y) >= 4), atol=1e-6)


def test_an_undersampled_volume_is_divided_along_the_readout(scan: Writer) -> None:
    plane, z, position = complex_noise(COILS, Y, 8), 8, 13
    wave = np.exp(-2j * np.pi * (np.arange(X) - X // 2) * (position - X // 2) / X) / np.sqrt(X)
    pattern = (np.arange(Y)[:, None] + np.arange(z)) % 2 == 0
    for line, partition in np.argwhere(pattern):
        samples = plane[:, line, partition][:, None] * wave
        scan.put(samples, int(line), kspace_encode_step_2=int(partition))
    scan.xml = header(z=z, rz=z, fz=16.0, rfz=16.0)
    found = scan.open()
    assert (len(found), found.shape, found.readout_axis) == (X // 2, (COILS, Y, z), None)
    assert found.voxel_size_mm == (2.0, 2.0, 2.0)
    assert found.mask is not None and np.array_equal(found.mask, pattern)
    np.testing.assert_allclose(found[position - X // 4], plane * pattern, atol=1e-6)


def covariance() -> np.ndarray:
    mix = np.eye(COILS) + 0.4 * complex_noise(COILS, COILS, seed=3)
    return mix @ mix.conj().T


def correlated(*shape: int, seed: int = 1) -> np.ndarray:
    return np.linalg.cholesky(covariance()) @ complex_noise(COILS, *shape, seed=seed)


@pytest.mark.parametrize(
    ("dwell", "system", "averages", "factor"),
    [
        (5.0, "", 1, 1.0),
        (10.0, "", 1, 2.0),  # half the bandwidth, half the noise power
        (5.0, "<relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>", 1, 1.25),
        (5.0, "", 2, 0.5),
        (0.0, "", 1, 1.0),  # unknown
    ],
)
def test_noise_scan(scan: Writer, dwell: float, system: str, averages: int, factor: float) -> None:
    for k in range(40):
        scan.put(correlated(256, seed=k), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], sample_time_us=dwell)
    for average in range(averages):
        scan.image(complex_noise(COILS, X, Y), average=average)
    scan.xml = header(system=system)
    found = scan.open()
    assert found.noise_covariance is not None and found.noise_covariance.shape == (1, COILS, COILS)
    np.testing.assert_allclose(found.noise_covariance[0], factor * covariance(), atol=0.05 * factor)


def test_short_noise_scan_is_not_used(scan: Writer) -> None:
    scan.put(correlated(4), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    scan.image(complex_noise(COILS, X, Y))
    found = scan.open()
    assert found.noise_covariance is None
    assert found.attributes["noise scan"] == "not used, 4 samples do not give a covariance of 3 coils"


def brain(scan: Writer, level: float) -> np.ndarray:
    """Write two contrasts of a phantom with correlated noise and a noise scan; return the image without noise."""
    y, x = np.mgrid[-1:1:64j, -1:1:40j]
    maps = np.stack(
        [np.exp(-(((y * 2 - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 2) + 1j * a) for a in (0.0, 2.1, 4.2)]
    )
    image = maps * (1.0 * (np.hypot(2 * y / 0.8, x / 0.6) < 1) + 0.5 * (np.hypot(2 * y - 0.2, x - 0.2) < 0.25))
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    scan.put(level * correlated(4096), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    for contrast in range(2):
        noisy = (1 + contrast) * kspace + level * correlated(64 * 40, seed=contrast).reshape(kspace.shape)
        scan.image(noisy, [k for k in range(40) if k % 2 == 0 or 12 <= k < 28], contrast=contrast)
    scan.xml = header(x=64, y=40, rx=32, ry=40)
    return np.sqrt((np.abs(image) ** 2).sum(0))[16:48]


@pytest.mark.slow
def test_noise_scan_reaches_the_reconstruction(scan: Writer) -> None:
    truth, level = brain(scan, 0.01), 0.01
    scan.open()
    source = KspaceSource(scan.path, MRI())
    facts = source.prepare(1, "cpu").diagnostics
    assert (facts["noise_from"], facts["name"]) == ("noise scan of the file", "slice 0, contrast 1")
    expected = level * np.sqrt(covariance().diagonal().real.mean())
    measured = source.prepare(1, "cpu").measured
    assert measured.noise.level * measured.unit == pytest.approx(expected, rel=0.05)
    given = KspaceSource(scan.path, MRI(noise_std=0.02)).prepare(0, "cpu").diagnostics
    assert given["noise_from"] == "given"
    assert KspaceSource(scan.path, MRI(coils=2)).prepare(0, "cpu").diagnostics["noise_from"] != "noise scan of the file"
    prior = recon.GaussianPrior(torch.zeros(32, 40, dtype=torch.complex64), std_map=torch.ones(32, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps
        posterior = recon.reconstruct(scan.path, prior, samples=2, steps=5, progress=False)
    assert posterior.mean.shape == (2, 32, 40)
    for contrast in range(2):
        error = np.abs(posterior.mean[contrast]) - (1 + contrast) * truth
        assert np.linalg.norm(error) < 0.1 * (1 + contrast) * np.linalg.norm(truth)
    assert posterior.provenance["measured"][1]["name"] == "slice 0, contrast 1"


def directions() -> dict[str, np.ndarray]:
    axes = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    return dict(zip(("read_dir", "phase_dir", "slice_dir"), axes, strict=True))


def test_affine_of_slices(scan: Writer) -> None:
    axes, middle = directions(), np.array([10.0, -20.0, 30.0])
    for number in range(3):
        position = middle + 6.0 * number * axes["slice_dir"]
        scan.image(complex_noise(COILS, X, Y), slice=number, position=position, **axes)
    affine = scan.open().affine
    assert affine is not None
    to_nifti = np.array([-1.0, -1.0, 1.0])
    # The centre of an image of X / 2 rows is pixel (Y / 2, X / 4); slice 2 is 12 mm further.
    third = middle + 12 * axes["slice_dir"]
    np.testing.assert_allclose((affine @ [Y // 2, X // 4, 2, 1])[:3], to_nifti * third, atol=1e-4)
    np.testing.assert_allclose(affine[:3, 0], to_nifti * 2.0 * axes["phase_dir"], atol=1e-5)
    np.testing.assert_allclose(affine[:3, 1], to_nifti * 2.0 * axes["read_dir"], atol=1e-5)
    geometry = KspaceSource(scan.path, MRI()).geometry
    np.testing.assert_allclose(geometry["affine"], affine)


@pytest.mark.parametrize("undersampled", [False, True])
def test_affine_of_volumes(scan: Writer, undersampled: bool) -> None:
    axes, middle, z = directions(), np.array([1.0, 2.0, 3.0]), 4
    for partition in range(z):
        for line in range(Y):
            if not undersampled or (line + partition) % 2 == 0:
                scan.put(complex_noise(COILS, X), line, kspace_encode_step_2=partition, position=middle, **axes)
    scan.xml = header(z=z, rz=2, fz=12.0, rfz=6.0)
    affine = scan.open().affine
    assert affine is not None
    # Partitions: the middle one of 4 is 2, number 1 of the 2 that are kept. Readout: the middle of X / 2 is X / 4.
    centre = [1, Y // 2, X // 4, 1] if undersampled else [Y // 2, X // 4, 1, 1]
    np.testing.assert_allclose((affine @ centre)[:3], np.array([-1, -1, 1]) * middle, atol=1e-4)
    names = ("slice_dir", "phase_dir", "read_dir") if undersampled else ("phase_dir", "read_dir", "slice_dir")
    size = {"slice_dir": 3.0, "phase_dir": 2.0, "read_dir": 2.0}
    for column, name in enumerate(names):
        np.testing.assert_allclose(affine[:3, column], np.array([-1, -1, 1]) * size[name] * axes[name], atol=1e-4)


@pytest.mark.parametrize("places", [(0.0, 6.0, 15.0), (0.0, 12.0, 6.0)], ids=["uneven", "interleaved"])
def test_slices_that_are_not_evenly_spaced_have_an_affine_each(scan: Writer, places: tuple[float, ...]) -> None:
    axes, middle = directions(), np.array([10.0, -20.0, 30.0])
    for number, place in enumerate(places):
        position = middle + place * axes["slice_dir"]
        scan.image(complex_noise(COILS, X, Y), slice=number, position=position, **axes)
    affines = scan.open().affine
    assert affines is not None and affines.shape == (3, 4, 4)
    to_nifti = np.array([-1.0, -1.0, 1.0])
    for affine, place in zip(affines, places, strict=True):
        centre = (affine @ [Y // 2, X // 4, 0, 1])[:3]
        np.testing.assert_allclose(centre, to_nifti * (middle + place * axes["slice_dir"]), atol=1e-4)
        np.testing.assert_allclose(affine[:3, 2], to_nifti * 5.0 * axes["slice_dir"], atol=1e-5)


def test_contrasts_and_turned_slices_have_an_affine_each(scan: Writer) -> None:
    axes = directions()
    turned = {**axes, "read_dir": axes["phase_dir"], "phase_dir": -axes["read_dir"]}
    for number, found in ((0, axes), (1, turned)):
        for contrast in range(2):
            scan.image(complex_noise(COILS, X, Y), contrast=contrast, slice=number, **found)
    affines = scan.open().affine
    assert affines is not None and affines.shape == (4, 4, 4)
    np.testing.assert_array_equal(affines[0], affines[1])
    np.testing.assert_allclose(affines[2][:3, 1], np.array([-1, -1, 1]) * 2.0 * turned["read_dir"], atol=1e-5)


@pytest.mark.slow
def test_a_note_says_that_slices_are_not_evenly_spaced(scan: Writer, tmp_path: Path) -> None:
    import nibabel

    axes, places = directions(), (0.0, 6.0, 15.0)
    for number, place in enumerate(places):
        scan.image(smooth_scan(), slice=number, position=place * axes["slice_dir"], **axes)
    affines = scan.open().affine
    options = {"prior": "gaussian", "samples": 1, "steps": 2, "device": "cpu", "progress": False}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        posterior = recon.reconstruct(scan.path, **options)
    assert sum("not evenly spaced" in str(one.message) for one in told) == 1
    assert posterior.provenance["notes"].count(UNEVEN) == 1 and UNEVEN not in posterior.verdict.reasons
    np.testing.assert_allclose(posterior.geometry["affines"], affines)
    posterior.save(tmp_path / "a.h5")
    (mean, *_) = recon.Posterior.load(tmp_path / "a.h5").to_nifti(tmp_path / "a.nii")
    affine = nibabel.load(mean).affine
    np.testing.assert_allclose(affine[:, [0, 1, 3]], affines[0][:, [0, 1, 3]], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, 2]), 7.5, rtol=1e-4)
    for chosen in (1, "0:2"):  # these are evenly spaced
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            part = recon.reconstruct(scan.path, slices=chosen, **options)
        assert "affines" not in part.geometry and not any("evenly" in str(one.message) for one in told)
        first = 1 if chosen == 1 else 0
        np.testing.assert_allclose(np.array(part.geometry["affine"])[:3, 3], affines[first][:3, 3], atol=1e-4)


def smooth_scan(columns: int = Y, fov_x: float = 1.0) -> np.ndarray:
    """A disc in the middle of a readout oversampled two-fold and a phase encoding oversampled by ``fov_x``."""
    y, x = np.mgrid[-2 : 2 : X * 1j, -fov_x : fov_x : columns * 1j]
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 4 + 1j * a) for a in (0.0, 2.1, 4.2)])
    image = maps * (np.hypot(y / 0.8, x / 0.6) < 1) * (1 + 0.5 * (np.hypot(y, x - 0.2) < 0.3))
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    return kspace + 0.003 * complex_noise(*kspace.shape, seed=columns)


@pytest.mark.parametrize("undersampled", [False, True])
@pytest.mark.slow
def test_oversampling_of_the_phase_encoding_is_cropped_from_the_images(scan: Writer, undersampled: bool) -> None:
    columns, axes, middle = 32, directions(), np.array([1.0, 2.0, 3.0])
    kspace = smooth_scan(columns, 1.6)
    lines = [k for k in range(columns) if not undersampled or k % 2 == 0 or 10 <= k < 22]
    scan.image(kspace, lines, position=middle, **axes)
    scan.xml = header(y=columns, ry=40, fy=64.0, rfy=40.0)  # the scanner interpolates to 40 columns of 1 mm
    found = scan.open()
    assert (found.shape, found.image_shape, found.voxel_size_mm) == ((COILS, X, columns), (X // 2, 20), (5.0, 2.0, 2.0))
    assert found.affine is not None
    np.testing.assert_allclose((found.affine @ [10, X // 4, 0, 1])[:3], np.array([-1, -1, 1]) * middle, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps
        posterior = recon.reconstruct(scan.path, "gaussian", samples=2, steps=10, device="cpu", progress=False)
    truth = np.sqrt(
        (
            np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))) ** 2
        ).sum(0)
    )
    truth = truth[X // 4 : 3 * X // 4, 6:26]
    assert posterior.samples.shape == (2, X // 2, 20) and posterior.std.shape == truth.shape
    assert np.linalg.norm(np.abs(posterior.mean) - truth) < 0.12 * np.linalg.norm(truth)
    assert posterior.images["zero_filled"].shape == truth.shape
    mask = posterior.images["mask"]  # that of k-space, of the whole encoded matrix
    assert mask.shape == (X // 2, columns) and mask[0].sum() == len(lines)
    assert ("reference" in posterior.images) == (not undersampled)
    if not undersampled:
        np.testing.assert_allclose(posterior.images["reference"], truth, rtol=1e-4, atol=1e-5)


def test_oversampling_of_both_phase_encodings_is_cropped(scan: Writer) -> None:
    z, middle, axes = 8, np.array([1.0, 2.0, 3.0]), directions()
    for line, partition in np.argwhere((np.arange(Y)[:, None] + np.arange(z)) % 2 == 0):
        samples = complex_noise(COILS, X, seed=int(line))
        scan.put(samples, int(line), kspace_encode_step_2=int(partition), position=middle, **axes)
    scan.xml = header(z=z, rz=6, fz=16.0, rfz=12.0, ry=16, rfy=32.0)
    found = scan.open()
    assert (found.shape, found.image_shape, found.recon_shape) == ((COILS, Y, z), (16, 6), (16, 6))
    assert found.affine is not None
    np.testing.assert_allclose((found.affine @ [3, 8, X // 4, 1])[:3], np.array([-1, -1, 1]) * middle, atol=1e-4)


def test_samples_that_are_no_lines_are_cropped_along_the_readout_too(scan: Writer) -> None:
    """A mask of points cannot be cropped along the readout before the reconstruction."""
    scan.image(smooth_scan(32, 1.6))
    scan.xml = header(y=32, ry=20, fy=64.0, rfy=40.0)
    scan.open()
    mask = np.random.default_rng(0).random((X, 32)) < 0.6
    mask[10:22, 10:22] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = recon.reconstruct(
            scan.path, "gaussian", samples=1, steps=2, device="cpu", progress=False, mask=mask
        )
    assert posterior.mean.shape == posterior.images["reference"].shape == (X // 2, 20)
    assert posterior.images["mask"].shape == (X, 32)


@pytest.mark.parametrize(
    ("dwell", "system", "averages", "factor"),
    [
        (5.0, "", 1, 1.0),
        (10.0, "", 1, 2.0),
        (2.5, "<relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>", 2, 0.3125),
        (0.0, "", 1, 1.0),  # unknown
    ],
)
def test_noise_scan_of_another_file(
    tmp_path: Path, scan: Writer, dwell: float, system: str, averages: int, factor: float
) -> None:
    noise = Writer(tmp_path / "noise.h5")
    for k in range(40):
        noise.put(0.01 * correlated(256, seed=k), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], sample_time_us=dwell)
    noise.xml = '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
    noise.xml += f"<acquisitionSystemInformation>{system}</acquisitionSystemInformation></ismrmrdHeader>"
    noise.write()
    for average in range(averages):
        scan.image(smooth_scan(), average=average)
    scan.open()
    ready = KspaceSource(scan.path, MRI(noise_scan=str(noise.path))).prepare(0, "cpu")
    found = ready.measured.noise.covariance * ready.measured.unit**2
    np.testing.assert_allclose(found, 1e-4 * factor * covariance(), atol=0.05e-4 * factor)
    assert ready.diagnostics["noise_from"] == "given"
    assert ("the dwell time" in str(ready.doubts)) == (dwell == 0)


def test_a_noise_scan_of_two_bandwidths(tmp_path: Path, scan: Writer) -> None:
    """Acquisitions of 10 and of 2.5 us, whose noise has four times the power; the lines of the image are of 5 us."""
    noise = Writer(tmp_path / "noise.h5")
    for k in range(40):
        level, dwell = ((0.01, 10.0), (0.02, 2.5))[k % 2]
        flags = [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]
        noise.put(level * correlated(256, seed=k), flags=flags, sample_time_us=dwell)
    noise.write()
    scan.image(smooth_scan())
    scan.open()
    measured = KspaceSource(scan.path, MRI(noise_scan=str(noise.path))).prepare(0, "cpu").measured
    found = measured.noise.covariance * measured.unit**2
    np.testing.assert_allclose(found, 2e-4 * covariance(), atol=0.1e-4)


def test_a_noise_scan_for_data_without_dwell_time_is_noted(tmp_path: Path) -> None:
    noise = Writer(tmp_path / "noise.h5")
    noise.put(0.01 * correlated(4096), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], sample_time_us=10.0)
    noise.write()
    ready = KspaceSource(smooth_scan(), MRI(noise_scan=str(noise.path))).prepare(0, "cpu")
    assert "the dwell time of the noise or of the data is not known" in str(ready.doubts)
    found = ready.measured.noise.covariance * ready.measured.unit**2
    np.testing.assert_allclose(found, 1e-4 * covariance(), atol=0.05e-4)


def no_noise(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))


def little_noise(scan: Writer) -> None:
    scan.put(complex_noise(COILS, 4), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])


def noise_of_other_coils(scan: Writer) -> None:
    scan.put(complex_noise(COILS + 1, 400), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_noise, "noise.h5: dataset/data: there are no noise acquisitions among the 20"),
        (little_noise, "4 samples of noise do not give a covariance of 3 coils"),
        (noise_of_other_coils, "noise_scan: expected the 3 coils of the data, got 4"),
    ],
)
def test_noise_scans_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Writer], None], words: str) -> None:
    noise = Writer(tmp_path / "noise.h5")
    spoil(noise)
    noise.write()
    with pytest.raises(InputError, match=words):
        KspaceSource(smooth_scan(), MRI(noise_scan=str(noise.path)))


@pytest.mark.parametrize("trajectory", ["radial", "spiral", "epi", "goldenangle", "other"])
def test_other_trajectories_are_refused_by_name(scan: Writer, trajectory: str) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.xml = header(trajectory=trajectory)
    with refused(f"the trajectory is '{trajectory}'; only Cartesian"):
        scan.open()


def only_noise(scan: Writer) -> None:
    scan.put(complex_noise(COILS, X), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])


def other_coils(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.put(complex_noise(COILS + 1, X))


def beyond_limits(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.xml = header(limits=limits(9, 17))


def beyond_matrix(scan: Writer) -> None:
    scan.put(complex_noise(COILS, X), Y)


def second_encoding(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.put(complex_noise(COILS, X), 0, encoding_space_ref=1)


def missing_encoding(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y), encoding_space_ref=2)


def too_long(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X + 2, Y))


def echo_outside(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X - 4, Y), center_sample=2)


def partitions_in_2d(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y), kspace_encode_step_2=1)


def all_discarded(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y), discard_pre=X)


def volume_without_full_direction(scan: Writer) -> None:
    for partition in range(4):
        scan.image(complex_noise(COILS, X - 8, Y), [partition], kspace_encode_step_2=partition, center_sample=8)
    scan.xml = header(z=4)


def broken_xml(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.xml = scan.xml[:-20]


def impossible_bandwidth(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.xml = header(system="<relativeReceiverNoiseBandwidth>79</relativeReceiverNoiseBandwidth>")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (only_noise, "there are no lines of an image among the 1 acquisitions"),
        (other_coils, r"acquisition 20 has 4 coil\(s\), acquisition 0 has 3"),
        (beyond_limits, "acquisition 18 has kspace_encode_step_1 18, beyond the limit 17"),
        (beyond_matrix, "acquisition 0 has kspace_encode_step_1 20, outside of the 20 encoded lines"),
        (second_encoding, r"belong to 2 encodings \(0, 1\)"),
        (missing_encoding, "refer to encoding 2, but the header has 1"),
        (too_long, "acquisition 0 has 34 samples, expected 1 to 32"),
        (echo_outside, "echo at sample 2 of 28, which puts it outside"),
        (partitions_in_2d, "kspace_encode_step_2 1, outside of the 1 encoded"),
        (all_discarded, "acquisition 0 has 0 samples"),
        (volume_without_full_direction, "both the readout and the second phase encoding are incomplete"),
        (broken_xml, "dataset/xml: the header is not well-formed"),
        (impossible_bandwidth, "must be from 0.1 to 1, got '79'"),
    ],
)
def test_bad_files_are_refused(scan: Writer, spoil: Callable[[Writer], None], words: str) -> None:
    spoil(scan)
    with refused(rf"scan\.h5: .*{words}|scan\.h5: {words}"):
        scan.open()


def test_nan_names_the_slice(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace, contrast=0)
    kspace[0, 0, 0] = np.nan
    scan.image(kspace, contrast=1)
    found = scan.open()
    assert found[0].any()
    with refused(r"dataset/data, slice 1 \(slice 0, contrast 1\): 1 of 1920 values are NaN"):
        found[1]


def rewritten(path: Path, change: Callable[[h5py.Group, np.ndarray], None]) -> Path:
    """Replace the acquisitions of a file by changed ones."""
    with h5py.File(path, "r+") as file:
        group = file["dataset"]
        values, dtype = group["data"][:], group["data"].dtype
        del group["data"]
        change(group, values)
        if "data" not in group:
            group.create_dataset("data", data=values, dtype=dtype)
    return path


def shorter(group: h5py.Group, values: np.ndarray) -> None:
    values[3]["data"] = values[3]["data"][:-2]


def no_numbers(group: h5py.Group, values: np.ndarray) -> None:
    group["data"] = np.arange(4)


def none(group: h5py.Group, values: np.ndarray) -> None:
    group.create_dataset("data", (0,), values.dtype, maxshape=(None,))


def nothing(group: h5py.Group, values: np.ndarray) -> None:
    group["data"] = h5py.SoftLink("/elsewhere")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shorter, r"acquisition 3 declares 3 coil\(s\) x 32 samples, but holds 95 values"),
        (no_numbers, "expected a list of ISMRMRD acquisitions"),
        (none, "there are no acquisitions"),
        (nothing, "is a link"),
    ],
)
def test_damaged_acquisitions(scan: Writer, change: Callable[[h5py.Group, np.ndarray], None], words: str) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.open()
    with refused(words):
        open_kspace(rewritten(scan.path, change))[0]


def test_header_without_acquisitions(scan: Writer) -> None:
    with refused("there is no dataset 'dataset/data'"):
        scan.open()


def test_truncated_file(scan: Writer) -> None:
    scan.image(complex_noise(COILS, X, Y))
    scan.open()
    content = scan.path.read_bytes()
    scan.path.write_bytes(content[: len(content) // 2])
    with refused("damaged or truncated"):
        open_kspace(scan.path)


def test_group_of_another_name(scan: Writer) -> None:
    kspace = complex_noise(COILS, X, Y)
    scan.image(kspace)
    scan.open()
    with h5py.File(scan.path, "r+") as file:
        file.move("dataset", "raw")
    np.testing.assert_array_equal(open_kspace(scan.path)[0], kspace)
    with h5py.File(scan.path, "r+") as file:
        file.copy("raw", "raw2")
    with refused(r"contains 2 scans \(raw, raw2\)"):
        open_kspace(scan.path)
