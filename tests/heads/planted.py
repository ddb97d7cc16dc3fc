"""Tokens drawn around known directions, and the loop of steps that the methods' tests share."""

import copy
from collections.abc import Iterable

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.params import Params
from pipeline.heads.interface import Batch, Method

VIEWS, GRID, CHANNELS, CLUSTERS = 12, (6, 8), 16, 4


def planted(noise: float = 0.15) -> tuple[Tensor, Tensor]:
    """Maps (view, row, column, channel) float32, centred, and the cluster of each token: two or three bands a view."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.linalg.qr(torch.randn(CHANNELS, CLUSTERS, generator=generator)).Q.T
    truth = torch.empty(VIEWS, *GRID, dtype=torch.int64)
    for view in range(VIEWS):
        names = (torch.arange(3) * (1 + 2 * (view % 2)) + view) % CLUSTERS  # every pair of clusters meets in some view
        truth[view, :, :3], truth[view, :, 3:6], truth[view, :, 6:] = names
        if view % 3 == 0:
            truth[view, :, 6:] = names[1]
    maps = 4 * (directions[truth] + noise * torch.randn(*truth.shape, CHANNELS, generator=generator))
    return maps - maps.mean((0, 1, 2)), truth


def completed(params: Params, seed: int = 0) -> Params:
    """As planning completes a section: k and the seed come from other sections."""
    return params.model_copy(update={"k": CLUSTERS, "seed": seed})


def a_batch(maps: Tensor, step: int, steps: int, views: Iterable[int] | None = None) -> Batch:
    """A step's batch of `views`, else of six that the step draws."""
    generator = torch.Generator().manual_seed(step)
    anchors = torch.randperm(len(maps), generator=generator)[:6] if views is None else torch.tensor(list(views))
    return Batch(maps.flatten(0, 2), (maps.shape[1], maps.shape[2]), anchors, None, step, steps)


def adam(method: Method) -> torch.optim.Adam:
    return torch.optim.Adam(method.parameter_groups(), method.params.learning_rate)


def train(method: Method, optimiser: torch.optim.Adam, maps: Tensor, steps: range, of: int) -> None:
    for step in steps:
        loss, _ = method.loss(a_batch(maps, step, of), torch.float32, step % 7 == 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def assert_resumes(make, maps: Tensor, first: int, second: int) -> None:
    """Training, stopping after `first` steps, and going on with another instance ends where training through does, in
    every bit of the state; and another seed of the run ends elsewhere where the method draws at random."""
    total = first + second
    through = make()
    optimiser = adam(through)
    train(through, optimiser, maps, range(first), total)
    state, optimiser_state = copy.deepcopy(through.state_dict()), copy.deepcopy(optimiser.state_dict())
    train(through, optimiser, maps, range(first, total), total)

    torch.rand(17)  # another state of the global generator, which no step may use
    resumed = make()
    with torch.no_grad():
        for tensor in resumed.state_dict().values():
            tensor.zero_()
    resumed.load_state_dict(state)
    optimiser = adam(resumed)
    optimiser.load_state_dict(optimiser_state)
    train(resumed, optimiser, maps, range(first, total), total)
    changed = 0
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        changed += not torch.equal(value, state[name])
    assert changed > 0, "the second half did nothing"


def agreement(method: Method, maps: Tensor, truth: Tensor) -> float:
    """Adjusted Rand index of the method's own clusters and the planted ones."""
    prototypes = method.prototypes()
    assert prototypes is not None
    torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(CLUSTERS))
    with torch.no_grad():
        found = (F.normalize(method.encode(maps).compared, dim=-1) @ prototypes.T).argmax(-1)
    return float(adjusted_rand_score(truth.flatten(), found.flatten()))


def gradients(method: Method) -> set[str]:
    """Names of the parameters that have a gradient other than 0."""
    return {name for name, p in method.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
