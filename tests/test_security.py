"""What hostile files, names, stores and neighbours on the network cannot do; docs/security.md lists the threats."""

import io
import json
import pickle
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml
from corpora import picture, small
from distributed import LocalCluster
from markdown_it import MarkdownIt
from obstore.exceptions import BaseError
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from pipeline import cataloguing, exporting, segmenting
from pipeline.api import open_features, run
from pipeline.artifacts.features import open_array
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.backbones import packaged
from pipeline.cli.doctor import examine
from pipeline.cli.tables import artifacts_table, every_artifact_table, plan_table, runs_table, stages_table
from pipeline.config import PipelineConfig, load
from pipeline.core.artifact import Artifact, record
from pipeline.core.errors import ConfigError, DamageError, StageError
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.pieces import Pieces, write_pieces
from pipeline.core.runs import find_run, run_artifact
from pipeline.core.store import Store
from pipeline.images import files
from pipeline.planning import PlanRow
from pipeline.session import session
from pipeline.terminal import render_error, visible
from pipeline.writers import FORMATS

ROOT = Path(__file__).parents[1]
SECRET = "hunter2SECRET"
NAMES = (
    "<script>alert(1)",
    '"><img src=x onerror=alert(2)>',
    "](javascript:alert(3))",
    "![x](https:evil.example)",
    "[bold]`_*",
    "\x1b[31mred\x9b1m",
    "two\nlines\r\u2028\u202e",
    "{{ 7*7 }} &lt;b&gt;",
)
"""Hostile file names; each also has a sub-folder named alike."""
CLASS_NAMES = ("</bdi><script>alert(4)</script>", "\x1b]0;title\x07 [/red](javascript:5)", '"><svg/onload=alert(6)>')


# What is read from files never runs ----------------------------------------------------------------------------------


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_array_of_zarr_format_2_is_not_read(tmp_path, monkeypatch):
    """Its codecs unpickle; numcodecs refuses that by default, and this program does not even ask."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    artifact = Artifact(Store(tmp_path / "store"), "features", "a" * 64)
    group = tmp_path / "store" / artifact.data("features.zarr")
    (group / "tokens").mkdir(parents=True)
    codecs: dict[str, Any] = {"compressor": {"id": "pickle", "protocol": 5}, "filters": [{"id": "vlen-utf8"}]}
    shape: dict[str, Any] = {"shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C"}
    array = {"zarr_format": 2, **shape, **codecs}
    (group / "tokens" / ".zarray").write_text(json.dumps(array))
    (group / "tokens" / "0").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    inline = {"kind": "inline", "must_understand": False, "metadata": {"tokens": array}}
    new = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": inline}
    for name, content in ((".zgroup", {"zarr_format": 2}), ("zarr.json", new)):
        (group / name).write_text(json.dumps(content))
        with pytest.raises((FileNotFoundError, KeyError)):
            open_array(artifact)[:]
    assert not (tmp_path / "sprung").exists()


def test_a_table_that_names_a_python_type_is_only_data(tmp_path):
    """The extension type of old pyarrow that was unpickled while a file was opened."""
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": trap}
    schema = pa.schema([pa.field("id", pa.int64(), metadata=extension)])
    artifact = Artifact(Store(tmp_path / "store"), "dataset", "a" * 64)
    artifact.write_table("t.parquet", pa.table({"id": [1]}, schema=schema))
    assert artifact.read_table("t.parquet").to_pylist() == [{"id": 1}]
    assert not (tmp_path / "sprung").exists()


def test_a_mask_is_a_png_or_nothing():
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "EPS")
    for data in (sink.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b""):
        with pytest.raises(UnidentifiedImageError):
            decode_png(data)


def test_packaged_weights_name_no_other_file(tmp_path):
    import onnx

    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "backbone.x")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    onnx.save(
        onnx.helper.make_model(graph),
        str(tmp_path / "a.onnx"),
        save_as_external_data=True,
        location="secret",
        size_threshold=0,
    )
    with pytest.raises(ConfigError, match="other files"):
        packaged.read_packaged(tmp_path / "a.onnx")


# Names are shown, not obeyed -----------------------------------------------------------------------------------------


def write_hostile(root: Path) -> None:
    """A labelled corpus whose files, folders and classes have hostile names; one image cannot be decoded."""
    for number, name in enumerate((*NAMES, "plain")):
        image, label = picture(number, (48, 64))
        for split in ("train", "val"):
            for kind, pixels in (("images", image), ("labels", label)):
                path = root / kind / split / name / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (root / "images/train" / f"{NAMES[5]}.png").write_bytes(b"no image")
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": list(CLASS_NAMES)}))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, vit) -> SimpleNamespace:
    """A finished run on that corpus. Secrets stand wherever a config may hold one; the store's folder is odd too."""
    top = tmp_path_factory.mktemp("hostile")
    write_hostile(top / "corpus")
    store = top / "s[" / "]\x1b[31m<b>"  # the path holds [/], which rich would take for the end of a style
    urls = [f"file://KEY:{SECRET}@{quote(str(path))}?token={SECRET}" for path in (top / "corpus", store)]
    hidden = {"dask_address": f"tcp://u:{SECRET}@10.0.0.1:8786", "dask_options": {"env": {"TOKEN": SECRET}}}
    data = small(Path("corpus"), store, vit, report={"images": 40}, masks={"splits": ["train", "val"]})
    data = {**data, "store": urls[1], "dataset": {"root": urls[0]}, "execution": {**data["execution"], **hidden}}
    path = top / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    config = load(path)
    result = run(config)
    run(config, stage="report")
    return SimpleNamespace(config=config, path=str(path), store=Store(store), folder=store, result=result)


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words, self.inside = "", ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.words += data if self.inside != "style" else ""

    def kinds(self) -> set[tuple[str, ...]]:
        return {(tag, *sorted(attributes)) for tag, attributes in self.elements}


