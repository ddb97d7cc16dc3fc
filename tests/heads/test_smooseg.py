"""SmooSeg (arXiv 2310.17874) against loops in float64 that follow its definition, and what it must not do."""

import pytest
import torch
from planted import CHANNELS, CLUSTERS, GRID, a_batch, adam, agreement, assert_resumes, completed, gradients, train
from planted import planted as planted_tokens
from torch.nn import functional as F

from pipeline.heads import smooseg
from pipeline.heads.settings import SmoosegParams
from pipeline.heads.smooseg import Smooseg, smoothness

ALL = GRID[0] * GRID[1]


def make(seed: int = 0, **fields) -> Smooseg:
    torch.manual_seed(seed)
    return Smooseg(completed(SmoosegParams(**{"code": 8, **fields}), seed), CHANNELS)


@pytest.fixture(scope="module")
def planted():
    return planted_tokens()


def naive_smoothness(features, assigned, shift, order):
    """Word by word: similarities of all pairs, centred, then the mean of (F − b)(1 − P)."""
    views, tokens = features.shape[:2]
    raw = torch.zeros(views, tokens, tokens, dtype=torch.float64)
    for v in range(views):
        for i in range(tokens):
            for j in range(tokens):
                raw[v, i, j] = features[v, i] @ features[order[v], j]
    rowless = raw - raw.mean(2, keepdim=True)
    centred = rowless - rowless.mean() + raw.mean()
    total = 0.0
    for v in range(views):
        for i in range(tokens):
            for j in range(tokens):
                total = total + (centred[v, i, j] - shift) * (1 - assigned[v, i] @ assigned[order[v], j])
    return total / raw.numel()


@pytest.mark.parametrize("order", [None, [1, 2, 0], [0, 1, 2]])
@pytest.mark.parametrize("shift", [-0.02, 0.5])
def test_smoothness_and_its_gradient_are_those_of_the_definition(order, shift):
    generator = torch.Generator().manual_seed(1)
    features = F.normalize(torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) + 0.5, dim=-1)
    raw = torch.rand(3, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    wanted = naive_smoothness(features, F.normalize(raw, dim=-1), shift, order or [0, 1, 2])
    found = smoothness(features, F.normalize(raw, dim=-1), shift, None if order is None else torch.tensor(order))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(x, raw)[0] for x in (found, wanted)), rtol=1e-9, atol=1e-12)


def naive_step(method: Smooseg, maps, views: list[int]):
    """The loss of a step on two views without dropout, in float64, from the method's tensors; and those tensors."""
    tensors = {name: value.detach().double().requires_grad_() for name, value in method.state_dict().items()}
    weight = {name.removeprefix("projector."): value for name, value in tensors.items()}
    f = maps[views].double().flatten(1, 2)
    hidden = f @ weight["hidden.weight"].T + weight["hidden.bias"]
    z = f @ weight["linear.weight"].T + weight["linear.bias"]
    z = z + (hidden * torch.sigmoid(hidden)) @ weight["out.weight"].T + weight["out.bias"]
    z = z / z.norm(dim=-1, keepdim=True)
    teacher = weight["teacher"].detach() / weight["teacher"].detach().norm(dim=-1, keepdim=True)
    student = weight["student"] / weight["student"].norm(dim=-1, keepdim=True)
    p = torch.exp(z @ teacher.T / 0.1)
    p = p / p.sum(-1, keepdim=True)
    p = p / p.norm(dim=-1, keepdim=True)
    f = f / f.norm(dim=-1, keepdim=True)
    loss = naive_smoothness(f, p, -0.02, [0, 1]) + naive_smoothness(f, p, 0.5, [1, 0])
    logits = z.detach() @ student.T
    for v in range(2):
        for i in range(f.shape[1]):
            target = int((z[v, i] @ teacher.T).argmax())
            loss = loss - (logits[v, i, target] - torch.log(torch.exp(logits[v, i]).sum())) / (2 * f.shape[1])
    return loss, tensors


