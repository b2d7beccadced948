"""The errors that users see: each is a `ReconError` and says what to do."""

from operators.errors import DivergenceError, InputError, OutOfMemoryError, ReconError, ShapeError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DivergenceError",
    "InputError",
    "OutOfMemoryError",
    "ReconError",
    "ShapeError",
    "StorageError",
]


class ConfigError(InputError):
    """An option or a configuration file is unknown, invalid or contradictory."""


class CheckpointError(InputError):
    """A weights file is damaged, unsafe, or does not fit the network that it claims to hold."""


class StorageError(ReconError):
    """A file cannot be written: the disk is full or read-only, or its folder is missing or closed to this user."""
