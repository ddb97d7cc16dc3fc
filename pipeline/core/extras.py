"""Optional packages: which extra of stegoflow brings each, and the error where one is missing."""

from importlib.util import find_spec

from pipeline.core.errors import ConfigError

EXTRAS = {
    "astropy": "fits",
    "faiss": "cpu",
    "pydensecrf": "crf",
    "distributed": "dask",
    "onnx": "demo",
    "skimage": "demo",
    "prefect": "flows",
    "pycocotools": "coco",
    "pyogrio": "geo",
    "pyproj": "geo",
    "rasterio": "geo",
    "shapely": "geo",
    "jinja2": "report",
    "imagecodecs": "tiff",
    "starlette": "explore",
    "uvicorn": "explore",
    "openslide": "wsi",
}
"""Import name → extra; `cpu` and `gpu` bring the same faiss."""


def installed(package: str) -> bool:
    """Whether a package can be imported; imports nothing."""
    return find_spec(package) is not None


def require(package: str, why: str) -> None:
    """ConfigError where an optional package is not installed; `why` is what asks for it, such as "masks.crf=true"."""
    if not installed(package):
        note = "   # on Python 3.11 or 3.12" if package == "pydensecrf" else ""
        raise ConfigError(
            f"{why} needs {package}, which is not installed", next=f"pip install 'stegoflow[{EXTRAS[package]}]'{note}"
        )


def require_all(packages: dict[str, str]) -> None:
    """`require` each of {import name: what asks for it}."""
    for package, why in packages.items():
        require(package, why)
