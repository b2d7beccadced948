"""Training data of every kind: what is read, in which scale, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from operators import fftc
from recon.errors import ConfigError, InputError
from recon.images.augment import Pool, draw_images, fourier_resample, step_generator
from recon.images.sources import Slice, SourceConfig
from recon.images.synthesis import phase_jumps
from recon.modalities import training_images
from recon.modalities.mri.training import evaluation_image, load_slices
from recon.training.cli import TrainConfig, train
from recon.training.state import load_checkpoint

SMALL = {"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8}


def head(rows=64, columns=56):
    """An ellipse with two tissues and an off-centre spot."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    radius = (y / 0.8) ** 2 + (x / 0.7) ** 2
    image = 1.0 * (radius < 1) - 0.4 * (radius < 0.5) + 0.5 * (np.hypot(y - 0.3, x + 0.2) < 0.15)
    return image.astype(np.float32)


def correlation(found, expected):
    found, expected = np.abs(found).ravel(), np.abs(expected).ravel()
    return found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)


@pytest.fixture
def write_dicom():
    """Write an MR or CT slice as DICOM."""
    pydicom = pytest.importorskip("pydicom")

    def write(path, stored, modality="MR", **tags):
        dataset = pydicom.Dataset()
        dataset.Modality, dataset.SOPClassUID = modality, "1.2.840.10008.5.1.4.1.1.4"
        dataset.SOPInstanceUID, dataset.SamplesPerPixel = "1.2.3", 1
        dataset.Rows, dataset.Columns = stored.shape
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.add_new(0x7FE00010, "OW", stored.astype("<u2").tobytes())
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def fully_sampled():
    """k-space `(slice, coil, readout, phase)` of heads, the readout over twice the field of view, and the heads."""
    rng = np.random.default_rng(0)
    images = np.stack([head(), head() ** 2, head()[::-1]])
    y, x = np.mgrid[-1:1:64j, -1:1:56j]
    phase = np.exp(1j * (0.8 * y + 0.5 * x**2))
    angles = 2 * np.pi * np.arange(4) / 4
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) + 1j * a) for a in angles])
    coils = np.zeros((3, 4, 128, 56), complex)
    coils[:, :, 32:96] = images[:, None] * phase * maps
    kspace = fftc(torch.from_numpy(coils)).numpy()
    kspace += 0.002 * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    received = images * np.sqrt((np.abs(maps) ** 2).sum(0))
    return (3e-5 * kspace).astype(np.complex64), received


@pytest.mark.slow
def test_fastmri_files_become_complex_images(fastmri_file, fully_sampled):
    kspace, received = fully_sampled
    path = fastmri_file("file1.h5", kspace, reconstruction_rss=np.zeros((3, 64, 56), np.float32))
    items = load_slices(path.parent, SourceConfig("*.h5", planes=("axial",)))
    assert [item.name for item in items] == [f"file1.h5:axial:{k}" for k in range(3)]
    for item, expected in zip(items, received, strict=True):
        assert item.image.shape == (64, 56) and item.image.dtype == np.complex64
        assert correlation(item.image, expected) > 0.99
        assert np.quantile(np.abs(item.image), 0.99) == pytest.approx(1, rel=1e-3)
        assert item.spacing == pytest.approx((0.4375, 0.4375))
    assert item.mask[32, 28] and not item.mask[0, 0]
    # The measured phase is there: it varies along y as the object's does, up to the phase of the maps.
    assert np.ptp(np.angle(items[0].image[10:54, 28])) > 0.3
    assert len(load_slices(path.parent, SourceConfig("*.h5", every=2))) == 2


def test_single_coil_and_undersampled_kspace(fastmri_file, fully_sampled):
    kspace, received = fully_sampled
    path = fastmri_file("single.h5", kspace.sum(1))
    assert correlation(load_slices(path.parent, SourceConfig("single.h5"))[0].image, received[0]) > 0.5
    thinned = kspace * (np.arange(56) % 3 == 0)
    fastmri_file("thin.h5", thinned.astype(np.complex64))
    with pytest.raises(InputError, match=r"thin.h5: only 3\d % of the k-space is sampled"):
        load_slices(path.parent, SourceConfig("thin.h5"))


