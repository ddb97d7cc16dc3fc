"""A benchmark under a root: its files, what is missing of them, what a reader of its scores must know."""

from collections.abc import Callable, Iterator

from pipeline.core.errors import ConfigError
from pipeline.core.store import redact
from pipeline.datasets.benchmarks import LAYOUTS, layouts
from pipeline.images import files, walking


def find(root: str, kind: str, layout: str) -> tuple[list[files.Found], Callable[[str], tuple[str, str]]]:
    """The images or label maps of a benchmark, and the function from a path to (split, id). ConfigError that names
    what is missing."""
    walked: dict[str, files.Found] = {}
    survey = layouts.survey(LAYOUTS[layout], kind, _tree(root, walked))
    if survey.missing:
        what, todo = survey.missing[0]
        more = len(survey.missing) - 1
        rest = f" ({more} more: stegoflow doctor CONFIG lists all)" if more else ""
        raise ConfigError(f"dataset.root: {layout} in {redact(root)}: {what}{rest}", next=todo)
    names = {path: (split, id) for split, id, path in survey.entries}
    return [walked[path] for path in names], names.__getitem__


def labelled(root: str, layout: str) -> bool:
    """Whether there is a label map of any split."""
    return layouts.labelled(LAYOUTS[layout], _tree(root))


def shortcomings(root: str, layout: str) -> list[tuple[str, str, str]]:
    """Everything that a benchmark lacks: (`error` or `warning`, what, what to do)."""
    known, tree = LAYOUTS[layout], _tree(root)
    images, labels = (layouts.survey(known, kind, tree) for kind in ("images", "labels"))
    return [
        *(("error", *line) for line in images.missing + labels.missing),
        *(
            ("warning", f"{where}: no label map, so no scores and no probe of it", known.labels_from)
            for where in labels.unlabelled
        ),
        *(("warning", note, known.lists_from) for note in layouts.notes(known, tree)),
    ]


def notes(root: str, layout: str) -> list[str]:
    """What a reader of the scores must know of how a benchmark was listed."""
    return layouts.notes(LAYOUTS[layout], _tree(root))


def _tree(root: str, walked: dict[str, files.Found] | None = None) -> layouts.Tree:
    """A root for `layouts`; the files that were walked past go to `walked`."""

    def walk(top: str) -> Iterator[str]:
        for entry in walking.walk(root, top):
            if walked is not None:
                walked[entry.path] = entry
            yield entry.path

    def read(path: str) -> bytes | None:
        try:
            return files.read_or_explain(root, path)
        except FileNotFoundError:
            return None

    return layouts.Tree(lambda name: walking.has_folder(root, name), walk, read)
