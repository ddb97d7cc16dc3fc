"""PriMaPs-EM (arXiv 2404.16818) against loops in float64 that follow its definition."""

from collections import Counter

import numpy as np
import pytest
import torch
from planted import CHANNELS, CLUSTERS, a_batch, adam, agreement, assert_resumes, completed, gradients, train
from planted import planted as planted_tokens
from torch.nn import functional as F

from pipeline.heads.primaps import Primaps, focal_loss, majority, principal_masks
from pipeline.heads.settings import PrimapsParams


def make(seed: int = 0, **fields) -> Primaps:
    torch.manual_seed(seed)
    return Primaps(completed(PrimapsParams(**fields), seed), CHANNELS)


@pytest.fixture(scope="module")
def planted():
    return planted_tokens()


# Masks ----------------------------------------------------------------------------------------------------------------


def naive_masks(view: np.ndarray, threshold: float, covered: float, rounds: int) -> list[int]:
    masks = [-1] * len(view)
    unit = view / np.linalg.norm(view, axis=1, keepdims=True)
    for number in range(rounds):
        left = [i for i, mask in enumerate(masks) if mask < 0]
        if 1 - len(left) / len(view) >= covered:
            break
        axis = np.linalg.eigh(np.cov(view[left].T, bias=True))[1][:, -1]
        seed = max(left, key=lambda i: abs(unit[i] @ axis))
        near = {i: unit[i] @ unit[seed] for i in left}
        for i in left:
            if near[i] > threshold * max(near.values()):
                masks[i] = number
    return masks


@pytest.mark.parametrize("noise", [0.15, 0.6])
@pytest.mark.parametrize(("threshold", "covered", "rounds"), [(0.4, 0.95, 16), (0.7, 0.6, 16), (0.8, 1.0, 3)])
def test_masks_are_those_of_the_definition(noise, threshold, covered, rounds):
    maps = planted_tokens(noise)[0].flatten(1, 2)
    found = principal_masks(maps, threshold, covered, rounds)
    for view, masks in zip(maps.double().numpy(), found.tolist(), strict=True):
        assert masks == naive_masks(view, threshold, covered, rounds)
    if noise == 0.15 and rounds == 16:
        assert len({int(masks.max()) for masks in found}) > 1, "views must end in different rounds"
    assert found.max() < rounds


def test_masks_of_views_do_not_depend_on_their_batch(planted):
    maps = planted[0].flatten(1, 2)
    together = principal_masks(maps, 0.4, 0.95, 16)
    assert torch.equal(together, torch.cat([principal_masks(view[None], 0.4, 0.95, 16) for view in maps]))


def test_equal_tokens_are_one_mask_and_empty_ones_none():
    ones = torch.ones(1, 6, 3)
    assert principal_masks(ones, 0.4, 0.95, 4).tolist() == [[0] * 6]
    ones[0, 2] = 0
    assert principal_masks(ones, 0.4, 1.0, 4).tolist() == [[0, 0, -1, 0, 0, 0]]


def test_a_mask_is_named_by_the_majority_of_its_tokens():
    generator = torch.Generator().manual_seed(2)
    masks = torch.randint(-1, 3, (4, 30), generator=generator)
    votes = torch.randint(5, (4, 30), generator=generator)
    found = majority(masks, votes, 6, 5)
    for v in range(4):
        for i in range(30):
            ballots = Counter(int(votes[v, j]) for j in range(30) if masks[v, j] == masks[v, i])
            most = max(ballots.values())
            wanted = -1 if masks[v, i] < 0 else min(name for name, count in ballots.items() if count == most)
            assert found[v, i] == wanted


# The loss -------------------------------------------------------------------------------------------------------------


def naive_focal(logits, labels, focus):
    confidence = [torch.softmax(row.detach(), 0) for row in logits]
    mean = sum(confidence) / len(confidence)
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label >= 0:
            total = total - (1 - mean[label]) ** focus * torch.log_softmax(row, 0)[label]
    return total / len(labels)


@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_the_loss_and_its_gradient_are_those_of_the_definition(focus):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(12, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(-1, 4, (12,), generator=generator)
    assert (labels < 0).any()
    wanted, found = naive_focal(logits, labels, focus), focal_loss(logits, labels, focus)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(x, logits)[0] for x in (found, wanted)), rtol=1e-9, atol=1e-12)


def test_a_view_without_masks_costs_nothing():
    assert focal_loss(torch.randn(5, 3), torch.full((5,), -1), 2.0) == 0


