"""From the results of the slices to one Posterior, with provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recon.affines import UNEVEN
from recon.engine import provenance
from recon.engine.findings import judge_run
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.errors import DivergenceError
from recon.posterior import Posterior
from recon.posterior_summary import Summary
from recon.verdict import Finding, Verdict


def assemble(
    results: Iterable[SliceResult],
    failed: Sequence[FailedSlice],
    record: Mapping[str, Any],
    geometry: dict[str, Any],
    *,
    stacked: bool,
) -> Posterior:
    """Join the slices of a run into one Posterior.

    Slices without a result are NaN in every array and False in ``diagnostics["slice_valid"]``. What the user should
    know is in ``provenance["notes"]``, and what it means for the result in ``provenance["verdict"]``.

    Parameters
    ----------
    results : iterable of SliceResult
        In any order; each is copied before the next one is taken, so that a generator may read them from files.
    failed : sequence of FailedSlice
    record : mapping
        Provenance that all slices share; ``slices`` are the slices that were asked for, in order.
    geometry : dict
    stacked : bool
        Whether the slices are stacked along a new axis; if not, there is only one result.

    Raises
    ------
    DivergenceError
        If no sample is valid in every slice.
    """
    order = {index: place for place, index in enumerate(record["slices"])}
    table: dict[int, SliceResult] = {}
    stack = _Stack(len(order) if stacked else None)
    for result in results:
        stack.put(order.get(result.index, 0), result)
        table[result.index] = _without_arrays(result)
    known = [table[index] for index in sorted(table, key=lambda index: order.get(index, 0))]
    valid = np.all([result.diagnostics["valid"] for result in known], axis=0)
    if not valid.any():
        raise DivergenceError(
            f"each of the {len(valid)} samples is invalid in some slice; draw more, or reconstruct slices separately"
        )
    findings = [one.finding() for one in sorted(failed, key=lambda one: one.index)]
    findings += [Finding("ok", UNEVEN)] if "affines" in geometry else []
    findings += judge_run({result.index: result.judged for result in known}, valid)
    diagnostics = {**stack.diagnostics, "valid": valid, "seconds": sum(result.seconds for result in known)}
    if stacked and failed:
        diagnostics["slice_valid"] = np.array([index in table for index in record["slices"]])
    return Posterior(
        samples=stack.samples,
        geometry=geometry,
        provenance=provenance.collect(
            **{
                **record,
                "citations": [*record["citations"], *(name for result in known for name in result.citations)],
                "prior": known[0].prior,
            },
            network_calls=max(result.network_calls for result in known),
            back_propagations=max(result.back_propagations for result in known),
            operator=known[0].operator,
            measured=[result.measured for result in known if result.measured is not None],
            held_out=[result.held_out for result in known],
            notes=[finding.reason for finding in findings],
            verdict=dataclasses.asdict(Verdict.of(findings)),
        ),
        diagnostics=diagnostics,
        images=stack.images,
        summary=stack.summary(min(int(result.valid.sum()) for result in known)),
    )


class _Stack:
    """Arrays of a volume that are filled slice by slice; images that some slice lacks are dropped."""

    def __init__(self, n_slices: int | None) -> None:
        self._n = n_slices
        self._arrays: dict[str, np.ndarray] = {}
        self._filled: dict[str, int] = {}
        self._put = 0

    def put(self, place: int, result: SliceResult) -> None:
        """Copy one result to its place."""
        self._put += 1
        self._fill("samples", result.samples, place, axis=1)
        for name, values in result.diagnostics.items():
            self._fill(f"diagnostics/{name}", values, place, axis=1)
        for name, image in result.images.items():
            self._fill(f"images/{name}", image, place, axis=0)
        for name, values in result.summary.items():
            self._fill(f"summary/{name}", values, place, axis=1 if name == "quantiles" else 0)

    def _fill(self, name: str, values: np.ndarray, place: int, axis: int) -> None:
        self._filled[name] = self._filled.get(name, 0) + 1
        if self._n is None:
            self._arrays[name] = values
            return
        if name not in self._arrays:
            shape = (*values.shape[:axis], self._n, *values.shape[axis:])
            self._arrays[name] = np.full(shape, np.nan if values.dtype.kind in "fc" else 0, dtype=values.dtype)
        # Some slices of a volume may be complex images and others magnitudes: the values of both are kept.
        self._arrays[name] = self._arrays[name].astype(np.result_type(self._arrays[name], values), copy=False)
        self._arrays[name][(slice(None),) * axis + (place,)] = values

    @property
    def samples(self) -> np.ndarray:
        return self._arrays["samples"]

    @property
    def images(self) -> dict[str, np.ndarray]:
        return self._group("images/")

    @property
    def diagnostics(self) -> dict[str, Any]:
        return self._group("diagnostics/")

    def summary(self, n: int) -> Summary | None:
        """Return the statistics of samples that are not kept; None if all are."""
        arrays = self._group("summary/")
        return Summary.of_arrays(n, arrays) if arrays else None

    def _group(self, prefix: str) -> dict[str, Any]:
        whole = [name for name, count in self._filled.items() if count == self._put]
        return {
            name[len(prefix) :]: self._arrays[name]
            for name in self._arrays
            if name in whole and name.startswith(prefix)
        }


def _without_arrays(result: SliceResult) -> SliceResult:
    empty = np.empty(0, np.float32)
    return dataclasses.replace(result, samples=empty, images={}, summary={}, diagnostics={"valid": result.valid})