def test_the_report_shows_hostile_names_as_text(hostile, finished):
    html = Path(hostile.result.report).read_text()
    reader, harmless = Reader(html), Reader(Path(finished.report).read_text())
    assert {tag for tag, *_ in reader.kinds()} <= {tag for tag, *_ in harmless.kinds()}
    attributes = {(tag, name) for tag, *names in reader.kinds() for name in names}
    assert attributes <= {(tag, name) for tag, *names in harmless.kinds() for name in names}
    links = [found[key] for _, found in reader.elements for key in ("href", "src", "xlink:href") if key in found]
    assert all(link.startswith(("#", "data:image/")) for link in links)
    words = re.sub(r"\r\n?", "\n", reader.words)
    for name in (*NAMES, *CLASS_NAMES):
        assert name.replace("\r", "\n") in words


def published(hostile, monkeypatch) -> dict[str, Any]:
    """What the flows would publish of a run: key → Markdown or rows. Prefect is not imported for that."""
    made: dict[str, Any] = {}
    stub = ModuleType("prefect.artifacts")
    stub.create_markdown_artifact = lambda text, key, description: made.update({key: text})  # type: ignore[attr-defined]
    stub.create_table_artifact = lambda rows, key, description: made.update({key: rows})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prefect", ModuleType("prefect"))
    monkeypatch.setitem(sys.modules, "prefect.artifacts", stub)
    monkeypatch.delitem(sys.modules, "flows.artifacts", raising=False)
    from flows import artifacts

    monkeypatch.delitem(sys.modules, "flows.artifacts")  # it holds the stub
    monkeypatch.setattr(artifacts, "PICTURES", 100)
    artifacts.publish(hostile.result)
    return made


def test_prefects_artifacts_show_hostile_names_as_text(hostile, monkeypatch):
    made = published(hostile, monkeypatch)
    shown = {}
    for key in ("masks", "report"):
        for html in (True, False):
            markdown = MarkdownIt("commonmark", {"html": html}).enable(["table", "strikethrough"])
            reader = Reader(markdown.render(made[key]))
            assert {tag for tag, *_ in reader.kinds()} <= {"p", "img"}
            assert all(found["src"].startswith("data:image/") for tag, found in reader.elements if tag == "img")
            shown[key] = reader.words
    for name in NAMES:
        assert " ".join(name.split()) in shown["masks"]
    assert "/report." in shown["report"]
    cells = [str(cell) for row in made["scores"] for pair in row.items() for cell in pair]
    assert all(re.fullmatch(r"[\w +.()\-]+", cell) for cell in cells)  # no name of a class, image or file at all


