"""Readers of k-space."""
