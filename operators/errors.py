"""Errors that the three packages raise."""


class ReconError(Exception):
    """Any error that diffrecon raises on purpose."""


class InputError(ReconError, ValueError):
    """An argument, a file or a setting cannot be used; the message says what was expected."""


class ShapeError(InputError):
    """An array has the wrong rank, length or kind (real or complex)."""


class DivergenceError(ReconError, RuntimeError):
    """An iteration produced a value that is not finite."""


class OutOfMemoryError(ReconError, MemoryError):
    """Memory is too small for the task, even in its smallest pieces; the message says what to lower."""