def test_visible_text():
    for name in (*NAMES, *CLASS_NAMES, "caf\udce9"):
        assert visible(name).replace("　", " ").isprintable()
    assert visible("\x1b[31m\n\x9b\u202e") == r"\x1b[31m\n\x9b\u202e"
    assert visible("Füße 空と海 \u3000 [bold]") == "Füße 空と海 \u3000 [bold]"
    assert render_error(ConfigError("a\n  next: rm", next="b\x1b")) == "a\\n  next: rm\n  next: b\\x1b"
    assert render_error(ConfigError("a")) == "a"


def test_tables_take_no_markup_from_names():
    name = "[red]x[/red][/] \x1b[31m\nnew"
    artifact = dict.fromkeys(("stage", "fingerprint", "state", "written"), name)
    texts = dict.fromkeys(("run", "dataset", "head", "written"), name)
    numbers = {"k": 4, "miou": 1.0, "finished": 1, "planned": 1, "pinned": []}
    facts = {
        "store": name,
        "artifacts": [artifact | {"items": 1, "parts": 1, "runs": 1, "bytes": 1}],
        "runs": [texts | numbers | {"names": [name]}, {"run": name, "names": [name], "damaged": True}],
    }
    row = PlanRow("head", "a" * 64, "run", name, [name], None, 1, 1.0, 1, True)
    lines = {name: {"fingerprint": name, "state": name, "items": 1, "seconds": 1.0}}
    console = Console(file=io.StringIO(), width=400)
    made = artifacts_table(facts), every_artifact_table(facts), runs_table(facts), stages_table(lines)
    for table in (*made, plan_table([row])):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(r"[red]x[/red][/] \x1b[31m\nnew") >= 8
    assert "\x1b" not in text


def test_commands_print_no_control_characters(hostile, call):
    store = str(hostile.folder)
    for words in (
        ("status", "--store", store),
        ("show", "latest", "--store", store),
        ("plan", hostile.path, "--set", "masks.splits=['[red]', \"\\e[31m\", val]"),
        ("run", hostile.path, "--json"),
        ("doctor", hostile.path),
    ):
        status, out, err = call(*words)
        assert status == 0, words
        assert "\x1b" not in out + err, words


def test_the_run_command_prints_the_path_of_a_report_as_it_is(hostile, call):
    status, out, _ = call("run", hostile.path)
    assert status == 0
    assert r"s[/]\x1b[31m<b>" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("name", NAMES)
def test_errors_print_no_control_characters(name, hostile, call):
    """Of the file that cannot be used; a name with a line break must not bring a `next:` of its own."""
    status, out, err = call("show", f"{name}\x1b\n  next: sh evil", "--store", str(hostile.folder))
    assert (status, out) == (2, "")
    assert "\x1b" not in err
    assert len(err.splitlines()) == 2


# Nothing is written, or read, elsewhere ------------------------------------------------------------------------------


def everything(top: Path) -> dict[str, bytes]:
    return {str(path): b"" if path.is_dir() else path.read_bytes() for path in top.rglob("*")}


