"""A contact sheet: pictures in rows, with column titles and a legend of colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDEST, GAP, LINE = 150, 260, 6, 20
"""Pixels: the height and the width of a picture at most, the space between two, and the height of a line of text."""


def sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], legend: Sequence[tuple[np.ndarray, str]] = ()
) -> Image.Image:
    """Rows of pictures (height, width, 3) uint8 below their columns' titles; the legend, (colour, text), below them."""
    cells = [[_fitted(picture) for picture in row] for row in rows]
    widths = [max((row[column].width for row in cells), default=WIDEST) for column in range(len(titles))]
    lines = _wrapped(legend, sum(widths) + GAP * (len(widths) - 1))
    height = LINE + sum(row[0].height + GAP for row in cells) + LINE * len(lines)
    out = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), height), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(13)
    lefts = [sum(widths[:column]) + GAP * column for column in range(len(widths))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 2), title, "black", font)
    top = LINE
    for row in cells:
        for left, cell in zip(lefts, row, strict=True):
            out.paste(cell, (left, top))
        top += row[0].height + GAP
    for line in lines:
        for left, colour, text in line:
            draw.rectangle((left, top + 4, left + 12, top + 15), tuple(map(int, colour)))
            draw.text((left + 17, top + 2), text, "black", font)
        top += LINE
    return out


def _fitted(picture: np.ndarray) -> Image.Image:
    """A picture no larger than a cell; pixels are averaged where it shrinks and repeated where it grows."""
    scale = min(HEIGHT / picture.shape[0], WIDEST / picture.shape[1])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.BOX)


def _wrapped(legend: Sequence[tuple[np.ndarray, str]], width: int) -> list[list[tuple[int, np.ndarray, str]]]:
    """The legend's entries in lines no wider than `width`: (left, colour, text)."""
    font = ImageFont.load_default(13)
    lines: list[list[tuple[int, np.ndarray, str]]] = []
    left = width
    for colour, text in legend:
        wide = 17 + int(font.getlength(text)) + 3 * GAP
        if left + wide > width or not lines:
            lines.append([])
            left = 0
        lines[-1].append((left, colour, text))
        left += wide
    return lines
