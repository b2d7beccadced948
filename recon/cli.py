"""The command line: `recon run | demo | info | check | status | models | samplers | report | calibrate | ...`.

Here a command is called, its errors become one line, and signals end it; its arguments are in `recon.arguments`, the
work is in `recon.commands`. Nothing here loads torch.
Exit status: 0 success, 1 failure, 2 unusable input, 3 --strict and a failed verdict, 130 interrupted, 143 terminated.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence

from recon.arguments import make_parser
from recon.printable import printable
from recon.terminal import escaped_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors are reported in one line on stderr."""
    with escaped_output():
        return _run(make_parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    debug = arguments.debug or bool(os.environ.get("RECON_DEBUG"))
    if debug:
        os.environ["RECON_DEBUG"] = "1"  # for worker processes
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # warnings of the engine are meant for the user
        warnings.showwarning = _show_warning
        try:
            return _dispatch(arguments)
        except KeyboardInterrupt as interruption:
            return _stopped(interruption)
        except BrokenPipeError:
            # The reader of our output went away (recon models | head): not an error, but stop writing.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except Exception as error:
            if debug:
                traceback.print_exc()
            return _complain(error, debug)
        finally:
            if main_thread:
                signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the signal of job schedulers ends a command as Ctrl-C does."""


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise _Terminated


def _stopped(interruption: KeyboardInterrupt) -> int:
    """Say in one line what is kept, and return the exit status."""
    terminated = isinstance(interruption, _Terminated) or isinstance(interruption.__cause__, _Terminated)
    kept = f": {interruption}" if str(interruption) else ""
    print(f"recon: {'terminated' if terminated else 'interrupted'}{kept}", file=sys.stderr)
    return 143 if terminated else 130


def _dispatch(arguments: argparse.Namespace) -> int:
    from recon import threads

    threads.prepare()  # before a command loads torch
    from recon import commands

    given = vars(arguments)
    given.pop("debug")
    return getattr(commands, given.pop("command"))(**given)


def _complain(error: Exception, debug: bool) -> int:
    """Print an error as one line and return the exit status that belongs to it."""
    from recon.errors import InputError, ReconError

    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ReconError | OSError):
        message = f"{type(error).__name__}: {message}"
        if not debug:
            message += " (this should not happen; run again with --debug and report it)"
    print(f"recon: error: {printable(message)}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"recon: warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
