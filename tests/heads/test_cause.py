"""CAUSE (arXiv 2310.07379) against loops in float64 that follow its definition; its phases, bank and averages."""

import math

import pytest
import torch
from planted import CHANNELS, GRID, a_batch, adam, agreement, assert_resumes, completed, gradients, train
from planted import planted as planted_tokens
from torch.nn import functional as F

from pipeline.heads.cause import Cause, _best_shared, contrast, modularity_loss, one_per_cell
from pipeline.heads.settings import CauseParams

STEPS = 40
"""Phases of a run of this many: codebook from 0, head from 10, probe from 30."""


def make(seed: int = 0, **fields) -> Cause:
    torch.manual_seed(seed)
    small = {"code": 12, "projection": 16, "codewords": 24, "cell": 1, **fields}
    return Cause(completed(CauseParams(**small), seed), CHANNELS)


@pytest.fixture(scope="module")
def planted():
    return planted_tokens()


def unit(*shape: int, seed: int, shift: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64) + shift, dim=-1)


# Modularity -----------------------------------------------------------------------------------------------------------


def naive_modularity(tokens, centres, temperature):
    total = 0.0
    for view in tokens:
        n = len(view)
        cos = [[torch.cosine_similarity(a, b, dim=0) for b in view] for a in view]
        graph = [[max(float(cos[i][j]), 0.0) if i != j else 0.0 for j in range(n)] for i in range(n)]
        degree = [sum(row) for row in graph]
        edges = sum(degree)
        near = [[torch.cosine_similarity(a, c, dim=0).clamp(min=0) for c in centres] for a in view]
        for i in range(n):
            for j in range(n):
                shared = torch.stack([torch.tanh(a * b / temperature) for a, b in zip(near[i], near[j], strict=True)])
                total = total - (graph[i][j] - degree[i] * degree[j] / edges) * shared.max() / edges
    return total / len(tokens)


@pytest.mark.parametrize("centres", [1, 5])
def test_modularity_and_its_gradient_are_those_of_the_definition(centres):
    tokens = 3 * unit(3, 6, 5, seed=1, shift=0.0)
    book = (2 * unit(centres, 5, seed=2, shift=0.0)).requires_grad_()
    wanted, found = naive_modularity(tokens, book, 0.1), modularity_loss(tokens, book, 0.1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(x, book)[0] for x in (found, wanted)), rtol=1e-8, atol=1e-12)


def test_a_view_without_similar_tokens_has_no_modularity_but_no_nan():
    book = torch.eye(3).requires_grad_()
    loss = modularity_loss(torch.eye(3)[None, :2], book, 0.1)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(book.grad).all()


@pytest.mark.parametrize("centres", [1, 64, 65, 150])
def test_the_shared_centre_of_two_tokens_is_that_of_the_largest_product(centres):
    similar = torch.rand(2, 5, centres, generator=torch.Generator().manual_seed(0))
    similar[:, 3] = 0  # a token that is near to none: any centre that exists will do
    products = similar[:, :, None] * similar[:, None]
    best = _best_shared(similar)
    assert best.max() < centres
    torch.testing.assert_close(products.gather(3, best[..., None]).squeeze(3), products.amax(-1), rtol=0, atol=0)


# Contrast -------------------------------------------------------------------------------------------------------------


def naive_contrast(student, keys, cosines, itself, positive=0.3, negative=0.1, temperature=0.07):
    means = []
    tokens = student.shape[1]
    for v in range(len(student)):
        pairs = []
        for i in range(tokens):
            row = v * tokens + i
            up = [k for k in range(len(keys)) if cosines[row, k] > positive and not (itself and k == row)]
            down = [k for k in range(len(keys)) if cosines[row, k] < negative]
            value = [torch.exp(student[v, i] @ key / temperature) for key in keys]
            for p in up:
                pairs.append(-torch.log(value[p] / sum(value[k] for k in up + down)))
        if pairs:
            means.append(sum(pairs) / len(pairs))
    return means


@pytest.mark.parametrize("itself", [True, False])
def test_contrast_and_its_gradient_are_those_of_the_definition(itself):
    """The second of three views has no positives in the second case, and drops out of the mean."""
    student = unit(3, 4, 6, seed=1).requires_grad_()
    keys = unit(12 if itself else 7, 6, seed=2)
    words = unit(12, 5, seed=3, shift=0.1)
    cosines = words @ words.T if itself else words @ unit(7, 5, seed=4, shift=0.1).T
    if not itself:
        cosines[4:8] = torch.where(cosines[4:8] > 0.3, 0.2, cosines[4:8])
    means = naive_contrast(student, keys, cosines, itself)
    assert len(means) == (3 if itself else 2)
    wanted = sum(means)
    total, views = contrast(student, keys, cosines, itself=itself, positive=0.3, negative=0.1, temperature=0.07)
    assert views == len(means)
    torch.testing.assert_close(total.double(), wanted, rtol=1e-5, atol=1e-6)
    found, right = (torch.autograd.grad(x, student)[0] for x in (total, wanted))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)


