"""Published benchmarks as they lie on disk."""

from pipeline.datasets.benchmarks import cityscapes27, cocostuff27, potsdam3

LAYOUTS = {
    "cocostuff27": cocostuff27.LAYOUT,
    "cityscapes27": cityscapes27.LAYOUT,
    "potsdam3": potsdam3.LAYOUT,
}
"""What `dataset.layout` may be, beside `folder`."""
