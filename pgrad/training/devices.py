"""States that belong to one kind of device."""

from torch import Generator, Tensor

from pgrad.errors import CheckpointError


def put_generator_back(generator: Generator, state: Tensor) -> None:
    """Let a generator go on from `state`. Raises CheckpointError for that of another kind of device.

    A CPU and a GPU draw other numbers, so that nothing could go on there as it would have.
    """
    if state.shape != generator.get_state().shape:
        raise CheckpointError("this run was trained on another kind of device: continue it there, or load it")
    generator.set_state(state.cpu())
