"""Where a person should look next: images in which the classifier doubts much that nobody has clicked near.

Doubt is margin (Scheffer et al. 2001, Active hidden Markov models for information extraction); it counts less where
points lie already. Images are drawn in proportion and not taken from the top: the most doubtful ones are much alike,
and were worse than random ones (docs/decisions/028-annotation.md). Arrays in, arrays out.
"""

import numpy as np

from pipeline.numerics.classify import SCALE


def doubt(values: np.ndarray) -> np.ndarray:
    """(…) in 0..1: one less the margin between the two likeliest classes.

    values: (…, k), the largest product of a unit code with a vector of each class (`Classes.values`); −inf for a class
    without vectors. With a single class nothing is in doubt."""
    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1], np.float32)
    with np.errstate(invalid="ignore"):
        odds = np.exp(SCALE * (values - values.max(-1, keepdims=True)))
    likely = np.sort(odds / odds.sum(-1, keepdims=True), -1)
    return 1 - (likely[..., -1] - likely[..., -2])


def propose(
    doubts: np.ndarray, image: np.ndarray, cell: np.ndarray, seen: np.ndarray, points: np.ndarray, most: int, seed: int
) -> np.ndarray:
    """(most,) ints: the images to show, drawn without putting back, in proportion to the square of their score.

    An image's score is the sum over its patches of doubt × spread, less for images that were shown before. doubts: (n,)
    of some patches; image: (n,) ints, the image of each; cell: (n,) ints, its nearest prototype; seen: (images,) how
    often each image was shown or clicked; points: (P,) how many points are nearest to each prototype.
    """
    spread = 1 / np.sqrt(1 + points[cell])
    score = np.bincount(image, weights=doubts * spread, minlength=len(seen)) / (1 + seen) ** 2
    chance = score**2 + 1e-12
    generator = np.random.default_rng(seed)
    return generator.choice(len(seen), min(most, len(seen)), replace=False, p=chance / chance.sum())