def test_a_step_is_that_of_the_definition_and_moves_the_teacher_afterwards(planted):
    """Loss, gradient of every parameter, and the teacher, which the loss saw as it was."""
    maps = planted[0][:, :3, :4]
    method = make(dropout=0.0)
    with torch.no_grad():
        method.student += 0.1 * torch.randn(method.student.shape, generator=torch.Generator().manual_seed(5))
    before = method.teacher.clone()
    wanted, tensors = naive_step(method, maps, [4, 2])
    loss, terms = method.loss(a_batch(maps, 0, 9, [4, 2]), torch.float32, True)
    loss.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    parts = terms["loss_self"] + terms["loss_other"] + terms["loss_prototypes"]
    torch.testing.assert_close(parts, loss.detach())
    wanted.backward()
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), tensors[name].grad, rtol=1e-3, atol=1e-6, msg=name)
    torch.testing.assert_close(method.teacher, 0.998 * before + 0.002 * method.student.detach(), rtol=0, atol=1e-7)
    assert not torch.equal(method.teacher, before)


def test_no_gradient_flows_where_the_definition_stops_it(planted, monkeypatch):
    """The smoothness alone reaches the projector, the cross-entropy alone the student; tokens and teacher nothing."""
    batch = a_batch(planted[0], 0, 9)
    batch.table.requires_grad_()
    both = make()
    both.loss(batch, torch.float32, False)[0].backward()
    projector = {name for name, _ in both.named_parameters() if name.startswith("projector.")}
    assert gradients(both) == projector | {"student"}
    assert batch.table.grad is None
    assert not both.teacher.requires_grad

    zero = torch.zeros((), requires_grad=True)
    with monkeypatch.context() as patch:
        patch.setattr(smooseg, "smoothness", lambda *_: zero * 1)
        entropy = make()
        entropy.loss(batch, torch.float32, False)[0].backward()
    assert gradients(entropy) == {"student"}
    monkeypatch.setattr(smooseg.F, "cross_entropy", lambda *_: zero * 1)
    smooth = make()
    smooth.loss(batch, torch.float32, False)[0].backward()
    assert gradients(smooth) == projector


def test_dropout_zeroes_whole_channels_of_a_view_independently_per_branch(planted):
    method = make()
    seen = []
    method.projector.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    for step in range(40):
        method.loss(a_batch(planted[0], step, 40), torch.float32, False)
    masks = torch.stack([torch.stack(arguments[1:]) for arguments in seen])  # (step, branch, view, 1, channel)
    assert masks.shape == (40, 2, 6, 1, CHANNELS)
    assert set(masks.unique().tolist()) == {0.0, 1.25}
    assert 0.17 < (masks == 0).float().mean() < 0.23
    both = (masks == 0).all(1).float().mean()
    assert 0.02 < both < 0.06, "dropped in both branches: 0.04 where they are independent"
    assert not torch.equal(masks[0], masks[1])


def test_a_step_sees_different_tokens_of_its_own_views():
    size = ALL
    table = torch.arange(12.0 * size)[:, None].expand(-1, CHANNELS).contiguous()
    method = make(tokens=20)
    seen = []
    method.projector.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][:, :, 0]))
    batch = a_batch(table.view(12, *GRID, CHANNELS), 0, 9, [7, 0, 3])
    for step in (0, 1, 0):
        method.loss(batch._replace(step=step), torch.float32, False)
    assert seen[0].shape == (3, 20)
    assert all(len(row.unique()) == 20 for row in seen[0])
    assert torch.equal(seen[0] // size, torch.tensor([7.0, 0.0, 3.0])[:, None].expand(-1, 20))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_one_view_has_no_other(planted):
    loss, terms = make().loss(a_batch(planted[0], 0, 9, [5]), torch.float32, True)
    assert "loss_other" not in terms
    assert torch.isfinite(loss)


def test_prototypes_have_a_rate_of_their_own():
    groups = adam(make()).param_groups
    assert [group["lr"] for group in groups] == [1e-4, 5e-4]
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(CLUSTERS, 8)]


def test_a_resumed_run_ends_in_the_same_bits(planted):
    assert_resumes(lambda: make(tokens=20), planted[0], 5, 6)


def test_the_seed_decides_the_draws(planted):
    batch = a_batch(planted[0], 3, 9)
    method = make()
    losses = [make().loss(batch, torch.float32, False)[0] for _ in range(2)]
    assert torch.equal(*losses)
    method.params = completed(method.params, 1)
    assert not torch.equal(method.loss(batch, torch.float32, False)[0], losses[0])


def test_planted_clusters_are_found(planted):
    maps, truth = planted
    method = make(code=64, learning_rate=3e-3, learning_rate_prototypes=1e-3, ema=0.99)
    assert agreement(method, maps, truth) < 0.9
    train(method, adam(method), maps, range(300), 300)
    assert agreement(method, maps, truth) >= 0.9
