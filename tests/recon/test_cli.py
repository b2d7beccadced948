"""The command line, in process with an analytic prior: outputs, exit statuses, nothing half-written."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from recon import Posterior, modalities
from recon.cli import main

FAST = ("--prior", "gaussian", "--samples", "2", "--steps", "3", "--device", "cpu")
HALF = ("--acceleration", "2", "--center-fraction", "0.3")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A fully sampled two-coil scan of a smooth object, with noise."""
    y, x = np.mgrid[-1:1:48j, -1:1:40j]
    image = np.where(y**2 / 0.6 + x**2 / 0.4 < 1, 1 + 0.5 * np.cos(5 * y) * np.cos(4 * x), 0)
    coils = np.stack([np.exp(-((x - c) ** 2) - y**2 / 2 + 0.5j * c * y) for c in (-0.8, 0.8)])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
    path = tmp_path / "scan.npy"
    np.save(path, (kspace + 0.01 * noise).astype(np.complex64))
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr that an error is told in."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("recon: warning: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("recon: error: ")
    return lines[0]


def test_run_writes_a_result_that_can_be_loaded(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert main(["run", str(scan), "-o", str(out), *FAST, *HALF, "--seed", "5", "--no-report"]) == 0
    assert files(out) == {"scan.h5"}
    posterior = Posterior.load(out / "scan.h5")
    assert posterior.samples.shape == (2, 48, 40)
    assert posterior.images["reference"].shape == (48, 40)
    assert posterior.provenance["seed"] == 5
    assert posterior.provenance["config"]["acceleration"] == 2
    assert posterior.provenance["source"]["name"] == "scan.npy"
    assert str(out / "scan.h5") in capsys.readouterr().out


@pytest.mark.slow
def test_run_draws_pictures_and_a_fastmri_submission(
    fastmri_file: Callable[..., Path], scan: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    kspace = np.load(scan)
    wide = np.zeros((1, 2, 96, 40), np.complex64)  # a readout oversampled twice: interpolate k-space
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=1), axis=1, norm="ortho"), axes=1)
    padded = np.pad(image, ((0, 0), (24, 24), (0, 0)))
    wide[0] = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(padded, axes=1), axis=1, norm="ortho"), axes=1)
    wide += np.random.default_rng(1).normal(size=wide.shape).astype(np.float32) * np.float32(0.01)
    path = fastmri_file("file1.h5", kspace=wide)
    out = tmp_path / "out"
    assert main(["run", str(path), "-o", str(out), *FAST, *HALF]) == 0
    assert files(out) == {"file1.h5", "file1.png", "file1.html", "submission/file1.h5"}
    with h5py.File(out / "submission" / "file1.h5") as file:
        assert file["reconstruction"].shape == (1, 48, 40)
        assert file["reconstruction"].dtype == np.float32


def test_the_same_seed_gives_the_same_file(scan: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        main(["run", str(scan), "-o", str(tmp_path / name), *FAST, *HALF, "--no-report"])
    a, b = (Posterior.load(tmp_path / name / "scan.h5") for name in ("a", "b"))
    np.testing.assert_array_equal(a.samples, b.samples)


def test_dry_run_tells_the_plan_and_touches_nothing(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path)
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), "--dry-run", "--mask", "poisson", *FAST]) == 0
    told = capsys.readouterr().out
    for words in ("1 slice(s) of 2 coil(s) x 48 x 40", "poisson, acceleration 4", "gaussian", "2 samples", "scan.h5"):
        assert words in told
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_results_are_not_overwritten_unless_forced(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.h5").write_text("precious")
    command = ["run", str(scan), "-o", str(tmp_path), *FAST, *HALF, "--no-report"]
    assert main(command) == 2
    assert "scan.h5 already exists; use --force" in complaint(capsys)
    assert (tmp_path / "scan.h5").read_text() == "precious"
    assert main([*command, "--force"]) == 0
    assert Posterior.load(tmp_path / "scan.h5").n_valid == 2


def test_the_source_is_never_overwritten(
    fastmri_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fastmri_file()
    before = path.read_bytes()
    assert main(["run", str(path), "-o", str(tmp_path), *FAST, "--force"]) == 2
    assert "would overwrite its own source" in complaint(capsys)
    assert path.read_bytes() == before


def test_two_inputs_of_one_name(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scan.npy").write_bytes(scan.read_bytes())
    assert main(["run", str(scan), str(tmp_path / "other" / "scan.npy"), "-o", str(tmp_path / "out")]) == 2
    assert "would both be written to" in complaint(capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "gpu"), "got 'gpu'"),
        (("--mask", "poison"), "got 'poison'"),
        (("--sampler", "magic"), "unknown sampler 'magic'"),
        (("--samples", "0"), "samples: expected an integer from 1 to 100000, got 0"),
        (("--slices", "5"), "the source has 1 slices"),
        (("--prior", "nothing"), "unknown prior 'nothing'"),
        (("--acceleration", "nan"), "acceleration"),
        (("--noise-std", "-1"), "noise_std"),
        (("--acceleration", "2", "--center-fraction", "7"), "center_fraction"),
    ],
)
def test_bad_options(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, *options]) == 2
    assert words in complaint(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prior", "nothing"), "unknown prior 'nothing'"),
        (("--prior", "absent.pt"), "the file absent.pt does not exist"),
        (("--precision", "int8"), "precision: expected one of auto, float32, tf32, bfloat16, got 'int8'"),
        (("--noise-std", "-1"), "noise_std: expected a finite number >= 0"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), "--dry-run", *options]) == 2
    assert words in complaint(capsys)