@pytest.fixture
def elsewhere(tmp_path) -> Iterator[Path]:
    """A folder in which nothing may change."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "kept.png").write_bytes(b"mine")
    before = everything(place)
    yield place
    assert everything(place) == before


def test_an_export_does_not_follow_a_link_to_a_folder(hostile, tmp_path, elsewhere):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="leads out of"):
        exporting.export(hostile.store, "latest", tmp_path / "out", overwrite=True)


def test_an_export_replaces_a_link_to_a_file(hostile, tmp_path, elsewhere):
    real = tmp_path / "real"
    (real / "plain").mkdir(parents=True)
    (real / "plain/plain.png").symlink_to(elsewhere / "kept.png")
    (tmp_path / "out").symlink_to(real)  # the folder itself may be one: the user named it
    exporting.export(hostile.store, "latest", tmp_path / "out", splits=["val"], overwrite=True)
    assert not (real / "plain/plain.png").is_symlink()
    assert np.asarray(Image.open(real / "plain/plain.png")).shape == (48, 64)
    inside = {str(path.relative_to(real).with_suffix("")) for path in real.rglob("*.png")}
    assert inside == {f"{name}/{name}" for name in (*NAMES, "plain")}


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_writes_outside_of_its_folder(format, hostile, tmp_path, elsewhere):
    done = exporting.export(hostile.store, "latest", tmp_path / "out", format=format)
    assert done["written"] > len(NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "elsewhere"}
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*"))


def crafted(hostile, tmp_path: Path) -> Path:
    """A copy of the store that an attacker may change."""
    return Path(shutil.copytree(hostile.folder, tmp_path / "crafted"))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../elsewhere/x.png"},
        {"id": "../elsewhere/kept.png"},
        {"id": "a/../../../elsewhere/x.png"},
        {"id": "ELSEWHERE/x.png"},
        {"split": "../elsewhere"},
        {"split": "ELSEWHERE"},
        {"split": "..", "id": "elsewhere/x.png"},
    ],
)
def test_a_crafted_mask_is_not_written_outside(change, hostile, tmp_path, elsewhere):
    place = crafted(hostile, tmp_path)
    found = find_run(Store(place), "latest")
    masks, dataset = (run_artifact(Store(place), found, stage) for stage in ("masks", "dataset"))
    change = {key: value.replace("ELSEWHERE", str(elsewhere)) for key, value in change.items()}
    rows = list(read_masks(masks))
    first = sorted(masks.markers())[0]
    masks.write_table(f"masks/{first}.parquet", pa.Table.from_pylist([{**rows[0], **change}, *rows[1:8]]))
    masks.store.put(f"{masks.root}/parts/{first}.json", record("part", {**masks.marker(first), "files": masks.files}))
    with pytest.raises(DamageError, match="in the place of"):
        exporting.export(Store(place), "latest", tmp_path / "out")
    images = Pieces(dataset, "images")
    rows, index = images.read().to_pylist(), images.index.select(["split", "first"])
    crafted_rows = pa.Table.from_pylist([{**rows[0], **change}, *rows[1:]], schema=images.piece(0).schema)
    ends = [*images.starts[1:]]
    tables = [crafted_rows.slice(a, b - a) for a, b in zip(images.starts, ends, strict=False)]
    write_pieces(dataset, "images", zip(tables, index.to_pylist(), strict=True), index.schema)
    facts = {**dataset.manifest, "files": {**dataset.manifest["files"], **dataset.files}}
    dataset.store.put(f"{dataset.root}/manifest.json", record("manifest", facts))
    with pytest.raises(ConfigError):
        exporting.export(Store(place), "latest", tmp_path / "out")
    assert everything(tmp_path / "out") == {}


REFERENCES = ("../../x", "..", "/etc/passwd", "%2e%2e/x", "runs/../x", "../artifacts", "")


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_no_path(name, hostile):
    """The empty one is the beginning of both runs' ids."""
    for look in (find_run, cataloguing.show):
        with pytest.raises(ConfigError):
            look(hostile.store, name)
    with pytest.raises(ConfigError):
        open_features(hostile.folder, name or "none")


def crafted_run(place: Path, **changes: Any) -> Store:
    """A store whose latest run's record is an attacker's."""
    store = Store(place)
    found = find_run(store, "latest")
    store.put("runs/99999999-evil.json", record("run", {**found, "run": "99999999-evil", **changes}))
    return store


def looks(store: Store, out: Path) -> list[Any]:
    """Everything that follows a run's record to artifacts."""
    return [
        lambda: cataloguing.show(store, "latest"),
        lambda: exporting.export(store, "latest", out),
        lambda: segmenting.segment(store, "latest", str(out), out),
        lambda: open_features(store.url),
    ]


ESCAPE = ("../../../elsewhere", "/ELSEWHERE")


@pytest.mark.parametrize("name", ESCAPE)
def test_a_crafted_record_leads_nowhere(name, hostile, tmp_path, elsewhere):
    name = name.replace("/ELSEWHERE", str(elsewhere))
    found = find_run(hostile.store, "latest")["stages"]
    store = crafted_run(crafted(hostile, tmp_path), stages=dict.fromkeys(found, name))
    for look in looks(store, tmp_path / "out")[1:]:
        with pytest.raises((ConfigError, ValueError)):
            look()
    assert not (tmp_path / "out").exists()


