"""Language: prompts that are reset to, tasks with exact verifiers, and rewards for what was written."""

from pgrad.worlds.language.load import load_reward
from pgrad.worlds.language.prompts import Prompt, Prompts, load_prompts
from pgrad.worlds.language.rewards import Rewards, Scores
from pgrad.worlds.language.task import Instance, Task
from pgrad.worlds.language.tasks import TASKS, make_task
from pgrad.worlds.language.tokenizer import character_tokenizer
from pgrad.worlds.language.world import LanguageWorld, Scored

__all__ = [
    "TASKS",
    "Instance",
    "LanguageWorld",
    "Prompt",
    "Prompts",
    "Rewards",
    "Scored",
    "Scores",
    "Task",
    "character_tokenizer",
    "load_prompts",
    "load_reward",
    "make_task",
]
