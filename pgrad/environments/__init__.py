"""Gymnasium environments as arrays: made, stepped, checked, put back, in this process or in workers.

Nothing here imports PyTorch: a worker process is up sooner without it, in a third of the memory.
"""
