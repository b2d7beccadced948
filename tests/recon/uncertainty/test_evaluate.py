"""`recon calibrate`, `recon evaluate`, calibrated reports: in process, with an analytic prior or without any run."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from recon import Posterior
from recon.cli import main
from recon.engine.reconstruction import Reconstruction
from recon.errors import InputError
from recon.metrics import coverage, foreground, psnr, spread_skill
from recon.uncertainty import Calibration, Case, calibrate
from recon.uncertainty.evaluation import evaluate
from recon.uncertainty.evaluation_files import table_lines

FAST = ("--prior", "gaussian", "--samples", "3", "--steps", "2", "--device", "cpu")
HALF = ("--acceleration", "2", "--center-fraction", "0.3", "--level", "0.5")


def result(seed, width=0.5, n=4, shape=(16, 20)):
    """A posterior that spreads `width` times too little, with its reference."""
    rng = np.random.default_rng(seed)
    std = np.linspace(0.5, 4, shape[-1])
    center = 100 + 10 * rng.normal(size=shape)
    truth = (center + std * rng.normal(size=shape)).astype(np.float32)
    samples = (center + width * std * rng.normal(size=(n, *shape))) * np.exp(1j * rng.normal(size=shape))
    return Posterior(
        samples.astype(np.complex64),
        provenance={"source": {"name": f"scan{seed}.npy", "sha256": f"{seed:064x}"}, "seed": 1},
        diagnostics={"residual": np.full(n, 0.9), "valid": np.ones(n, bool), "cg_residual": np.full(n, 0.0125)},
        images={"reference": truth, "mask": np.ones((1, shape[-1]), bool)},
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for seed in range(3):
        result(seed).save(folder / f"scan{seed}.h5")
    (folder / "notes.txt").write_text("not a result")
    return folder


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    calibrate(Case(result(seed), f"scan{seed}") for seed in range(2, 14)).save(path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two fully sampled scans and a file that is none."""
    folder = tmp_path / "scans"
    folder.mkdir()
    y, x = np.mgrid[-1:1:32j, -1:1:24j]
    for number in range(2):
        rng = np.random.default_rng(number)
        image = np.where(y**2 / 0.6 + x**2 / 0.4 < 1, 1 + 0.5 * np.cos((5 + number) * y) * np.cos(4 * x), 0)
        kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))[None]
        noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
        np.save(folder / f"s{number}.npy", (kspace + 0.02 * noise).astype(np.complex64))
    (folder / "readme.txt").write_text("hello")
    return folder


def complaint(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("recon: warning: ")]
    assert len(lines) == 1, lines
    return lines[0]


def test_rows_agree_with_the_metrics():
    posterior = result(0)
    found = evaluate([Case(posterior, "a")])
    row = found.rows[0]
    truth = posterior.images["reference"]
    tissue, white = foreground(truth), np.quantile(truth, 0.99)
    lower, upper = posterior.interval(0.9)
    assert row["psnr"] == psnr(posterior.mean, truth)
    assert row["raw_coverage"] == coverage(lower, upper, truth, tissue)
    assert row["raw_length"] == pytest.approx(np.mean((upper - lower)[tissue]) / white, rel=1e-6)
    magnitude = posterior.magnitude
    expected = spread_skill(magnitude.mean, magnitude.std, truth, tissue, n_samples=4)
    assert row["spread_skill"] == pytest.approx(expected, rel=1e-5)
    assert row["spread_skill"] < 0.8
    assert row["psnr_sample"] < row["psnr"]
    assert row["chi2"] == pytest.approx(0.9)
    assert found.curves[0][8] == pytest.approx(row["raw_coverage"], abs=1e-9)
    assert found.ranks[0].sum() == tissue.sum()