def test_a_crafted_record_is_an_error_in_words(hostile, tmp_path):
    found = find_run(hostile.store, "latest")["stages"]
    store = crafted_run(crafted(hostile, tmp_path), stages=dict.fromkeys(found, "../../../elsewhere"))
    for look in looks(store, tmp_path / "out"):
        with pytest.raises(ConfigError):
            look()


def test_an_array_outside_the_store_is_not_opened(hostile, tmp_path):
    """Zarr gets a folder, not obstore's checked path."""
    real = run_artifact(hostile.store, find_run(hostile.store, "latest"), "features")
    shutil.copytree(hostile.folder / real.root, tmp_path / "elsewhere")
    (tmp_path / "store/artifacts/features").mkdir(parents=True)
    with pytest.raises(ConfigError):
        open_array(Artifact(Store(tmp_path / "store"), "features", "../../../elsewhere"))


def test_a_crafted_record_names_no_code(hostile, tmp_path, monkeypatch):
    """`segment` takes its config from the record of a run: not the class to import, nor its arguments."""
    found = find_run(hostile.store, "latest")["config"]
    evil = {"executor": "dask", "dask_cluster": "subprocess.Popen", "dask_options": {"args": ["touch", "sprung"]}}
    config = {**found, "execution": {**found["execution"], **evil}}
    store = crafted_run(crafted(hostile, tmp_path), config=config)
    seen: list[PipelineConfig] = []

    def stop(config: PipelineConfig, **_: Any) -> None:
        seen.append(config)
        raise ConfigError("stop")

    monkeypatch.setattr(segmenting, "session", stop)
    with pytest.raises(ConfigError, match="stop"):
        segmenting.segment(store, "99999999-evil", hostile.config.dataset.root, tmp_path / "out")
    assert seen[0].execution.model_dump(include={"dask_cluster", "dask_options", "dask_address"}) == {
        "dask_cluster": "distributed.LocalCluster",
        "dask_options": {},
        "dask_address": None,
    }


@pytest.mark.parametrize("path", ["../elsewhere/kept.png", "/etc/hostname", "images/../../elsewhere/kept.png"])
def test_an_image_is_read_below_the_root_alone(path, tmp_path, elsewhere):
    (tmp_path / "corpus/images").mkdir(parents=True)
    for root in (str(tmp_path / "corpus"), "s3://bucket/prefix"):
        with pytest.raises(StageError, match=r"not below dataset.root"):
            files.read_file(root, path)


# What is started listens on the loopback address alone ---------------------------------------------------------------


