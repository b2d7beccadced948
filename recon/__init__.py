"""diffrecon: raw medical imaging data in, posterior samples with an uncertainty map out.

`recon.reconstruct("scan.h5", acceleration=4)` returns a `recon.Posterior`. Importing this package is cheap: the names
below are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from recon.siblings import check_siblings

if TYPE_CHECKING:
    from recon.api import reconstruct
    from recon.posterior import Posterior
    from recon.priors import GaussianMixturePrior, GaussianPrior, load_prior

__version__ = "0.1.0"
__all__ = ["GaussianMixturePrior", "GaussianPrior", "Posterior", "__version__", "load_prior", "reconstruct"]

_HOMES = {
    "reconstruct": "recon.api",
    "load_prior": "recon.priors",
    "GaussianPrior": "recon.priors",
    "GaussianMixturePrior": "recon.priors",
    "Posterior": "recon.posterior",
}

check_siblings()


def __getattr__(name: str) -> Any:
    """Load a public name from its home module at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recon' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
