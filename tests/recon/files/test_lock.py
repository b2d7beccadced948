"""A folder belongs to one run at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recon.errors import ConfigError
from recon.files.lock import NAME, in_use, owned

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from recon.files.lock import owned
with owned(Path(sys.argv[1]), "run"):
    print("mine", flush=True)
    time.sleep(60)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that owns the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    return process


@pytest.mark.slow
def test_a_second_run_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    with process:
        try:
            assert in_use(tmp_path / "out")
            words = rf"out is in use by another run \(process {process.pid} on .+\); wait for it or stop it"
            with pytest.raises(ConfigError, match=words), owned(tmp_path / "out", "run"):
                pass
            assert (tmp_path / "out" / NAME).exists(), "who is refused takes nothing away"
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_the_lock_goes_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    process = holder(tmp_path / "out")
    with process:
        process.send_signal(number)
        process.communicate()
    assert (tmp_path / "out" / NAME).exists() and not in_use(tmp_path / "out")
    with owned(tmp_path / "out", "run"):
        assert in_use(tmp_path / "out")
        assert (tmp_path / "out" / NAME).read_text().startswith(f"{os.getpid()} on ")
    assert not (tmp_path / "out" / NAME).exists()


def test_a_new_folder_without_results_goes_and_another_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old", "full"):
        with owned(tmp_path / name, "run"):
            if name == "full":
                (tmp_path / name / "a.h5").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"old", "full"}


def test_an_error_inside_releases_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), owned(tmp_path, "run"):
        raise ZeroDivisionError
    assert not in_use(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_at_a_time_of_many(tmp_path: Path) -> None:
    """Processes that come and go in one folder: never two of them inside, and none fails for another reason."""
    code = """
import os, sys, time
from pathlib import Path
from recon.errors import ConfigError
from recon.files.lock import owned
folder, inside, count = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + 1.0
while time.monotonic() < end:
    try:
        with owned(folder, "run"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            count += 1
            time.sleep(0.001)
            os.unlink(inside)
    except ConfigError:
        pass
print(count)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "inside")]
    many = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    told = [process.communicate(timeout=60) for process in many]
    assert all(process.returncode == 0 for process in many), [err[-300:] for _, err in told]
    assert sum(int(out) for out, _ in told) > 10
