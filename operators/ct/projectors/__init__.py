"""Engines that compute line integrals, one per file; each is a LinearOperator from an image to a sinogram."""
