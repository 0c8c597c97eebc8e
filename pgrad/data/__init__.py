"""Records: what happened (`Trajectory`), how good it was (`Batch`), and the trees they are made of."""

from pgrad.data.columns import Recent, join, pad, take_columns, unequal
from pgrad.data.masked import Masked
from pgrad.data.replay import Replay, Transition
from pgrad.data.request import Demonstrations, Episodes, Steps
from pgrad.data.sequence import Sequence
from pgrad.data.tokens import Tokens
from pgrad.data.trajectory import Batch, Trajectory
from pgrad.data.tree import Tree, leaves, map_tree

__all__ = [
    "Batch",
    "Demonstrations",
    "Episodes",
    "Masked",
    "Recent",
    "Replay",
    "Sequence",
    "Steps",
    "Tokens",
    "Trajectory",
    "Transition",
    "Tree",
    "join",
    "leaves",
    "map_tree",
    "pad",
    "take_columns",
    "unequal",
]
