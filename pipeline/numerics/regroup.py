"""Groups of pieces that follow what the images show, from the clusters of k-means. No label is read.

k-means spends its K clusters where codes vary most: on blood smears two are shades of the same background, while
nucleus and cytoplasm share the third. Every cluster has been cut into many small pieces, by the detail of codes
(`pipeline.numerics.prototypes`), and a grouping of pieces is worth the sum of three shares, each of what all pieces
explain:

- codes: of the variance of codes, what lies between groups (what k-means looks at)
- colour: of the variance of colour within an image, what lies between groups (Chan and Vese 2001 with one mean per
  group and image)
- borders: of the contrast of adjacent tokens beyond their image's mean contrast, what lies on borders between groups; a
  border of less contrast than the mean counts against it

A move makes one group of two and two groups of a third, and then lets single pieces go from one of these three groups
to another while that gains (Kernighan and Lin 1970). The best one is made for as long as it gains `MIN_GAIN`.
"""

from typing import NamedTuple

import numpy as np

MIN_GAIN = 0.1
"""What a move gains at least, of the 3 that the three shares can be together: less may fit the sample alone. Set after
scores of four labelled sets were seen (docs/decisions/019)."""
MIN_PIECE_GAIN = 0.002
"""A single piece goes where that gains more than this."""


class Evidence(NamedTuple):
    """What pieces, or groups of them, look like in some images: sums, so that groups are sums of pieces. Scaled so that
    `prices` are shares."""

    size: np.ndarray
    """(view, piece): tokens."""
    code: np.ndarray
    """(piece, D): sum of codes."""
    colour: np.ndarray
    """(view, piece, 3): sum of colours."""
    border: np.ndarray
    """(piece, piece), symmetric: contrast beyond the mean, summed over all adjacent pairs of tokens of the two."""


def evidence(member: np.ndarray, codes: np.ndarray, colours: np.ndarray, n: int) -> Evidence:
    """Of `n` pieces, from the piece of every token, (view, row, column) int64."""
    views = len(member)
    count, colour = np.zeros((views, n)), np.zeros((views, n, 3))
    code, border, beyond = np.zeros((n, codes.shape[-1])), np.zeros((n, n)), 0.0
    for view in range(views):
        flat = member[view].ravel()
        count[view] = np.bincount(flat, minlength=n)
        np.add.at(colour[view], flat, colours[view].reshape(-1, 3))
        np.add.at(code, flat, codes[view].reshape(len(flat), -1))
        for axis in (0, 1):
            a, b = (np.delete(member[view], end, axis).ravel() for end in (-1, 0))
            contrast = np.linalg.norm(np.diff(colours[view].astype(np.float64), axis=axis), axis=-1).ravel()
            if mean := contrast.mean():
                excess = contrast / mean - 1
                np.add.at(border, (a, b), excess)
                beyond += excess.clip(0).sum()
    border = border + border.T
    raw = Evidence(count, code, colour, border / (beyond or 1))
    return raw._replace(code=code / (_between(count.sum(0)[None], code[None]) or 1) ** 0.5,
                        colour=colour / (_between(count, colour) or 1) ** 0.5)  # fmt: skip


def _between(count: np.ndarray, sums: np.ndarray) -> float:
    """Squared deviation of pieces from their view's mean, from counts (view, piece) and sums (view, piece, channel)."""
    return _worth(count, sums) - _worth(count.sum(1), sums.sum(1))


def _worth(count: np.ndarray, sums: np.ndarray) -> float:
    """Squared length of the means, times how many each is of: what pieces add to the variance between them."""
    return float((np.square(sums).sum(-1) / count.clip(1)).sum())


def grouped(found: Evidence, groups: np.ndarray, n: int) -> Evidence:
    """Of `n` groups, from the group of every piece; pieces of group -1 are left out."""
    one = (groups[:, None] == np.arange(n)).astype(np.float64)
    return Evidence(found.size @ one, one.T @ found.code,
                    np.einsum("vpc,pg->vgc", found.colour, one), one.T @ found.border @ one)  # fmt: skip


