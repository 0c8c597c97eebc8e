"""One module for each command, with a function `run(arguments)` that returns the exit code."""
