"""File formats and safe reading and writing, whatever the modality."""