def prices(found: Evidence) -> np.ndarray:
    """(group, group): what the three shares lose together where two groups become one; infinity on the diagonal."""

    def ward(count: np.ndarray, sums: np.ndarray) -> np.ndarray:  # loss of variance between (Ward 1963)
        a = count[:, None] * count / (count[:, None] + count).clip(1)
        means = sums / count.clip(1)[:, None]
        return a * np.square(means[:, None] - means).sum(-1)

    total = ward(found.size.sum(0), found.code) + found.border
    for count, colour in zip(found.size, found.colour, strict=True):
        total += ward(count, colour)
    np.fill_diagonal(total, np.inf)
    return total


def improve(found: Evidence, groups: np.ndarray, k: int) -> tuple[np.ndarray, list[float]]:
    """The group of every piece after all moves, and what each gained. groups: (piece,) in 0..k−1, before them."""
    gains: list[float] = []
    groups = filled(groups, k)
    while True:
        cost = prices(grouped(found, groups, k))
        halves = [halve(found, np.flatnonzero(groups == group)) for group in range(k)]
        best = (-np.inf, -1, -1, -1)
        for third in range(k):
            others = np.delete(np.arange(k), third)
            inner = cost[np.ix_(others, others)]
            if not inner.size:
                continue
            i, j = np.unravel_index(inner.argmin(), inner.shape)
            gain = float(halves[third][0] - inner[i, j])
            best = max(best, (gain, int(others[i]), int(others[j]), third))
        gain, kept, gone, third = best
        if third < 0:
            return groups, gains
        new = np.where(groups == gone, kept, groups)
        new[halves[third][1]] = gone
        new, more = exchange(found, new, k, [kept, gone, third])
        if gain + more < MIN_GAIN:
            return groups, gains
        groups = new
        gains.append(round(gain + more, 4))


def exchange(found: Evidence, groups: np.ndarray, k: int, among: list[int]) -> tuple[np.ndarray, float]:
    """The group of every piece after single pieces of some groups have gone to another of them, each time the one that
    gains most, and what all gained. No group loses its last piece."""
    groups, total = groups.copy(), 0.0
    while True:
        now = grouped(found, groups, k)
        beside = found.border @ (groups[:, None] == np.arange(k))  # contrast beyond the mean, of a piece with a group
        best = (MIN_PIECE_GAIN, -1, -1)
        for piece in np.flatnonzero(np.isin(groups, among)).tolist():
            old = int(groups[piece])
            if (groups == old).sum() < 2:
                continue
            lost = _change(now, found, old, piece, -1) + beside[piece, old] - found.border[piece, piece]
            for group in among:
                if group != old:
                    gain = lost + _change(now, found, group, piece, 1) - beside[piece, group]
                    best = max(best, (float(gain), piece, group))
        gain, piece, group = best
        if piece < 0:
            return groups, total
        groups[piece] = group
        total += gain


def _change(now: Evidence, found: Evidence, group: int, piece: int, sign: int) -> float:
    """By how much the variance between groups rises, of codes and of colours, where a piece joins a group (1) or leaves
    it (−1)."""
    size, more = now.size[:, group], sign * found.size[:, piece]
    colour, code = now.colour[:, group], now.code[group]
    after = _worth(size + more, colour + sign * found.colour[:, piece]) - _worth(size, colour)
    whole = size.sum()
    return after + _worth(whole + more.sum(), code + sign * found.code[piece]) - _worth(whole, code)


def filled(groups: np.ndarray, k: int) -> np.ndarray:
    """The same groups, where those that had no piece have one of the largest."""
    groups = groups.copy()
    for empty in np.setdiff1d(np.arange(k), groups):
        groups[np.flatnonzero(groups == np.bincount(groups).argmax())[0]] = empty
    return groups


def halve(found: Evidence, pieces: np.ndarray) -> tuple[float, np.ndarray]:
    """What is gained by making two groups of some pieces, and the second one: the cheapest two are merged until two are
    left. Of a single piece −infinity."""
    if len(pieces) < 2:
        return -np.inf, pieces
    groups = np.full(len(found.code), -1)
    groups[pieces] = np.arange(len(pieces))
    for left in range(len(pieces), 2, -1):
        cost = prices(grouped(found, groups, left))
        i, j = sorted(np.unravel_index(cost.argmin(), cost.shape))
        groups[groups == j] = i
        groups[groups > j] -= 1
    return float(prices(grouped(found, groups, 2))[0, 1]), np.flatnonzero(groups == 1)
