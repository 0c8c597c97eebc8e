"""The run on disk: its folder, lock, checkpoints and metrics."""