def test_mri_from_dicom_folders(write_dicom, tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        for k in range(3):
            image = 900 * head() if k < 2 else np.eye(64, 56)  # the last one shows hardly anything
            tags = {"PixelSpacing": [0.9, 0.7], "RescaleSlope": "2.5"} if patient == "p1" else {}
            write_dicom(tmp_path / patient / f"IM{k:03d}", image + 3, **tags)
        (tmp_path / patient / "LICENSE.txt").write_text("free")
    source = SourceConfig("p*", held_out=("p2",), pixel=1.25)
    items = load_slices(tmp_path, source)
    assert [item.name for item in items] == ["IM000:axial:0", "IM001:axial:0"]
    assert items[0].spacing == (0.9, 0.7) and items[0].image.dtype == np.float16
    assert correlation(items[0].image.astype(float), head() + 3 / 900) > 0.999
    held = load_slices(tmp_path, source, held_out=True)
    assert len(held) == 2 and held[0].spacing == (1.25, 1.25)


def test_mri_from_arrays(tmp_path):
    np.save(tmp_path / "magnitudes.npy", (200 * np.stack([head()] * 5)).astype(np.uint8))
    complex_image = head() * np.exp(1j * np.linspace(0, 3, 56))
    np.save(tmp_path / "complex.npy", complex_image.astype(np.complex128))
    source = SourceConfig("magnitudes.npy", pixel=0.8, every=2)
    items = load_slices(tmp_path, source)
    assert len(items) == 3 and items[0].spacing == (0.8, 0.8) and items[2].name == "magnitudes.npy:axial:4"
    (item,) = load_slices(tmp_path, SourceConfig("complex.npy"))
    shown = np.abs(item.image) > 0.2
    np.testing.assert_allclose(np.angle(item.image[shown]), np.angle(complex_image[shown]), atol=1e-4)
    assert torch.equal(evaluation_image(item, 0), torch.from_numpy(item.image))  # 64 x 56, with its own phase


def test_archives_are_split_by_the_names_of_their_images(tmp_path):
    images = (100 * np.stack([head()] * 4)).astype(np.uint8)
    np.savez(tmp_path / "cine.npz", images=images, names=np.array(["A-1", "A-2", "B-1", "B-2"]))
    source = SourceConfig("*.npz", held_out=("B",), pixel=1.3)
    assert [item.name for item in load_slices(tmp_path, source)] == ["A-1:axial:0", "A-2:axial:0"]
    held = load_slices(tmp_path, source, held_out=True)
    assert [item.name for item in held] == ["B-1:axial:0", "B-2:axial:0"] and held[0].spacing == (1.3, 1.3)
    assert len(load_slices(tmp_path, SourceConfig("*.npz"))) == 4
    assert len(load_slices(tmp_path, SourceConfig("*.npz", every=3))) == 2
    with pytest.raises(InputError, match="no held-out file"):
        load_slices(tmp_path, SourceConfig("*.npz"), held_out=True)
    with pytest.raises(InputError, match="no image is held out"):
        load_slices(tmp_path, SourceConfig("*.npz", held_out=("C",)), held_out=True)
    np.savez(tmp_path / "cine.npz", images=images, names=np.array(["A-1"]))
    with pytest.raises(InputError, match="1 names for 4 images"):
        load_slices(tmp_path, source)
    np.savez(tmp_path / "cine.npz", pictures=images)
    with pytest.raises(InputError, match="expected an array 'images'"):
        load_slices(tmp_path, source)


def test_measured_phase_stays_up_to_a_constant():
    def phases(image, seed):
        source = SourceConfig("", native=1.0)
        pool = Pool.build(source, [Slice(image, np.abs(image) > 0, (1.0, 1.0), "axial", "s")])
        images = draw_images([pool], step_generator(seed, 0), 16, 24).images.double()
        return torch.complex(images[:, 0], images[:, 1]).angle()

    measured = phases(np.ones((40, 40), np.complex64), 0)
    assert torch.allclose(measured, measured[:, :1, :1].expand_as(measured), atol=1e-5)
    assert measured[:, 0, 0].std() > 1  # the constant is random
    synthetic = phases(np.ones((40, 40), np.float16), 0)
    assert (synthetic - synthetic[:, :1, :1]).abs().amax(dim=(1, 2)).median() > 0.1


@pytest.mark.parametrize(("rows", "columns"), [(48, 40), (64, 60), (80, 75), (47, 61)])
def test_complex_images_are_resampled_like_their_parts(rows, columns):
    rng = np.random.default_rng(0)
    smooth = [fourier_resample(rng.normal(size=(25, 23)).astype(np.float32), 64, 60) for _ in range(2)]
    found = fourier_resample((smooth[0] + 1j * smooth[1]).astype(np.complex64), rows, columns)
    parts = [fourier_resample(part, rows, columns) for part in smooth]
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, parts[0] + 1j * parts[1], atol=1e-4)


def test_training_mixes_measured_and_synthetic_phase(fastmri_file, fully_sampled, tmp_path):
    fastmri_file("a.h5", fully_sampled[0])
    np.save(tmp_path / "b.npy", np.stack([head()] * 2))
    sources = (SourceConfig("*.h5", spacing=(0.5, 0.6)), SourceConfig("*.npy", weight=0.5, spacing=(1.0, 1.5)))
    config = TrainConfig(
        modality="mri",
        data=str(tmp_path),
        output=str(tmp_path / "run"),
        sources=sources,
        network=SMALL,
        steps=2,
        patches=((16, 6, 1.0),),
        previews=0,
    )
    assert load_checkpoint(train(config))["step"] == 2


