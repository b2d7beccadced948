"""Fixtures for all tests. Test modules do not import each other; what they share is here or in the packages."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

# The thread pool of numba sets the number of OpenMP threads of the whole process, those of torch included: without
# this, OMP_NUM_THREADS=1 ends with the first kernel, and the processes of the fast tests fight for the cores.
if "OMP_NUM_THREADS" in os.environ:
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"].split(",")[0])

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

# A shell lets jobs in the background ignore Ctrl-C, and processes that they start, too: tests that send it see nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


def pytest_collection_finish() -> None:
    """Leave libraries and tests out of later garbage collections, which look at some million objects otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a script of benchmarks/ by its name; it and the scripts that it imports are forgotten afterwards."""
    folder = Path(__file__).parents[1] / "benchmarks"
    if not folder.is_dir():
        pytest.skip("benchmarks are not part of the source distribution")
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need, so that `-m "not realdata"` or `-m "not published"` leave them out."""
    for item in items:
        for name in ("realdata", "published", "browser"):
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(getattr(pytest.mark, name))
        if item.get_closest_marker("cuda") and not _gpu():
            item.add_marker(pytest.mark.skip(reason="needs a GPU that CUDA can use"))


@functools.cache
def _gpu() -> bool:
    import torch

    return torch.cuda.is_available() or "DIFFRECON_GPU" in os.environ


def shared_folder(variable: str, default: str, what: str) -> Path:
    """A folder beside the checkout or in an environment variable; without it tests are skipped, in CI they fail."""
    folder = Path(os.environ.get(variable) or Path(__file__).resolve().parents[2] / "shared" / default)
    if not folder.is_dir():
        message = f"{what} are not here: set {variable} to their folder ({folder} does not exist)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of measured data: DIFFRECON_DATA, or `shared/data` beside the checkout."""
    return shared_folder("DIFFRECON_DATA", "data", "measured data")


@pytest.fixture(scope="session")
def published() -> Path:
    """Small checkpoints of the published networks with their outputs: DIFFRECON_FIXTURES, or `shared/fixtures`."""
    return shared_folder("DIFFRECON_FIXTURES", "fixtures", "checkpoint fixtures") / "checkpoints"


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


# Tiny networks of the published architectures.
TINY: dict[str, dict[str, Any]] = {
    "adm": {"in_channels": 2, "out_channels": 4, "model_channels": 32, "res_blocks": 1, "channel_mult": [1, 2]},
    "ncsnpp": {"channels": 1, "features": 8, "multipliers": [1, 2], "res_blocks": 1, "attention_levels": [1]},
    "edm-dhariwal": {"resolution": 16, "channels": 2, "out_channels": 2, "features": 8, "multipliers": [1, 2]}
    | {"res_blocks": 1},
    "ncsnv2-deepest": {"channels": 2, "features": 4},
    "unet2d": {"in_channels": 2, "out_channels": 2, "features": [8, 16], "res_blocks": 1, "groups": 4}
    | {"attention_down": [1], "attention_up": [0]},
}


@functools.cache
def tiny_weights(architecture: str, seed: int) -> dict[str, torch.Tensor]:
    """Random weights of a tiny network, drawn once; copy them before you change them."""
    import torch

    from recon.priors.networks.table import build

    generator = torch.Generator().manual_seed(seed)
    state = build(architecture, TINY[architecture]).state_dict()
    return {
        name: value if not value.is_meta else 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in state.items()
    }


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny network with random weights in a published layout; `change(content)` spoils it before writing."""
    import json

    import torch
    from safetensors.torch import save_file

    def weights(architecture: str, seed: int) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in tiny_weights(architecture, seed).items()}

    def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
        return {prefix + name: value for name, value in state.items()}

    def content_of(kind: str) -> object:
        if kind == "adm":
            return weights("adm", 0)
        if kind == "edm":
            ema, net = weights("edm-dhariwal", 0), weights("edm-dhariwal", 1)
            return {"net": prefixed(net, "model."), "ema": prefixed(ema, "model.")}
        if kind == "ncsnv2":
            raw = {"sigmas": torch.logspace(2, -2, 10), **weights("ncsnv2-deepest", 1)}
            return [prefixed(raw, "module."), {"state": {}}, 3, 1000, weights("ncsnv2-deepest", 0)]
        averaged, raw = weights("ncsnpp", 0), weights("ncsnpp", 1)
        shadow = [value for name, value in averaged.items() if name != "all_modules.0.W"]
        model = {"sigmas": torch.logspace(2, -2, 10, dtype=torch.float64), **raw}
        ema = {"decay": 0.999, "num_updates": 5, "shadow_params": shadow}
        return {"optimizer": {"state": {}}, "model": prefixed(model, "module."), "ema": ema, "step": 5}

    def make(kind: str = "edm", change: Callable[[object], object] | None = None) -> Path:
        if kind == "diffusers":
            folder = tmp_path / "diffusers"
            folder.mkdir()
            config = {
                **{"_class_name": "UNet2DModel", "in_channels": 2, "out_channels": 2, "block_out_channels": [8, 16]},
                **{"layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"]},
                **{"up_block_types": ["AttnUpBlock2D", "UpBlock2D"]},
            }
            (folder / "config.json").write_text(json.dumps(config))
            save_file(weights("unet2d", 0), folder / "diffusion_pytorch_model.safetensors")
            return folder
        content = content_of(kind)
        path = tmp_path / f"{kind}.pt"
        torch.save(content if change is None else change(content) or content, path)
        if kind == "adm":
            path.with_suffix(".json").write_text(json.dumps({"num_head_channels": 32}))
        return path

    return make
