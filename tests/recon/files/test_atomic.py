"""Atomic writes."""

import os
from pathlib import Path

import pytest

from recon.files.atomic import atomic_path


def test_atomic_path_replaces_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("a.nii.gz")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_path_leaves_nothing_behind(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), atomic_path(tmp_path / "a.h5") as temporary:
        temporary.write_text("half")
        raise problem
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX thing")
def test_results_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_path(tmp_path / "a.h5"):
        pass
    assert (tmp_path / "a.h5").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