def test_a_step_contrasts_with_the_batch_and_with_the_bank(planted):
    """The loss of the second step of the head's phase, from the tensors that the first one left."""
    maps = planted[0][:, :2, :3]
    method = make(dropout=0.0, bank=2)
    with torch.no_grad():
        method.codebook.copy_(
            F.normalize(torch.randn(24, CHANNELS, generator=torch.Generator().manual_seed(7)), dim=-1)
        )
    first, second = a_batch(maps, 10, STEPS, [0, 4, 2, 9]), a_batch(maps, 11, STEPS, [1, 5, 2])
    method.loss(first, torch.float32, False)
    with torch.no_grad():
        for parameter in method.student.parameters():  # away from its average
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8))
    bank, banked = method.bank.clone().double(), method.banked.clone()
    assert 0 < banked.sum() <= 12
    loss, _ = method.loss(second, torch.float32, False)

    # Without dropout and with one token per cell, the step sees all tokens in order.
    tokens = maps[[1, 5, 2]].flatten(1, 2)
    drop = torch.ones(2, 1, 1, 1)
    student = F.normalize(method.student(tokens, drop).detach().double(), dim=-1)
    keys = F.normalize(method.teacher(tokens, drop).double(), dim=-1).flatten(0, 1)
    which = [int(torch.cosine_similarity(t, method.codebook.detach(), dim=1).argmax()) for t in tokens.flatten(0, 1)]
    book = F.normalize(method.codebook.detach().double(), dim=-1)
    stored = [(word, slot) for word in range(24) for slot in range(min(2, int(banked[word])))]
    inner = torch.stack([torch.stack([book[a] @ book[b] for b in which]) for a in which])
    outer = torch.stack([torch.stack([book[a] @ book[word] for word, _ in stored]) for a in which])
    means = naive_contrast(student, keys, inner, True)
    means += naive_contrast(student, torch.stack([bank[place] for place in stored]), outer, False)
    assert len(means) > 3, "the bank must matter"
    torch.testing.assert_close(loss.double(), sum(means) / len(means), rtol=1e-4, atol=1e-5)


def test_the_bank_keeps_the_newest_of_each_codeword_in_a_fixed_shape():
    method = make(bank=3, codewords=5, projection=1)
    kept: dict[int, list[float]] = {word: [] for word in range(5)}
    draws = torch.Generator().manual_seed(0)
    number = 0.0
    for step in range(12):
        which = torch.randint(4, (20,), generator=draws)  # the fifth codeword is never used
        keys = number + torch.arange(20.0)[:, None]
        number += 20
        half = torch.randperm(20, generator=torch.Generator().manual_seed(step))[:10]
        method._deposit(which, keys, torch.Generator().manual_seed(step))
        new: dict[int, list[float]] = {word: [] for word in range(5)}
        for row in half.tolist():
            new[int(which[row])].append(float(keys[row, 0]))
        kept = {word: (kept[word] + new[word][:3])[-3:] for word in kept}
        filled = [method.bank[word, : min(3, int(method.banked[word])), 0].tolist() for word in range(5)]
        assert [sorted(row) for row in filled] == [sorted(kept[word]) for word in range(5)]
    assert method.bank.shape == (5, 3, 1)
    assert method.banked[4] == 0


# Phases ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "trained"),
    [(0, "codebook"), (9, "codebook"), (10, "student"), (29, "student"), (30, "probe"), (39, "probe")],
)
def test_each_phase_trains_its_own_tensors_and_nothing_else(planted, step, trained):
    """No gradient for the averaged head, the tokens, the bank, nor what other phases train."""
    method = make(codewords=100)
    method.prepare(planted[0], 0)
    assert method.active == 72, "one codeword per eight of 576 tokens"
    batch = a_batch(planted[0], step, STEPS)
    batch.table.requires_grad_()
    loss, terms = method.loss(batch, torch.float32, True)
    loss.backward()
    assert {name.split(".")[0] for name in gradients(method)} == {trained}
    assert all(p.grad is None for name, p in method.named_parameters() if not name.startswith(trained))
    assert batch.table.grad is None
    assert not any(buffer.requires_grad for buffer in method.buffers())
    assert terms["phase"] == {"codebook": 1, "student": 2, "probe": 3}[trained]
    if trained == "codebook":
        assert method.codebook.shape == (100, CHANNELS)
        assert (method.codebook.grad[72:] == 0).all()


