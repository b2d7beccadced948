"""Plane-wave ultrasound: files, options, preparation and descriptions."""
