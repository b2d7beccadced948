"""Small files that unpack to a GiB are refused in less than a second and 256 MiB, and their field is named."""

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from scipy.io import savemat

PIECE, COUNT = 2**24, 64
#: Reads pairs of a good file (so that every module is imported) and a bomb, and prints how the bomb was refused.
CHILD = """
import json, re, sys, time
from pathlib import Path
from recon.errors import InputError
from recon.files.nifti_read import read_nifti
from recon.images.files import read_dicom
from recon.modalities.ct.files.readers import open_ct
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.ultrasound.files.readers import open_ultrasound

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

readers = {
    "ct": lambda path: open_ct(path)[0],
    "dicom": lambda path: read_dicom(path, 1.0),
    "mri": lambda path: open_kspace(path)[0],
    "us": lambda path: open_ultrasound(path)[0],
    "nifti": read_nifti,
}
for name, good, bomb in json.loads(sys.argv[1]):
    readers[name](Path(good))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, start = status("VmRSS"), time.process_time()
    try:
        readers[name](Path(bomb))
        words = "read"
    except InputError as error:
        words = str(error)
    print(json.dumps([words, time.process_time() - start, status("VmHWM") - before]))
"""


def zeros(before: bytes, wbits: int) -> bytes:
    """Compress some bytes and a GiB of zeros; a repeated flushed block is the same as one of all zeros."""
    pack = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = pack.compress(before) + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(bytes(PIECE)) + pack.flush(zlib.Z_FULL_FLUSH)
    return start + COUNT * block + pack.flush()


@pytest.fixture(scope="module")
def dicoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dicom")
    dataset = pydicom.Dataset()
    values = {"Modality": "CT", "Rows": 2, "Columns": 2, "SamplesPerPixel": 1, "PixelRepresentation": 0}
    values |= {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "RescaleSlope": "1", "RescaleIntercept": "0"}
    values |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}
    for name, value in {**values, "PixelData": bytes(8), "PhotometricInterpretation": "MONOCHROME2"}.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "good.dcm", enforce_file_format=True)
    content = (folder / "good.dcm").read_bytes()
    meta = 144 + int.from_bytes(content[140:144], "little")
    inner = zlib.decompress(content[meta:], -15)
    private = b"\x01\x70\x10\x00LO\x04\x00test\x01\x70\x01\x10OB\0\0" + (PIECE * COUNT).to_bytes(4, "little")
    pixels = inner.index(b"\xe0\x7f\x10\x00")
    (folder / "bomb.dcm").write_bytes(content[:meta] + zeros(inner[:pixels] + private, -15))
    return folder / "good.dcm", folder / "bomb.dcm"


def nifti(folder: Path) -> tuple[Path, Path]:
    good, bomb = folder / "good.nii.gz", folder / "bomb.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), good)
    header = bytearray(gzip.decompress(good.read_bytes())[:352])
    header[42:48] = np.array([1024, 1024, 512], "<i2").tobytes()
    bomb.write_bytes(zeros(bytes(header), 31))
    return good, bomb


def nifti_extension(folder: Path) -> tuple[Path, Path]:
    good, bomb = folder / "good.nii.gz", folder / "bomb.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), good)
    header = bytearray(gzip.decompress(good.read_bytes())[:352])
    header[108:112] = np.float32(2**30).tobytes()
    bomb.write_bytes(zeros(bytes(header), 31))
    return good, bomb


