"""Cityscapes with 27 classes: the fine `labelIds` 7 to 33 of train and val.

ROOT/cityscapes/leftImg8bit/{train,val}/<city>/<stem>_leftImg8bit.png
ROOT/cityscapes/gtFine/{train,val}/<city>/<stem>_gtFine_labelIds.png
"""

from pipeline.datasets.benchmarks.layouts import Layout

CLASSES = (
    "road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip

LAYOUT = Layout(
    folder="cityscapes",
    images=("leftImg8bit/{split}", "_leftImg8bit.png"),
    labels=("gtFine/{split}", "_gtFine_labelIds.png"),
    lists={},
    classes=CLASSES,
    coarse={number + 7: number for number in range(27)},
    images_from="unpack leftImg8bit_trainvaltest.zip of cityscapes-dataset.com in ROOT/cityscapes",
    labels_from="unpack gtFine_trainvaltest.zip of cityscapes-dataset.com in ROOT/cityscapes; "
    "or move gtFine away to run without scores",
    lists_from="keep the folders train and val apart",
)
