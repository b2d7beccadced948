"""Computed tomography: geometries, projectors, filtered backprojection and photon noise."""
