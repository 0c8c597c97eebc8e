"""A language model as the network of an agent: a policy over the next token, and a critic beside it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pgrad.data import Tokens
from pgrad.errors import UsageError
from pgrad.math.tokens import TokenPolicy
from pgrad.models.language.adapters import (
    KeptAdapters,
    adapted,
    add_adapters,
    with_adapters,
    without_adapters,
)
from pgrad.models.language.body import body_of, check_head, context_of, shape_of, shrink
from pgrad.models.language.load import drop_nothing, end_tokens, load_model, load_tokenizer, remove_dropout
from pgrad.models.language.outside import put_back, take_out
from pgrad.models.language.scratch import scratch_model
from pgrad.models.language.shared import read_shared, width_of_sharing
from pgrad.models.language.spec import LanguageSpec
from pgrad.models.language.vllm import VLLM
from pgrad.stopping import Stop, go_on


class Critic(nn.Module):
    """V(s): a body of its own, which begins as the policy's, and a linear head that begins at 0."""

    def __init__(self, body: Any, width: int) -> None:
        super().__init__()
        # what is frozen (a model under its adapters) is the same for both, and is not copied
        self.body = copy.deepcopy(body, {id(p): p for p in body.parameters() if not p.requires_grad})
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class LanguageNetwork(nn.Module):
    """π(next token | text), V(text), and π_ref, for texts as `Tokens` [T, B].

    `model` is a causal transformers model, `eos` every token that ends a text, `context` how long one may be
    (None: not known). The model's parameters are the actor's; those below `critic` the critic's; `frozen` is
    the reference, or with adapters `frozen_adapters`, which are not there while the bare model is it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        spec: LanguageSpec,
        *,
        critic: bool,
        generator: Generator,
        eos: Sequence[int] = (),
    ) -> None:
        super().__init__()
        drop_nothing(model.config)
        remove_dropout(model)
        check_head(model)
        model.get_input_embeddings().padding_idx = None  # a padding token that is sampled is a token
        self.eos = end_tokens(model, tokenizer, eos)
        self.context = context_of(model)
        self.temperature = spec.temperature
        self.dtype = getattr(torch, spec.dtype)
        self.vllm = VLLM(self.dtype, spec.vllm_gpu_memory_utilization) if spec.engine == "vllm" else None
        self.tokenizer = tokenizer
        if spec.lora:
            add_adapters(model, spec, generator)
            shrink(model, self.dtype)
        if spec.gradient_checkpointing:
            _checkpoint_gradients(model)
        self.model = model
        self.critic = (
            Critic(body_of(model), model.get_output_embeddings().weight.shape[1]) if critic else None
        )
        self.frozen: nn.Module | None = None
        self.frozen_adapters: KeptAdapters | None = None
        self.keeps_reference = spec.reference
        self.source = None if spec.is_scratch else spec.model
        self._seals: dict[str, Tensor] = {}
        if spec.reference and not spec.lora:  # new adapters change nothing
            self.keep_reference()
        self.reference_is_read = True  # as it is in `source`, and not a later policy
        self._stop: Stop = go_on
        self.register_state_dict_post_hook(_save_once)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_load_twice)  # type: ignore[no-untyped-call]
        self.train()  # gradient checkpointing asks for it, and nothing else depends on it

    def policy(self, tokens: Tokens) -> TokenPolicy:
        """π(·|text) at every row where the agent decides."""
        return self._policy(self.model, tokens)

    def value(self, tokens: Tokens) -> Tensor:
        """V(text up to and with this row), [T, B] float32."""
        if self.critic is None:
            raise UsageError("this agent was built without a critic, which this algorithm needs")
        hidden = read_shared(self.critic.body, tokens, self.dtype, 1, self._stop)  # the last bootstraps
        value: Tensor = self.critic.head(hidden.float()).squeeze(-1)
        return value

    @torch.no_grad()
    def reference(self, tokens: Tokens) -> TokenPolicy:
        """π_ref: the policy when `keep_reference` was called; before that, of adapters, the bare model."""
        if self.frozen is not None:
            return self._policy(self.frozen, tokens)
        if not adapted(self.model):
            raise UsageError("this agent keeps no reference: build it with reference=True")
        kept = self.frozen_adapters
        with without_adapters(self.model) if kept is None else with_adapters(self.model, kept):
            return self._policy(self.model, tokens)

    def shares(self, longest: int) -> int | None:
        """The width of the model if it can read a prompt once for several texts of up to `longest` tokens."""
        return width_of_sharing(body_of(self.model), longest)

    @contextmanager
    def asking(self, stop: Stop) -> Iterator[None]:
        """Inside, what is scored without a gradient asks `stop` before each of its parts."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = go_on

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    @property
    def rounds_apart(self) -> bool:
        """Whether sampling and training differ by more than float32 rounds: in bfloat16, and by an engine."""
        return self.dtype == torch.bfloat16 or self.vllm is not None

    def keep_reference(self) -> None:
        """Let the present policy be the reference: a copy of the model, or with adapters of them alone."""
        self.reference_is_read = False
        if adapted(self.model):
            self.frozen_adapters = KeptAdapters(self.model)
        else:
            self.frozen = copy.deepcopy(self.model).requires_grad_(False)
            shrink(self.frozen, self.dtype)

    def _policy(self, model: Any, tokens: Tokens) -> TokenPolicy:
        head = model.get_output_embeddings()
        hidden = read_shared(body_of(model), tokens, self.dtype, stop=self._stop).to(self.dtype)
        shape = shape_of(model, self.temperature)
        return TokenPolicy(hidden, head.weight, head.bias, tokens.decides, *shape, self._stop)


