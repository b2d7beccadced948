"""Pictures of a posterior: one PNG and one self-contained HTML page."""

from recon.report.write import figures_of_merit, write_report

__all__ = ["figures_of_merit", "write_report"]
