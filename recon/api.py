"""The main entry point: a measurement in, a posterior out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.device import NOT_COMPILED
from recon.engine.draw import draw_all
from recon.engine.memory import told_out_of_memory
from recon.engine.reconstruction import plan, warn_of
from recon.engine.slice_result import FailedSlice
from recon.options import Options
from recon.posterior import Posterior
from samplers import Denoiser, Sampler


@told_out_of_memory()
def reconstruct(
    source: Any,
    prior: str | Path | Denoiser = "auto",
    sampler: str | Mapping[str, Any] | Sampler = "dds",
    samples: int = 8,
    seed: int = 0,
    *,
    options: Options | None = None,
    slices: str | int | Sequence[int] | None = None,
    steps: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "auto",
    progress: bool | None = None,
    **named: Any,
) -> Posterior:
    """Reconstruct raw data with uncertainty: samples, mean, std and their provenance.

    Everything that is not given is estimated from the measured data. A fully sampled image, where there is one, serves
    as a reference for comparison only.

    Parameters
    ----------
    source : path, recording, array or Problem
        A raw-data file or folder of any modality (see `recon info`), a recording from `recon.open`, an array that a
        modality accepts (see the documentation of each modality), or a prepared `samplers.Problem` in the scale of the
        prior; its operator determines the modality.
    prior : str, path or Denoiser
        See `recon.load_prior`; "auto" is the shipped prior of the modality.
    sampler : str, mapping or Sampler
        A name (`recon samplers` lists them), a name with sampler fields (``{"name": "dds", "eta": 0.5}``), or a
        `samplers.Sampler`.
    samples : int
        Number of posterior samples; at least 2 for a std map.
    seed : int
        Sample ``k`` of seed ``s`` is the same image whatever the number of samples or the batch size.
    options : Options, optional
        Options of the modality as one object, such as ``recon.<Modality>(...)``; see `recon.modalities`.
    slices : str, int or sequence of int, optional
        ``"10:20"``, ``12`` or a list; all by default.
    steps : int, optional
        Number of steps of the sampler.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    batch_size : int, optional
        Number of samples computed together; all by default.
    precision : "auto", "float32", "tf32" or "bfloat16"
        Arithmetic of the network prior only; "auto" is bfloat16 where this device is faster in it, and float32
        elsewhere. ``provenance["config"]["precision"]`` says which. A prior that is an object keeps its own.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.
    **named
        Options of the modality by name, on top of ``options``: ``acceleration=4``, ``views=32``, ``angles=1``. The
        documentation of each modality lists them; so does ``recon run --help``. ``quality="draft"``
        stands for fewer steps, for a first look, see `docs/samplers.md`; ``holdout=False`` leaves out the held-out
        test, see `recon.engine.holdout`; ``start="tv"``, or images, and ``start_sigma`` start from an image instead of
        noise; ``compare="tv"`` computes reconstructions without a learned prior beside; ``keep=2`` or ``keep="none"``
        keeps some of the samples or none, and the statistics of all of them; ``threads=4`` is the number of threads of
        torch meanwhile; ``compile=True`` compiles the network for a GPU (on a CPU it does not pay, and is ignored:
        ``provenance["config"]["compile"]`` says what was done).

    Returns
    -------
    Posterior
        Arrays ``(sample, y, x)``, or ``(sample, slice, y, x)`` for a source of several slices, in the units of the
        modality. A slice whose data are unusable is NaN, and its ``diagnostics["slice_valid"]`` is False.

    Raises
    ------
    InputError
        If the source or an argument is unusable; the message says what is wrong and what to do.
    DivergenceError
        If every sample became non-finite.
    OutOfMemoryError
        If memory is too small for one sample at a time; larger batches are halved, with a warning.
    """
    wanted = plan(
        source,
        prior,
        sampler,
        samples,
        seed,
        options=options,
        slices=slices,
        steps=steps,
        device=device,
        batch_size=batch_size,
        precision=precision,
        **named,
    )
    if named.get("compile") and not wanted.run.compiled:
        warnings.warn(NOT_COMPILED, UserWarning, stacklevel=2)
    failed: list[FailedSlice] = []
    posterior = wanted.assemble(draw_all(wanted, failed, progress), failed)  # a slice is put in place before the next
    warn_of(posterior)
    return posterior
