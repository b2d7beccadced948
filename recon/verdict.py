"""Whether a result can be believed: ok, doubtful or failed, with the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["unknown", "ok", "doubtful", "failed"]
#: From good to bad; "unknown" is a result that was not judged, such as one of an older file.
LEVELS: tuple[Level, ...] = ("unknown", "ok", "doubtful", "failed")


@dataclass(frozen=True)
class Finding:
    """One thing that a run noticed about its own result.

    Attributes
    ----------
    level : "ok", "doubtful" or "failed"
        "ok" for what the user should know, but which does not put the result in doubt.
    reason : str
    """

    level: Level
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The worst level of all findings, with the reasons for it, worst first.

    "doubtful": look at the reasons before you use the images. "failed": mean and uncertainty map do not describe what
    was measured.

    Attributes
    ----------
    level : "unknown", "ok", "doubtful" or "failed"
    reasons : tuple of str
        Empty for "ok" and "unknown".
    """

    level: Level = "unknown"
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Verdict:
        """Return the verdict of all findings of a run."""
        ranked = sorted(findings, key=lambda finding: -LEVELS.index(finding.level))
        bad = [finding for finding in ranked if finding.level in ("doubtful", "failed")]
        return cls(bad[0].level if bad else "ok", tuple(dict.fromkeys(finding.reason for finding in bad)))

    @classmethod
    def recorded(cls, provenance: Mapping[str, Any]) -> Verdict:
        """Return the verdict in the provenance of a result; "unknown" if there is none."""
        entry = provenance.get("verdict")
        if not isinstance(entry, Mapping) or entry.get("level") not in LEVELS:
            return cls()
        return cls(entry["level"], tuple(str(reason) for reason in entry.get("reasons", ())))

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else self.level
