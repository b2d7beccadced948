"""What can be reconstructed: a file or an array, as a sequence of slices that are read when they are needed."""

from recon.sources.ct import CTSource, is_ct_source
from recon.sources.kspace import FileSource, KspaceSource, open_source
from recon.sources.options import choose_slices, of_slices, reader_options, refuse_options
from recon.sources.ultrasound import USSource, is_us_source, span_of

__all__ = [
    "CTSource",
    "FileSource",
    "KspaceSource",
    "USSource",
    "choose_slices",
    "is_ct_source",
    "is_us_source",
    "of_slices",
    "open_source",
    "reader_options",
    "refuse_options",
    "span_of",
]
