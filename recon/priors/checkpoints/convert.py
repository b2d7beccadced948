"""Writing a checkpoint of others as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from recon.errors import InputError, ReconError
from recon.files.atomic import atomic_path
from recon.priors.checkpoints.converted import describe
from recon.priors.checkpoints.load import read_checkpoint


def convert_checkpoint(
    source: str | Path, target: str | Path, force: bool = False, card: Mapping[str, Any] | None = None
) -> Path:
    """Write the weights that count (averaged, float32), with all that is needed to use them; return the path.

    The new file gives the same outputs bit for bit, needs no file beside it, and holds a digest of itself. It is
    smaller: optimizer state and raw weights stay behind.

    Parameters
    ----------
    source, target : str or Path
        ``target`` ends in ``.safetensors``.
    force : bool
        Overwrite ``target``.
    card : mapping, optional
        As in `recon.priors.checkpoints.load.load_checkpoint`; it becomes part of the file.

    Raises
    ------
    InputError
        If ``target`` has another ending or exists.
    CheckpointError
        If ``source`` is not sound.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a converted file ends in .safetensors")
    if target.exists() and not force:
        raise InputError(f"{target} exists already; use --force to overwrite it")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: there is no such folder")
    checkpoint = read_checkpoint(source, card)
    try:
        with atomic_path(target) as temporary:
            save_file(checkpoint.tensors, temporary, describe(checkpoint))
    except OSError as error:
        raise ReconError(f"cannot write {target}: {error}") from error
    return target