def test_the_averaged_head_starts_as_a_copy_and_follows_the_student(planted):
    method = make()

    def pairs():
        return list(zip(method.teacher.buffers(), method.student.parameters(), strict=True))

    def step(number: int) -> None:
        method.loss(a_batch(planted[0], number, STEPS), torch.float32, False)
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter += 1  # the optimiser's part

    for mine, _ in pairs():
        mine.zero_()
    step(9)
    assert all((mine == 0).all() for mine, _ in pairs()), "untouched in the first phase"
    for number in (10, 11, 12, 30):
        before = [(mine.clone(), theirs.detach().clone()) for mine, theirs in pairs()]
        step(number)
        for (mine, _), (old, student) in zip(pairs(), before, strict=True):
            wanted = student if number == 10 else 0.99 * old + 0.01 * student
            torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6)
    before = [mine.clone() for mine, _ in pairs()]
    step(31)
    assert all(torch.equal(mine, old) for (mine, _), old in zip(pairs(), before, strict=True))


def test_codes_are_those_of_the_averaged_head_without_dropout(planted):
    method = make()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.zero_()
    codes = method.encode(planted[0][:2]).compared
    assert codes.shape == (2, *GRID, 12)
    assert (codes != 0).any()
    assert torch.equal(codes, method.encode(planted[0][:2]).compared)


@pytest.mark.parametrize(("start", "views"), [("kmeans", [0, 1, 2, 3]), ("random", [0, 1, 2, 3]), ("kmeans", [])])
def test_the_probe_starts_from_k_means_of_the_codes(planted, start, views):
    """Once, at the first step of its phase; from small random numbers where asked, or where there are too few codes."""
    method = make(probe_start=start)
    before = method.probe.detach().clone()
    maps = planted[0] if views else planted[0][:, :1, :3]
    method.loss(a_batch(maps, 30, STEPS, views or [2]), torch.float32, False)
    after = method.probe.detach().clone()
    assert torch.equal(after, before) == (start == "random" or not views)
    if not torch.equal(after, before):
        unit = F.normalize(method.encode(maps[views]).compared.flatten(0, 2), dim=-1)
        nearest = (unit @ after.T).argmax(-1)
        means = torch.stack([unit[nearest == centre].sum(0) for centre in range(4)])
        torch.testing.assert_close(after, F.normalize(means, dim=-1), rtol=0, atol=1e-3)
    method.loss(a_batch(maps, 31, STEPS, views or [2]), torch.float32, False)
    assert torch.equal(method.probe.detach(), after)


@pytest.mark.parametrize(("steps", "wanted"), [(3, (1, 2)), (40, (10, 30)), (3000, (750, 2250))])
def test_every_phase_has_a_step(steps, wanted):
    assert make().phases(steps) == wanted


@pytest.mark.parametrize(("grid", "cell", "squares"), [((6, 8), 4, (1, 2)), ((9, 11), 4, (2, 2)), ((3, 9), 4, (1, 2))])
def test_one_token_of_each_square_at_a_random_offset(grid, cell, squares):
    rows, columns = grid
    places = torch.arange(5 * rows * columns).view(5, rows, columns, 1).expand(-1, -1, -1, CHANNELS)
    seen = set()
    for step in range(80):
        batch = a_batch(places, step, STEPS, [3, 1])
        drawn = one_per_cell(batch, cell, torch.Generator().manual_seed(step))[:, :, 0]
        assert drawn.shape == (2, math.prod(squares))
        for view, row in zip((3, 1), drawn.tolist(), strict=True):
            assert {token // (rows * columns) for token in row} == {view}
            ys, xs = ([(token % (rows * columns)) // columns for token in row], [token % columns for token in row])
            for square in range(1, squares[1]):
                assert 0 < xs[square] - xs[square - 1] < 2 * cell
            assert max(ys) - min(ys) < squares[0] * min(cell, rows)
        seen |= set((drawn[0] % (rows * columns)).tolist())
    assert len(seen) > 0.9 * rows * columns, "no token is out of reach"


@pytest.mark.parametrize("first", [4, 17, 33])
def test_a_resumed_run_ends_in_the_same_bits(planted, first):
    """Stopped in each of the phases."""
    assert_resumes(lambda: make(cell=2), planted[0], first, STEPS - first)


def test_the_seed_decides_the_draws(planted):
    method, batch = make(), a_batch(planted[0], 10, STEPS)
    losses = [make().loss(batch, torch.float32, False)[0] for _ in range(2)]
    assert torch.equal(*losses)
    method.params = completed(method.params, 1)
    assert not torch.equal(method.loss(batch, torch.float32, False)[0], losses[0])


def test_planted_clusters_are_found(planted):
    """With these initial weights and a random start of the probe, two centres die (0.39)."""
    maps, truth = planted
    method = make(seed=2, learning_rate=1e-2)
    method.prepare(maps, 0)
    assert agreement(method, maps, truth) < 0.9
    train(method, adam(method), maps, range(240), 240)
    assert agreement(method, maps, truth) >= 0.9
