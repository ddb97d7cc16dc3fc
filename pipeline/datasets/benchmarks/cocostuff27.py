"""CocoStuff with 27 coarse classes, on the curated lists of images that the published scores are of.

ROOT/cocostuff/images/{train2017,val2017}/<id>.jpg
ROOT/cocostuff/annotations/{train2017,val2017}/<id>.png              uint8: 0 to 181, 255 where unlabelled
ROOT/cocostuff/curated/train2017/Coco164kFull_Stuff_Coarse.txt       ids of train, one per line
ROOT/cocostuff/curated/val2017/Coco164kFull_Stuff_Coarse_7.txt       ids of val
"""

from pipeline.datasets.benchmarks.layouts import Layout

CLASSES = (
    "electronic", "appliance", "food (things)", "furniture (things)", "indoor", "kitchen", "accessory", "animal",
    "outdoor", "person", "sports", "vehicle", "ceiling", "floor", "food (stuff)", "furniture (stuff)", "raw material",
    "textile", "wall", "window", "building", "ground", "plant", "sky", "solid", "structural", "water",
)  # fmt: skip

# Stored label (0 to 181, twenty to a row) → class.
COARSE = (
    9, 11, 11, 11, 11, 11, 11, 11, 11, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 6, 6, 6, 6, 6, 6, 6, 6, 10, 10, 10, 10, 10, 10, 10,
    10, 10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 1, 1, 1,
    1, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4, 17, 17, 22, 20, 20, 22, 15, 25, 16,
    13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22, 26,
    14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17, 25, 16, 21,
    17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24,
    15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26, 26, 19,
    19, 24,
)  # fmt: skip

LAYOUT = Layout(
    folder="cocostuff",
    images=("images/{split}2017", ".jpg"),
    labels=("annotations/{split}2017", ".png"),
    lists={
        "train": (
            "curated/train2017/Coco164kFull_Stuff_Coarse.txt",
            "curated/train2017/Coco164kFull_Stuff_Coarse_7.txt",
        ),
        "val": ("curated/val2017/Coco164kFull_Stuff_Coarse_7.txt",),
    },
    classes=CLASSES,
    coarse=dict(enumerate(COARSE)),
    images_from="unpack train2017.zip and val2017.zip of cocodataset.org in ROOT/cocostuff/images",
    labels_from="unpack stuffthingmaps_trainval2017.zip of COCO-Stuff in ROOT/cocostuff/annotations; "
    "or move annotations away to run without scores",
    lists_from="copy the curated lists from STEGO's cocostuff.zip or from PiCIE: no COCO download holds them, and only "
    "..._7.txt can be rebuilt from the labels: the sorted ids of images with both sides of 360 pixels or more and 75 % "
    "or more of all pixels in classes 12 to 26",
)
