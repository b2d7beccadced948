"""Training of priors: runs, checkpoints, evaluation and export."""
