"""The agent's functions and the gradient step as machine code: the same mathematics, traced and compiled."""

from pgrad.training.compiled.call import Call
from pgrad.training.compiled.derivatives import Derivatives
from pgrad.training.compiled.machine import Machine
from pgrad.training.compiled.step import CompiledStep
from pgrad.training.compiled.together import CompiledTogether
from pgrad.training.compiled.worth import Compile, Foretold, compile_after

__all__ = [
    "Call",
    "Compile",
    "CompiledStep",
    "CompiledTogether",
    "Derivatives",
    "Foretold",
    "Machine",
    "compile_after",
]
