"""Parts of the trainer: volumes, augmentation, checkpoints, evaluation and export."""
