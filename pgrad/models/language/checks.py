"""What can be wrong with a language model before an hour is lost: each check says what it found."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from pgrad.data import Tokens
from pgrad.models.language.generate import generate
from pgrad.models.language.launch import LEAST
from pgrad.models.language.network import LanguageNetwork

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference of log-probabilities that rounding explains."""

ENGINE_TOLERANCE = 0.1
"""The same of another engine, in any precision: what is corrected is more."""

Finding = tuple[bool, str]
"""Whether all is well, and what was found, in one line."""

LENGTHS = (3, 9, 5, 12)


def check_ends(network: LanguageNetwork) -> Finding:
    """Which tokens end a text, and whether padding is one of them."""
    tokenizer = network.tokenizer
    names = ", ".join(f"{i} {tokenizer.convert_ids_to_tokens(i)!r}" for i in network.eos)
    text = f"texts end at {names}"
    if tokenizer.eos_token_id is None:
        text += "; the tokenizer itself has no eos_token, the model's is taken"
    if tokenizer.pad_token_id is None:
        return True, f"{text}; no padding token (none is needed)"
    same = tokenizer.pad_token_id in network.eos
    return True, f"{text}; padding is {'one of them (harmless: lengths are counted)' if same else 'another'}"


def check_chat_template(network: LanguageNetwork) -> Finding:
    """Whether conversations can be prompts."""
    if network.tokenizer.chat_template is None:
        return True, "no chat template: prompts must be plain text, not conversations"
    try:
        text = network.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        return False, f"the chat template fails: {type(error).__name__}: {error}"
    return True, f"chat template ends a prompt with {text[-40:]!r}"


def check_precision(network: LanguageNetwork) -> Finding:
    """What is trained must be float32: in half precision small steps vanish."""
    trained = {str(p.dtype).removeprefix("torch.") for p in network.parameters() if p.requires_grad}
    n = sum(p.numel() for p in network.parameters() if p.requires_grad)
    products = str(network.dtype).removeprefix("torch.")
    text = f"{n:,} trained parameters in {', '.join(sorted(trained))}; products in {products}"
    return trained == {"float32"}, text


@torch.no_grad()
def check_dropout(network: LanguageNetwork) -> Finding:
    """Whether training mode computes what evaluation mode computes."""
    tokens, action = _columns(_prompts(network), network.device)
    training, scores = network.training, []
    for mode in (True, True, False):
        network.train(mode)
        scores.append(network.policy(tokens).log_prob(action))
    network.train(training)
    gap = max(float((x - scores[0]).abs().max()) for x in scores)
    return (
        gap == 0.0,
        f"train() and eval() differ by {gap:.1g}" if gap else "train() equals eval(): no dropout",
    )


@torch.no_grad()
def check_positions(network: LanguageNetwork) -> Finding:
    """Whether a text's score depends on what it is padded to."""
    prompts = _prompts(network)
    tokens, action = _columns(prompts, network.device)
    together, gap = network.policy(tokens).log_prob(action), 0.0
    for i, prompt in enumerate(prompts):
        alone, own = _columns([prompt], network.device)
        score = network.policy(alone).log_prob(own)[:, 0]
        gap = max(gap, float((together[: len(score), i] - score).abs().max()))
    return _finding(gap, "a text alone and padded among others", TOLERANCE[network.dtype])


@torch.no_grad()
def check_sampler(network: LanguageNetwork) -> Finding:
    """Whether the log-probabilities of sampling, after prompts of several lengths, are those of training."""
    prompts = _prompts(network)
    seeds, room = torch.arange(len(prompts) * 4), (network.context or 64) - max(map(len, prompts))
    n = min(LEAST, room)  # so many that a GPU writes by the CUDA graphs it would train with
    done = generate(network, prompts, seeds=seeds, max_completion_length=n, num_generations=4)
    texts = [
        prompts[i // 4] + done.tokens[i, : int(done.length[i])].tolist() for i in range(len(done.length))
    ]
    tokens, action = _columns(texts, network.device)
    score, gap = network.policy(tokens).log_prob(action), 0.0
    for i, length in enumerate(done.length.tolist()):
        start = len(prompts[i // 4]) - 1
        gap = max(gap, float((score[start : start + length, i] - done.logp[i, :length]).abs().max()))
    what = "sampling and scoring the same tokens" if network.vllm is None else "vLLM and training"
    return _finding(gap, what, TOLERANCE[network.dtype] if network.vllm is None else ENGINE_TOLERANCE)


def _finding(gap: float, what: str, allowed: float) -> Finding:
    return gap <= allowed, f"{what}: log-probabilities differ by {gap:.1g} (rounding: up to {allowed:g})"


def _prompts(network: LanguageNetwork) -> list[list[int]]:
    """Random texts of several lengths, without special tokens."""
    special = set(network.tokenizer.all_special_ids) | set(network.eos)
    known = torch.tensor([i for i in range(min(len(network.tokenizer), 50_000)) if i not in special])
    generator = Generator().manual_seed(0)
    longest = min(network.context or 64, 64) // 2
    lengths = (min(n, longest) for n in LENGTHS)
    return [known[torch.randint(len(known), (n,), generator=generator)].tolist() for n in lengths]


def _columns(texts: list[list[int]], device: torch.device) -> tuple[Tokens, Tensor]:
    """Texts as columns in which every token but the first is a decision, padded with 0."""
    rows = max(map(len, texts)) - 1
    token, action = torch.zeros(2, rows, len(texts), dtype=torch.long).unbind()
    position, decides = torch.zeros_like(token), torch.zeros_like(token, dtype=torch.bool)
    for i, text in enumerate(texts):
        n = len(text) - 1
        token[:n, i], action[:n, i] = torch.tensor(text[:-1]), torch.tensor(text[1:])
        position[:n, i], decides[:n, i] = torch.arange(n), True
    token, position, decides, action = (x.to(device) for x in (token, position, decides, action))
    return Tokens(token, position, decides), action


CHECKS: dict[str, Callable[[LanguageNetwork], Finding]] = {
    "end tokens": check_ends,
    "chat template": check_chat_template,
    "precision": check_precision,
    "dropout": check_dropout,
    "positions": check_positions,
    "sampler": check_sampler,
}
"""Every check under the name it is printed with."""
