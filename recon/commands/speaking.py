"""Results of a study as they come, on the terminal."""

import warnings
from collections.abc import Sequence

from recon.commands.text import result_lines
from recon.study.loop import State
from recon.study.progress import Silent
from recon.study.work import Drawn


class Speaking(Silent):
    """Prints each result and passes on warnings, and tells a progress display what happens.

    Parameters
    ----------
    progress : Silent
    quiet : bool
        Whether results are not printed; warnings are.
    """

    def __init__(self, progress: Silent, quiet: bool) -> None:
        self._progress, self._quiet = progress, quiet
        self._told: set[tuple[str, str]] = set()
        self.step = progress.step

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        self._progress.begin(states)
        for state in states:
            if state.finished is not None:
                self.finished(state)

    def drawn(self, state: State, drawn: Drawn) -> None:  # noqa: D102
        self._warn(state, drawn.warnings)
        self._progress.drawn(state, drawn)

    def finished(self, state: State) -> None:  # noqa: D102
        self._progress.finished(state)
        if state.finished is None:
            return
        if not state.finished.kept:
            self._warn(state, (*state.finished.warnings, *state.finished.notes))
        if not self._quiet:
            print("\n".join(result_lines(state)), flush=True)

    def tick(self) -> None:  # noqa: D102
        self._progress.tick()

    def close(self) -> None:  # noqa: D102
        self._progress.close()

    def _warn(self, state: State, texts: Sequence[str]) -> None:
        """Warn once of each thing about a file."""
        for text in texts:
            if (state.job.name, text) not in self._told:
                self._told.add((state.job.name, text))
                warnings.warn(text, UserWarning, stacklevel=2)
