"""The errors that users meet: every one of them is a `ReconError` and says what to do."""

from operators.errors import DivergenceError, InputError, ReconError, ShapeError

__all__ = ["CheckpointError", "ConfigError", "DivergenceError", "InputError", "ReconError", "ShapeError"]


class ConfigError(InputError):
    """An option or a configuration file asks for something that does not exist or does not fit together."""


class CheckpointError(InputError):
    """A file of network weights is damaged, unsafe, or does not fit the network that it claims to hold."""
