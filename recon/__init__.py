"""diffrecon: raw medical imaging data in, posterior samples with an uncertainty map out.

`recon.reconstruct("scan.h5", acceleration=4)` returns a `recon.Posterior`. Importing this package is cheap: the names
below, and the options class of each modality, are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from recon.siblings import check_siblings

if TYPE_CHECKING:
    from recon.api import reconstruct
    from recon.modalities import open_recording as open
    from recon.posterior import Posterior
    from recon.priors import GaussianMixturePrior, GaussianPrior, load_prior

__version__ = "0.1.0"
__all__ = [
    "GaussianMixturePrior",
    "GaussianPrior",
    "Posterior",
    "__version__",
    "load_prior",
    "open",
    "reconstruct",
    "reconstruct_many",
]

_HOMES = {
    "reconstruct": ("recon.api", "reconstruct"),
    "reconstruct_many": ("recon.study.study", "reconstruct_many"),
    "open": ("recon.modalities", "open_recording"),
    "load_prior": ("recon.priors", "load_prior"),
    "GaussianPrior": ("recon.priors", "GaussianPrior"),
    "GaussianMixturePrior": ("recon.priors", "GaussianMixturePrior"),
    "Posterior": ("recon.posterior", "Posterior"),
}

check_siblings()


def __getattr__(name: str) -> Any:
    """Load a public name, or the options class of a modality, at its first use."""
    if name in _HOMES:
        home, known = _HOMES[name]
        return getattr(importlib.import_module(home), known)
    if name[:1].isupper():
        try:
            return getattr(importlib.import_module("recon.modalities"), name)
        except AttributeError:
            pass
    raise AttributeError(f"module 'recon' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
