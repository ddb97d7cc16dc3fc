"""PNG: ids alone, grey of 8 bits, or of 16 beyond 255 classes."""

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.raster import write_png


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    with out.new(f"{image.name}.png") as part:
        write_png(part, ids)


WRITER = Writer(one, suffix=".png")
