"""Clusters that a file describes: what is refused, and the scripts of the jobs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from recon.cli import main
from recon.errors import ConfigError
from recon.study import arrivals, queue_jobs
from recon.study.cluster_file import read_cluster_file

FAST = ("--prior", "gaussian", "--samples", "2", "--steps", "3", "--no-holdout", "--no-report")
SLURM = """
kind = "slurm"
workers = 64
gpus_per_worker = 1
queue = "gpu"
account = "lab42"
cores = 8
memory = "16GiB"
walltime = "02:00:00"
job_script_prologue = ["module load python"]
job_extra_directives = ["--exclude=node7"]
worker_extra_args = ["--lifetime", "110m"]
"""
LEAST = 'kind = "slurm"\nworkers = 2\ncores = 2\nmemory = "4GB"\n'


# Looked for, not imported: an import would replace this process's handler of Ctrl-C.
needs_queue = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="needs dask-jobqueue (extra cluster)")


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "kind: expected one of slurm, pbs, lsf, got None"),
        ('kind = "sge"', "kind: expected one of slurm, pbs, lsf, got 'sge'"),
        (LEAST + 'quueue = "gpu"', "unknown option 'quueue'; did you mean 'queue'?"),
        (LEAST + 'resource_spec = "x"', "unknown option 'resource_spec'"),
        (LEAST.replace("cores = 2", 'cores = "two"'), "cores: expected an integer, got 'two'"),
        (LEAST.replace("cores = 2", "cores = true"), "cores: expected an integer, got True"),
        (LEAST.replace("cores = 2", "cores = 0"), "expected 1 <= processes <= cores, got 1 and 0"),
        (LEAST.replace('memory = "4GB"', ""), "memory: expected the memory of a job, got none"),
        (LEAST + "adapt = [1, 2]", "expected either workers = N or adapt"),
        (
            LEAST.replace("workers = 2", "adapt = [3, 2]"),
            "expected 0 <= min <= max workers and at least one, got 3 to 2",
        ),
        (LEAST.replace("workers = 2", "adapt = [3]"), r"adapt: expected \[min, max\], got \[3\]"),
        (LEAST + 'account = "a"\nproject = "b"', "account and project mean the same"),
        (LEAST + "gpus_per_worker = 2", "a worker uses one GPU; expected 0 or 1, got 2"),
        (LEAST + "gpus_per_worker = 1\nprocesses = 2", "workers with a GPU are jobs of one process, got 2"),
        (LEAST + "wait_minutes = 0", "wait_minutes: expected a finite number > 0, got 0"),
        (LEAST + "wait_minutes = nan", "wait_minutes: expected a finite number > 0, got nan"),
        (LEAST + 'wait_minutes = "1h"', "wait_minutes: expected a number, got '1h'"),
        (LEAST + "queue = [", "is not valid TOML"),
    ],
)
def test_what_a_cluster_file_must_not_say(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_cluster_file(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_cluster_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_cluster_file(tmp_path / "none.toml")


@needs_queue
def test_script_of_slurm(tmp_path: Path) -> None:
    lines = queue_jobs.script(read_cluster_file(written(tmp_path, SLURM))).splitlines()
    for expected in ("-p gpu", "-A lab42", "-n 1", "--cpus-per-task=8", "--mem=16G", "-t 02:00:00"):
        assert f"#SBATCH {expected}" in lines
    assert lines.index("#SBATCH --exclude=node7") < lines.index("#SBATCH --gres=gpu:1")
    assert lines.index("module load python") < lines.index("export OMP_NUM_THREADS=8")
    command = lines[-1]
    assert "-m distributed.cli.dask_worker tcp://SCHEDULER:PORT" in command
    assert "--nthreads 1 --memory-limit 16.00GiB" in command and "--lifetime 110m" in command
    assert "--nworkers" not in command


@needs_queue
def test_several_workers_in_a_job_divide_its_cores(tmp_path: Path) -> None:
    text = 'kind = "slurm"\nadapt = [0, 32]\ncores = 16\nprocesses = 8\nmemory = "32GiB"\n'
    script = queue_jobs.script(read_cluster_file(written(tmp_path, text)))
    assert "#SBATCH --cpus-per-task=16" in script and "export OMP_NUM_THREADS=2" in script
    assert "--nthreads 1 --memory-limit 4.00GiB" in script and "--nworkers 8" in script


@needs_queue
def test_scripts_of_pbs_and_lsf(tmp_path: Path) -> None:
    pbs = SLURM.replace('"slurm"', '"pbs"').replace("account", "project").replace("--exclude=node7", "-j oe")
    script = queue_jobs.script(read_cluster_file(written(tmp_path, pbs)))
    for expected in ("-q gpu", "-A lab42", "-l select=1:ncpus=8:mem=16GB:ngpus=1", "-l walltime=02:00:00", "-j oe"):
        assert f"#PBS {expected}" in script.splitlines()
    lsf = SLURM.replace('"slurm"', '"lsf"').replace("--exclude=node7", "-x") + 'lsf_units = "mb"\n'
    script = queue_jobs.script(read_cluster_file(written(tmp_path, lsf)))
    for expected in ("-q gpu", '-P "lab42"', "-n 8", "-M 17180", "-W 02:00:00", '-gpu "num=1"', "-x"):
        assert f"#BSUB {expected}" in script.splitlines()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "scan.npy"
    np.save(path, (rng.normal(size=(2, 1, 32, 32)) + 1j * rng.normal(size=(2, 1, 32, 32))).astype(np.complex64))
    return path


@needs_queue
def test_dry_run_prints_the_script(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["run", str(scan), "-o", str(out), *FAST, "--cluster", str(written(tmp_path, SLURM)), "--dry-run"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert str(out / "scan.h5") in told and "#SBATCH -p gpu" in told and "cuda" in told
    assert not out.exists()


@needs_queue
def test_a_machine_without_the_queue_is_one_line(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["run", str(scan), "-o", str(tmp_path / "out"), *FAST, "--cluster", str(written(tmp_path, LEAST))]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("this machine has no 'sbatch'; start the run where jobs are submitted")


def test_one_kind_of_workers_at_a_time(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", str(scan), "-o", str(tmp_path), "--workers", "2", "--scheduler", "tcp://here:1"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


SBATCH = f"""#!{sys.executable}
import pathlib, shutil, subprocess, sys
queue = pathlib.Path(__file__).parent
if (queue / "closed").exists():
    sys.exit("sbatch: error: invalid partition specified: gpu")