def _checkpoint_gradients(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        raise UsageError(f"{type(model).__name__} does not know gradient_checkpointing: leave it out")
    newer = getattr(model, "activation_checkpointing_enable", None)  # its newer name
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})


def _repeated(network: nn.Module) -> dict[str, str]:
    """Parameters with several names (tied heads, what a critic shares): each further name and the first."""
    first: dict[int, str] = {}
    named = [(name, p) for name, p in network.named_parameters(remove_duplicate=False)]
    return {name: first[id(p)] for name, p in named if first.setdefault(id(p), name) != name}


def _save_once(network: Any, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in _repeated(network):
        state.pop(prefix + name, None)
    take_out(network, state, prefix, network._seals)


def _load_twice(network: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    if any(name.startswith(f"{prefix}frozen.") for name in state):
        network.reference_is_read = False
    kept = any(name.startswith(f"{prefix}frozen_adapters.") for name in state)
    if adapted(network.model):  # of a run that began with the adapters of another
        network.frozen_adapters = KeptAdapters(network.model) if kept else None
    put_back(network, state, prefix, network._seals)
    for name, first in _repeated(network).items():
        if prefix + first in state:
            state[prefix + name] = state[prefix + first]


def build_network(
    spec: LanguageSpec, tokenizer: Any = None, *, critic: bool, generator: Generator, eos: Sequence[int] = ()
) -> LanguageNetwork:
    """The network that `spec` describes; a model from scratch takes the task's tokenizer.

    A model that is read brings its own tokenizer; one given beside it takes its place. `eos` are tokens that
    end a text beside those that the model and the tokenizer know. Raises UsageError as
    `load_model` and `load_tokenizer` do, and for a tokenizer with more tokens than the model knows.
    """
    if spec.is_scratch:
        if tokenizer is None:
            raise UsageError(f"{spec.model} has no tokenizer of its own: it needs a task's, or one given")
        model = scratch_model(spec.model, tokenizer, generator)
    else:
        tokenizer = load_tokenizer(spec.model) if tokenizer is None else tokenizer
        model = load_model(spec.model)
    if len(tokenizer) > model.config.vocab_size:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {spec.model} knows "
            f"{model.config.vocab_size}: they do not belong together"
        )
    return LanguageNetwork(model, tokenizer, spec, critic=critic, generator=generator, eos=eos)