@pytest.mark.parametrize("options", [("--samples", "0"), ("--device", "nope")])
def test_a_demo_that_cannot_run_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert main(["demo", "-o", str(tmp_path / "out"), *options]) == 2
    assert options[0].strip("-") in complaint(capsys) and not (tmp_path / "out").exists()


def test_every_sampler_is_listed_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    from recon.engine.samplers import ESTIMATORS, PUBLISHED, SAMPLERS

    special = {name: each for kind in modalities.modalities() for name, each in kind.estimators.items()}
    known = {**SAMPLERS, **PUBLISHED, **ESTIMATORS, **special}
    assert main(["samplers"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [*known]
    for name, sampler in known.items():
        assert main(["samplers", name]) == 0
        told = capsys.readouterr().out
        assert all(f"  {field.name} = " in told for field in dataclasses.fields(sampler))
    assert main(["samplers", "magic"]) == 2


def test_any_field_of_a_sampler_can_be_set(scan: Path, tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text('[sampler]\nname = "dds"\neta = 0.5\nspread = "Uniform(0.3)"\n')
    options = ["--prior", "gaussian", "--samples", "2", "--steps", "3", "--no-report"]
    command = ["run", str(scan), "-o", str(tmp_path / "out"), "--config", str(config), *options]
    assert main([*command, "--set", "cg_iterations=7"]) == 0
    found = Posterior.load(tmp_path / "out" / f"{scan.stem}.h5").provenance["sampler"]
    assert (found["eta"], found["cg_iterations"], found["steps"]) == (0.5, 7, 3)
    assert found["spread"] == {"name": "Uniform", "std": 0.3}
    for wrong in ("eta", "etta=0.5", "eta=2", "spread=Uniform(-1)"):
        assert main([*command, "--force", "--set", wrong]) == 2


def test_options_from_a_file_and_the_command_line_wins(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "a.toml"
    config.write_text('prior = "gaussian"\nsamples = 3\nseed = 9')
    command = ["run", str(scan), "-o", str(tmp_path / "out"), "--config", str(config), "--seed", "4", "--dry-run"]
    assert main(command) == 0
    assert "3 samples, seed 4" in capsys.readouterr().out
    config.write_text("sample = 3")
    assert main(command) == 2
    assert "did you mean 'samples'" in complaint(capsys)


@pytest.mark.parametrize("command", [("run", "-o", "out"), ("check",), ("info",), ("report",)])
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\nbroken", b"hello"])
def test_unreadable_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], content: bytes
) -> None:
    (tmp_path / "bad.h5").write_bytes(content)
    options = [str(tmp_path / word) if word == "out" else word for word in command[1:]]
    assert main([command[0], str(tmp_path / "bad.h5"), *options]) == 2
    assert "bad.h5" in complaint(capsys)
    assert files(tmp_path) == {"bad.h5"}


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinite"), (0, "every value is zero")])
def test_unusable_values(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, words: str) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 32, 32), value, np.complex64))
    for command in (["check"], ["run", "-o", str(tmp_path / "out"), *FAST]):
        assert main([command[0], str(tmp_path / "a.npy"), *command[1:]]) == 2
        assert words in complaint(capsys)
    assert files(tmp_path) == {"a.npy"}


def test_failures_exit_with_1_and_say_what_happened(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Posterior, "save", full)
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, *HALF]) == 1
    assert "No space left on device" in complaint(capsys)
    kept = {"job.json", "source.sha256", "slice-00000.npz"}  # nothing is drawn twice
    assert files(tmp_path / "out") == {f".scan.parts/{name}" for name in kept}


def test_a_run_of_bad_samples_fails_and_writes_nothing(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denoise(self: object, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * float("nan")

    monkeypatch.setattr("recon.priors.analytic.GaussianPrior.denoise", denoise)
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, *HALF]) == 1
    assert "non-finite" in complaint(capsys)
    assert not list((tmp_path / "out").glob("*.h5"))


