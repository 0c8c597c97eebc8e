"""Networks: bodies, heads, normalisers, and the agent that holds them."""

from pgrad.models.agent import Agent, AgentSpec, build_agent

__all__ = ["Agent", "AgentSpec", "build_agent"]
