"""Records: what happened (`Trajectory`), how good it was (`Batch`), and the trees they are made of."""

from pgrad.data.replay import Replay, Transition
from pgrad.data.request import Episodes, Steps
from pgrad.data.trajectory import Batch, Trajectory
from pgrad.data.tree import Tree, leaves, map_tree

__all__ = ["Batch", "Episodes", "Replay", "Steps", "Trajectory", "Transition", "Tree", "leaves", "map_tree"]
