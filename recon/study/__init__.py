"""Whole studies: many slices of many files, by one or many workers, kept slice by slice.

The unit of work is a slice (`recon.engine.slice_result`). Each is written to ``OUTPUT/.NAME.parts`` as soon as it is
drawn, and the result of a file is assembled from them, so that a study that was stopped goes on where it was.
"""
