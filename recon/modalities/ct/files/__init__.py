"""Readers of CT images and projections, and the writer of derived images."""
