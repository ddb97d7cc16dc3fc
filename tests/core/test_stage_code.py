"""The code that decides a stage's values: a change of it comes with a new `version`, or is acknowledged.

A stage's code is its module and every module that it imports, directly or through others, of the packages in `COUNTED`,
and `core.fingerprint` and `core.params`, which decide names. The rest of `pipeline.core` (store, artifact, engine,
executors, errors) is left out: it moves values and makes none. Files of other kinds count with the module beside them
that names them (the report's template), and a text such as "pipeline.heads.stego:Stego" counts as an import. What is
imported by a name that is computed is not seen.

    python tests/core/test_stage_code.py --acknowledge          (or: make acknowledge)

writes today's digests and versions to tests/golden/stage_code.json, where a review sees them.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pipeline
from pipeline.planning import STAGES

ROOT = Path(pipeline.__file__).parents[1]
GOLDEN = Path(__file__).parents[1] / "golden/stage_code.json"
COUNTED = (
    "pipeline.stages",
    "pipeline.artifacts",
    "pipeline.report",
    "pipeline.heads",
    "pipeline.numerics",
    "pipeline.backbones",
    "pipeline.images",
    "pipeline.datasets",
    "pipeline.core.fingerprint",
    "pipeline.core.params",
)
MEND = """
Does any of these stages now give other values for the same params and inputs?
  yes: raise `version` in its STAGE, then: make acknowledge
  no:  make acknowledge
(make acknowledge = python tests/core/test_stage_code.py --acknowledge; commit the golden file that it writes)"""


def source(module: str, root: Path) -> Path | None:
    """The file of a module that counts, None for every other name."""
    if not any(f"{module}.".startswith(f"{name}.") for name in COUNTED):
        return None
    path = root.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def imported(module: str, path: Path) -> Iterator[str]:
    """Every name that a module's import statements may mean a module by, wherever they stand in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"pipeline(\.\w+)+:\w+", str(node.value)):
            yield node.value.partition(":")[0]


