"""What a vector environment says of itself."""

from gymnasium.vector import AutoresetMode, VectorEnv

from pgrad.errors import UsageError


def name_of(env: VectorEnv) -> str:
    """Its id, or the name of its class."""
    known = getattr(env.spec, "id", None)  # a specification of another library need not have one
    return known if isinstance(known, str) else type(env.unwrapped).__name__


def autoreset_mode(env: VectorEnv, name: str) -> AutoresetMode:
    """When it begins the next episode. Raises UsageError where it does not say so."""
    mode = env.metadata.get("autoreset_mode")
    for known in AutoresetMode:
        if mode in (known, known.name, known.value):
            return known
    raise UsageError(
        f"{name} does not say how it resets: set its metadata['autoreset_mode'] to what it does, one of "
        f"{', '.join(f'AutoresetMode.{known.name}' for known in AutoresetMode)} (got {mode!r})"
    )
