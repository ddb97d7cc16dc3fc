"""Open a feature store from Python and look at it: how similar is one patch to all others?

    python docs/similarity.py STORE [IMAGE_ID] [ROW COLUMN]  →  similarity.png

A notebook in script form: each `# %%` is a cell.
"""

# %% Open the store: nothing but the table of views is read
import sys

import numpy as np
from PIL import Image, ImageDraw

from pipeline import open_features

store = sys.argv[1] if len(sys.argv) > 1 else ".demo/store"
features = open_features(store)  # the latest run; or open_features(store, "RUN_OR_FINGERPRINT")
print("tokens (view, row, column, channel):", features.tokens.shape, features.tokens.dtype)
print(features.views.slice(0, 3).select(["view", "id", "split", "height", "width", "mirrored"]).to_pylist())

# %% The same without stegoflow: plain Zarr
import zarr  # noqa: E402

group = zarr.open(features.artifact.store.path_of(features.artifact.data("features.zarr")), mode="r")
print(dict(group.attrs)["fingerprint"][:12], list(group.array_keys()))

# %% Pick an image and a patch
image = sys.argv[2] if len(sys.argv) > 2 else features.views["id"][0].as_py()
view = features.rows(image)[0]
rows, columns = features.tokens.shape[1:3]
row, column = (int(v) for v in sys.argv[3:5]) if len(sys.argv) > 4 else (rows // 2, columns // 2)

# %% Similarity of that patch to every patch of its own image, and of its two nearest images
pooled = features.mean - features.mean[~np.asarray(features.views["mirrored"])].mean(0)
pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
order = np.argsort(-(pooled @ pooled[view]))
ids = features.views["id"].to_pylist()
near = list(dict.fromkeys(int(v) for v in order if ids[v] != image and not features.views["mirrored"][v].as_py()))[:2]

RAMP = np.array([[12, 8, 38], [88, 22, 110], [190, 55, 84], [249, 142, 9], [252, 255, 164]])  # from −0.2 to 1
SIDE, GAP, LINE = 360, 8, 18
maps = []
for other in [view, *near]:
    heat = (features.similarity(view, row, column, other).clip(-0.2, 1) + 0.2) / 1.2 * (len(RAMP) - 1)
    colours = [np.interp(heat, np.arange(len(RAMP)), RAMP[:, channel]) for channel in range(3)]
    maps.append(Image.fromarray(np.stack(colours, -1).astype(np.uint8)))
size = (SIDE, SIDE * rows // columns)
sheet = Image.new("RGB", ((SIDE + GAP) * len(maps) - GAP, size[1] + LINE), "white")
draw = ImageDraw.Draw(sheet)
for left, other, drawn in zip(range(0, sheet.width, SIDE + GAP), [view, *near], maps, strict=True):
    sheet.paste(drawn.resize(size, Image.Resampling.NEAREST), (left, LINE))
    draw.text((left, 2), ids[other], "black")
x, y = (column + 0.5) * size[0] / columns, LINE + (row + 0.5) * size[1] / rows
draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline="cyan", width=2)  # the patch
sheet.save("similarity.png")
print(f"similarity.png: cosine to patch ({row}, {column}), dark −0.2 to light 1")