def test_surprises_are_one_line_unless_debugged(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("recon.engine.reconstruction.Reconstruction.draw", broken)
    monkeypatch.setenv("RECON_DEBUG", "")
    command = ["run", str(scan), "-o", str(tmp_path / "out"), *FAST]
    assert main(command) == 1
    assert "ZeroDivisionError: division by zero (this should not happen; run again with --debug" in complaint(capsys)
    assert main([*command, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interruption(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recon.engine.reconstruction.Reconstruction.draw", interrupted)
    command = ["run", str(scan), "-o", str(tmp_path / "out"), *FAST]
    assert main(command) == 130
    kept = "recon: interrupted: 0 of 1 slices are done and kept; the same command goes on\n"
    assert capsys.readouterr().err == kept
    monkeypatch.undo()
    assert main([*command, "--no-report"]) == 0 and files(tmp_path / "out") == {"scan.h5"}


def test_output_that_is_a_file(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(scan), "-o", str(scan / "out"), *FAST]) == 2
    assert "is a file, expected a folder" in complaint(capsys)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to: for root, a file system that is mounted so."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.name != "posix":
        pytest.skip("folders have no permission bits")
    if os.geteuid() != 0:
        yield folder
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and cannot mount here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_output_that_is_read_only(scan: Path, read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(scan), "-o", str(read_only / "out"), *FAST]) == 1
    assert "no permission to write" in complaint(capsys)
    assert not list(read_only.iterdir())


def test_info_of_raw_data_and_of_a_result(
    fastmri_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(fastmri_file())]) == 0
    told = capsys.readouterr().out
    for words in ("format: fastmri", "slices: 2", "3 coil(s) x 64 x 40", "oversampled 2 x", "acquisition: AXT2"):
        assert words in told
    Posterior(np.ones((3, 8, 6), np.complex64), provenance={"seed": 11}).save(tmp_path / "result.h5")
    assert main(["info", str(tmp_path / "result.h5")]) == 0
    told = capsys.readouterr().out
    assert "samples: 3 of 8 x 6, 3 valid" in told
    assert "seed: 11" in told


def test_check_tells_sampling_and_doubts(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(scan)]) == 0
    told = capsys.readouterr().out
    assert "fully sampled" in told
    assert told.endswith("usable\n")
    kspace = np.load(scan)
    kspace[:, :, ::4] = 0
    kspace[1] = 0
    np.save(tmp_path / "odd.npy", kspace)
    assert main(["check", str(tmp_path / "odd.npy")]) == 0
    told = capsys.readouterr().out
    assert "75.0% sampled (acceleration 1.33), whole columns" in told
    assert "coil(s) 1 contain only zeros" in told
    assert "usable, with 2 warning(s)" in told


def test_check_refuses_what_a_run_refuses(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The centre in the corner is a common mistake."""
    np.save(tmp_path / "corner.npy", np.fft.fftshift(np.load(scan), axes=(1, 2)))
    for command in (["check"], ["run", "-o", str(tmp_path / "out")]):
        assert main([*command, str(tmp_path / "corner.npy")]) == 2
        assert "is this k-space, and centred" in complaint(capsys)


@pytest.mark.slow
def test_report_of_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    samples = (1 + rng.normal(size=(3, 16, 12)) + 1j * rng.normal(size=(3, 16, 12))).astype(np.complex64)
    Posterior(samples).save(tmp_path / "result.h5")
    assert main(["report", str(tmp_path / "result.h5")]) == 0
    assert files(tmp_path) == {"result.h5", "result.png", "result.html"}
    assert main(["report", str(tmp_path / "result.h5")]) == 2
    assert "already exists" in complaint(capsys)
    assert main(["report", str(tmp_path / "result.h5"), "-o", str(tmp_path / "other")]) == 0
    assert "other.html" in files(tmp_path)


def test_models_lists_what_ships(capsys: pytest.CaptureFixture[str]) -> None:
    from recon.priors.hub import list_models

    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for card in list_models():
        assert card["name"] in told


def test_training_needs_a_file_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(tmp_path / "absent.toml")]) == 2
    assert "absent.toml" in complaint(capsys)


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["run"], ["run", "a.npy"], ["run", "a.npy", "-o", "b", "--seed", "x"]]
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: recon" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = """
import contextlib, io, json, sys
from recon.cli import main
told = io.StringIO()
with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
    main(["run", "--help"])
print(json.dumps([sorted({"torch", "numpy", "h5py"} & set(sys.modules)), told.getvalue()]))
"""
    root = Path(__file__).resolve().parents[2]
    got = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded, told = json.loads(got.stdout)
    assert loaded == []
    for option in ("--acceleration", "--center-fraction", "--noise-std", "--dry-run", "--batch-size"):
        assert option in told


@pytest.mark.parametrize("capable", [True, False])
def test_bfloat16_without_instructions_for_it_is_said(capable, monkeypatch, tmp_path, fastmri_file, capsys):
    monkeypatch.setattr(
        "torch.cpu.get_capabilities", lambda: {"avx512_bf16": capable, "amx_bf16": False}, raising=False
    )
    arguments = ["run", str(fastmri_file()), "-o", str(tmp_path / "out"), "--dry-run", "--device", "cpu"]
    assert main([*arguments, "--precision", "bfloat16"]) == 0
    assert ("no instructions for bfloat16" in capsys.readouterr().err) != capable
    assert main(arguments) == 0
    assert "bfloat16" not in capsys.readouterr().err
