"""Language models as agents: a policy over the next token, its critic, its reference, and their sampling."""

from pgrad.models.language.generate import Completions, generate
from pgrad.models.language.network import LanguageNetwork, build_network
from pgrad.models.language.spec import LanguageSpec

__all__ = ["Completions", "LanguageNetwork", "LanguageSpec", "build_network", "generate"]
