"""Reading an annotation from YAML, with the line of everything that is wrong with it."""

from typing import Any

import yaml

from pipeline.artifacts.annotation import (
    MAX_BYTES,
    MAX_CLASSES,
    Annotation,
    ClassName,
    Point,
    clean_color,
    clean_name,
)
from pipeline.core.errors import ConfigError

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: twenty times as fast."""
INTEGER_DIGITS = 10
DEPTH = 8
"""Of nesting. libyaml composes by recursion on the C stack, which a text could overflow: that ends the process."""


class Reader:
    """One text: its nodes, and errors that say where in it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.where: dict[Any, str] = {}

    def at(self, node: yaml.Node) -> str:
        return f"{self.source}, line {node.start_mark.line + 1}"

    def wrong(self, node: yaml.Node, text: str) -> ConfigError:
        return ConfigError(f"{self.at(node)}: {text}", next=f"mend line {node.start_mark.line + 1} of {self.source}")

    def check_depth(self, text: str) -> None:
        """ConfigError where a text is nested too deep. Looks at events, one after the other."""
        depth = 0
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                where = f", line {event.start_mark.line + 1}" if event.start_mark else ""
                raise ConfigError(f"{self.source}{where}: this is nested too deep", next=f"mend {self.source}")

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The items of a list; of nothing, none."""
        if _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, f"{what} is a list")
        return list(node.value)

    def pairs(self, node: yaml.Node, what: str) -> list[tuple[yaml.Node, str, yaml.Node]]:
        """The pairs (key node, key, value node) of a mapping, each key once; of nothing, none."""
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} is a mapping")
        found, seen = [], set()
        for key, value in node.value:
            name = self.text(key, "a key")
            if name in seen:
                raise self.wrong(key, f"{name!r} stands here twice")
            seen.add(name)
            found.append((key, name, value))
        return found

    def fields(self, node: yaml.Node, what: str, must: tuple[str, ...], may: tuple[str, ...] = ()) -> dict[str, Any]:
        """A mapping of known keys, {key: value node}."""
        pairs = self.pairs(node, what)
        for key, name, _ in pairs:
            if name not in must + may:
                raise self.wrong(key, f"{what} has {', '.join(must + may)}, not {name[:40]!r}")
        found = {name: value for _, name, value in pairs}
        if missing := [name for name in must if name not in found]:
            raise self.wrong(node, f"{what} lacks {', '.join(missing)}")
        return found

    def text(self, node: yaml.Node, what: str) -> str:
        """A scalar as it is written: `no`, `1` and `null` are names like any others."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.wrong(node, f"{what} is a text")
        return str(node.value)

    def integer(self, node: yaml.Node, what: str) -> int:
        text = self.text(node, what)
        if not (text.isascii() and text.isdigit() and len(text) <= INTEGER_DIGITS):
            raise self.wrong(node, f"{what} is a whole number from 0, not {text[:40]!r}")
        return int(text)

    def clean(self, node: yaml.Node, what: str, clean: Any) -> str:
        """A text that `clean` accepts, as it makes it."""
        text = self.text(node, what)
        try:
            return str(clean(text))
        except ConfigError as error:
            raise self.wrong(node, error.message) from None

    def known(self, node: yaml.Node, classes: dict[str, ClassName]) -> str:
        """The name of a class that is among `classes`."""
        name = self.clean(node, "a class", clean_name)
        if name not in classes:
            known = ", ".join(map(repr, list(classes)[:8])) + (", …" if len(classes) > 8 else "") or "none"
            raise self.wrong(node, f"there is no class {name!r}; classes are {known}")
        return name

    def classes(self, node: yaml.Node) -> dict[str, ClassName]:
        found: dict[str, ClassName] = {}
        for item in self.items(node, "classes"):
            alone = {"name": item} if isinstance(item, yaml.ScalarNode) else None  # `- gland`
            fields = alone or self.fields(item, "a class", ("name",), ("color",))
            name = self.clean(fields["name"], "a name", clean_name)
            if name in found:
                raise self.wrong(fields["name"], f"there are two classes {name!r}")
            given = fields.get("color")
            color = None if given is None or _is_null(given) else self.clean(given, "a colour", clean_color)
            self.where["class", len(found)] = self.at(item)
            found[name] = ClassName(name=name, color=color)
            if len(found) > MAX_CLASSES:
                raise self.wrong(item, f"an annotation has {MAX_CLASSES} classes at most")
        return found

    def groups(self, node: yaml.Node, classes: dict[str, ClassName]) -> dict[int, str]:
        found: dict[int, str] = {}
        for key, _, value in self.pairs(node, "groups"):
            number = self.integer(key, "a node")
            if number in found:
                raise self.wrong(key, f"node {number} stands here twice")
            found[number] = self.known(value, classes)
            self.where["group", number] = self.at(key)
        return found

    def points(self, node: yaml.Node, classes: dict[str, ClassName]) -> tuple[Point, ...]:
        found: dict[Any, Point] = {}
        for item in self.items(node, "points"):
            fields = self.fields(item, "a point", ("split", "image", "y", "x", "class"))
            split, image = (self.text(fields[name], name) for name in ("split", "image"))
            y, x = (self.integer(fields[name], name) for name in ("y", "x"))
            point = Point(split=split, image=image, y=y, x=x, class_=self.known(fields["class"], classes))
            if point.key in found:
                raise self.wrong(item, f"there are two points at y {y}, x {x} of {image}")
            self.where["point", len(found)] = self.at(item)
            found[point.key] = point
        return tuple(found.values())


def read(text: str, source: str) -> Annotation:
    """See `pipeline.artifacts.annotation.parse`."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source} has more than {MAX_BYTES / 2**20:.0f} MiB", next="leave out points")
    reader = Reader(source)
    try:
        reader.check_depth(text)
        root = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or "it holds characters that YAML cannot").removesuffix(".")
        raise ConfigError(f"{source}{where}: this is not plain YAML: {what}", next=f"mend {source}") from None
    if root is None:
        return Annotation()
    fields = reader.fields(root, "an annotation", (), ("clusters", "classes", "groups", "points"))
    classes = reader.classes(fields["classes"]) if "classes" in fields else {}
    clusters = None
    if "clusters" in fields and not _is_null(fields["clusters"]):
        clusters = reader.text(fields["clusters"], "clusters")
        reader.where["clusters",] = reader.at(fields["clusters"])
    made = Annotation(
        classes=tuple(classes.values()),
        groups=reader.groups(fields["groups"], classes) if "groups" in fields else {},
        points=reader.points(fields["points"], classes) if "points" in fields else (),
        clusters=clusters,
    )
    made._where.update(reader.where)
    return made


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
