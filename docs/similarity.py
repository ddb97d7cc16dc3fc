"""Open a feature store from Python and look at it: how similar is one patch to all others?

    python docs/similarity.py STORE [IMAGE_ID] [ROW COLUMN]  →  similarity.png

A notebook in script form: each `# %%` is a cell.
"""

# %% Open the store: nothing but the table of views is read
import sys

import numpy as np
from matplotlib.figure import Figure

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

figure = Figure(figsize=(12, 3.6), layout="constrained")
for axes, other in zip(figure.subplots(1, 1 + len(near), squeeze=False)[0], [view, *near], strict=True):
    heat = features.similarity(view, row, column, other)
    drawn = axes.imshow(heat, vmin=-0.2, vmax=1, cmap="magma")
    axes.set_title(f"{ids[other]}" + (f"  patch ({row}, {column})" if other == view else ""), fontsize=9)
    axes.set_axis_off()
    if other == view:
        axes.plot(column, row, "c+", markersize=12)
figure.colorbar(drawn, label="cosine similarity")
figure.savefig("similarity.png", dpi=120)
print("similarity.png")
