"""Bad arguments, files and settings become typed errors of one line; nothing from a file controls the terminal."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import recon
from operators.arrays import native, tensor
from recon.cli import main
from recon.commands.files import check, info
from recon.errors import CheckpointError, ConfigError, InputError, ReconError
from recon.files.documents import LARGEST, parse_json, read_json, read_toml
from recon.options import shown
from recon.printable import printable
from recon.priors.hub import WEIGHTS_FOLDER, load_prior
from recon.priors.networks.files import read_card
from recon.run_options import run_arguments
from recon.terminal import escaped_output

NESTED = "[" * 100_000 + "]" * 100_000
FAST: dict[str, Any] = {"prior": "gaussian", "samples": 1, "steps": 2, "device": "cpu", "progress": False}


def kspace() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))
    values[:, 16, 16] += 100
    return values.astype(np.complex64)


class Wrong:
    """Has every attribute of a denoiser, and no usable one."""

    space, sigma_min, sigma_max, denoise = None, "a", None, 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"samples": 0}, "samples: expected an integer from 1 to 100000, got 0"),
        ({"samples": "2"}, "samples: expected an integer, got '2'"),
        ({"samples": 10**30}, "samples: expected an integer from 1 to 100000, got 1000"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
        ({"seed": 1.5}, "seed: expected an integer, got 1.5"),
        ({"steps": 2.5}, "steps: expected an integer, got 2.5"),
        ({"steps": True}, "steps: expected an integer, got True"),
        ({"batch_size": 1.5}, "batch_size: expected an integer, got 1.5"),
        ({"slices": [1.5]}, r"slices: expected A:B, an integer or a list of integers, got \[1.5\]"),
        ({"slices": ["0"]}, "slices: expected A:B"),
        ({"slices": True}, "slices: expected A:B"),
        ({"slices": {}}, "slices: expected A:B"),
        ({"slices": "0:1:2"}, "slices: expected A:B"),
        ({"device": 3}, "device: expected text, got 3"),
        ({"device": None}, "device: expected text, got None"),
        ({"device": "tpu"}, "device: expected auto, cpu, .*, got 'tpu'"),
        ({"precision": "half"}, "precision: expected one of .*, got 'half'"),
        ({"precision": ["float32"]}, "precision: expected text"),
        ({"noise_std": "x"}, "noise_std: expected a number, got 'x'"),
        ({"acceleration": 10**400}, r"acceleration: expected a finite number >= 1, got 10{76}\.\.\."),
        ({"coils": 1.5}, "coils: expected an integer"),
        ({"mask": 3}, "mask: expected an array or the path of a file, got int"),
        ({"mask": np.array(["a"])}, "mask: expected an array of numbers, got <U1"),
        ({"coil_maps": np.array([None])}, "coil_maps: expected an array of numbers, got object"),
        ({"noise_covariance": "x"}, "noise_covariance: expected an array of numbers"),
        ({"prior": 3}, "prior: a int is not a denoiser"),
        ({"prior": Wrong()}, "prior: expected numbers 0 <= sigma_min < sigma_max, got 'a' and None"),
        ({"sampler": {3: 4}}, "unknown option 3"),
        ({"sampler": {"name": []}}, "sampler: expected a name"),
        ({"sampler": {"sigma_max": "x"}}, "expected sigma_max to be a number > 0, got 'x'"),
        ({"sampler": {"spread": "Uniform(-)"}}, r"Uniform\(-\): expected Uniform\(NUMBER\)"),
        ({"options": 3}, "options: .* got int"),
        ({"holdout": "no"}, "holdout: expected true or false, got 'no'"),
    ],
)
def test_bad_arguments_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        recon.reconstruct(kspace(), **{**FAST, **given})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_arguments_become_plain_values() -> None:
    found = run_arguments(np.int64(2), np.uint8(3), np.array([0, 1]), None, torch.device("cpu"), None, "float32")
    assert found == (2, 3, (0, 1), None, "cpu", None, "float32")
    assert type(found.samples) is int and type(found.seed) is int


def test_steps_of_a_sampler_are_whole() -> None:
    from samplers import DDS

    with pytest.raises(InputError, match=r"DDS: expected an integer number of steps, got 2.5"):
        DDS(steps=2.5)  # type: ignore[arg-type]


def test_noise_of_a_problem_is_a_number() -> None:
    from operators import Identity, Space
    from samplers import Problem

    space = Space((4, 4))
    y = torch.ones(4, 4, dtype=torch.complex64)
    with pytest.raises(InputError, match="noise_std of Problem: expected an array of numbers"):
        Problem(y, Identity(space), "x")  # type: ignore[arg-type]
    assert Problem(y, Identity(space), np.array(0.5, ">f4")).noise_std == 0.5  # type: ignore[arg-type]


def test_shown_values_are_short_lines() -> None:
    assert shown(np.zeros((3, 3))).count("\n") == 0 and len(shown("x" * 1000)) == 80
    assert shown(16**5000) == "<int>"


@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_negative_seed_on_the_command_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "scan.npy", kspace())
    files = [str(tmp_path / "scan.npy")] if command == "run" else []
    assert main([command, *files, "-o", str(tmp_path / "out"), "--seed=-1"]) == 2
    assert "seed: expected an integer >= 0, got -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (NESTED.encode(), "expected nesting up to 64 levels"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "expected nesting up to 64 levels"),
        (b'{"a": "\xff"}', "expected UTF-8 text, got the byte 0xff"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"{", "is not JSON"),
        (b" " * (LARGEST + 1), "expected at most"),
    ],
)
def test_bad_json(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_json(tmp_path / "a.json", CheckpointError)


def test_json_of_moderate_depth() -> None:
    assert parse_json("[" * 64 + "]" * 64, "here")
    with pytest.raises(InputError, match="here: expected nesting"):
        parse_json("[" * 66 + "]" * 66, "here")


def test_toml_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_toml(path)


def test_every_reader_of_a_card_refuses_nested_brackets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recon.priors import hub, hub_store
    from recon.uncertainty import Calibration
    from recon.uncertainty.folders import read_groups

    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"\0" * 16)
    card = tmp_path / "w.json"
    card.write_text(NESTED)
    for read in (lambda: load_prior(weights), lambda: read_card(card), lambda: read_groups(card)):
        with pytest.raises(InputError, match="expected nesting"):
            read()
    with pytest.raises(InputError, match="expected nesting"):
        Calibration.load(card)
    (tmp_path / "w.pt").write_bytes(b"\0" * 16)
    with pytest.raises(CheckpointError, match="expected nesting"):
        load_prior(tmp_path / "w.pt")
    monkeypatch.setattr(hub, "WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="expected nesting"):
        hub.list_models()
    monkeypatch.setattr(hub_store, "HUB_FILE", card)
    with pytest.raises(CheckpointError, match="reinstall diffrecon"):
        hub_store.entries()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": [1]}, "network: expected a table"),
        ({"sigma_data": "x"}, "sigma_data: expected a number > 0, got 'x'"),
        ({"sigma_min": None}, "sigma_min: expected a number > 0, got None"),
        ({"sigma_max": 1e-9}, "sigma_max: expected more than sigma_min"),
        ({"sha256": 3}, "sha256: expected text"),
        ({"error_std": {"sigma": [1, 2], "error": [1]}}, "error_std: expected lists"),
        ({"error_std": 3}, "error_std: expected lists"),
        ({"error_spectrum": {"sigma": [1, 2], "frequency": [0, 1], "ratio": [[1]]}}, "error_spectrum: expected lists"),
        ({"network": {"encoder_blocks": [100_000] * 4}}, "expected at most 1000 blocks"),
        ({"network": {"channels": "wide"}}, "channels: expected a list of whole numbers"),
        ({"network": {"channels": [2**40] * 4}}, "does not describe a network"),
    ],
)
def test_cards_of_networks(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    card = json.loads((WEIGHTS_FOLDER / "ct.json").read_text())
    (tmp_path / "w.json").write_text(json.dumps({**card, **change}))
    (tmp_path / "w.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(CheckpointError, match=words):
        load_prior(tmp_path / "w.safetensors")


ARRAYS = {
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "fortran": np.asfortranarray,
    "long": lambda a: a.astype(np.clongdouble if a.dtype.kind == "c" else np.longdouble),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("dtype", ["c8", "f4"])
def test_arrays_of_every_kind_become_tensors(kind: str, dtype: str) -> None:
    values = kspace().real.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tensor(ARRAYS[kind](values), "values")
    np.testing.assert_array_equal(found.numpy(), values)


def test_arrays_are_shared_where_they_can_be() -> None:
    values = np.zeros(3, np.float32)
    assert native(values) is values or np.shares_memory(native(values), values)
    assert tensor(np.array([3, 2**31], np.uint32)).tolist() == [3, 2**31]
    for wrong in ("x", None, [[1], [1, 2]], np.array(["a"]), np.zeros(2, "M8[s]")):
        with pytest.raises(InputError, match="mask: expected an array of numbers"):
            tensor(wrong, "mask")


@pytest.mark.filterwarnings("ignore:.*steps|.*spread|.*chi2|.*held-out|.*data")
@pytest.mark.parametrize("kind", ["big-endian", "read-only", "reversed"])
def test_reconstruction_takes_arrays_of_every_kind(kind: str) -> None:
    values, turn = kspace(), ARRAYS[kind]
    maps = np.full_like(values, 0.7)
    mask = np.ones((32, 32), np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*NumPy array.*")
        found = recon.reconstruct(
            turn(values), **FAST, coil_maps=turn(maps), mask=turn(mask), noise_covariance=turn(np.eye(2)), holdout=False
        )
        plain = recon.reconstruct(values, **FAST, coil_maps=maps, mask=mask, noise_covariance=np.eye(2), holdout=False)
    np.testing.assert_array_equal(found.samples, plain.samples)


def test_check_of_an_archive_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "scan.npz", kspace=kspace().astype(">c8"), mask=np.ones((32, 32), ">f4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(tmp_path / "scan.npz")
    assert "usable" in capsys.readouterr().out


EVIL = "a\x1b]0;title\x07b\x9bc\u202ed\u2066e\udcff\ud83d\r\x7f"


def test_control_characters_are_escaped() -> None:
    assert printable(EVIL) == r"a\x1b]0;title\x07b\x9bc\u202ed\u2066e\xff\ud83d\r\x7f"
    assert printable("a\tb\nc") == r"a\tb\nc"


def test_everything_printed_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    with escaped_output(), escaped_output():
        print(EVIL, "\u2713")
        print("a\tb\n²µ")  # what is printed may have several lines
        print(f"\rbar {EVIL}", file=sys.stderr)
    shown = capsys.readouterr()
    assert shown.out == printable(EVIL) + " \u2713\na\tb\n²µ\n"
    assert shown.err.startswith("\rbar a\\x1b") and "\x1b" not in shown.err


def fastmri_with(path: Path, **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace()[None]
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize("command", ["info", "check"])
def test_headers_cannot_control_the_terminal_or_add_lines(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fastmri_with(tmp_path / "a\x1b[2Jb.h5", acquisition="T1\x1b]0;x\x07\nusable", patient_id="SECRET")
    assert main([command, str(path)]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.out
    assert r"a\x1b[2Jb.h5" in shown.out and r"acquisition: T1\x1b]0;x\x07 usable" in shown.out
    assert "SECRET" not in shown.out + shown.err


def test_errors_and_warnings_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path / "a\x1b[2J\u202eb.h5")]) == 2
    error = capsys.readouterr().err
    assert r"a\x1b[2J\u202eb.h5: no such file" in error and "\x1b" not in error


def test_no_identifiers_in_python_either(tmp_path: Path) -> None:
    path = fastmri_with(tmp_path / "a.h5", patient_id="SECRET", subject_name="SECRET", acquisition="T1")
    assert "SECRET" not in str(dict(recon.open(path).attributes))


def states() -> tuple[Any, ...]:
    return (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize("name", ["brain-mri", "ct", "gaussian"])
def test_loading_a_prior_leaves_the_shared_generators_alone(name: str) -> None:
    before = states()
    prior = load_prior(name, shape=(16, 16))
    assert states() == before
    if name != "gaussian":
        assert not any(value.is_meta for value in (*prior.model.parameters(), *prior.model.buffers()))  # type: ignore[attr-defined]


def test_calibrating_leaves_the_shared_generators_alone() -> None:
    from recon.uncertainty.fitting import Case, calibrate

    rng = np.random.default_rng(0)
    images = rng.normal(5, 1, (12, 3, 16, 16)).astype(np.float32)
    cases = [Case(recon.Posterior(one[:2], images={"reference": one[2]}), str(k)) for k, one in enumerate(images)]
    before = states()
    calibrate(cases, level=0.5)
    assert states() == before


@pytest.mark.slow
def test_reports_of_invalid_samples_are_quiet(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    samples = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    samples[2] = np.nan
    found = recon.Posterior(
        samples,
        diagnostics={
            "valid": np.array([True, True, False]),
            "residual": np.array([1.0, 1.0, np.nan]),
            "cg_residual": np.full((3, 2), np.nan),
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.report(tmp_path / "r")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("zero_filled", np.zeros(16)),
        ("zero_filled", np.zeros((3, 16, 16))),
        ("reference", np.zeros((0, 16))),
        ("expectation", np.zeros((16, 15))),
        ("zero_filled", np.zeros((16, 16), "S3")),
    ],
)
def test_auxiliary_images_of_a_result_fit_its_samples(tmp_path: Path, name: str, image: np.ndarray) -> None:
    path = tmp_path / "r.h5"
    recon.Posterior(np.ones((2, 16, 16), np.float32)).save(path)
    with h5py.File(path, "a") as file:
        file[f"images/{name}"] = image
    with pytest.raises(InputError, match=rf"images/{name}: "):
        recon.Posterior.load(path)


def test_volumes_without_slices_or_with_a_damaged_affine(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    from recon.files.nifti_read import read_nifti

    def refused(volume: np.ndarray, affine: np.ndarray, words: str) -> None:
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
        content = bytearray((tmp_path / "v.nii").read_bytes())
        content[280:328] = affine[:3].astype("<f4").tobytes()  # srow_x, srow_y, srow_z
        (tmp_path / "v.nii").write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_nifti(tmp_path / "v.nii")

    refused(np.zeros((4, 4, 0), np.float32), np.eye(4), "none of them empty")
    refused(np.zeros((4, 4, 4), np.float32), np.diag([np.nan, 1, 1, 1]), "srow: expected finite numbers")
    (tmp_path / "e.nii").write_bytes(b"")
    with pytest.raises(InputError, match=r"e.nii: not a NIfTI file"):
        read_nifti(tmp_path / "e.nii")


def test_info_of_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReconError):
        info(tmp_path / "absent")
