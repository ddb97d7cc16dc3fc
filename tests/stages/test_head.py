"""A training step against the naive one of naive_stego.py, and what it draws: masks, positions, neighbours."""

from collections import Counter

import naive_stego as naive
import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline.heads import stego
from pipeline.heads.interface import Batch, Method
from pipeline.heads.pool import Pools
from pipeline.heads.settings import StegoParams
from pipeline.heads.stego import Stego

GRID, CHANNELS, CODE = (3, 4), 5, 3
ANCHORS, OTHERS = [4, 1, 0], [2, 3, 2]

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype")  # float64, in these tests alone


def tokens(views: int = 5, channels: int = CHANNELS) -> Tensor:
    """(view, row, column, channel) float64; no token is zero anywhere."""
    return torch.randn(views, *GRID, channels, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.3


def new_head(channels: int = CHANNELS) -> Stego:
    torch.manual_seed(0)
    return Stego(tiny(), channels).double()


def tiny(**changed: float) -> StegoParams:
    """Params in which no two weights, shifts or counts are equal, and in which dropout matters."""
    return StegoParams(**{"samples": 2, "code": CODE, "negatives": 2, "dropout": 0.3, "seed": 1, **changed})


def step_of(
    head: Stego, maps: Tensor, anchors: list[int], others: list[int] | None, params: StegoParams, step: int, dtype=None
) -> tuple[Tensor, dict[str, Tensor]]:
    dtype = dtype or maps.dtype
    near = None if others is None else torch.tensor(others)
    head.params = params
    return head.loss(Batch(maps.flatten(0, 2), GRID, torch.tensor(anchors), near, step, 100), dtype, True)


# The step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "near", "changed"),
    [
        (3, True, {}),
        (3, True, {"negatives": 5, "samples": 3}),
        (3, True, {"zero_clamp": False}),
        (3, True, {"negatives": 1, "dropout": 0.0}),
        (3, True, {"negatives": 0}),
        (3, False, {}),
        (2, True, {}),
        (2, False, {"negatives": 1}),
        (1, True, {}),
        (1, False, {"samples": 3}),
    ],
)
@pytest.mark.parametrize("step", [0, 7])
def test_a_step_and_its_gradient_are_those_of_the_definition(views: int, near: bool, changed: dict, step: int):
    """All three terms, their weights and shifts, each sample at its place, each mask where it belongs."""
    params, maps, head = tiny(**changed), tokens(), new_head()
    anchors, others = ANCHORS[:views], OTHERS[:views] if near else None
    drawn = naive.draws(params, views, CHANNELS, GRID, step)
    wanted = naive.step_terms(head, maps, anchors, others, params, drawn)
    gradients = torch.autograd.grad(wanted["loss"], list(head.parameters()))

    found, terms = step_of(head, maps, anchors, others, params, step)
    kinds = ["self"] + ["neighbours"] * near + ["random"] * (views > 1 and params.negatives > 0)
    assert sorted(wanted) == sorted([*kinds, "loss"])
    assert sorted(name for name in terms if name.startswith("loss_")) == sorted(f"loss_{kind}" for kind in kinds)
    for kind in kinds:
        torch.testing.assert_close(terms[f"loss_{kind}"], wanted[kind].detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found, wanted["loss"], rtol=1e-6, atol=1e-8)
    for mine, theirs in zip(torch.autograd.grad(found, list(head.parameters())), gradients, strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_a_step_in_fewer_bits(dtype: torch.dtype, tolerance: float):
    maps, params = tokens(), tiny()
    wanted = naive.step_terms(new_head(), maps, ANCHORS, OTHERS, params, naive.draws(params, 3, CHANNELS, GRID, 0))
    found, _ = step_of(new_head().float(), maps.to(dtype), ANCHORS, OTHERS, params, 0)
    assert float(found.detach()) == pytest.approx(float(wanted["loss"].detach()), rel=tolerance)


# Dropout --------------------------------------------------------------------------------------------------------------


def masks_of(params: StegoParams, step: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor, Tensor]:
    """What a step multiplied its tokens with: (3, anchor, channel) each, of the anchors' two samples, then neighbours.

    The teacher's is read off F's features: a channel that is 0 at every position of a view.
    """
    head, seen = new_head(40), []
    head.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1:]))
    features: list[Tensor] = []
    with monkeypatch.context() as patch:
        sampled = stego.sampled
        patch.setattr(stego, "sampled", lambda f, z: features.append(f) or sampled(f, z))
        step_of(head, tokens(channels=40), ANCHORS, OTHERS, params, step)
    linear, hidden = (mask[:, 0].unflatten(0, (3, 3)) for mask in seen)
    return linear, hidden, (torch.stack(features) != 0).any(2)


