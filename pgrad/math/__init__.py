"""The mathematics: pure functions of tensors, one topic a file, every equation with its source.

Time comes first, `[T, B]`; values have one row more, `[T+1, B]`. `mask` is the weight of a decision (0 for a
row that is none). Nothing here reads a clock, a file or a global generator, loops over T or B, or waits for a
device.
"""
