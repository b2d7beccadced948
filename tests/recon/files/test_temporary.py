"""Leftovers of processes that were killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recon.files import temporary
from recon.files.atomic import atomic_path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are looked up on POSIX systems only")

WRITER = """
import sys
from pathlib import Path
from recon.files.atomic import atomic_folder, atomic_path

with atomic_path(Path(sys.argv[1]) / "a.h5") as file, atomic_folder(Path(sys.argv[1]) / "b") as folder:
    file.write_bytes(b"half")
    (folder / "part").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_the_next_writer_removes_what_a_killed_process_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.h5").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        temporary.remove_stale(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3, "those of a process that runs are left alone"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(tmp_path.iterdir())) == 3
    with atomic_path(tmp_path / "c.h5") as new:
        assert sorted(tmp_path.iterdir()) == sorted([new, tmp_path / "a.h5"])
    assert (tmp_path / "a.h5").read_text() == "old"
    assert capfd.readouterr() == ("", "")


def test_only_own_leftovers_of_this_host_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    own = temporary.temporary_beside(tmp_path / "a.h5").name
    gone = own.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    host = gone.split("-")[1]
    kept = [own, gone.replace(host, "0" * 8), gone[1:], gone + "~", f".recon-{host}-{2**40}-{'0' * 16}"]
    for name in (gone, *kept):
        (tmp_path / name).touch()
    (tmp_path / gone.replace(".h5", ".link")).symlink_to(tmp_path.parent)
    temporary.remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept) and tmp_path.parent.is_dir()


def test_a_folder_that_cannot_be_read_is_no_obstacle(tmp_path: Path) -> None:
    temporary.remove_stale(tmp_path / "missing")
