"""Names of files as text, and names that are too long."""

import os
from pathlib import Path

import pytest

from recon.errors import InputError
from recon.files.names import require_name
from recon.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("scan 1.h5", "scan 1.h5"),
        ("Schädel-脑 µ²\N{IDEOGRAPHIC SPACE}x", "Schädel-脑 µ²\N{IDEOGRAPHIC SPACE}x"),
        (os.fsdecode(b"scan\xff.h5"), r"scan\xff.h5"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\nb\tc\r\x00\x7f\x9b", r"a\nb\tc\r\x00\x7f\x9b"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b\N{LINE SEPARATOR}c", r"a\u202eb\u2028c"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(name).encode("utf-8").isascii() or not shown.isascii()


def test_a_path_is_printable(tmp_path: Path) -> None:
    assert printable(tmp_path / "a\n") == f"{tmp_path}{os.sep}a\\n"


def test_names_that_a_disk_cannot_hold(tmp_path: Path) -> None:
    require_name(tmp_path / ("a" * 255))
    require_name(tmp_path / "new" / "newer" / "scan.h5")
    with pytest.raises(InputError, match=r"this name has 256 bytes, but .* allows 255; use a shorter name"):
        require_name(tmp_path / ("ä" * 128))
    with pytest.raises(InputError, match="this name has 300 bytes"):
        require_name(tmp_path / "new" / ("a" * 300) / "scan.h5")
    with pytest.raises(InputError, match=r"a\\x00b: a file name cannot contain a null character"):
        require_name(tmp_path / "a\0b")
