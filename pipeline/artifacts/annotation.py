"""The annotation: what a person said that groups and patches mean. A root of a run, like images and labels.

    clusters: 7c0e2f6b41aa                                       # the tree that `groups` are nodes of; may be absent
    classes:
    - {name: gland, color: '#d55e00'}                            # its position here is its number in label maps
    - {name: stroma}
    groups:
      "412": gland                                               # of nested nodes the innermost counts
      "31": stroma
    points:
    - {split: train, image: a/b.png, y: 120, x: 33, class: gland}   # pixels of the image

Reading and writing that text, and checking it against a tree and images. No files are opened here.
"""

import unicodedata
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from pipeline.artifacts.images import Images
from pipeline.core.errors import Command, ConfigError
from pipeline.core.fingerprint import digest
from pipeline.numerics.palette import palette
from pipeline.numerics.tree import Tree, parents

MAX_NAME = 200
"""Characters of a class name."""
MAX_CLASSES = 1000
MAX_BYTES = 64 * 2**20
"""Of a file: more than half a million points."""

Key = tuple[str, str, int, int]
"""What no two points share: (split, image, y, x)."""


class ClassName(BaseModel):
    """A class: its name, and its colour as `#rrggbb`, None for the palette's."""

    model_config = ConfigDict(frozen=True)
    name: str
    color: str | None = None


