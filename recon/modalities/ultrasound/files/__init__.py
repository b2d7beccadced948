"""Readers of plane-wave channel data."""
