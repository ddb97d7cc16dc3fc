"""Colours for clusters, and masks painted with them."""

import numpy as np

# Okabe and Ito 2008, Color Universal Design: seven hues that colour-blind readers tell apart (black is for "ignored").
_FIRST = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")


DARK = 0.45
"""Lightness in OKLab, 0..1, above which colours are."""


def palette(k: int) -> np.ndarray:
    """K distinct colours, uint8 (k, 3); always the same, and palette(j) is the beginning of palette(k).

    Seven fixed colours, then repeatedly the colour farthest from all before, from black and from white in OKLab (the
    idea of Glasbey et al. 2007, Colour displays for categorical images), none too dark to be told from others on a
    screen. Raises ValueError outside 0..2048.
    """
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    if not 0 <= k <= 2048:
        raise ValueError(f"palette of {k} colours: 0 to 2048 are possible")
    colours = [np.array(list(bytes.fromhex(code)), np.uint8) for code in _FIRST[:k]]
    places = _oklab(candidates)
    candidates, places = candidates[places[:, 0] > DARK], places[places[:, 0] > DARK]
    taken = _oklab(np.array([(0, 0, 0), (255, 255, 255), *colours], np.uint8))
    nearest = np.linalg.norm(places[:, None] - taken, axis=-1).min(axis=1)
    while len(colours) < k:
        best = int(nearest.argmax())
        colours.append(candidates[best])
        nearest = np.minimum(nearest, np.linalg.norm(places - places[best], axis=-1))
    return np.array(colours, np.uint8).reshape(k, 3)


def colourise(mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint integers (H, W) with uint8 `colours` (K, 3): uint8 (H, W, 3), black outside 0..K-1 (255, 65535, −1)."""
    table = np.concatenate([colours, np.zeros((1, 3), np.uint8)])
    return table[np.where((mask >= 0) & (mask < len(colours)), mask, len(colours)).astype(np.int64)]


def _oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB uint8 (N, 3) to float64 (N, 3) in which distance is perceived difference (Ottosson 2020, OKLab)."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T
