"""Magnetic resonance imaging: Cartesian sampling, coil maps and sampling patterns."""
