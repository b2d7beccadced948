"""Atomic writes."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recon.errors import InputError, StorageError
from recon.files.atomic import atomic_folder, atomic_path, make_folder

posix = pytest.mark.skipif(os.name != "posix", reason="names of bytes, links and permission bits are a POSIX thing")


def test_atomic_path_replaces_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit, ConnectionResetError])
def test_atomic_path_leaves_nothing_behind(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), atomic_path(tmp_path / "a.h5") as temporary:
        temporary.write_text("half")
        raise problem
    with pytest.raises(problem), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "part").write_text("half")
        raise problem
    assert not list(tmp_path.iterdir())


@posix
def test_results_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_path(tmp_path / "a.h5"):
        pass
    with atomic_path(tmp_path / "b.h5") as temporary:  # some libraries replace the file by a private one
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    for name in ("a.h5", "b.h5"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_temporary_names_are_short_and_differ(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as short, atomic_path(tmp_path / f"{'a' * 200}.b{'c' * 30}") as long:
        assert len(short.name) == len(long.name) < 60 and short.name != long.name
        assert re.fullmatch(rf"\.recon-[0-9a-f]{{8}}-{os.getpid()}-[0-9a-f]{{16}}", short.name)


@posix
@pytest.mark.parametrize("name", [b"a" * 252 + b".h5", b"scan\xff.h5", b"a\nb.h5"], ids=["255 bytes", "bytes", "lines"])
def test_any_legal_name(tmp_path: Path, name: bytes) -> None:
    with atomic_path(tmp_path / os.fsdecode(name)) as temporary:
        temporary.write_text("content")
    assert os.listdir(os.fsencode(tmp_path)) == [name]


@posix
def test_links_are_replaced_and_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("precious")
    (tmp_path / "a.h5").symlink_to(tmp_path / "own")
    with atomic_path(tmp_path / "a.h5") as temporary:
        temporary.write_text("result")
    assert not (tmp_path / "a.h5").is_symlink() and (tmp_path / "a.h5").read_text() == "result"
    with pytest.raises(StorageError), atomic_path(tmp_path / "a.h5") as temporary:
        temporary.unlink()
        temporary.symlink_to(tmp_path / "own")
    assert (tmp_path / "own").read_text() == "precious" and (tmp_path / "a.h5").read_text() == "result"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_errors_of_the_disk_are_storage_errors(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_text("old")
    unchanged = pytest.raises(StorageError, match=r"a.h5: cannot be written .*; what was there is unchanged")
    with unchanged, atomic_path(tmp_path / "a.h5"):
        raise OSError(code, os.strerror(code))

    def failing(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(StorageError, match=os.strerror(code)), atomic_path(tmp_path / "a.h5") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.h5").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.h5"):
        (tmp_path / "input").read_bytes()
    missing = pytest.raises(StorageError, match=r"a.h5: cannot be written \(No such file or directory\)$")
    with missing, atomic_path(tmp_path / "b" / "a.h5"):
        pass


def test_a_folder_appears_at_once_and_never_replaces_files(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "one").write_text("1")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "one").read_text() == "1"
    with pytest.raises(StorageError, match="a: cannot be written"), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "two").write_text("2")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "one"]


def test_a_folder_is_replaced_only_when_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with pytest.raises(ValueError), atomic_folder(tmp_path / "a", replace=True) as temporary:
        (temporary / "half").touch()
        raise ValueError
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]

    def second_fails(source: str | Path, target: str | Path, replace: Callable[..., None] = os.replace) -> None:
        if Path(target) == tmp_path / "a" and (Path(source) / "new").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", second_fails)
        with pytest.raises(StorageError), atomic_folder(tmp_path / "a", replace=True) as temporary:
            (temporary / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]
    with atomic_folder(tmp_path / "a", replace=True) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


def test_make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "c"):
        with pytest.raises(InputError, match="a file is there"):
            make_folder(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.mkdir", full)
    with pytest.raises(StorageError, match="c: cannot be created"):
        make_folder(tmp_path / "c")
