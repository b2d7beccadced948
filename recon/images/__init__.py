"""Training images: sources, files and augmentation, whatever the modality."""