def test_a_calibration_is_evaluated_on_images_that_it_has_not_seen(calibration):
    known = Calibration.load(calibration)
    found = evaluate((Case(result(seed), f"scan{seed}") for seed in range(20)), calibration=known)
    summary = found.summary()
    seen = [row["in_calibration"] for row in found.rows]
    assert seen == [2 <= seed < 14 for seed in range(20)]
    fresh = np.mean([row["calibrated_coverage"] for row in found.rows if not row["in_calibration"]])
    assert summary["calibrated_coverage"] == fresh
    assert summary["raw_coverage"] < 0.8 < 0.88 < fresh
    assert summary["calibrated_length"] > summary["raw_length"]
    # A constant width is too wide where little is uncertain and too narrow where much is.
    constant = np.mean(found.deciles["constant"], axis=0)
    assert constant[0] == 1 > constant[-1]
    assert "*" in table_lines(found)[3]


def test_evaluation_refuses_what_it_cannot_compare(calibration):
    known = Calibration.load(calibration)
    with pytest.raises(InputError, match="no results"):
        evaluate([])
    with pytest.raises(InputError, match="a: expected at least 2 valid samples, got 1"):
        evaluate([Case(result(0, n=1), "a")])
    with pytest.raises(InputError, match=r"calibration is for level 0\.9, but level 0\.8 was requested"):
        evaluate([Case(result(0), "a")], 0.8, known)
    with pytest.raises(InputError, match="a: the calibration does not belong to this result: samples is 5"):
        evaluate([Case(result(0, n=5), "a")], None, known)


@pytest.mark.slow
def test_evaluate_writes_tables_and_pictures(results, calibration, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "deep" / "out"
    command = ["evaluate", str(results), "-o", str(out), "--calibration", str(calibration)]
    assert main(command) == 0
    names = {"evaluation.json", "evaluation.csv", "coverage.png", "spread_skill.png", "intervals.png"}
    assert {path.name for path in out.iterdir()} == names
    told = capsys.readouterr().out
    assert "calibrated cov." in told
    assert "scan2 *" in told
    content = json.loads((out / "evaluation.json").read_text())
    assert len(content["rows"]) == 3
    assert content["summary"]["raw_coverage"] == pytest.approx(
        np.mean([row["raw_coverage"] for row in content["rows"][:2]])
    )
    with open(out / "evaluation.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == ["scan0", "scan1", "scan2"]
    assert float(rows[0]["psnr"]) == content["rows"][0]["psnr"]
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith("png"))
    assert main(command) == 2
    assert "already exists" in complaint(capsys)
    assert main([*command, "--force", "--no-pictures"]) == 0


def test_references_of_a_folder(results, tmp_path, capsys):
    folder = tmp_path / "truth"
    folder.mkdir()
    for seed in range(3):
        truth = result(seed).images["reference"]
        np.save(folder / f"scan{seed}.npy", truth + 100)
    assert main(["evaluate", str(results), "--no-pictures", "-o", str(tmp_path / "a"), "--reference", str(folder)]) == 0
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["summary"]["raw_coverage"] < 0.1
    assert (
        main(["evaluate", str(results), "--no-pictures", "-o", str(tmp_path / "b"), "--reference", str(results)]) == 0
    )
    assert json.loads((tmp_path / "b" / "evaluation.json").read_text())["summary"]["raw_coverage"] > 0.5
    capsys.readouterr()
    (folder / "scan1.npy").unlink()
    assert main(["evaluate", str(results), "--no-pictures", "-o", str(tmp_path / "c"), "--reference", str(folder)]) == 2
    assert "contains no reference named scan1" in complaint(capsys)
    (folder / "scan1.npy").write_bytes(b"\x93NUMPY broken")
    assert main(["evaluate", str(results), "--no-pictures", "-o", str(tmp_path / "c"), "--reference", str(folder)]) == 2
    assert "scan1.npy" in complaint(capsys)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--calibration", "absent.json"], "absent.json"),
        (["--groups", "absent.json"], "absent.json"),
        (["--level", "1.5"], "between 0 and 1"),
        (["--reference", "absent"], "is not a folder"),
    ],
)
def test_bad_input_of_evaluate(results, tmp_path, capsys, options, words):
    assert main(["evaluate", str(results), "-o", str(tmp_path / "out"), *options]) == 2
    assert words in complaint(capsys)
    assert not (tmp_path / "out").exists()