def test_a_step_is_that_of_the_definition(planted):
    """Masks in the components, names by the moving average, loss and gradient of the student's directions."""
    maps = planted_tokens(0.6)[0]
    method = make(components=6)
    method.prepare(maps, 0)
    with torch.no_grad():
        method.student.copy_(2 * torch.randn(method.student.shape, generator=torch.Generator().manual_seed(1)))
    views = [3, 8, 5]
    loss, terms = method.loss(a_batch(maps, 7, 99, views), torch.float32, True)
    loss.backward()
    student = method.student.detach().double().requires_grad_()
    labels, outvoted = [], 0
    for view in maps[views].flatten(1, 2).double():
        masks = naive_masks((view @ method.basis.double()).numpy(), 0.4, 0.95, 16)
        votes = [int((method.teacher.double() @ token).argmax()) for token in view]
        for i, mask in enumerate(masks):
            ballots = Counter(vote for vote, other in zip(votes, masks, strict=True) if other == mask)
            most = max(ballots.values())
            labels.append(-1 if mask < 0 else min(name for name, count in ballots.items() if count == most))
            outvoted += mask >= 0 and labels[-1] != votes[i]
    logits = maps[views].flatten(0, 2).double() @ (student / student.norm(dim=1, keepdim=True)).T
    wanted = naive_focal(logits, torch.tensor(labels), 2.0)
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.student.grad.double(), student.grad, rtol=1e-3, atol=1e-6)
    named = sum(label >= 0 for label in labels)
    torch.testing.assert_close(terms["covered"], torch.tensor(named / len(labels)))
    torch.testing.assert_close(terms["outvoted"], torch.tensor(outvoted / named))
    assert outvoted > 0, "the masks must matter"


def test_only_the_student_has_a_gradient(planted):
    method = make()
    method.prepare(planted[0], 0)
    batch = a_batch(planted[0], 10, 99)
    batch.table.requires_grad_()
    method.loss(batch, torch.float32, False)[0].backward()
    assert gradients(method) == {"student"}
    assert [name for name, _ in method.named_parameters()] == ["student"]
    assert batch.table.grad is None
    assert not any(buffer.requires_grad for buffer in method.buffers())


def test_the_moving_average_follows_every_ten_steps(planted):
    method = make()
    method.prepare(planted[0], 0)
    for step in range(22):
        with torch.no_grad():
            method.student += 0.1 * torch.randn(method.student.shape, generator=torch.Generator().manual_seed(step))
        before = method.teacher.clone()
        method.loss(a_batch(planted[0], step, 99), torch.float32, False)
        wanted = before if step not in (10, 20) else 0.98 * before + 0.02 * F.normalize(method.student.detach(), dim=-1)
        torch.testing.assert_close(method.teacher, wanted, rtol=0, atol=1e-7)
        assert torch.equal(method.teacher, before) == (step not in (10, 20))


# Preparing, runs ------------------------------------------------------------------------------------------------------


def test_preparing_finds_the_leading_components_and_the_first_prototypes(planted):
    method = make(components=5)
    method.prepare(planted[0], 0)
    flat = planted[0].flatten(0, 2).double().numpy()
    wanted = np.linalg.svd(flat, full_matrices=False)[2][:5].T
    alike = np.abs(np.sum(method.basis.numpy() * wanted, axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-4)
    assert method.basis.shape == (CHANNELS, 5)
    assert torch.equal(method.student.detach(), method.teacher)
    again = make(seed=4, components=5)
    again.prepare(planted[0], 0)
    assert torch.equal(again.teacher, method.teacher)


def test_components_beyond_the_channels_change_nothing(planted):
    """A full basis only turns the space: the same masks."""
    maps = planted[0].flatten(1, 2)
    method = make(components=400)
    method.prepare(planted[0], 0)
    assert method.basis.shape == (CHANNELS, CHANNELS)
    turned = principal_masks(maps @ method.basis, 0.4, 0.95, 16)
    assert torch.equal(turned, principal_masks(maps, 0.4, 0.95, 16))


def test_codes_are_the_tokens(planted):
    assert torch.equal(make().encode(planted[0]).compared, planted[0])


def test_a_resumed_run_ends_in_the_same_bits(planted):
    def prepared():
        method = make()
        method.prepare(planted[0], 0)
        return method

    assert_resumes(prepared, planted[0], 13, 9)


def test_planted_clusters_are_found_from_poor_prototypes(planted):
    """Most of what the k-means of the preparation finds is spoilt first: the steps must mend it."""
    maps, truth = planted
    method = make(ema_every=1, ema=0.9)
    method.prepare(maps, 0)
    assert agreement(method, maps, truth) > 0.9
    with torch.no_grad():
        noise = torch.randn(CLUSTERS, CHANNELS, generator=torch.Generator().manual_seed(1))
        method.student.copy_(F.normalize(method.student + 0.7 * noise, dim=-1))
        method.teacher.copy_(method.student)
    assert agreement(method, maps, truth) < 0.8
    train(method, adam(method), maps, range(150), 150)
    assert agreement(method, maps, truth) >= 0.9
