"""Networks: bodies, heads, normalisers, and the agent that holds them."""

from pgrad.models.agent import Agent
from pgrad.models.build import build_agent
from pgrad.models.memory import Memory
from pgrad.models.spec import AgentSpec

__all__ = ["Agent", "AgentSpec", "Memory", "build_agent"]