def test_folders_without_results_or_references(results, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["evaluate", str(empty), "-o", str(tmp_path / "out")]) == 2
    assert "contains no result" in complaint(capsys)
    bare = dataclasses.replace(result(5), images={})
    bare.save(results / "scan5.h5")
    assert main(["evaluate", str(results), "-o", str(tmp_path / "out")]) == 2
    assert "scan5: has no reference image" in complaint(capsys)
    assert not (tmp_path / "out").exists()


def test_groups_are_read_from_a_file(results, tmp_path, capsys):
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({"scan0.npy": "t1", "scan1": "t2", "scan2": "t1"}))
    path = tmp_path / "grouped.json"
    cases = [
        Case(result(seed, width), f"{seed}", None, group)
        for group, width, first in (("t1", 0.5, 20), ("t2", 1, 40))
        for seed in range(first, first + 10)
    ]
    calibrate(cases).save(path)
    command = ["evaluate", str(results), "--no-pictures", "-o", str(tmp_path / "a"), "--calibration", str(path)]
    assert main(command) == 2
    assert "expected one of the groups t1, t2" in complaint(capsys)
    assert main([*command, "--groups", str(groups)]) == 0
    rows = json.loads((tmp_path / "a" / "evaluation.json").read_text())["rows"]
    assert [row["group"] for row in rows] == ["t1", "t2", "t1"]
    groups.write_text('{"scan0.npy": "t1"}')
    assert main([*command, "--groups", str(groups), "--force"]) == 2
    assert "does not list scan1.npy" in complaint(capsys)


@pytest.mark.slow
def test_calibrate_resumes_and_its_result_fits_what_run_makes(scans, tmp_path, capsys, monkeypatch):
    out = tmp_path / "c.json"
    command = ["calibrate", str(scans), "-o", str(out), *FAST, *HALF]

    made, real = [], Reconstruction.draw

    def counted(self, unit, step=None):
        if len(made) == 1 and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        made.append((self.source.path.name, self.run.seed))
        return real(self, unit, step)

    monkeypatch.setattr(Reconstruction, "draw", counted)
    assert main(command) == 130
    assert not out.exists()
    before = (tmp_path / "c-results" / "s0.h5").read_bytes()
    (tmp_path / "go").touch()
    assert main(command) == 0
    assert [name for name, _ in made] == ["s0.npy", "s1.npy"]
    assert made[0][1] != made[1][1]
    assert (tmp_path / "c-results" / "s0.h5").read_bytes() == before
    told = capsys.readouterr().out
    for words in ("left out: ", "s0.npy already done", "s1.npy reconstructed", "times the raw width"):
        assert words in told
    calibration = Calibration.load(out)
    assert calibration.images == {"all": 2}
    assert calibration.fingerprint["operator"] == "CartesianMRI"
    run = ["run", str(scans / "s0.npy"), "-o", str(tmp_path / "out"), "--no-report", *FAST, *HALF[:4]]
    assert main([*run, "--seed", "9"]) == 0
    posterior = Posterior.load(tmp_path / "out" / "s0.h5")
    bounds = posterior.interval(0.5, "conformal", calibration)
    assert bounds[0].shape == posterior.samples.shape[1:]
    assert main([*run, "--acceleration", "3", "--force"]) == 0
    with pytest.raises(InputError, match="acceleration is 3 here but was 2"):
        calibration.apply(Posterior.load(tmp_path / "out" / "s0.h5"))


