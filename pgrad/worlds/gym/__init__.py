"""Gymnasium environments as worlds: in this process, in workers, or vectorised by someone else."""
