"""Free space before a run."""

import shutil
from pathlib import Path

import pytest

from recon.errors import InputError, StorageError
from recon.files.space import require_space


def test_too_little_space_is_told_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 12_345_678
    asked = []

    def usage(path: Path) -> object:
        asked.append(Path(path))
        return shutil._ntuple_diskusage(10**12, 0, free)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "yet"
    require_space(folder, free)
    with pytest.raises(StorageError) as caught:
        require_space(folder, 2_345_678_901, "the study")
    assert not isinstance(caught.value, InputError)  # exit status 1, not 2
    assert str(caught.value) == (
        f"the study needs about 2.4 GB, but only 12.3 MB are free in {tmp_path}; "
        "free some space or choose another folder"
    )
    with pytest.raises(StorageError, match=r"needs about 12.4 MB, but only 12.3 MB"):
        require_space(folder, free + 1)
    assert asked == [tmp_path] * 3


def test_a_real_disk(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(StorageError, match="are free in"):
        require_space(tmp_path, 1e18)


def test_a_disk_that_does_not_answer_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Path) -> object:
        raise PermissionError

    monkeypatch.setattr(shutil, "disk_usage", silent)
    require_space(tmp_path, 1e18)
