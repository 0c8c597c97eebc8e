"""Trees keep their structure; a Batch keeps its rows together, whatever observations, actions and policies
are."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad.data import Batch, Trajectory, leaves, map_tree
from pgrad.data.tree import is_tree
from pgrad.math.distributions import Categorical, Gaussian, MultiCategorical, Product


@dataclass(frozen=True)
class Record:
    first: Tensor
    name: str
    rest: tuple[Tensor, ...] | None = None


def numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


def test_structure_is_kept() -> None:
    tree = {"b": (torch.ones(2), {"c": torch.zeros(3)}), "a": Record(torch.ones(1), "kept", (torch.ones(4),))}
    out = map_tree(lambda x: x + 1, tree)
    assert list(out) == ["b", "a"]
    assert isinstance(out["b"], tuple)
    assert out["b"][0].tolist() == [2, 2]
    assert out["b"][1]["c"].tolist() == [1, 1, 1]
    assert isinstance(out["a"], Record)
    assert (out["a"].name, out["a"].first.tolist(), out["a"].rest[0].tolist()) == ("kept", [2], [2] * 4)
    assert tree["b"][0].tolist() == [1, 1], "the tree that was given is left alone"


def test_several_trees_go_together() -> None:
    tree = ({"x": torch.tensor(1)}, Record(torch.tensor(2), "left"))
    other = ({"x": torch.tensor(10)}, Record(torch.tensor(20), "right"))
    out = map_tree(lambda a, b: a + b, tree, other)
    assert out[0]["x"] == 11
    assert (out[1].first, out[1].name) == (22, "left")
    with pytest.raises(ValueError, match="shorter"):
        map_tree(lambda a, b: a, (torch.ones(1), torch.ones(1)), (torch.ones(1),))


def test_leaves_come_in_order() -> None:
    tree = {"z": (torch.tensor(0), Record(torch.tensor(1), "n", (torch.tensor(2),))), "a": torch.tensor(3)}
    assert [int(x) for x in leaves(tree)] == [0, 1, 2, 3]
    assert [int(x) for x in leaves(torch.tensor(7))] == [7]


def test_what_is_a_tree() -> None:
    assert is_tree(torch.ones(1))
    assert is_tree({"a": (torch.ones(1),)})
    assert not any(is_tree(x) for x in ("name", 3, None, (), {}, (2, 3), {"a": 1}))


def trajectory() -> Trajectory:
    flags = torch.zeros(3, 2, dtype=torch.bool)
    obs = {"image": numbered(4, 2, 5, 5), "rest": (numbered(4, 2),)}
    return Trajectory(obs, numbered(3, 2), numbered(3, 2), numbered(3, 2), flags, flags, torch.ones(3, 2))


def test_decisions_leave_out_the_last_observation() -> None:
    decisions = trajectory().decisions
    assert decisions["image"].shape == (3, 2, 5, 5)
    assert torch.equal(decisions["rest"][0], numbered(4, 2)[:3])


def batch(policy: Any = None) -> Batch:
    traj = trajectory()
    return Batch(
        traj.decisions, (traj.action, numbered(3, 2, 4)), traj.logp, traj.mask, traj.reward, policy=policy
    )


def rows_agree(small: Batch, index: list[int]) -> None:
    """Every leaf shows the rows `index` of the flattened batch."""
    picked = torch.tensor(index)
    assert torch.equal(small.obs["image"], numbered(6, 5, 5)[picked])
    assert torch.equal(small.obs["rest"][0], picked)
    assert torch.equal(small.action[0], picked)
    assert torch.equal(small.action[1], numbered(6, 4)[picked])
    assert torch.equal(small.advantage, picked)


def test_flatten_select_and_split_keep_a_decision_together() -> None:
    flat = batch().flatten()
    rows_agree(flat, [0, 1, 2, 3, 4, 5])
    rows_agree(flat.select(torch.tensor([4, 0, 5])), [4, 0, 5])
    first, last = flat.split(4)
    rows_agree(first, [0, 1, 2, 3])
    rows_agree(last, [4, 5])
    assert last.logp.data_ptr() == flat.logp[4:].data_ptr(), "they are views"
    assert (last.value, last.target, last.policy) == (None, None, None)
    assert (flat.value, flat.target, flat.policy) == (None, None, None)


@pytest.mark.parametrize(
    "policy",
    [
        Categorical(torch.randn(3, 2, 4)),
        MultiCategorical(torch.randn(3, 2, 5), (2, 3)),
        Gaussian(torch.randn(3, 2, 4), torch.zeros(4).expand(3, 2, 4)),
        Product(
            {
                "a": Categorical(torch.randn(3, 2, 4)),
                "b": Gaussian(torch.randn(3, 2, 1), torch.zeros(3, 2, 1)),
            }
        ),
        Product((MultiCategorical(torch.randn(3, 2, 5), (2, 3)), Categorical(torch.randn(3, 2, 4)))),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_policy_goes_along(policy: Any) -> None:
    """Distributions are trees: π_old of every decision follows it into its minibatch, names and sizes
    unchanged."""
    picked = batch(policy).flatten().select(torch.tensor([4, 0])).policy
    assert type(picked) is type(policy)
    generator = torch.Generator().manual_seed(0)
    action = policy.sample(generator)
    expected = policy.log_prob(action).flatten()[[4, 0]]
    small = map_tree(lambda x: x.flatten(0, 1)[[4, 0]], action)
    assert torch.equal(picked.log_prob(small), expected)
    if isinstance(policy, MultiCategorical):
        assert picked.nvec == policy.nvec


def test_the_records_are_what_the_design_says() -> None:
    assert [f.name for f in fields(Trajectory)] == [
        "obs",
        "action",
        "logp",
        "reward",
        "terminated",
        "done",
        "mask",
        "weight",
    ]
