"""The dense CRF against a direct call of pydensecrf and on pictures whose answer is known."""

import numpy as np
import pydensecrf.densecrf as dcrf
import pytest
from pydantic import ValidationError

from pipeline.numerics.crf import MEMORY, PER_CLASS, PER_PIXEL, CrfParams, dense_crf, tiles

RNG = np.random.default_rng(0)


def random_case(k, height, width):
    image = np.kron(RNG.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3)), np.ones((4, 4, 1)))
    image = image[:height, :width].astype(np.uint8)
    scores = 2 * RNG.random((k, height, width), np.float32)
    return image, scores - np.log(np.exp(scores).sum(0))


def direct(image, log_probs, iterations=10, gaussian=(1, 3), bilateral=(67, 3, 4)):
    """STEGO's call, without the wrapper."""
    k, height, width = log_probs.shape
    crf = dcrf.DenseCRF2D(width, height, k)
    crf.setUnaryEnergy(np.ascontiguousarray(-log_probs.reshape(k, -1)))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(
        sxy=bilateral[0], srgb=bilateral[1], rgbim=np.ascontiguousarray(image), compat=bilateral[2]
    )
    return np.array(crf.inference(iterations)).argmax(0).reshape(height, width)


def halves(height=40, width=60, edge=30):
    """A dark and a bright half, and log-probabilities whose border lies six pixels too far to the left."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, edge:] = 200
    bright = np.where(np.arange(width) < edge - 6, 0.3, 0.7) * np.ones((height, 1))
    return image, np.log(np.stack([1 - bright, bright])).astype(np.float32)


def test_labels_snap_to_a_colour_edge():
    image, log_probs = halves()
    assert log_probs.argmax(0)[0].tolist() == [0] * 24 + [1] * 36
    for seen, scores in [(image, log_probs), (image.transpose(1, 0, 2), log_probs.transpose(0, 2, 1))]:
        labels = dense_crf(seen, scores)
        assert np.array_equal(labels, seen[..., 0] > 100)


def test_specks_are_removed():
    image = np.full((30, 30, 3), 90, np.uint8)
    log_probs = np.log(np.stack([np.full((30, 30), 0.7), np.full((30, 30), 0.3)])).astype(np.float32)
    log_probs[:, 15, 15] = np.log([0.2, 0.8])
    assert log_probs.argmax(0).sum() == 1
    assert dense_crf(image, log_probs).sum() == 0


@pytest.mark.parametrize("shape", [(2, 17, 23), (5, 24, 9), (27, 16, 16), (3, 1, 40)])
def test_same_pixels_as_pydensecrf(shape):
    image, log_probs = random_case(*shape)
    assert np.array_equal(dense_crf(image, log_probs), direct(image, log_probs))


def test_params_reach_pydensecrf():
    image, log_probs = random_case(4, 30, 30)
    params = CrfParams(
        iterations=3,
        gaussian_sxy=2,
        gaussian_compat=0.5,
        bilateral_sxy=5,
        bilateral_srgb=60,
        bilateral_compat=1.5,
    )
    found = dense_crf(image, log_probs, params)
    assert np.array_equal(found, direct(image, log_probs, 3, (2, 0.5), (5, 60, 1.5)))
    for field in CrfParams.model_fields:  # each of them matters
        default = {field: getattr(CrfParams(), field)}
        assert not np.array_equal(found, dense_crf(image, log_probs, params.model_copy(update=default))), field


def test_params():
    params = CrfParams()
    assert list(params.model_dump().values()) == [10, 1, 3, 67, 3, 4]
    assert all(field.description for field in CrfParams.model_fields.values())
    with pytest.raises(ValidationError):
        CrfParams.model_validate({"radius": 3})
    with pytest.raises(ValidationError):
        CrfParams(bilateral_srgb=0)
    with pytest.raises(ValidationError):
        CrfParams(gaussian_compat=float("inf"))
    with pytest.raises(ValidationError):
        params.iterations = 3


def test_no_iterations_is_argmax():
    image, log_probs = random_case(6, 12, 13)
    assert np.array_equal(dense_crf(image, log_probs, CrfParams(iterations=0)), log_probs.argmax(0))


def test_strides_dtypes_and_inputs_untouched():
    image, log_probs = random_case(3, 14, 15)
    expected = dense_crf(image, log_probs)
    before = image.copy(), log_probs.copy()
    views = image[::-1, ::-1][::-1, ::-1], np.asfortranarray(log_probs)
    assert np.array_equal(dense_crf(*views), expected)
    image.flags.writeable = log_probs.flags.writeable = False
    assert np.array_equal(dense_crf(image, log_probs.astype(np.float64)), expected)
    assert np.array_equal(image, before[0])
    assert np.array_equal(log_probs, before[1])


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3)])
def test_tiny_images(k, size):
    labels = dense_crf(*random_case(k, *size))
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() < k


@pytest.mark.parametrize(("k", "dtype"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
def test_many_classes(k, dtype):
    log_probs = np.full((k, 4, 4), np.log(0.1 / k), np.float32)
    log_probs[k - 1] = np.log(0.9)
    labels = dense_crf(np.zeros((4, 4, 3), np.uint8), log_probs)
    assert labels.dtype == dtype
    assert (labels == k - 1).all()


def test_certainty_is_no_infinite_energy():
    image, _ = halves(8, 12, 6)
    certain = np.where(np.arange(12) < 6, 0.0, 1.0) * np.ones((8, 1))
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.stack([1 - certain, certain])).astype(np.float32)
    assert np.isneginf(log_probs).any()
    assert np.array_equal(dense_crf(image, log_probs), certain)


def test_what_does_not_fit_is_refused():
    image, log_probs = random_case(3, 6, 7)
    log_nan = log_probs.copy()
    log_nan[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        dense_crf(image, log_nan)
    for wrong in (image[:5], image[..., 0], image.astype(np.float32)):
        with pytest.raises(ValueError, match="does not fit"):
            dense_crf(wrong, log_probs)
    with pytest.raises(ValueError, match="no pixels"):
        dense_crf(image[:0], log_probs[:, :0])
    with pytest.raises(ValueError, match="no class"):
        dense_crf(image, log_probs[:0])


@pytest.mark.parametrize("size", [(480, 360), (2000, 2000), (1000, 4000), (4000, 1000), (30, 100_000), (1, 1)])
@pytest.mark.parametrize("k", [2, 8, 27, 200])
def test_tiles_cover_an_image_once_and_fit_into_memory(k, size):
    covered = np.zeros(size, np.uint8)
    for tile in tiles(k, *size):
        covered[tile.kept] += 1
        assert covered[tile.seen][tile.inside].shape == covered[tile.kept].shape
        assert covered[tile.seen].size * (PER_CLASS * k + PER_PIXEL) <= MEMORY
    assert (covered == 1).all()


def test_an_image_that_fits_is_one_tile():
    (tile,) = tiles(27, 360, 480)
    assert tile.seen == tile.kept == tile.inside == (slice(0, 360), slice(0, 480))


def test_a_kernel_wider_than_a_tile():
    found = list(tiles(8, 300, 300, CrfParams(bilateral_sxy=500), memory=4e7))
    assert len(found) > 1
    assert all((t.seen[0].stop - t.seen[0].start) * (t.seen[1].stop - t.seen[1].start) * 1240 <= 4e7 for t in found)


def test_tiles_give_nearly_the_pixels_of_the_whole():
    """A kernel of 10 pixels and tiles of about 70, on smooth logits with noise."""
    y, x = np.mgrid[:160, :200]
    waves = [np.cos(x / length) for length in (23, 31, 19)]
    image = (127 + 90 * np.sin(y / 17)[..., None] * np.stack(waves, -1)).astype(np.uint8)
    scores = np.stack([np.sin(y / 20 + x / 35), np.cos(x / 25), np.sin(y / 31 - x / 21)])
    scores += RNG.normal(0, 0.5, scores.shape)
    log_probs = (scores - np.log(np.exp(scores).sum(0))).astype(np.float32)
    params = CrfParams(bilateral_sxy=10)
    whole, found = dense_crf(image, log_probs, params), np.empty((160, 200), np.uint8)
    cut = list(tiles(3, 160, 200, params, memory=5000 * 790))
    assert len(cut) > 4
    for tile in cut:
        found[tile.kept] = dense_crf(image[tile.seen], log_probs[:, *tile.seen], params)[tile.inside]
    changed = (whole != log_probs.argmax(0)).mean()
    assert changed > 0.05, "the CRF has to do something"
    assert (found != whole).mean() < 0.1 * changed