class Point(BaseModel):
    """A pixel of an image and its class; in the text `class_` is `class`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    split: str
    image: str
    y: int
    x: int
    class_: str = Field(alias="class")

    @property
    def key(self) -> Key:
        return self.split, self.image, self.y, self.x


class Annotation(BaseModel):
    """What a person said. Not to be changed: every edit gives another one."""

    model_config = ConfigDict(frozen=True)
    classes: tuple[ClassName, ...] = ()
    groups: dict[int, str] = Field(default_factory=dict)
    """Node of the tree → name of its class."""
    points: tuple[Point, ...] = ()
    clusters: str | None = None
    """The fingerprint, or its beginning, of the clusters that `groups` are nodes of."""
    _where: dict[Any, str] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:  # wherever it was parsed from
        return isinstance(other, Annotation) and (self.plain, self.clusters) == (other.plain, other.clusters)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.classes]

    @property
    def colors(self) -> list[str]:
        """`#rrggbb` of each class: its own, else the palette's for its position, or where another class has that, the
        first that no class has."""
        count, taken = len(self.classes), {one.color for one in self.classes}
        default = ["#" + bytes(color).hex() for color in palette(2 * count)]
        spare = iter(color for color in default[count:] if color not in taken)
        free = [color if color not in taken else next(spare) for color in default[:count]]
        return [one.color or color for one, color in zip(self.classes, free, strict=True)]

    @property
    def plain(self) -> dict[str, Any]:
        """JSON-ready, as the text has it: {"classes", "groups", "points"}."""
        return {
            "classes": [one.model_dump(exclude_none=True) for one in self.classes],
            "groups": {str(node): name for node, name in sorted(self.groups.items())},
            "points": [one.model_dump(by_alias=True) for one in self.points],
        }

    @property
    def digest(self) -> str:
        """sha256 (hex) of the content; the order of points and the tree's fingerprint are no part of it."""
        return digest({**self.plain, "points": [one.model_dump() for one in sorted(self.points, key=lambda p: p.key)]})

    def where(self, *at: Any) -> str:
        """`FILE, line 3` of ("class", position), ("group", node), ("point", position) or ("clusters",), where the
        annotation was parsed; else what it is."""
        return self._where.get(at, " ".join(map(str, at)))

    # Edits: each gives another annotation ----------------------------------------------------------------------------

    def with_class(self, name: str, color: str | None = None) -> "Annotation":
        """With a class of this name, made where there is none, and of this colour, where one is given."""
        name, known = clean_name(name), self.names
        if name not in known:
            return self._but(classes=(*self.classes, ClassName(name=name, color=color and clean_color(color))))
        if color is None:
            return self
        new = ClassName(name=name, color=clean_color(color))
        return self._but(classes=tuple(new if one.name == name else one for one in self.classes))

    def with_group(self, node: int, name: str | None, color: str | None = None) -> "Annotation":
        """With a node named (its class is made where there is none, or gets the colour that is given), or with its name
        taken back (None)."""
        return self.with_groups([node], name, color)

    def with_groups(self, nodes: Iterable[int], name: str | None, color: str | None = None) -> "Annotation":
        """With several nodes named alike."""
        changed = list(nodes)
        groups = {at: held for at, held in self.groups.items() if at not in changed}
        if name is None:
            return self._but(groups=groups)
        made = self.with_class(name, color)
        return made._but(groups={**groups, **dict.fromkeys(changed, clean_name(name))})

    def with_point(self, split: str, image: str, y: int, x: int, name: str | None) -> "Annotation":
        """With a point of a class (made where there is none), in the place of one at the same pixel; None removes
        it."""
        points = tuple(one for one in self.points if one.key != (split, image, y, x))
        if name is None:
            return self._but(points=points)
        made = self.with_class(name)
        point = Point(split=split, image=image, y=y, x=x, class_=clean_name(name))
        return made._but(points=(*points, point))

    def renamed(self, old: str, new: str) -> "Annotation":
        """With a class of another name; of one that exists already, the two become one. ConfigError without `old`."""
        new = clean_name(new)
        if old not in self.names:
            raise ConfigError(f"there is no class {old!r}", next="name one of its classes")
        taken = new in self.names
        kept = [one for one in self.classes if one.name != old or not taken]
        return self._but(
            classes=tuple(one.model_copy(update={"name": new}) if one.name == old else one for one in kept),
            groups={node: new if name == old else name for node, name in self.groups.items()},
            points=tuple(one.model_copy(update={"class_": new}) if one.class_ == old else one for one in self.points),
        )

    def without_class(self, name: str) -> "Annotation":
        """Without a class, and the groups and points that were of it."""
        return self._but(
            classes=tuple(one for one in self.classes if one.name != name),
            groups={node: held for node, held in self.groups.items() if held != name},
            points=tuple(one for one in self.points if one.class_ != name),
        )

    def _but(self, **changed: Any) -> "Annotation":
        made = Annotation(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changed})
        if len(made.classes) > MAX_CLASSES:
            raise ConfigError(f"an annotation has {MAX_CLASSES} classes at most", next="merge some")
        return made


def clean_name(name: str) -> str:
    """A class name as it is kept: NFC, without white space around it. ConfigError for one that is empty, too long, or
    holds control characters."""
    found = unicodedata.normalize("NFC", name).strip()
    if not found or len(found) > MAX_NAME or any(unicodedata.category(char) in ("Cc", "Cs") for char in found):
        raise ConfigError(
            f"a class name has 1 to {MAX_NAME} characters and no control characters, unlike {found[:40]!r}",
            next="choose another name",
        )
    return found


def clean_color(color: str) -> str:
    """A colour in lower case. ConfigError unless it is `#rrggbb`."""
    found = color.strip().lower()
    if len(found) != 7 or found[0] != "#" or set(found[1:]) - set("0123456789abcdef"):
        raise ConfigError(f"a colour is #rrggbb, unlike {color[:40]!r}", next="such as #d55e00, in quotes")
    return found


def naming(tree: Tree, groups: Container[int]) -> np.ndarray:
    """(2P − 1,) int64: the node that names each node of a tree: itself, else its nearest named ancestor, else −1."""
    above = parents(tree)
    found = np.asarray([node if node in groups else -1 for node in range(len(above))])
    for node in reversed(range(len(found) - 1)):  # a parent's number is larger
        if found[node] < 0:
            found[node] = found[above[node]]
    return found