if (queue / "jobs").exists() and (queue / "full").exists():
    (queue / "full").unlink()  # only once
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
log = open(queue / "log", "ab")
streams = {{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}}
script = shutil.copy(sys.argv[1], queue / "script")  # as the real one, for the caller removes the file
command = ["sleep", "600"] if (queue / "busy").exists() else ["bash", script]
process = subprocess.Popen(command, **streams, start_new_session=True)
(queue / "jobs").open("a").write(f"{{process.pid}}\\n")
print("Submitted batch job", process.pid)
"""
SCANCEL = f"""#!{sys.executable}
import os, pathlib, signal, sys
(pathlib.Path(__file__).parent / "cancelled").open("a").write(f"{{sys.argv[1]}}\\n")
os.killpg(int(sys.argv[1]), signal.SIGKILL)
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue of this machine that starts jobs at once, with the commands of SLURM."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    return folder


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@needs_queue
def test_jobs_of_a_queue_do_the_work_and_end(
    scan: Path, queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, LEAST.replace("workers = 2", "workers = 1") + 'interface = "lo"\n')
    command = ["run", str(scan), "-o", str(tmp_path / "out"), *FAST, "--cluster", str(file)]
    assert main(command) == 0, (queue / "log").read_text()
    assert (tmp_path / "out" / "scan.h5").exists()
    assert "asked slurm for 1 workers" in capsys.readouterr().err
    assert (queue / "jobs").read_text() == (queue / "cancelled").read_text()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_queue
def test_what_the_queue_says_is_told_in_one_line(
    scan: Path, queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (queue / "closed").touch()
    file = written(tmp_path, LEAST + 'interface = "lo"\n')
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, "--cluster", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "sbatch failed" in line and "invalid partition specified: gpu" in line


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_queue
def test_a_run_ends_when_no_job_ever_starts(
    scan: Path, queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (queue / "busy").touch()
    file = written(tmp_path, LEAST + 'interface = "lo"\nwait_minutes = 0.05\n')
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, "--cluster", str(file)]) == 1
    asked, line = capsys.readouterr().err.splitlines()
    assert "asked slurm for 2 workers" in asked
    assert (
        line.startswith(f"recon: error: {file}: no worker for 0 min: jobs wait in the queue") and "wait_minutes" in line
    )
    assert sorted((queue / "jobs").read_text().split()) == sorted((queue / "cancelled").read_text().split())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@needs_queue
def test_a_job_that_is_refused_later_is_told_and_asked_for_again(
    scan: Path, queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_PAUSE_SECONDS", 0.1)
    (queue / "full").touch()
    file = written(tmp_path, LEAST + 'interface = "lo"\n')
    longer = ("--steps", "300")  # than the pause, however fast the one worker is
    assert main(["run", str(scan), "-o", str(tmp_path / "out"), *FAST, *longer, "--cluster", str(file)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "sbatch refused a job" in line]
    assert len(told) == 1 and "QOSMaxSubmitJobPerUserLimit" in told[0]
    assert len((queue / "jobs").read_text().split()) == 2 and not (queue / "full").exists()


@needs_queue
@pytest.mark.slow
def test_ctrl_c_means_the_same_after_a_queue_was_used(tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "from recon.study import cluster_file, queue_jobs\n"
        "queue_jobs.script(cluster_file.read_cluster_file(sys.argv[1]))\n"
        "assert 'dask_jobqueue' in sys.modules\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(written(tmp_path, LEAST))], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
