"""Converting a third-party checkpoint to one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from recon.errors import InputError, StorageError
from recon.files.atomic import atomic_path
from recon.priors.checkpoints.converted import describe
from recon.priors.checkpoints.load import read_checkpoint


def convert_checkpoint(
    source: str | Path, target: str | Path, force: bool = False, card: Mapping[str, Any] | None = None
) -> Path:
    """Write the averaged weights (float32) with everything needed to use them; return the path.

    The new file gives bit-identical outputs, needs no file beside it, and contains a digest of itself. It is smaller:
    the optimizer state and the raw weights are dropped.

    Parameters
    ----------
    source, target : str or Path
        Input and output file; ``target`` must end in ``.safetensors``.
    force : bool
        Overwrite an existing ``target``.
    card : mapping, optional
        As in `recon.priors.checkpoints.load.load_checkpoint`; it is stored in the file.

    Raises
    ------
    InputError
        If ``target`` has another ending or already exists.
    CheckpointError
        If ``source`` is damaged.
    StorageError
        If ``target`` cannot be written.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: expected a file name that ends in .safetensors")
    if target.exists() and not force:
        raise InputError(f"{target} already exists; use --force to overwrite it")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist")
    checkpoint = read_checkpoint(source, card)
    with atomic_path(target) as temporary:
        try:
            save_file(checkpoint.tensors, temporary, describe(checkpoint))
        except SafetensorError as error:  # safetensors does not say which of the errors of a disk it is
            raise StorageError(f"{target}: cannot be written ({error}); an earlier file is unchanged") from error
    return target
