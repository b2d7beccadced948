"""Plane-wave ultrasound: geometries, delays, pulses and beamforming."""
