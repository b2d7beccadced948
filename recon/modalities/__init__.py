"""Modalities: each is one folder here, and its physics one folder of `operators`."""