def matlab(name: str, kind: int) -> Callable[[Path], tuple[Path, Path]]:
    """A numeric array (class 6, complex) or a cell array (class 1) of very many empty cells."""

    def make(folder: Path) -> tuple[Path, Path]:
        good, bomb = folder / "good.mat", folder / "bomb.mat"
        param = {"fs": 4e7, "pitch": 3e-4, "fc": 7e6, "t0": 0.0, "TXdelay": np.zeros((1, 16))}
        signal = np.random.default_rng(0).standard_normal((60, 16))
        content = {"kspace": signal + 1j} if name == "kspace" else {"RF": signal, "param": param}
        savemat(good, content, do_compression=True)
        size, count = PIECE * COUNT, PIECE * COUNT // 16
        word, shape = (0x0806, (2, count // 2)) if kind == 6 else (1, (1, count // 4))
        inner = np.array([14, size, 6, 8, word, 0, 5, 8, *shape, 1, len(name)], "<u4").tobytes()
        inner += name.encode().ljust(8, b"\0") + np.array([9, count * 8], "<u4").tobytes()
        packed = zeros(inner, 15)
        others = {key: value for key, value in content.items() if key != name}
        savemat(bomb, others, do_compression=True)
        with open(bomb, "ab") as stream:
            stream.write(np.array([15, len(packed)], "<u4").tobytes() + packed)
        return good, bomb

    return make


def matlab_cells(folder: Path) -> tuple[Path, Path]:
    """A cell array whose cells are small in the file and large as objects; unpacked, they stay below the limit."""
    good, bomb = matlab("RF", 1)(folder)
    cells = b"\x0e\0\0\0\0\0\0\0" * 7_000_000
    inner = np.array([6, 8, 1, 0, 5, 8, 1, 7_000_000, 2 << 16 | 1, 0x4652], "<u4").tobytes() + cells
    packed = zlib.compress(np.array([14, len(inner)], "<u4").tobytes() + inner)
    savemat(bomb, {"param": {"fs": 1.0}})
    with open(bomb, "ab") as stream:
        stream.write(np.array([15, len(packed)], "<u4").tobytes() + packed)
    return good, bomb


def declared(folder: Path) -> tuple[Path, Path]:
    """A dataset of 200 GiB without any of its values."""
    good, bomb = folder / "good.h5", folder / "bomb.h5"
    with h5py.File(good, "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
    with h5py.File(bomb, "w") as file:
        file.create_dataset("kspace", shape=(1000, 15, 640, 2796), dtype=np.complex64)
    return good, bomb


def packed(folder: Path) -> tuple[Path, Path]:
    """A slice of a GiB whose pieces are all the same few packed bytes."""
    good, bomb = folder / "good.h5", folder / "bomb.h5"
    with h5py.File(good, "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
    with h5py.File(bomb, "w") as file:
        options = {"chunks": (1, 1, 1024, 1024), "compression": 9}
        kspace = file.create_dataset("kspace", shape=(1, 128, 1024, 1024), dtype=np.complex64, **options)
        kspace[0, 0] = 0
        piece = kspace.id.read_direct_chunk((0, 0, 0, 0))[1]
        for coil in range(128):
            kspace.id.write_direct_chunk((0, coil, 0, 0), piece)
    return good, bomb


CASES = {
    "HDF5 declared": ("mri", declared, "kspace: declares 200.0 GiB"),
    "HDF5 packed": ("mri", packed, "decompression bomb"),
    "nifti": ("nifti", nifti, "dim: 1024 x 1024 x 512"),
    "nifti_extension": ("nifti", nifti_extension, "vox_offset"),
    "kspace": ("mri", matlab("kspace", 6), "kspace: unpacks from"),
    "RF": ("us", matlab("RF", 6), "RF: unpacks from"),
    "cells": ("us", matlab("RF", 1), "RF: declares 16777216 nested arrays"),
    "many cells": ("us", matlab_cells, "RF: declares 7000000 nested arrays"),
    "param": ("us", matlab("param", 6), "param: unpacks from"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory, dicoms: tuple[Path, Path]) -> Iterator[dict[str, list]]:
    pairs = {"dicom": ("dicom", *dicoms), "ct": ("ct", *dicoms)}
    for name, (reader, make, _) in CASES.items():
        pairs[name] = (reader, *make(tmp_path_factory.mktemp("bomb")))
    command = [sys.executable, "-c", CHILD, json.dumps([[str(part) for part in pair] for pair in pairs.values()])]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert run.returncode == 0, run.stderr
    yield dict(zip(pairs, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux counts it")
@pytest.mark.parametrize(
    ("name", "words"),
    [("dicom", "PixelData"), ("ct", "PixelData"), *((name, words) for name, (_, _, words) in CASES.items())],
)
def test_bombs(refusals: dict[str, list], name: str, words: str) -> None:
    message, seconds, megabytes = refusals[name]
    assert "bomb." in message and words in message
    assert seconds < 1 and megabytes < 256
