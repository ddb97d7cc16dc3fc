"""PNG: ids alone, grey of 8 bits, or of 16 beyond 255 classes."""

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.raster import png


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    out.write(f"{image.name}.png", png(whole(ids)))


WRITER = Writer(one, suffix=".png")