def test_what_cannot_be_read_is_named(tmp_path, fastmri_file, fully_sampled):
    path = fastmri_file("file1.h5", fully_sampled[0])
    path.write_bytes(path.read_bytes()[:5000])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "line.npy", np.ones(7))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    np.save(tmp_path / "empty.npy", np.zeros((8, 8)))
    (tmp_path / "table.csv").write_text("1,2")
    (tmp_path / "folder").mkdir()
    cases = {
        "file1.h5": "file1.h5.*(damaged|truncated)",
        "objects.npy": "objects.npy.*objects",
        "line.npy": r"line.npy: expected images \(y, x\)",
        "nan.npy": "nan.npy.*finite",
        "empty.npy": "empty.npy.*signal",
        "table.csv": "table.csv: not a training file",
        "folder": "no training file matches 'folder'",
        "*.mat": "no training file matches",
    }
    for pattern, message in cases.items():
        with pytest.raises(InputError, match=message):
            load_slices(tmp_path, SourceConfig(pattern))
    with pytest.raises(InputError, match="no held-out file"):
        load_slices(tmp_path, SourceConfig("*.npy"), held_out=True)
    with pytest.raises(ConfigError, match="every"):
        load_slices(tmp_path, SourceConfig("*.npy", every=0))
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = np.ones((4, 4))
    with pytest.raises(InputError, match="unknown layout"):
        load_slices(tmp_path, SourceConfig("image.h5"))


def test_ct_from_folders_arrays_and_dicom(write_dicom, tmp_path):
    water = np.where(head(48, 40) > 0, 1024, 0)
    folder = tmp_path / "L067"
    folder.mkdir()
    np.save(folder / "stack.npy", np.stack([water] * 3).astype(float))
    tags = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "PixelSpacing": [0.7, 0.8], "PixelPaddingValue": 60000}
    padded = water.copy()
    padded[0] = 60000
    write_dicom(tmp_path / "slice.IMA", padded, "CT", **tags)
    load = training_images("ct").load
    arrays = load(tmp_path, SourceConfig("L*", rescale=(1.0, -1024.0), pixel=0.6, every=2), False)
    assert len(arrays) == 2 and arrays[0].spacing == (0.6, 0.6)
    (item,) = load(tmp_path, SourceConfig("*.IMA"), False)
    assert item.spacing == (0.7, 0.8) and item.image[24, 20] == pytest.approx(1.0)
    assert item.image[0].max() == pytest.approx(-0.024, abs=1e-6)  # padding
    np.testing.assert_array_equal(item.image[1:], arrays[0].image[1:])
    (tmp_path / "k.h5").write_bytes(b"")
    with pytest.raises(InputError, match="cannot train a CT prior"):
        load(tmp_path, SourceConfig("k.h5"), False)


def test_a_measured_brain_and_hearts(realdata):
    source = SourceConfig("mri_kspace/brain_8ch_full.cfl", pixel=1.0)
    (item,) = load_slices(Path(realdata), source)
    assert item.image.shape == (230, 180) and item.image.dtype == np.complex64
    assert 0.2 < item.mask.mean() < 0.9
    assert np.abs(item.image).max() < 4
    hearts = SourceConfig("mri_cardiac/*.npz", held_out=("SC-N-",), every=40, pixel=1.3)
    names = [[i.name[:5] for i in load_slices(Path(realdata), hearts, held_out)] for held_out in (False, True)]
    assert len(names[0]) > 10 and "SC-N-" not in names[0] and set(names[1]) == {"SC-N-"}


def test_phase_jumps_are_drawn_where_they_are_asked_for():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    image = (0.5 * (y**2 + x**2 < 0.7) + 0.5 * (np.abs(y) < 0.3) * (np.abs(x) < 0.3)).astype(np.float32)
    item = Slice(image, image > 0, (1.0, 1.0), "axial", "s")

    def drawn(share, step):
        source = SourceConfig("*.npy", native=1.0, phase_jumps=share)
        images = draw_images([Pool.build(source, [item])], step_generator(0, step), 8, 64).images
        return torch.complex(images[:, 0], images[:, 1])

    def roughness(images):
        """Share of the pixels with signal whose phase differs by more than half a radian from that beside them."""
        neighbours = (images[..., 1:] * images[..., :-1].conj())[images[..., 1:].abs() > 0.05]
        return float((neighbours.angle().abs() > 0.5).float().mean())

    smooth, rough = drawn(0.0, 3), drawn(1.0, 3)
    assert torch.equal(rough, drawn(1.0, 3)) and not torch.equal(rough, smooth)
    assert roughness(smooth) < 0.001 and roughness(rough) > 0.005
    # A pixel shared by fat and water loses signal; none gains any.
    assert float((phase_jumps(np.random.default_rng(0), smooth.abs()).abs()).max()) < 1 + 1e-5
