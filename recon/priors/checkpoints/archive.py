"""Reading untrusted checkpoint files without running anything in them.

A ``.pt`` or ``.pth`` file is a zip archive of one pickle and the raw bytes of each tensor. Before torch reads it (with
``weights_only=True``, memory-mapped), the archive itself is checked: stored sizes, checksums, and every name that the
pickle refers to. What remains can only be numbers, strings, containers and tensors.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from recon.errors import CheckpointError, InputError

#: Everything that pickles of plain state dictionaries may refer to.
HARMLESS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
    *(f"torch.{kind}Storage" for kind in ("Byte", "Bool")),
    *(f"torch.{kind}" for kind in ("float32", "float64", "float16", "bfloat16", "int64", "int32")),
}
PICKLE_LIMIT = 16 * 2**20  # less than 1 MiB for one thousand tensors
# Raised by zipfile, pickletools and torch for damaged or malicious content.
DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
)


@dataclass(frozen=True)
class Content:
    """Content of a file: containers of tensors (memory-mapped), and the text metadata of safetensors."""

    path: Path
    data: Any
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)


def read_file(path: Path) -> Content:
    """Read a ``.pt``, ``.pth`` or ``.safetensors`` file; the format is recognised by content.

    Raises
    ------
    InputError
        If the file does not exist.
    CheckpointError
        If it is damaged, contains code, or has another format; the message says what to do.
    """
    if not path.is_file():
        raise InputError(f"prior: the file {path} does not exist")
    with path.open("rb") as stream:
        start = stream.read(512)
    if start[:4] == b"PK\x03\x04":
        _check_archive(path)
        return Content(path, _load_archive(path))
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _read_safetensors(path)
    raise CheckpointError(f"{path}: {_foreign(start)}")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _foreign(start: bytes) -> str:
    """Describe a file that does not contain weights."""
    resave = (
        "if you trust its source, open it elsewhere and save the state dict again: torch.save(state_dict, 'new.pt')"
    )
    if not start:
        return "the file is empty; download it again"
    if start[257:262] == b"ustar":
        return f"a tar archive: unpack it first; if it was written by torch before 0.4, {resave}"
    if start.lstrip()[:1] == b"<":
        return "an HTML page, not weights: the download returned a web page instead of the file"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not weights: run 'git lfs pull' in its repository"
    if start[:1] == b"\x80":
        return f"a bare Python pickle, which could run code (torch before 1.6, or an EDM .pkl): {resave}"
    return "neither a torch archive (.pt, .pth) nor safetensors; it may be damaged; download it again"


def _check_archive(path: Path) -> None:
    """Refuse archives that were not written by torch or are damaged, before torch reads them."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("/constants.pkl") for name in names) or any("/code/" in name for name in names):
                raise CheckpointError(
                    f"{path}: a TorchScript program, which is code; if you trust its source, pass "
                    "recon.priors.load_torchscript(path, sigma_min=..., sigma_max=...) as the prior"
                )
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT:
                raise CheckpointError(f"{path}: a zip archive, but not one written by torch.save (no data.pkl)")
            size = path.stat().st_size
            packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries) > size:
                raise CheckpointError(
                    f"{path}: entry {(packed or names)[0]!r} unpacks to more than is stored (a zip bomb?), but torch "
                    "writes uncompressed entries; refused"
                )
            _check_pickle(path, archive.read(pickles[0]))
            damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(f"{path}: entry {damaged!r} is damaged (checksum); download the file again")
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); download the file again") from error


def _check_pickle(path: Path, content: bytes) -> None:
    """Refuse a pickle that refers to anything but tensors and containers, without running it."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            name = str(argument).replace(" ", ".")
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            name = "objects by a pickle protocol that torch.save does not use"
        else:
            continue
        if name not in HARMLESS:
            raise CheckpointError(
                f"{path}: refers to {name}, which is code, not weights; refused. If you trust its source, save the "
                "state dict only, elsewhere: torch.save(state_dict, 'new.pt')"
            )


def _load_archive(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except SafetensorError as error:  # torch decides by the file ending
        raise CheckpointError(f"{path}: a PyTorch file, not a safetensors file; rename it to .pt") from error
    except DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: cannot be read as weights ({reason}); download the file again") from error


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return Content(path, tensors, dict(file.metadata() or {}))
    except (SafetensorError, *DAMAGE) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: truncated or damaged ({reason}); download the file again") from error
