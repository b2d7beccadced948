"""Fixtures for all tests. Test modules do not import each other; what they share is here or in the packages."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <studyInformation><studyTime>13:02:11</studyTime></studyInformation>
  <acquisitionSystemInformation>
    <systemVendor>SIEMENS</systemVendor><systemModel>Biograph_mMR</systemModel>
    <systemFieldStrength_T>2.89362</systemFieldStrength_T><receiverChannels>{coils}</receiverChannels>
  </acquisitionSystemInformation>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{y}</x><y>{x}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov_y}</x><y>{fov_x}</y><z>4.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{recon_y}</x><y>{recon_x}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{recon_fov_y}</x><y>{recon_fov_x}</y><z>3</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the measured data, so that `-m "not realdata"` leaves them out."""
    for item in items:
        if "realdata" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.realdata)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of measured data: DIFFRECON_DATA, or `shared/data` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFRECON_DATA") or default)
    if not folder.is_dir():
        message = f"measured data are not here: set DIFFRECON_DATA to their folder ({folder} does not exist)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def mrd_header() -> Callable[..., str]:
    """Build an ISMRMRD header as fastMRI files carry it; `y` is the readout, `x` the phase encoding."""

    def build(y: int = 640, x: int = 368, coils: int = 15, padding: int = 0, **fields: object) -> str:
        pixel = 0.4375
        values = {
            **{"y": y, "x": x, "coils": coils, "recon_y": y // 2, "recon_x": min(y // 2, x)},
            **{"fov_y": y * pixel, "fov_x": x * pixel},
            **{"recon_fov_y": y // 2 * pixel, "recon_fov_x": min(y // 2, x) * pixel},
            **{"center": x // 2 - padding, "maximum": x - 2 * padding - 1},
        }
        return HEADER.format(**{**values, **fields})

    return build


@pytest.fixture
def fastmri_file(tmp_path: Path, mrd_header: Callable[..., str]) -> Callable[..., Path]:
    """Write a file in the fastMRI layout with plain h5py; keyword arguments replace or (None) remove a part."""

    def write(name: str = "file1000001.h5", kspace: np.ndarray | None = None, **parts: object) -> Path:
        if kspace is None:
            shape = (2, 3, 64, 40)
            rng = np.random.default_rng(0)
            kspace = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
        y, x = kspace.shape[-2:]
        reference = "reconstruction_rss" if kspace.ndim == 4 else "reconstruction_esc"
        image = np.random.default_rng(1).random((len(kspace), y // 2, min(y // 2, x)), dtype=np.float32)
        header = mrd_header(y, x, kspace.shape[1] if kspace.ndim == 4 else 1).encode()
        content: dict[str, object] = {"kspace": kspace, "ismrmrd_header": header, reference: image, **parts}
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                if value is not None:
                    file.create_dataset(key, data=value)
            file.attrs.update({"acquisition": "AXT2", "max": 1.5e-3, "norm": 0.07, "patient_id": "0" * 64})
        return path

    return write
