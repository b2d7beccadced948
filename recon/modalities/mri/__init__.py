"""Magnetic resonance imaging: files, options, preparation and descriptions."""
