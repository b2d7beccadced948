"""Checks before a command starts: invalid options, and files that must not be overwritten."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from recon.device import NOT_COMPILED, compiling_pays, resolve_device
from recon.engine.samplers import resolve_sampler
from recon.errors import InputError, ReconError
from recon.files.names import require_name
from recon.priors.hub import require_known
from recon.priors.precision import lacks_bfloat16
from recon.settings import Settings


def check_settings(settings: Settings) -> None:
    """Refuse invalid settings before the first file is touched."""
    device = resolve_device(settings.run.device)
    if settings.run.precision == "bfloat16" and lacks_bfloat16(device):
        warnings.warn(
            "this CPU has no instructions for bfloat16: --precision float32 is several times faster", stacklevel=2
        )
    if settings.run.compile and not compiling_pays(device):
        warnings.warn(NOT_COMPILED, stacklevel=2)
    resolve_sampler({"name": settings.run.sampler, **settings.sampler}, settings.run.steps)
    if settings.run.prior != "auto":
        require_known(settings.run.prior)


def check_outputs(paths: Sequence[Path], force: bool) -> None:
    """Refuse to overwrite files, and fail early if the results could not be written."""
    for path in paths:
        require_name(path)
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more} already exists; use --force to overwrite, or another folder")
    for folder in {path.parent for path in paths}:
        present = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not present.is_dir():
            raise InputError(f"{present}: is a file, expected a folder for the results")
        if not os.access(present, os.W_OK | os.X_OK):
            raise ReconError(f"{present}: no permission to write there; choose another folder for the results")
