"""From named prototypes and points to a classifier over classes. Arrays in, arrays out, always the same ones.

With names alone a code has the class of its nearest prototype, and none where that has no name. Points add a linear
correction to each class: logistic regression on the points, beside what the names say (of a class without a name, the
mean of its points). Names count less the more points there are: a point says what is wrong, and only many say what is
right. A point that the names outweigh all the same claims what is hardly different from it. Every prototype counts as
half a point of its class (of a class of its own, nothing, where it has no name), less where points in its group
disagree with its name. A class without a prototype and a point has no vector, so that it wins nothing. How this was
chosen: docs/decisions/028-annotation.md and 036-first-points.md.
"""

import numpy as np

from pipeline.numerics.kmeans import normalise

SCALE = 20.0
"""Of cosines, as in `pipeline.numerics.prototypes`."""
STRENGTH, FEW = 200.0, 10
"""Scale of the cosines to prototypes that the correction is fitted to, divided by the number of points. Where there are
names it is added to (1 + FEW / points) times these: without points names alone decide."""
CLAIM = 0.02
"""By how much the vector of a point that names outweigh is longer than it must be to win at this point."""
RIDGE = 10.0
"""Times half the squared length of the correction, beside the summed loss of the points."""
PRIOR = 0.5
"""How many points a prototype counts for."""
DOUBT = 3
"""How many points that agree with a name one that does not outweighs: points are set where something is wrong."""
OPTIONS = {"maxiter": 200, "ftol": 1e-7}
NOTHING = -1
"""The class of what has none."""


def fit(
    vectors: np.ndarray, named: np.ndarray, group: np.ndarray, points: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (V, D) float32 and the class of each (V,) int64, `NOTHING` for none: a unit code (D,) has the class of
    the vector with the largest product.

    vectors: (P, D) float32, prototypes, unit vectors; named: (P,) ints, the class of each or `NOTHING`; group: (P,)
    ints, alike for those that were named together; points: (n, D) float32, unit vectors; wanted: (n,) ints, the class
    of each. Unnamed prototypes count where at least one is named. Classes are any numbers from 0.
    """
    named, wanted = np.asarray(named, np.int64), np.asarray(wanted, np.int64)
    if not (named >= 0).any():
        vectors, named, group = vectors[:0], named[:0], group[:0]
    if not len(wanted):
        return vectors, named
    classes, target = np.unique(np.concatenate([wanted, named]), return_inverse=True)
    data = np.concatenate([points, vectors]).astype(np.float64)
    bare = classes[~np.isin(classes, named)]
    means = np.stack([points[wanted == one].sum(0) for one in bare]) if len(bare) else vectors[:0]
    origins, member = np.concatenate([vectors, normalise(means)]), np.append(named, bare)
    strength = STRENGTH / len(wanted)
    start = strength * np.stack([(data @ origins[member == one].T).max(1) for one in classes], 1)
    weight = np.append(np.ones(len(points)), PRIOR * trust(vectors, named, group, points, wanted))
    change = logistic(SCALE * data, target, weight, RIDGE, start)
    change = change[np.searchsorted(classes, member)]
    if not len(vectors):
        return (origins * strength / SCALE + change).astype(np.float32), member
    return claimed(origins * (strength * (1 + FEW / len(wanted)) / SCALE) + change, member, points, wanted)


def claimed(
    vectors: np.ndarray, member: np.ndarray, points: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors and classes of a classifier, and one more for every point that has another class by these: the point
    itself, just long enough to win there. It wins what is nearer to it than, in proportion, to what won before."""
    products = points @ vectors.T
    own = np.where(member == wanted[:, None], products, -np.inf).max(1)
    best = products.max(1)
    wrong = own < best
    more = points[wrong] * (1 + CLAIM) * best[wrong, None].clip(0)
    return np.concatenate([vectors, more]).astype(np.float32), np.append(member, wanted[wrong])


def trust(
    vectors: np.ndarray, named: np.ndarray, group: np.ndarray, points: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """(P,) in 0..1: how far the name of each prototype's group is to be believed; 1 until a point says otherwise.

    A group that holds points of other classes than its own is a mixed one. A point is in the group of its nearest
    prototype."""
    if not len(vectors):
        return np.ones(0)
    _, number = np.unique(group, return_inverse=True)
    nearest = (points @ vectors.T).argmax(1)
    right = named[nearest] == wanted
    agree, differ = (np.bincount(number[nearest], weights, number.max() + 1) for weights in (right, ~right))
    return ((1 + agree) / (1 + agree + DOUBT * differ))[number]


def logistic(
    data: np.ndarray, target: np.ndarray, weight: np.ndarray, ridge: float, start: np.ndarray | float = 0.0
) -> np.ndarray:
    """Weights (k, D) float64 without bias that minimise the weighted cross entropy of `target` (n,), 0..k−1, where
    logits are `start` (n, k) and the products of `data` (n, D) with them, plus ridge / 2 times their squared length.
    The optimum is unique; L-BFGS from zero.

    Where there are fewer rows than columns it is looked for among combinations of rows, which hold it."""
    from scipy.optimize import minimize

    basis = np.linalg.qr(data.T)[0] if len(data) < data.shape[1] else np.eye(data.shape[1])
    inside, k = data @ basis, int(target.max()) + 1
    wanted = np.eye(k)[target]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = flat.reshape(k, -1)
        logits = inside @ at.T + start
        logits -= logits.max(1, keepdims=True)
        total = np.log(np.exp(logits).sum(1, keepdims=True))
        value = weight @ (total[:, 0] - (logits * wanted).sum(1)) + ridge / 2 * (at**2).sum()
        slope = (weight[:, None] * (np.exp(logits - total) - wanted)).T @ inside + ridge * at
        return float(value), slope.ravel()

    found = minimize(loss, np.zeros(k * inside.shape[1]), jac=True, method="L-BFGS-B", options=OPTIONS)
    return found.x.reshape(k, -1) @ basis.T
