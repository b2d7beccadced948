"""The 26 kinds of file that fuzz.py mutates: how a seed is written, and how it is read."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import fuzz_mutations as mutations
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (2, 2, 24, 16)


class Kind(NamedTuple):
    """A kind of file: `make(folder)` writes a seed and returns it, `read(path)` reads what was made of it."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    mutate: mutations.Mutation


@functools.cache
def _tests(name: str) -> ModuleType:
    """Load a module of the tests, whose writers are used here."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{Path(name).stem}", ROOT / "tests" / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _noise(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


# How files are read.


def raw(path: Path) -> None:
    """Describe and check raw data, as `recon info` and `recon check` do."""
    from recon import modalities
    from recon.commands.text import recording_lines

    known, recording = modalities.opened(path)
    recording_lines(known, recording)
    known.description.inspect(recording)


def raw_pair(path: Path) -> None:
    raw(path.with_suffix(".cfl"))


def raw_folder(path: Path) -> None:
    raw(path.parent)


def prior(path: Path) -> None:
    from recon import load_prior

    load_prior(path.with_suffix(".safetensors") if path.suffix == ".json" else path)


def training(modality: str) -> Callable[[Path], None]:
    """Load training images."""

    def read(path: Path) -> None:
        from recon.images.sources import SourceConfig
        from recon.modalities import training_images

        source = SourceConfig(path.name, planes=("axial", "coronal"))
        training_images(modality).load(path.parent, source, False)

    return read


def posterior(path: Path) -> None:
    """Describe a result and render its page."""
    from recon import Posterior
    from recon.commands.text import posterior_lines
    from recon.report.page import page
    from recon.report.shown import Shown
    from recon.report.write import figures_of_merit

    found = Posterior.load(path)
    posterior_lines(path, found)
    page(Shown(found), "title", b"png", figures_of_merit(found), 1.0)


def drawn(path: Path) -> None:
    from recon import Posterior
    from recon.report import write_report

    write_report(Posterior.load(path), path.with_name("report"))


def run_settings(path: Path) -> None:
    from recon.settings import Settings

    Settings.from_toml(path)


def training_settings(path: Path) -> None:
    from recon.training.config import load_config, validate
    from recon.training.rules import network_multiple

    config = load_config(path)
    validate(config)
    network_multiple(config.network)


def calibration(path: Path) -> None:
    from recon.commands.text import calibration_lines
    from recon.uncertainty import Calibration

    calibration_lines(path, Calibration.load(path))


# How seeds are written.


def fastmri(folder: Path) -> Path:
    coils, rows, columns = SHAPE[1:]
    xml = _tests("conftest.py").HEADER.format(
        **{"y": rows, "x": columns, "coils": coils, "recon_y": rows // 2, "recon_x": rows // 2, "fov_y": 32.0},
        **{"fov_x": 24.0, "recon_fov_y": 16.0, "recon_fov_x": 16.0, "center": columns // 2, "maximum": columns - 1},
    )
    with h5py.File(folder / "seed.h5", "w") as file:
        file["kspace"], file["ismrmrd_header"] = _noise(*SHAPE), xml.encode()
        file["reconstruction_rss"] = np.ones((SHAPE[0], rows // 2, rows // 2), np.float32)
        file.attrs.update({"acquisition": "AXT2", "max": 1.5e-3, "norm": 0.07, "patient_id": "0" * 64})
    return folder / "seed.h5"


def ismrmrd(folder: Path) -> Path:
    writer = _tests("recon/modalities/mri/test_ismrmrd.py").Writer(folder / "seed.h5")
    writer.image(_noise(3, 32, 20))
    writer.open()
    return folder / "seed.h5"


def bart(folder: Path) -> Path:
    array = _noise(16, 12, 1, 3)
    (folder / "seed.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + " 1\n")
    array.ravel(order="F").tofile(folder / "seed.cfl")
    return folder / "seed.cfl"


def numpy_file(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"seed{suffix}"
        if suffix == ".npy":
            np.save(path, _noise(*SHAPE))
        else:
            np.savez_compressed(path, kspace=_noise(*SHAPE), mask=np.ones(SHAPE[-1], bool))
        return path

    return make


def dicom(folder: Path) -> Path:
    import pydicom

    dataset = pydicom.Dataset()
    values: dict[str, Any] = {"Modality": "CT", "Rows": 24, "Columns": 20, "SamplesPerPixel": 1, "PatientName": "A^B"}
    values |= {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    values |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    values |= {"PixelRepresentation": 0, "PixelSpacing": ["0.7", "0.7"], "PhotometricInterpretation": "MONOCHROME2"}
    values |= {"ImagePositionPatient": ["1", "2", "3"], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    values |= {"PixelData": (np.arange(480, dtype=np.uint16) % 2000).tobytes()}
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(folder / "seed.dcm", enforce_file_format=True)
    return folder / "seed.dcm"


def projections(folder: Path) -> Path:
    helix = _tests("recon/modalities/ct/conftest.py").Helix(views_per_turn=16, turns=1.5, rows=4, columns=24)
    helix.write(folder)
    return sorted(folder.iterdir())[0]


def lodopab(folder: Path) -> Path:
    with h5py.File(folder / "observation_test_000.hdf5", "w") as file:
        values = np.broadcast_to(np.linspace(0, 1, 513, dtype=np.float32), (1, 1000, 513))
        file.create_dataset("data", data=values, chunks=(1, 1000, 513), compression="gzip")
    return folder / "observation_test_000.hdf5"


def data_exchange(folder: Path) -> Path:
    with h5py.File(folder / "seed.h5", "w") as file:
        shadow = np.abs(np.linspace(-1, 1, 20)) < 0.5
        file["exchange/data"] = (np.ones((12, 3, 20)) * (1000 - 600 * shadow)).astype(np.uint16)
        file["exchange/data_white"], file["exchange/data_dark"] = np.full((2, 3, 20), 1000), np.zeros((2, 3, 20))
        file["exchange/theta"] = np.linspace(0, 180, 12, endpoint=False)
        file["exchange/theta"].attrs["units"] = "degrees"
    return folder / "seed.h5"


def ultrasound(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tests = _tests("recon/modalities/ultrasound/test_ultrasound_files.py")
        path = folder / ("seed.mat" if name == "must" else "seed.h5")
        if name == "must":
            tests.must(path, {"RF": _noise(60, 16).real}, TXdelay=np.zeros(16))
        elif name == "picmus":
            tests.picmus(path, _noise(3, 16, 60), 1e-6)
        else:
            tests.uff(path, _noise(1, 3, 16, 60), 1e-6, np.zeros(3))
        return path

    return make


def packed_matlab(folder: Path) -> Path:
    from scipy.io import savemat

    savemat(folder / "seed.mat", {"kspace": _noise(20, 24, 3), "note": "text"}, do_compression=True)
    return folder / "seed.mat"


def nifti(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import nibabel

        body = (np.indices((20, 22, 18)) - 10.0).__abs__().max(0) < 8
        nibabel.save(nibabel.Nifti1Image(np.where(body, 40, -1000).astype(np.int16), np.eye(4)), folder / name)
        return folder / name

    return make


def weights(folder: Path) -> Path:
    from recon.priors.networks.files import write_prior
    from recon.priors.networks.unet import EDMDenoiser, UNet

    network = {"channels": [8, 12], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 16}
    card = {"architecture": "unet-edm", "network": network, "sigma_data": 0.3, "sigma_min": 0.003, "sigma_max": 20.0}
    card |= {"name": "seed", "licence": "CC0", "scale": "1", "channels": 2}
    write_prior(folder / "seed.safetensors", EDMDenoiser(UNet(**network), 0.3).state_dict(), card)
    return folder / "seed.safetensors"


def card(folder: Path) -> Path:
    return weights(folder).with_suffix(".json")


def checkpoint(folder: Path) -> Path:
    import torch

    state = {k: v.clone() for k, v in _tests("conftest.py").tiny_weights("adm", 0).items()}
    (folder / "seed.json").write_text(json.dumps({"num_head_channels": 32}))
    torch.save(state, folder / "seed.pt")
    return folder / "seed.pt"


def result(folder: Path) -> Path:
    from recon import Posterior

    images = {"zero_filled": _noise(20, 16), "reference": np.abs(_noise(20, 16)), "mask": np.ones((1, 16), bool)}
    provenance = {"operator": "CartesianMRI", "modality": "mri", "measured": [{"noise_std": 0.1, "scale": 1.0}]}
    diagnostics = {"valid": np.ones(3, bool), "residual": np.ones(3)}
    geometry = {"voxel_size_mm": (1.0, 1.0, 1.0)}
    Posterior(_noise(3, 20, 16), geometry, provenance, diagnostics, images).save(folder / "seed.h5")
    return folder / "seed.h5"


def toml(content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "seed.toml").write_text(content)
        return folder / "seed.toml"

    return make


def calibration_file(folder: Path) -> Path:
    from recon.uncertainty import Calibration

    groups = {"all": 1.5}
    mark = {"samples": 4, "operator": "CartesianMRI", "prior": "ab", "sampler": {"name": "DDS"}}
    Calibration(0.9, "crc", groups, groups, {"all": 20}, groups, fingerprint=mark).save(folder / "seed.json")
    return folder / "seed.json"


RUN = 'samples = 4\nsteps = 20\nsampler = "dds"\nseed = 1\n[mri]\nacceleration = 4.0\n[ct]\nviews = 32\n'
TRAIN = """data = "data"\noutput = "out"\nmodality = "mri"\nsteps = 100\npatches = [[32, 4, 1.0]]\n[[sources]]
pattern = "*.nii.gz"\nspacing = [1.0, 2.0]\nheld_out = ["s2_"]\n[network]\nchannels = [8, 12]\nencoder_blocks = [1, 1]
decoder_blocks = [1]\nembedding = 8\n"""

KINDS = {
    "fastmri": Kind(fastmri, raw, mutations.of_hdf5),
    "fastmri-xml": Kind(fastmri, raw, mutations.of_xml),
    "ismrmrd": Kind(ismrmrd, raw, mutations.of_hdf5),
    "cfl": Kind(bart, raw, mutations.of_bytes),
    "hdr": Kind(lambda folder: bart(folder).with_suffix(".hdr"), raw_pair, mutations.of_text),
    "npy": Kind(numpy_file(".npy"), raw, mutations.of_bytes),
    "npz": Kind(numpy_file(".npz"), raw, mutations.of_zip),
    "dicom": Kind(dicom, raw, mutations.of_dicom),
    "dicom-ct-pd": Kind(projections, raw_folder, mutations.of_bytes),
    "lodopab": Kind(lodopab, raw, mutations.of_hdf5),
    "data-exchange": Kind(data_exchange, raw, mutations.of_hdf5),
    "picmus": Kind(ultrasound("picmus"), raw, mutations.of_hdf5),
    "uff": Kind(ultrasound("uff"), raw, mutations.of_hdf5),
    "mat": Kind(ultrasound("must"), raw, mutations.of_bytes),
    "mat-packed": Kind(packed_matlab, raw, mutations.of_packed_matlab),
    "nii": Kind(nifti("seed.nii"), training("mri"), mutations.of_bytes),
    "nii-gz": Kind(nifti("seed.nii.gz"), training("mri"), mutations.of_gzip),
    "nii-ct": Kind(nifti("seed.nii"), training("ct"), mutations.of_bytes),
    "safetensors": Kind(weights, prior, mutations.of_weights),
    "pt": Kind(checkpoint, prior, mutations.of_zip),
    "card": Kind(card, prior, mutations.of_text),
    "posterior": Kind(result, posterior, mutations.of_hdf5),
    "report": Kind(result, drawn, mutations.of_hdf5),
    "run-toml": Kind(toml(RUN), run_settings, mutations.of_text),
    "training-toml": Kind(toml(TRAIN), training_settings, mutations.of_text),
    "calibration": Kind(calibration_file, calibration, mutations.of_text),
}
