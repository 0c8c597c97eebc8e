"""Worlds of tensors: whole batches of environments in plain PyTorch."""
