"""What is kept of posterior samples that are not kept themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: The quantiles that are kept.
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Names of the arrays of a summary.
ARRAYS = ("mean", "std", "lowest", "quantiles", "magnitude_mean", "magnitude_std")


@dataclass(frozen=True, eq=False)
class Summary:
    """Statistics of all valid samples of a posterior, ``([slice,] y, x)`` each.

    Attributes
    ----------
    n : int
        The number of valid samples.
    mean, std : ndarray
        Those of `recon.Posterior`, without its ``images["expectation"]``.
    lowest : ndarray
        The lowest value of the magnitude (of real samples: of the samples) in each slice, ``([slice])``.
    quantiles : ndarray
        Those of the magnitude (of real samples: of the samples) at `LEVELS`, ``(quantile, [slice,] y, x)``.
    magnitude_mean, magnitude_std : ndarray or None
        Mean and standard deviation of the magnitudes of complex samples.
    """

    n: int
    mean: np.ndarray
    std: np.ndarray
    lowest: np.ndarray
    quantiles: np.ndarray
    magnitude_mean: np.ndarray | None = None
    magnitude_std: np.ndarray | None = None

    @classmethod
    def of_arrays(cls, n: int, arrays: Mapping[str, np.ndarray]) -> Summary:
        """Return a summary from the arrays that `arrays` gave."""
        return cls(n, **{name: arrays[name] for name in ARRAYS if name in arrays})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        found = {name: getattr(self, name) for name in ARRAYS}
        return {name: value for name, value in found.items() if value is not None}

    def of_magnitude(self) -> Summary:
        """Return the summary of the magnitudes."""
        if self.magnitude_mean is None or self.magnitude_std is None:
            return self
        return Summary(self.n, self.magnitude_mean, self.magnitude_std, self.lowest, self.quantiles)

    def of_slices(self, chosen: np.ndarray | int) -> Summary:
        """Return the summary of some slices of a volume, or of one."""
        arrays = {
            name: value[:, chosen] if name == "quantiles" else value[chosen] for name, value in self.arrays().items()
        }
        return Summary.of_arrays(self.n, arrays)

    def quantile(self, level: float) -> np.ndarray | None:
        """Return a quantile; None if it is not among those that are kept."""
        known = [place for place, kept in enumerate(LEVELS) if abs(kept - level) < 1e-6]
        return self.quantiles[known[0]] if known else None