def named_by(tree: Tree, groups: Mapping[int, str]) -> list[str | None]:
    """The name of every node of a tree (2P − 1): its own, else that of its nearest named ancestor, else None."""
    return [groups.get(node) for node in naming(tree, groups).tolist()]


# Text ----------------------------------------------------------------------------------------------------------------


def parse(text: str, source: str) -> Annotation:
    """The annotation of a YAML text; `source` is what errors call it.

    ConfigError names the line: what is no YAML, an unknown or missing key, a class that is not among `classes`, a
    duplicate, a colour that is not `#rrggbb`, a node or pixel that is no whole number.
    """
    from pipeline.artifacts.annotation_text import read

    return read(text, source)


def dump(annotation: Annotation) -> str:
    """An annotation as YAML that a person can read and compare line by line: an item a line, groups in order."""

    def scalar(value: str | int) -> str:
        if isinstance(value, int):
            return str(value)
        plain = value.isprintable()  # else every character that is not ASCII is escaped
        style = None if plain else '"'
        text = yaml.safe_dump([value], allow_unicode=plain, default_style=style, default_flow_style=True, width=2**31)
        return text.strip()[1:-1]

    def flow(value: dict[str, Any]) -> str:
        return "{" + ", ".join(f"{key}: {scalar(inner)}" for key, inner in value.items()) + "}"

    def lines(title: str, items: Iterable[str], nothing: str) -> list[str]:
        found = list(items)
        return [f"{title}:", *found] if found else [f"{title}: {nothing}"]

    plain = annotation.plain
    head = [f"clusters: {scalar(annotation.clusters)}"] if annotation.clusters else []
    body = [
        *lines("classes", (f"- {flow(one)}" for one in plain["classes"]), "[]"),
        *lines("groups", (f'  "{node}": {scalar(name)}' for node, name in plain["groups"].items()), "{}"),
        *lines("points", (f"- {flow(one)}" for one in plain["points"]), "[]"),
    ]
    return "\n".join([*head, *body]) + "\n"


def check(annotation: Annotation, tree: Tree, images: Images, clusters: str | None = None) -> None:
    """ConfigError, with the line where the annotation was parsed, for a node that the tree does not have, an image
    that the dataset does not have, a point outside its image; and, where `clusters`, a fingerprint, is given, for an
    annotation of other clusters."""
    count = 2 * len(tree.sizes) - 1
    if clusters and annotation.clusters and annotation.groups and not clusters.startswith(annotation.clusters):
        raise ConfigError(
            f"{annotation.where('clusters')}: its groups are nodes of clusters {annotation.clusters[:12]}, "
            f"not of {clusters[:12]}",
            next="leave out groups and clusters: points stay true",
        )
    for node in annotation.groups:
        if not 0 <= node < count:
            raise ConfigError(
                f"{annotation.where('group', node)}: node {node} is not one of the tree's {count}, 0 to {count - 1}",
                next=("the ids of ", Command("groups", "RUN", cut="N"), " are nodes"),
            )
    for number, point in enumerate(annotation.points):
        _check_point(point, images, annotation.where("point", number))


def _check_point(point: Point, images: Images, where: str) -> None:
    if point.split not in images.splits:
        raise ConfigError(f"{where}: there is no split {point.split!r}", next=f"one of {', '.join(images.splits)}")
    rows = images.splits[point.split]
    row = images.find(point.split, point.image, rows)
    if row is None:
        example = images.name(rows[0])[1]
        raise ConfigError(
            f"{where}: there is no image {point.image!r} in {point.split}",
            next=f"give its path below the split, such as {example}",
        )
    height, width = images.size(row)
    if not (0 <= point.y < height and 0 <= point.x < width):
        raise ConfigError(
            f"{where}: y {point.y}, x {point.x} lies outside {point.image} ({height} × {width} pixels)",
            next="y counts rows from the top, x columns from the left, from 0",
        )