@pytest.mark.slow
def test_calibrate_does_not_mix_results_of_different_options(scans, tmp_path, capsys):
    command = ["calibrate", str(scans), "-o", str(tmp_path / "c.json"), *FAST, *HALF]
    assert main(command) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "c.json already exists" in complaint(capsys)
    other = [*command, "--noise-std", "0.1"]
    other[3] = str(tmp_path / "d.json")
    assert main([*other, "--results", str(tmp_path / "c-results")]) == 2
    assert "contains results with noise_std = None, but now noise_std = 0.1" in complaint(capsys)
    assert not (tmp_path / "d.json").exists()
    np.save(scans / "s0.npy", 2 * np.load(scans / "s0.npy"))
    other = [*command[:3], str(tmp_path / "d.json"), *command[4:], "--results", str(tmp_path / "c-results")]
    assert main(other) == 2
    assert "is not the result of" in complaint(capsys)
    assert main([*other, "--force"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give --acceleration"),
        (("--acceleration", "2"), "at least 9 calibration images, got 2"),
        ((*HALF, "--method", "rcps"), "at least 200"),
        ((*HALF, "--smoothing", "2"), "odd number"),
        ((*HALF, "--delta", "2"), "delta"),
        ((*HALF, "--samples", "1"), "needs at least 2"),
        ((*HALF, "--prior", "gaussian", "--results", "scans"), "folder of the raw data"),
        ((*HALF, "--groups", "scans/readme.txt"), "is not JSON"),
    ],
)
def test_bad_input_of_calibrate(scans, tmp_path, capsys, options, words):
    options = [str(tmp_path / word) if word.startswith("scans") else word for word in options]
    before = sorted(tmp_path.rglob("*"))
    assert main(["calibrate", str(scans), "-o", str(tmp_path / "c.json"), *FAST, *options]) == 2
    assert words in complaint(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_calibrate_needs_fully_sampled_files(scans, tmp_path, capsys):
    kspace = np.load(scans / "s1.npy")
    kspace[..., ::2] = 0
    np.save(scans / "s1.npy", kspace)
    assert main(["calibrate", str(scans), "-o", str(tmp_path / "c.json"), *FAST, *HALF]) == 2
    assert "s1.npy: not fully sampled" in complaint(capsys)
    assert main(["calibrate", str(tmp_path / "absent"), "-o", str(tmp_path / "c.json"), *FAST, *HALF]) == 2
    assert "is not a folder" in complaint(capsys)


@pytest.mark.slow
def test_a_report_says_what_is_raw_and_what_is_calibrated(results, calibration, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("recon.figure.DPI", 50)
    path = str(results / "scan0.h5")
    assert main(["report", path, "-o", str(tmp_path / "raw")]) == 0
    assert main(["report", path, "-o", str(tmp_path / "both"), "--calibration", str(calibration)]) == 0
    raw, both = ((tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("raw", "both"))
    assert "interval (raw)" in raw
    assert "alibrated</b>" not in raw
    assert "interval (calibrated)" in both
    assert "<b>calibrated</b>" in both
    assert "<b>0.013</b><span>CG residual" in raw or "<b>0.012</b><span>CG residual" in raw
    result(0, n=5).save(results / "other.h5")
    options = ["-o", str(tmp_path / "other"), "--calibration", str(calibration)]
    capsys.readouterr()
    assert main(["report", str(results / "other.h5"), *options]) == 2
    assert "samples is 5 here but was 4" in complaint(capsys)
    assert not (tmp_path / "other.html").exists()


def test_a_report_counts_negative_curvature_and_invalid_samples(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("recon.figure.DPI", 50)
    facts = {**result(0).diagnostics, "valid": np.array([True, True, True, False]), "negative_curvature": np.arange(4)}
    _, html = dataclasses.replace(result(0), diagnostics=facts).report(tmp_path / "a")
    page = html.read_text(encoding="utf-8")
    assert "<b>6</b><span>directions of negative curvature" in page
    assert "<b>3 of 4</b><span>valid samples (1 invalid excluded)" in page