def reached(module: str, root: Path = ROOT) -> dict[str, Path]:
    """A module and all that it imports, directly or through others, with the packages they lie in: {module: file}."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = source(name, root)
        if path is not None and name not in found:
            found[name] = path
            waiting += imported(name, path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # its package; of `from module import function`, the module
    return found


def canonical(node: Any) -> str:
    """A syntax tree as text: the same on every Python, whatever comments, layout and docstrings are.

    `ast.dump` would not do: later Pythons have more fields, which are empty in code that earlier ones can read.
    """
    if isinstance(node, ast.Constant):
        return ascii(node.value)
    if isinstance(node, ast.JoinedStr):  # 3.12 ends some formats with an empty text
        node = ast.JoinedStr([one for one in node.values if not (isinstance(one, ast.Constant) and not one.value)])
    if isinstance(node, ast.AST):
        fields = ((name, canonical(value)) for name, value in sorted(ast.iter_fields(node)) if value is not None)
        return f"{type(node).__name__}({', '.join(f'{name}={text}' for name, text in fields if text != '[]')})"
    if isinstance(node, list):
        return f"[{', '.join(canonical(one) for one in node if not is_docstring(one))}]"
    return ascii(node)


def is_docstring(node: Any) -> bool:
    """Whether a statement is a string and nothing else: a docstring, of an attribute too."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def digest(path: Path) -> str:
    """The digest of a module's code, and of the files beside it that it names."""
    tree = ast.parse(path.read_bytes())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    files = [path.parent / text for text in sorted(texts) if re.fullmatch(r"[\w.-]+\.\w+", text)]
    found = hashlib.sha256(canonical(tree).encode())
    for file in files:
        if file.is_file():
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def todays() -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What the golden file should hold, and the stages that reach each module."""
    modules: dict[str, str] = {}
    reach: dict[str, list[str]] = {}
    for stage in STAGES:
        for name, path in reached(stage.compute.__module__).items():
            modules[name] = modules.get(name) or digest(path)
            reach.setdefault(name, []).append(stage.name)
    versions = {stage.name: stage.version for stage in STAGES}
    return {"modules": dict(sorted(modules.items())), "versions": versions}, reach


def unanswered(
    golden: dict[str, Any], today: dict[str, Any], reach: dict[str, list[str]], stages: Any = STAGES
) -> dict[str, list[str]]:
    """The modules that changed, each with the stages that reach it and whose artifacts keep their names.

    A stage is renamed by a version of its own and by a new version of a stage that it always reads.
    """
    renamed: set[str] = set()
    for stage in stages:  # inputs stand before what reads them
        if golden["versions"].get(stage.name) != today["versions"][stage.name] or renamed & set(stage.inputs):
            renamed.add(stage.name)
    changed = [name for name, found in today["modules"].items() if golden["modules"].get(name) != found]
    left = {name: [stage for stage in reach[name] if stage not in renamed] for name in changed}
    return {name: stages for name, stages in left.items() if stages}


def acknowledge() -> None:
    today, _ = todays()
    before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"modules": {}, "versions": {}}
    GOLDEN.write_text(json.dumps(today, indent=1) + "\n")
    import test_fingerprint  # beside this file

    test_fingerprint.acknowledge()
    for kind in ("modules", "versions"):
        new = [name for name, value in today[kind].items() if before[kind].get(name) != value]
        print(f"{kind} recorded anew: {', '.join(new) or 'none'}")


def test_changed_code_has_a_new_version_or_is_acknowledged():
    today, reach = todays()
    left = unanswered(json.loads(GOLDEN.read_text()), today, reach)
    lines = [f"  {module}, which decides {', '.join(stages)}" for module, stages in left.items()]
    assert not left, "\n".join(["this code changed, and artifacts keep their names:", *lines, MEND])


def test_a_new_version_is_recorded():
    """Otherwise the next change of that stage would pass for the one that the version was raised for."""
    golden, today = json.loads(GOLDEN.read_text()), todays()[0]
    assert golden["versions"] == today["versions"], "a stage is new, or its version is: make acknowledge"


# The tool itself ------------------------------------------------------------------------------------------------------

SOURCE = '''"""What the module does."""
import numpy as np

LIMIT = 0.5
"""Above this, a value counts."""


class Finder:
    """Finds."""

    size: int = 3
    """How many."""

    def find(self, values, *, limit=None, **more):
        """Find."""
        # the first ones
        name, width = "é", 9
        text = f"{name!r:>{width}} of {{{self.size:.2f}}}" f"{values=}" "\\n"
        found = {**more, "a": [value for value in values if value > LIMIT]}
        return (yield) if not found else np.asarray(found[..., ::2]), text
'''
SAME = {
    "a comment": ("# the first ones", "# the very first"),
    "no comment": ("        # the first ones\n", ""),
    "a module's docstring": ("What the module does.", "Else."),
    "a class's docstring": ('"""Finds."""\n', '"""Seeks."""\n'),
    "a function's docstring": ('"""Find."""', '"""Seek.\n\n        Everywhere.\n        """'),
    "no docstring": ('        """Find."""\n', ""),
    "an attribute's docstring": ("How many.", "How much."),
    "a constant's docstring": ('"""Above this, a value counts."""\n', ""),
    "layout": ('name, width = "é", 9', "(name,\n         width) = ('é',\n            0x9)"),
    "how a string is cut": ('"{values=}" "\\n"', '"{values=}\\n"'),
}
OTHER = {
    "a constant": ("LIMIT = 0.5", "LIMIT = 0.6"),
    "a number's type": ("size: int = 3", "size: int = 3.0"),
    "a default": ("limit=None", "limit=0"),
    "an operator": ("value > LIMIT", "value >= LIMIT"),
    "a name": ("np.asarray", "np.array"),
    "a text": ('"é"', '"è"'),
    "the text of an f-string": ("} of {", "} off {"),
    "a format": (":.2f}", ":.3f}"),
    "a conversion": ("!r", "!s"),
    "an order": ('{**more, "a"', '{"b": 1, **more, "a"'),
    "an import": ("import numpy as np", "import torch as np"),
}


def digest_of(text: str, folder: Path) -> str:
    path = folder / "module.py"
    path.write_text(text)
    return digest(path)


@pytest.mark.parametrize("change", SAME)
def test_what_no_value_hangs_on_does_not_count(change: str, tmp_path: Path):
    assert SAME[change][0] in SOURCE
    assert digest_of(SOURCE.replace(*SAME[change]), tmp_path) == digest_of(SOURCE, tmp_path)


@pytest.mark.parametrize("change", OTHER)
def test_what_values_hang_on_counts(change: str, tmp_path: Path):
    assert OTHER[change][0] in SOURCE
    assert digest_of(SOURCE.replace(*OTHER[change]), tmp_path) != digest_of(SOURCE, tmp_path)


def test_a_file_that_a_module_names_counts(tmp_path: Path):
    (tmp_path / "page.html.j2").write_text("<p>")
    naming, before = 'get("page.html.j2")', digest_of('get("page.html.j2")', tmp_path)
    (tmp_path / "other.j2").write_text("<p>")
    assert digest_of(naming, tmp_path) == before
    (tmp_path / "page.html.j2").write_text("<b>")
    assert digest_of(naming, tmp_path) != before


def test_every_python_finds_the_same_digest(tmp_path: Path):
    """In 3.12 f-strings are parsed in another way, and functions and classes have a field more."""
    assert digest_of(SOURCE, tmp_path) == "1f39a472d4ef342240fbadbe46e528d6bcd2b0a68d1e8bd1904e597ee09ea6d8"


def write(root: Path, **modules: str) -> None:
    """Modules below `pipeline`, their names written with __ for a dot."""
    for name, text in modules.items():
        path = root.joinpath("pipeline", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)


@pytest.mark.parametrize(
    "statement",
    [
        "import pipeline.datasets.folder",
        "import numpy, pipeline.datasets.folder as f",
        "from pipeline.datasets import folder",
        "from pipeline.datasets.folder import scan",
        "from pipeline.datasets.folder import *",
        "from ..datasets import folder",
        "from ..datasets.folder import scan as s",
        "from .. import datasets\nfrom ..datasets import other, folder",
        "def compute():\n    from pipeline.datasets import folder",
        "network = 'pipeline.datasets.folder:scan'",
        "if True:\n    try:\n        import pipeline.datasets.folder\n    except ImportError:\n        pass",
    ],
)
def test_imports_of_every_kind(statement: str, tmp_path: Path):
    write(tmp_path, stages__a=statement, datasets__folder="", datasets__unused="")
    wanted = {"pipeline.stages", "pipeline.stages.a", "pipeline.datasets", "pipeline.datasets.folder"}
    assert set(reached("pipeline.stages.a", tmp_path)) == wanted


def test_a_relative_import_of_a_package_is_its_own(tmp_path: Path):
    write(tmp_path, stages__a="from pipeline import numerics", numerics__b="", stages__b="")
    (tmp_path / "pipeline/numerics/__init__.py").write_text("from . import b")
    assert set(reached("pipeline.stages.a", tmp_path)) == {
        "pipeline.stages", "pipeline.stages.a", "pipeline.numerics", "pipeline.numerics.b"
    }  # fmt: skip


def test_imports_are_followed_and_a_circle_ends(tmp_path: Path):
    write(
        tmp_path,
        stages__a="from pipeline.stages import b",
        stages__b="from pipeline.numerics.c import x\nfrom pipeline.core.engine import Stage\nimport os.path",
        numerics__c="from pipeline.stages.a import y\nfrom pipeline.core.fingerprint import digest",
        core__fingerprint="",
        core__engine="from pipeline.numerics import d",
        numerics__d="",
    )
    assert set(reached("pipeline.stages.a", tmp_path)) == {
        "pipeline.stages", "pipeline.stages.a", "pipeline.stages.b", "pipeline.numerics", "pipeline.numerics.c",
        "pipeline.core.fingerprint",
    }  # fmt: skip


def test_stages_reach_what_decides_their_values():
    """Some that are known: an empty golden file would pass for ever."""
    reach = todays()[1]
    assert set(reach["pipeline.core.params"]) == {stage.name for stage in STAGES}
    assert "features" in reach["pipeline.backbones.vit"]
    assert "masks" in reach["pipeline.numerics.crf"]
    assert {"clusters", "baseline"} <= set(reach["pipeline.artifacts.clusters"])
    assert "baseline" not in reach["pipeline.heads.interface"]
    assert {"head", "clusters", "masks"} <= set(reach["pipeline.heads.stego"])
    assert "neighbours" not in reach["pipeline.heads.pca"]
    assert not {"pipeline.core.engine", "pipeline.datasets.demo.corpus", "pipeline.session"} & set(reach)
    of_tokens = {"suggestion", "neighbours", "head", "baseline", "classes"}
    for module in ("pipeline.images.formats", "pipeline.datasets.folder"):
        assert not of_tokens & set(reach[module]), "what reads tokens alone hangs on no reader of images"


@pytest.mark.parametrize(
    ("raised", "left"),
    [
        ("", {"m": ["root", "middle", "last", "apart"]}),
        ("root", {"m": ["apart"]}),
        ("middle", {"m": ["root", "apart"]}),
        ("last", {"m": ["root", "middle", "apart"]}),
        ("root apart", {}),
    ],
)
def test_who_must_answer_for_a_change(raised: str, left: dict[str, list[str]]):
    """`last` always reads `middle`, which always reads `root`; `apart` may be without it."""
    inputs = {"root": (), "middle": ("root",), "last": ("middle", "apart?"), "apart": ("root?",)}
    stages = [SimpleNamespace(name=name, inputs=read) for name, read in inputs.items()]
    golden = {"modules": {"m": "old", "n": "same"}, "versions": dict.fromkeys(inputs, 1)}
    today = {"modules": {"m": "new", "n": "same"}, "versions": {name: 1 + (name in raised.split()) for name in inputs}}
    reach = {"m": list(inputs), "n": list(inputs)}
    assert unanswered(golden, today, reach, stages) == left
    assert unanswered({**golden, "modules": {"n": "same"}}, today, reach, stages) == left, "a module that is new"
    assert unanswered({**golden, "modules": today["modules"]}, today, reach, stages) == {}, "it was acknowledged"


if __name__ == "__main__":
    if sys.argv[1:] != ["--acknowledge"]:
        sys.exit(f"usage: python {sys.argv[0]} --acknowledge")
    if not Path(__file__).resolve().is_relative_to(ROOT):
        sys.exit(f"this environment imports pipeline from {ROOT}; next: PYTHONPATH=. and the same command")
    acknowledge()