def test_three_masks_are_drawn_apart(monkeypatch: pytest.MonkeyPatch):
    """Per view one for the linear branch, one for the hidden branch, one for F: a tenth of the channels each."""
    assert StegoParams().dropout == 0.1
    params = tiny(dropout=StegoParams().dropout)
    dropped = []
    for step in range(60):
        linear, hidden, teacher = masks_of(params, step, monkeypatch)
        torch.testing.assert_close(torch.cat([linear, hidden]).unique(), torch.tensor([0, 1 / 0.9]).double())
        masks = torch.stack([linear == 0, hidden == 0, ~teacher])
        assert torch.equal(masks[:, 0], masks[:, 1]), "an anchor's two samples come of one forward pass"
        dropped.append(masks[:, 1:])  # (branch, anchors or neighbours, view, channel)
    every = torch.stack(dropped, 1).double()
    for rate in every.mean((1, 2, 3, 4)):
        assert float(rate) == pytest.approx(0.1, abs=0.01)
    flat = torch.cat([every.flatten(1), every[:, :, :, [1, 2, 0]].flatten(1), every[:, :, [1, 0]].flatten(1)])
    joint = flat @ flat.T / flat.shape[1]
    apart = joint[~torch.eye(len(flat), dtype=torch.bool)]
    torch.testing.assert_close(apart, torch.full_like(apart, 0.01), rtol=0, atol=0.006)


@pytest.mark.parametrize(("branch", "touched"), [(0, "codes"), (1, "codes"), (2, "features")])
def test_what_a_mask_touches(branch: int, touched: str, monkeypatch: pytest.MonkeyPatch):
    """The teacher's mask changes F and no code, the other two change codes and not F."""

    def sides(dropping: bool) -> tuple[Tensor, Tensor]:
        factors = torch.ones(3, 6, 1, CHANNELS)
        factors[branch, ..., 2] = 0 if dropping else 1
        seen: list[tuple[Tensor, Tensor]] = []
        with monkeypatch.context() as patch:
            sampled = stego.sampled
            patch.setattr(stego, "channel_dropout", lambda *_: factors.flatten(0, 1))
            patch.setattr(stego, "sampled", lambda f, z: seen.append((f, z)) or sampled(f, z))
            step_of(new_head(), tokens(), ANCHORS, OTHERS, tiny(), 0)
        return torch.cat([f for f, _ in seen]), torch.cat([z for _, z in seen])

    features, codes = ((mine - full).abs().amax((1, 2)) for mine, full in zip(sides(True), sides(False), strict=True))
    changed, same = (features, codes) if touched == "features" else (codes, features)
    assert (changed > 1e-3).all()
    assert (same == 0).all()


# Anchors and neighbours -----------------------------------------------------------------------------------------------


class Numbered:
    """A feature store of as many views as asked, each token of which is its view's number."""

    def __init__(self, views: int) -> None:
        self.shape = (views, 2, 3, 4)

    def read(self, views: np.ndarray) -> np.ndarray:
        return np.broadcast_to(views[:, None, None, None], (len(views), *self.shape[1:])).astype(np.float16)


NEAR = {view: [other for other in range(3, 15, 2) if other != view][::-1] for view in range(3, 15, 2)}
"""Six views with odd numbers and all five others as neighbours, in an order of ranks."""


@pytest.mark.parametrize("whole", [True, False])
def test_a_neighbour_is_any_rank_equally_often(whole: bool):
    """Drawn from the whole list of `neighbours`, which holds no view of the same image (test_neighbours.py)."""
    near = {view: ranks[:4] for view, ranks in NEAR.items()}
    table = pa.table({"view": list(near), "neighbours": list(near.values())})
    view_gib = 2 * 3 * 4 * 2 / 2**30
    pools = Pools(
        Numbered(20), np.zeros(4, np.float32), table, 2, 4 if whole else 4.5 * view_gib, 0,
        torch.device("cpu"), torch.float32, Method().context,
    )  # fmt: skip
    assert pools.whole == whole
    pairs: Counter[tuple[int, int]] = Counter()
    shown: Counter[int] = Counter()
    for step in range(1500):
        anchors, others = pools.batch(step)
        views = pools.table.reshape(-1, 6, 4)[:, 0, 0].int()
        pairs.update(zip(views[anchors].tolist(), views[others].tolist(), strict=True))
        shown.update(views[anchors].tolist())
    pools.close()
    assert {other for _, other in pairs} == {other for ranks in near.values() for other in ranks}
    for view, ranks in near.items():
        assert {other for anchor, other in pairs if anchor == view} == set(ranks)
        assert chisquare([pairs[view, rank] for rank in ranks]).pvalue > 0.01
    if whole:
        assert set(shown.values()) == {500}, "an epoch shows each view once"
    assert chisquare(list(shown.values())).pvalue > 0.01
