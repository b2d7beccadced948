"""HDF5 files that are complete or not there, whatever the disk and the user do meanwhile."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from recon.errors import StorageError
from recon.files import checked
from recon.files.hdf5_write import write_hdf5

DATA = np.random.default_rng(0).random((40, 50))


class Terminated(KeyboardInterrupt):
    """What a handler of SIGTERM may raise."""


def write(path: Path) -> None:
    with write_hdf5(path) as file:
        file.create_dataset("a", data=DATA)
        file["b/c"] = 1
        file["a"].attrs["axes"] = "y x"
        file.create_dataset("d", data=DATA, chunks=(7, 8), compression="gzip")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the n-th write fail, or let `act` happen in it."""
    real = os.write

    def at(number: int, act: Callable[[], object] | None = None) -> None:
        count = iter(range(10**6))

        def patched(descriptor: int, data: bytes) -> int:
            if next(count) == number:
                if act is None:
                    raise OSError(errno.ENOSPC, "No space left on device")
                act()
            return real(descriptor, data)

        monkeypatch.setattr(checked.os, "write", patched)

    return at


def test_the_file_is_plain_hdf5(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["a"], DATA)
        np.testing.assert_array_equal(file["d"], DATA)
        assert file["b/c"][()] == 1 and file["a"].attrs["axes"] == "y x"
    assert len(list(tmp_path.iterdir())) == 1


def test_any_single_failure_is_raised_and_leaves_the_old_file(
    tmp_path: Path, failing: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.h5").write_text("old")
    for number in range(1000):
        failing(number)
        try:
            write(tmp_path / "a.h5")
        except StorageError as error:
            assert "a.h5: cannot be written (No space left on device)" in str(error)
            assert (tmp_path / "a.h5").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
        else:
            break
    assert 10 < number < 999
    assert h5py.is_hdf5(tmp_path / "a.h5")
    assert capfd.readouterr() == ("", ""), "h5py says 'Exception ignored' of an error that it loses"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(checked.os, "write", lambda descriptor, data: real(descriptor, data[:1000]))
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["a"], DATA)


def test_a_write_that_makes_no_progress_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked.os, "write", lambda *_: 0)
    with pytest.raises(StorageError):
        write(tmp_path / "a.h5")


@pytest.mark.parametrize("function", ["fsync", "close", "ftruncate"])
def test_late_errors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    class Late:
        def __getattr__(self, name: str) -> object:
            return broken if name == function else getattr(os, name)

    def broken(descriptor: int, *_: object) -> None:
        if function == "close":
            os.close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(checked, "os", Late())
    with pytest.raises(StorageError, match="Disk quota exceeded"):
        write(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_reading_back_what_was_never_written_is_the_error_of_the_disk(
    tmp_path: Path, failing: Callable[..., None]
) -> None:
    failing(0)
    with pytest.raises(StorageError, match="No space left on device"), write_hdf5(tmp_path / "a.h5") as file:
        file.create_dataset("a", data=DATA)
        file.create_dataset("d", data=DATA, chunks=(7, 8), compression="gzip")
        file.flush()
        file.id.reset_mdc_hit_rate_stats()
        assert not np.array_equal(file["a"][()], DATA)
        raise RuntimeError("a consequence")


def test_errors_of_the_caller_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(TypeError), write_hdf5(tmp_path / "a.h5") as file:
        file["a"] = object()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_signals_wait_for_the_write_and_are_never_lost(
    tmp_path: Path, failing: Callable[..., None], number: signal.Signals, raised: type[BaseException]
) -> None:
    def terminate(*_: object) -> None:
        raise Terminated

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, terminate)
    try:
        for position in (0, 3, 9):
            failing(position, lambda: signal.raise_signal(number))
            with pytest.raises(raised):
                write(tmp_path / f"{position}.h5")
            with h5py.File(tmp_path / f"{position}.h5") as file:
                np.testing.assert_array_equal(file["d"], DATA)
            assert signal.getsignal(signal.SIGTERM) is terminate
            assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT]
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert len(list(tmp_path.iterdir())) == 3


def test_an_exception_from_elsewhere_in_a_write_is_raised_at_the_end(
    tmp_path: Path, failing: Callable[..., None]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    failing(3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_other_threads_write_too(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write, args=(tmp_path / f"{k}.h5",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / f"{k}.h5").read_bytes() for k in range(3)}) == 1