def listening() -> set[str]:
    """Addresses on which this process and its children take connections."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [connection for process in family for connection in process.net_connections("inet")]
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


class SomeCluster(LocalCluster):
    """Stands for dask_cuda.LocalCUDACluster, a kind of LocalCluster in another package."""


@pytest.mark.parametrize("kind", ["distributed.LocalCluster", "test_security.SomeCluster"])
def test_a_local_dask_cluster_is_not_open_to_the_network(kind):
    """Scheduler, dashboard and workers."""
    with open_executor(Execution(executor="dask", workers=1, dask_cluster=kind)) as executor:
        assert list(executor.run(str, [1])) == [(1, "1")]
        assert listening() == {"127.0.0.1"}


def test_published_ports_are_on_loopback_unless_told():
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("${BIND:-127.0.0.1}:") for port in ports)
    assert not any(service.get("network_mode") == "host" or service.get("privileged") for service in services.values())


# Secrets stay where they are -----------------------------------------------------------------------------------------


def test_a_run_records_no_secret(hostile, call, caplog):
    """Neither the store's files nor anything that is printed holds what the config file holds."""
    assert SECRET in Path(hostile.path).read_text()
    files = [path for path in hostile.folder.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    store = str(hostile.folder)
    caplog.set_level("DEBUG")
    for words in (
        ("run", hostile.path, "--json"),
        ("plan", hostile.path),
        ("doctor", hostile.path),
        ("status", "--store", store),
        ("show", "latest", "--store", store),
        ("run", hostile.path, "--json", "--stage", "nothing"),
        ("run", hostile.path, "--json", "--set", f"dataset.root=s3://KEY:{SECRET}@"),
        ("run", hostile.path, "--json", "--set", f"dataset.root=nonsense://KEY:{SECRET}@bucket/x?y={SECRET}"),
        ("run", hostile.path, "--json", "--store", f"nonsense://KEY:{SECRET}@bucket"),
        ("doctor", hostile.path, "--store", f"nonsense://KEY:{SECRET}@bucket?sig={SECRET}"),
        ("status", "--store", f"nonsense://KEY:{SECRET}@bucket"),
    ):
        _, out, err = call(*words)
        assert out + err
        assert SECRET not in out + err, words
    assert SECRET not in caplog.text


def test_a_part_carries_no_options_of_dask(hostile, monkeypatch):
    """What a worker gets is pickled, sent and, in errors, shown."""
    seen: list[Execution] = []
    monkeypatch.setattr("pipeline.session.ensure", lambda *_, execution, **__: seen.append(execution))
    with session(hostile.config) as opened:
        opened.ensure(opened.nodes[0])
    assert SECRET not in repr(seen)
    assert seen[0].device == hostile.config.execution.device


@pytest.mark.parametrize(
    "change",
    [
        f"execution.dask_options={{password: {SECRET}",
        f"execution.dask_options={{password: *{SECRET}}}",
        f"execution.dask_options={{password: !{SECRET} x}}",
        f"store.password={SECRET}",
        f"execution.dask_address=[{SECRET}]",
        f"execution.dask_options=[{SECRET}]",
        f"execution.executor={SECRET}",
        f"execution.dask_optoins={{password: {SECRET}}}",
    ],
)
def test_errors_in_a_config_do_not_quote_it(change, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("store: x\ndataset: {root: x}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, [change])
    assert SECRET not in str(caught.value)
    assert change.split(".")[0] in str(caught.value)


@pytest.mark.parametrize("end", ["{a: SECRET\nb: ]", "{a: *SECRET}", "!SECRET x", "'SECRET", "\x00 SECRET"])
def test_an_error_in_a_config_file_says_where_and_not_what(end, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"execution:\n  dask_options: {end.replace('SECRET', SECRET)}")
    with pytest.raises(ConfigError, match=r"is not plain YAML: (line \d, column \d+|it holds characters)") as caught:
        load(path)
    assert SECRET not in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@127.0.0.1:1/api", f"http://me:{SECRET}@127.0.0.1/api"])
def test_the_doctor_hides_credentials_of_prefect(url, monkeypatch, finished):
    monkeypatch.setenv("PREFECT_API_URL", url)
    found = next(check for check in examine(None, finished.config.store) if check.what == "prefect server")
    assert found.state == "warning"
    assert SECRET not in str(found)


URLS = (
    f"s3://KEY:{SECRET}@bucket/prefix",
    f"s3://bucket/prefix?token={SECRET}",
    f"s3://KEY:{SECRET[:4]}/{SECRET}@bucket/prefix",  # keys of S3 may hold a slash
    f"https://{SECRET}@host/x",
    f"az://container/x?sv=2021&sig={SECRET}",
)


@pytest.mark.parametrize("url", URLS)
def test_a_store_refuses_credentials_in_its_url(url, call, hostile):
    with pytest.raises(ConfigError, match="environment") as caught:
        Store(url)
    assert SECRET not in str(caught.value)
    for words in (("--store", url), ("--set", f"dataset.root={url}")):
        status, out, err = call("run", hostile.path, "--json", *words)
        assert status == 2
        assert "environment" in out
        assert SECRET not in out + err


def test_retries_do_not_log_credentials(caplog):
    def read(item: int) -> None:
        raise BaseError(f"Error performing GET https://me:{SECRET}@host/x?sig={SECRET} in 1 s\n\nDebug: {SECRET}")

    with open_executor(Execution(executor="serial", retries=1)) as executor, pytest.raises(StageError) as caught:
        list(executor.run(read, [1]))
    assert "part 1" in caplog.text
    assert "GET https://host/x" in str(caught.value)
    assert SECRET not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"dask_address": f"tls://me:{SECRET}@127.0.0.1:9"},
        {"dask_address": f"nonsense://127.0.0.1:9?token={SECRET}"},
        {"dask_options": {"interface": SECRET}},
    ],
)
def test_errors_of_dask_hold_no_secret(given):
    with (
        pytest.raises(ConfigError) as caught,
        open_executor(Execution(executor="dask", workers=1, **given)) as executor,
    ):
        list(executor.run(str, [1]))
    assert SECRET not in str(caught.value)
