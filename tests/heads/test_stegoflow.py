"""The stegoflow head: context against explicit loops, the fitted temperature, a shift that follows the groups."""

import math

import pytest
import torch
from planted import CHANNELS, CLUSTERS, a_batch, adam, assert_resumes, completed, planted, train
from torch import Tensor
from torch.nn import functional as F

from pipeline.heads.settings import StegoflowParams, StegoParams
from pipeline.heads.stego import Stego
from pipeline.heads.stegoflow import RATE, Stegoflow
from pipeline.numerics.context import perplexity

SMALL = {"code": 8, "samples": 4, "negatives": 2, "batch": 6, "learning_rate": 2e-3}


def make(groups: int = CLUSTERS, **changed: float) -> Stegoflow:
    torch.manual_seed(0)
    method = Stegoflow(completed(StegoflowParams(**{**SMALL, **changed})), CHANNELS)  # type: ignore[arg-type]
    method.groups.fill_(groups)
    return method


def groups(method: Stego, maps: Tensor) -> float:
    """Effective number of groups: one over the mean squared cosine between tokens of different views."""
    with torch.no_grad():
        codes = F.normalize(method.encode(maps).compared, dim=-1).flatten(1, 2)
    cosines = torch.einsum("aid,bjd->abij", codes, codes).square().mean((2, 3))
    return 1 / float(cosines[~torch.eye(len(maps), dtype=torch.bool)].mean())


def test_context_is_a_weighted_mean_of_the_view():
    maps = planted()[0][:2].double()
    method = make()
    method.temperature.fill_(0.3)
    flat = F.normalize(maps, dim=-1).flatten(1, 2)
    for view, got in zip(flat, method.context(maps).flatten(1, 2), strict=True):
        for i in (0, 7, 47):
            weights = [math.exp(float(view[i] @ other) / 0.3) for other in view]
            mean = sum(weight * other for weight, other in zip(weights, view, strict=True))
            both = view[i] + mean / mean.norm()
            torch.testing.assert_close(got[i], both / both.norm(), rtol=1e-5, atol=1e-6)
    together, alone = method.context(maps), torch.cat([method.context(maps[:1]), method.context(maps[1:])])
    torch.testing.assert_close(together, alone)


def test_codes_are_made_in_context():
    maps = planted()[0]
    method = make()
    method.prepare(maps, 0)
    code, context = method.encode(maps)
    torch.testing.assert_close(code, method(method.context(maps)))
    assert (code - method(F.normalize(maps, dim=-1))).abs().max() > 0.01
    torch.testing.assert_close(F.normalize(context, dim=-1), method.context(maps))
    torch.testing.assert_close(context.norm(dim=-1), code.norm(dim=-1))  # both weigh the same, whatever the length


def test_no_context():
    maps = planted()[0]
    method = make(context=0)
    method.prepare(maps, 0)
    torch.testing.assert_close(method.context(maps), F.normalize(maps, dim=-1))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_temperature_gives_the_share(share: float):
    maps = planted(noise=0.5)[0]
    method = make(context=share)
    method.prepare(maps, 0)
    found = [perplexity(view.flatten(0, 1), float(method.temperature)) for view in maps]
    assert float(torch.stack(found).mean()) == pytest.approx(share, rel=0.03)


def test_perplexity_counts_equal_weights():
    """Two halves of opposite tokens: at a low temperature a token sees its own half, at a high one everything."""
    tokens = torch.cat([torch.ones(10, 3), -torch.ones(10, 3)])
    assert float(perplexity(tokens, 0.01)) == pytest.approx(0.5)
    assert float(perplexity(tokens, 1e4)) == pytest.approx(1.0)


def test_a_step_is_stegos_with_the_present_shift():
    maps = planted()[0]
    method = make()
    method.shift.fill_(0.31)
    torch.manual_seed(0)
    stego = Stego(completed(StegoParams(**SMALL, shift_random=0.31)), CHANNELS)  # type: ignore[arg-type]
    for step in (0, 5):
        method.shift.fill_(0.31)
        batch = a_batch(maps, step, 10)._replace(others=torch.tensor([3, 1, 2, 0, 4, 5]))
        (mine, terms), (theirs, expected) = (each.loss(batch, torch.float32, True) for each in (method, stego))
        torch.testing.assert_close(mine, theirs)
        assert terms.keys() == expected.keys()


def test_the_shift_moves_toward_the_number_of_groups():
    """Codes more alike than so many groups raise it, less alike lower it, by at most RATE; slower toward the end."""
    maps = planted()[0]
    for wanted, sign in ((1000, 1), (1, -1)):
        method = make(wanted)
        method.loss(a_batch(maps, 0, 10), torch.float32, False)
        assert float(method.shift) * sign == pytest.approx(RATE, rel=0.3)
        early = float(method.shift)
        method.shift.zero_()
        method.loss(a_batch(maps, 9, 10), torch.float32, False)
        assert 0 < float(method.shift) / early < 0.1


@pytest.mark.parametrize("wanted", [2, 4, 6])
def test_codes_fall_into_as_many_groups_as_are_wanted(wanted: int):
    maps = planted(noise=0.4)[0]
    method = make(steps=400)
    method.prepare(maps, 0)
    method.groups.fill_(wanted)
    train(method, adam(method), method.context(maps), range(400), 400)
    assert groups(method, maps) == pytest.approx(wanted, rel=0.25)


def test_groups_are_counted_in_the_sample():
    """Of `planted`, where a view holds two or three of four groups: between the two counts."""
    maps = planted(noise=0.05)[0]
    method = make(1)
    method.prepare(maps, 0)
    assert 2.5 < float(method.groups) < 3.5
    assert "k" not in StegoflowParams.model_fields, "another K trains nothing"


def test_no_gradient_reaches_the_shift_and_a_stopped_training_goes_on():
    maps = planted()[0]
    assert not make().shift.requires_grad
    assert_resumes(make, maps, 7, 6)
