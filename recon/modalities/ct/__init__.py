"""Computed tomography: files, options, preparation and descriptions."""
