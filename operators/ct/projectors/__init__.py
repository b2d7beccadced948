"""Engines that compute line integrals, one a file; each is a LinearOperator from an image to a sinogram."""
