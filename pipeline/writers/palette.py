"""Palette PNG: ids that any viewer paints; grey of 16 bits beyond 255 classes, which no palette holds."""

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.raster import write_png


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    colours = legend.colours if len(legend.names) <= 255 else None
    with out.new(f"{image.name}.png") as part:
        write_png(part, ids, colours)


WRITER = Writer(one, suffix=".png")
