"""Palette PNG: ids that any viewer paints; grey of 16 bits beyond 255 classes, which no palette holds."""

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.raster import png


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    colours = legend.colours if len(legend.names) <= 255 else None
    out.write(f"{image.name}.png", png(whole(ids), colours))


WRITER = Writer(one, suffix=".png")
