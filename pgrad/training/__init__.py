"""Collecting, learning, and the run on disk: the only floor with I/O, clocks, devices and processes."""
