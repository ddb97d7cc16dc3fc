"""Every method of the head through the whole pipeline, and what the stage promises each of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from corpora import write_corpus
from PIL import Image
from torch import Tensor

from pipeline import heads
from pipeline.api import run
from pipeline.artifacts.clusters import Clusters, fewer, find_tree, look, read_clusters
from pipeline.artifacts.features import Tokens, read_center, training_views, view_pieces
from pipeline.artifacts.head import TrainedHead, open_head
from pipeline.artifacts.sampling import sample
from pipeline.config import PipelineConfig, reference, validate
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Work, silent
from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.store import Store
from pipeline.heads import network
from pipeline.heads.interface import Batch, Method
from pipeline.heads.none import Tokens as NoHead
from pipeline.heads.pca import Pca
from pipeline.heads.settings import METHODS, SETTINGS, MethodParams, NoneParams, PcaParams, StegoParams, TrainedParams
from pipeline.heads.stego import Stego
from pipeline.numerics import regroup
from pipeline.numerics.codes import Codes
from pipeline.numerics.context import unit
from pipeline.numerics.views import Window
from pipeline.results import Run
from pipeline.session import session
from pipeline.stages import head as stage

Make = Callable[..., PipelineConfig]


def until(config: PipelineConfig, name: str) -> Artifact:
    """Run what a stage needs, and the stage."""
    with session(config, until=name) as opened:
        for node in opened.nodes:
            opened.ensure(node)
        return node.artifact(opened.store)


def training_tokens(artifact: Artifact) -> np.ndarray:
    """Raw tokens of all training views, (view, row, column, channel) float16."""
    return Tokens(artifact).read(training_views(artifact))


def test_the_registry_is_what_a_config_may_choose():
    shared = {"__init__", "interface", "settings", "correspondence", "pool"}
    files = {path.stem for path in Path(heads.__file__).parent.glob("*.py")}
    assert set(METHODS) == files - shared, "a file of a head that nobody can choose, or a head that is gone"
    for name, settings in zip(METHODS, SETTINGS, strict=True):
        config = validate({"dataset": {"root": "x"}, "head": {"method": name}})
        assert type(config.head) is settings
        assert network(config.head).__module__ == f"pipeline.heads.{name}"
        assert issubclass(network(config.head), Method)


def test_the_reference_of_the_head_is_a_section_that_can_be_used():
    text = reference("head")
    data = yaml.safe_load(text)
    assert validate({"dataset": {"root": "x"}, **data}).head == validate({"dataset": {"root": "x"}}).head
    other = [line.removeprefix("  # ") for line in text.splitlines() if line.startswith("  # ")]
    assert [f"method: {name}" in other for name in METHODS] == [name != data["head"]["method"] for name in METHODS]
    assert text.count("seed:") == 1, "what all methods have is written once"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["whole", "crops"])
def test_a_method_runs_to_its_scores(method: str, kind: str, make_config: Make):
    head = {"method": method} | ({"code": 7} if method == "pca" else {})
    config = make_config(head=head, features={"views": {"kind": kind, "size": [64, 64]}})
    result = run(config)
    assert {row.status for row in result.stages} == {"ran"}
    for name in ("cluster", "cluster_crf", "linear"):
        assert 0 < getattr(result.scores, name).miou <= 100
    artifact = result.artifact("head")
    code = getattr(config.head, "code", 64) + 64 * (method == "stegoflow")  # tokens have 64 channels
    clusters = read_clusters(result.artifact("clusters"))
    assert clusters.vectors.shape[1] == code
    assert (len(clusters.vectors) > 4) == (method == "stegoflow")
    assert len(clusters.cut().nodes) == clusters.k == 4
    way = {"stegoflow": "regrouped"} | dict.fromkeys(("smooseg", "cause", "primaps"), "head")
    assert result.artifact("clusters").manifest["found_by"] == way.get(method, "kmeans")
    facts = artifact.read_facts("head.safetensors")
    assert (json.loads(facts["params"])["method"], facts["channels"]) == (method, "64")
    assert {row.status for row in run(config).stages} == {"reused"}

    losses = artifact.read_table("losses.parquet")
    page = page_of(result)
    if not isinstance(config.head, TrainedParams):
        assert (losses.column_names, losses.num_rows) == (["step"], 0)
        assert losses.schema.field("step").type == pa.int64()
        assert "not trained by steps" in page
        assert "<h2>Training</h2>" not in page
        assert artifact.manifest["parts"] == 0
    else:
        assert losses.num_rows > 0
        assert "not trained by steps" not in page
        assert "<h2>Training</h2>" in page


def test_without_a_head_clusters_are_the_baseline(make_config: Make):
    """The same k-means on the same numbers; the scores differ where a pixel lies between two tokens, because codes are
    upsampled before they are compared and the baseline's similarities after."""
    config = make_config(head={"method": "none"}, masks={"upsampling": "bilinear"})
    result = run(config)
    clusters, baseline = (read_clusters(result.artifact(stage)) for stage in ("clusters", "baseline"))
    np.testing.assert_array_equal(clusters.vectors, baseline.vectors)
    np.testing.assert_array_equal(clusters.tree.merges, baseline.tree.merges)
    mine, baseline = result.scores.cluster, result.scores.baseline
    assert mine.accuracy == pytest.approx(baseline.accuracy, abs=0.01)
    assert mine.miou == pytest.approx(baseline.miou, abs=0.01)
    values = result.summary()["scores"]
    assert values["linear"] == pytest.approx(values["linear_tokens"], abs=1e-6)


def test_codes_without_a_head_are_the_centred_tokens(make_config: Make):
    config = make_config(head={"method": "none"})
    artifact = until(config, "head")
    features = Artifact(Store(config.store), "features", artifact.manifest["inputs"]["features"])
    tokens = training_tokens(features)
    wanted = tokens.astype(np.float32) - read_center(features, "dataset")
    codes = TrainedHead(artifact)(tokens)
    np.testing.assert_array_equal(codes.compared, wanted)
    assert codes.detail is None
    assert set(artifact.read_tensors("head.safetensors")) == {"center"}


def test_principal_components_are_those_of_the_covariance(make_config: Make):
    """Of all training tokens, which are fewer than the sample may hold: an eigenvalue is the variance of a code."""
    config = make_config(head={"method": "pca", "code": 5})
    artifact = until(config, "head")
    features = Artifact(Store(config.store), "features", artifact.manifest["inputs"]["features"])
    tokens = training_tokens(features)
    x = (tokens.astype(np.float64) - read_center(features, "dataset")).reshape(-1, 64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    codes = TrainedHead(artifact)(tokens).compared.reshape(-1, 5)
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(codes.T, bias=True), np.diag(values[::-1][:5]), atol=1e-6)
    np.testing.assert_allclose(np.abs(codes), np.abs((x - x.mean(0)) @ vectors[:, ::-1][:, :5]), atol=1e-4)
    components = artifact.read_tensors("head.safetensors")["components"]
    assert (components[np.arange(5), np.abs(components).argmax(1)] > 0).all(), "signs do not hang on the solver"
    assert artifact.manifest["sample"] == artifact.manifest["items"] == 6


def test_more_components_than_channels(make_config: Make):
    with pytest.raises(StageError, match=r"head\.code: 65 components asked of tokens of 64 channels") as caught:
        run(make_config(head={"method": "pca", "code": 65}))
    assert caught.value.next == Set("head.code", 64)


def test_whatever_the_components_are_fewer_keep_the_first(tmp_path):
    torch.manual_seed(0)
    sample = torch.randn(3, 4, 5, 8)
    small, large = Pca(PcaParams(code=2), 8), Pca(PcaParams(code=8), 8)
    for method in (small, large):
        method.prepare(sample, 0)
    torch.testing.assert_close(small.encode(sample).compared, large.encode(sample).compared[..., :2])
    assert torch.isfinite(large.encode(torch.zeros(1, 1, 1, 8)).compared).all()


def test_the_sample_is_drawn_anew_by_another_seed(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    """At most SAMPLE views, the same for the same seed, and as many as the memory holds."""
    seen: list[Tensor] = []
    monkeypatch.setattr(Pca, "prepare", lambda method, sample, seed: seen.append(sample.clone()))
    monkeypatch.setattr(stage, "SAMPLE", 3)
    view = 4 * 4 * 64 * 4 / 2**30
    for options in ({}, {"memory_gib": 4.5 * view}, {"seed": 1}, {"memory_gib": 2.5 * view}):
        until(make_config(head={"method": "pca", **options}), "head")
    assert [len(sample) for sample in seen] == [3, 3, 3, 2]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert all(sample.dtype == torch.float32 and sample.shape[1:] == (4, 4, 64) for sample in seen)


# What the stage promises a method -------------------------------------------------------------------------------------


class Killed(Exception):
    pass


class Taught(Stego):
    """A stepwise method that uses all of the interface: prepared, with a buffer that moves, two groups, a parameter
    that no step touches, and codes that depend on the rest of their view."""

    def __init__(self, params: Any, channels: int) -> None:
        super().__init__(params, channels)
        self.register_buffer("first", torch.zeros(params.code))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.unused = torch.nn.Parameter(torch.ones(2))

    def prepare(self, sample: Tensor, seed: int) -> None:
        assert int(self.count) == 0, "never after a resume"
        self.first.copy_(sample.mean((0, 1, 2))[: len(self.first)])

    def parameter_groups(self) -> list[dict[str, Any]]:
        others = [value for name, value in self.named_parameters() if not name.startswith("linear")]
        return [{"params": others, "lr": 1e-3}, {"params": list(self.linear.parameters())}]

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        self.count += 1
        assert batch.maps(batch.anchors).shape == (len(batch.anchors), *batch.grid, batch.table.shape[1])
        loss, terms = super().loss(batch, dtype, log)
        return loss + (self.linear.weight.mean() - self.first.mean()) ** 2, terms

    def encode(self, tokens: Tensor) -> Codes:
        codes = super().encode(tokens).compared
        return Codes(codes - codes.mean((1, 2), keepdim=True))


def test_a_method_resumes_with_its_buffers(make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(stage, "CHECKPOINT", 10)
    monkeypatch.setattr(StegoParams, "network", f"{__name__}:Taught")
    straight = until(make_config(store=tmp_path / "straight"), "head").read_tensors("head.safetensors")
    config = make_config(store=tmp_path / "killed")
    loss = Taught.loss

    def dying(method: Taught, batch: Batch, *rest: Any) -> Any:
        if batch.step == 14:
            raise Killed
        return loss(method, batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Taught, "loss", dying)
        with pytest.raises(Killed):
            until(config, "head")
    monkeypatch.setattr(Taught, "prepare", lambda *args: pytest.fail("prepared again"))
    resumed = until(config, "head").read_tensors("head.safetensors")
    assert int(straight["count"]) == int(resumed["count"]) == 20
    assert set(straight) == {*(n for n in Taught(StegoParams(), 64).state_dict()), "center"}
    for name, value in straight.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    np.testing.assert_array_equal(straight["unused"], 1)
    assert np.abs(straight["first"]).max() > 0


def test_every_stage_gives_a_head_whole_views(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    """Fewer tokens of each view are asked than it has, and yet the head sees all of them."""
    monkeypatch.setattr(StegoParams, "network", f"{__name__}:Taught")
    shapes: set[tuple[int, ...]] = set()
    encode = Taught.encode

    def watching(method: Taught, tokens: Tensor) -> Codes:
        shapes.add(tuple(tokens.shape[1:]))
        return encode(method, tokens)

    monkeypatch.setattr(Taught, "encode", watching)
    result = run(
        make_config(
            clusters={"tokens": 30}, probe={"tokens": 30}, scores={"stability_tokens": 30}, head={"seed": 12345}
        )
    )
    assert shapes == {(4, 4, 64)}
    assert result.scores.linear.miou > 0


def test_codes_at_the_sampled_positions_are_those_of_the_tokens(make_config: Make):
    """Whatever makes codes of whole views, the same positions are picked."""
    config = make_config(head={"method": "none", "center": "none"})
    artifact = until(config, "head")
    features = Artifact(Store(config.store), "features", artifact.manifest["inputs"]["features"])
    work = Work(type("Job", (), {"out": artifact})(), None, silent)  # type: ignore[arg-type]
    tokens, codes = (sample(features, 30, 0, work, encode).compared for encode in (Codes, TrainedHead(artifact)))
    assert tokens.shape == (6, 5, 64)
    np.testing.assert_array_equal(tokens, codes)


@pytest.mark.parametrize("kind", ["whole", "crops"])
def test_regrouping_sees_codes_and_colours_of_the_same_places(
    kind: str, make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The colours are means over the pixels of each token's patch, of every training view that can be decoded."""
    given: list[np.ndarray] = []
    real = regroup.evidence

    def remember(member, codes, colours, count):
        assert member.max() < count
        assert codes.shape[-1] == 8, "what k-means compares, without detail"
        given.extend((codes, colours))
        return real(member, codes, colours, count)

    monkeypatch.setattr(regroup, "evidence", remember)
    root = write_corpus(tmp_path / "corpus")
    lost = root / "images/train/00.png"
    lost.write_bytes(lost.read_bytes()[:100])
    views = {"kind": kind, "size": [64, 64]}
    config = make_config(root=root, head={"method": "stegoflow"}, features={"views": views, "max_failed_fraction": 0.5})
    with session(config, until="clusters") as opened:
        for node in opened.nodes:
            opened.ensure(node)
        made = {node.stage.name: node.artifact(opened.store) for node in opened.nodes}
    codes, colours = given
    table = view_pieces(made["features"]).read()
    rows = [view for view in table.to_pylist() if view["training"] and view["path"] != f"images/train/{lost.name}"]
    assert codes.shape[:3] == colours.shape[:3] == (len(rows), *codes.shape[1:3])
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, atol=1e-5)
    for view, colour in zip(rows, colours, strict=True):
        image = np.array(Image.open(root / view["path"]).convert("RGB")).astype(float)
        box = Window(view["y0"], view["x0"], view["height"], view["width"])
        inside = image[round(box.y0) : round(box.y0 + box.height), round(box.x0) : round(box.x0 + box.width)]
        bands = [np.array_split(band, colour.shape[1], axis=1) for band in np.array_split(inside, colour.shape[0])]
        means = np.array([[patch.mean((0, 1)) for patch in band] for band in bands])
        assert np.corrcoef(means.ravel(), colour.ravel())[0, 1] > 0.9
    assert made["clusters"].manifest["found_by"] == "regrouped"
    assert isinstance(made["clusters"].manifest["moves"], list)


def test_a_head_may_be_given_plain_clusters(make_config: Make):
    """k-means compares codes without their detail, and so do its prototypes."""
    plain = until(make_config(head={"method": "stegoflow"}, clusters={"method": "kmeans"}), "clusters")
    assert plain.manifest["found_by"] == "kmeans"
    assert "moves" not in plain.manifest
    clusters = read_clusters(plain)
    assert clusters.vectors.shape == (4, 8)
    codes = Codes(np.ones((2, 8), np.float32), np.ones((2, 64), np.float32))
    assert clusters.seen(codes).shape == (2, 8)
    with pytest.raises(ConfigError, match="a tree of 4 prototypes has cuts into 1 to 4 groups, not 5") as caught:
        clusters.cut(5)
    assert Set("clusters.prototypes", 5) in caught.value.next


@pytest.mark.parametrize("method", ["none", "smooseg"])
def test_more_prototypes_than_clusters_may_be_asked_for(method: str, make_config: Make):
    """Pieces of the clusters that there would be without: the cut at K stays nearly the same."""
    few, many = (
        read_clusters(until(make_config(head={"method": method}, clusters={"prototypes": count}), "clusters"))
        for count in (None, 16)
    )
    assert len(few.vectors) == 4
    assert 12 <= len(many.vectors) <= 20
    codes = Codes(few.vectors)
    assert len(set(many.cosines(codes).argmax(-1))) == 4
    with pytest.raises(StageError, match=r"clusters\.prototypes: 3 are fewer than 4 clusters"):
        until(make_config(head={"method": method}, clusters={"prototypes": 3}), "clusters")


class Found(NoHead):
    """A method with clusters of its own: four axes."""

    def __init__(self, params: MethodParams, channels: int) -> None:
        super().__init__(params, channels)
        self.register_buffer("axes", torch.zeros(4, channels))

    def prepare(self, sample: Tensor, seed: int) -> None:
        self.axes.copy_(unit(sample[0, 0]))

    def prototypes(self) -> Tensor | None:
        return self.axes


def test_a_heads_own_clusters_are_taken(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(NoneParams, "network", f"{__name__}:Found")
    config = make_config(head={"method": "none"})
    result = run(config)
    clusters = result.artifact("clusters")
    axes = result.artifact("head").read_tensors("head.safetensors")["axes"]
    np.testing.assert_allclose(read_clusters(clusters).vectors, axes, atol=1e-6)
    assert clusters.manifest["found_by"] == "head"
    assert result.scores.cluster.miou > 0

    config = make_config(head={"method": "none"}, clusters={"method": "kmeans"})
    clusters = until(config, "clusters")
    assert clusters.manifest["found_by"] == "kmeans"
    assert np.abs(read_clusters(clusters).vectors - axes).max() > 0.01

    with pytest.raises(StageError, match=r"clusters\.k: the head has 4, not 5") as caught:
        until(make_config(head={"method": "none"}, clusters={"k": 5}), "clusters")
    assert caught.value.next == Set("clusters.method", "kmeans")


class Picky(NoHead):
    def encode(self, tokens: Tensor) -> Codes:
        assert torch.isfinite(tokens).all()
        assert len(tokens) <= stage.BLOCK
        return Codes(tokens, tokens[..., :3])


def test_views_that_are_lost_never_reach_a_method(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    artifact = until(make_config(head={"method": "none"}), "head")
    monkeypatch.setattr(NoneParams, "network", f"{__name__}:Picky")
    head = TrainedHead(artifact)
    tokens = np.ones((70, 4, 4, 64), np.float16)
    tokens[[3, 40]] = np.nan
    codes = head(tokens)
    assert (codes.compared.shape, codes.detail.shape) == (tokens.shape, (70, 4, 4, 3))
    for part in codes:
        assert np.flatnonzero(np.isnan(part).any((1, 2, 3))).tolist() == [3, 40]
    assert head(tokens[:0]).compared.shape == (0, 4, 4, 64)
    with pytest.raises(ValueError, match="whole views"):
        head(np.ones((5, 64), np.float16))


def test_a_base_method_asks_for_nothing_and_has_no_clusters():
    method = Method()
    assert method.prototypes() is None
    with pytest.raises(NotImplementedError):
        method.encode(torch.zeros(1, 1, 1, 1))
    with pytest.raises(NotImplementedError):
        method.loss(None, torch.float32, False)  # type: ignore[arg-type]


def test_a_head_is_opened_once(make_config: Make):
    artifact = until(make_config(head={"method": "pca"}), "head")
    assert open_head(artifact, "cpu") is open_head(artifact, "cpu")


# Collapse -------------------------------------------------------------------------------------------------------------


def page_of(done: Run) -> str:
    return done.artifact("report").read("report.html").decode()


def test_a_collapse_of_the_codes_is_told(make_config: Make, monkeypatch: pytest.MonkeyPatch, caplog):
    """Pairs that all attract, at a high rate, make all codes alike. It is seen at a checkpoint, not only at the end."""
    monkeypatch.setattr(stage, "CHECKPOINT", 40)
    settings = {"steps": 80, "learning_rate": 0.02, "shift_random": -5.0, "shift_self": -5.0, "zero_clamp": False}
    config = make_config(head=settings)
    result = run(config)
    artifact = result.artifact("head")
    assert artifact.manifest["groups"] < stage.COLLAPSED
    assert "head, step 40 of 80: the codes are nearly all alike" in caplog.text
    assert "raise head.shift_random" in caplog.text
    assert "the codes are nearly all alike" in page_of(result)


def test_codes_that_did_not_collapse_are_not_warned_of(make_config: Make, caplog):
    config = make_config()
    result = run(config)
    groups = result.artifact("head").manifest["groups"]
    assert groups > stage.COLLAPSED
    assert f"<bdi>{groups:.1f}</bdi>" in page_of(result)
    assert "nearly all alike" not in page_of(result)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    "method", [one.model_fields["method"].default for one in SETTINGS if issubclass(one, TrainedParams)]
)
def test_looking_at_the_codes_changes_no_training(method: str, make_config: Make, monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "CHECKPOINT", 3)
    monkeypatch.setattr(stage, "LOG_EVERY", 3)

    def trained(store: str) -> dict[str, np.ndarray]:
        return until(make_config(store=tmp_path / store, head={"method": method}), "head").read_tensors(
            "head.safetensors"
        )

    looked = trained("a")
    monkeypatch.setattr(stage, "watch", lambda *_: 9.0)
    blind = trained("b")
    for name, value in looked.items():
        np.testing.assert_array_equal(value, blind[name], err_msg=name)


def test_a_loss_that_is_no_number_ends_the_training(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    loss = Stego.loss

    def broken(method: Stego, batch: Batch, *rest: Any) -> Any:
        value, terms = loss(method, batch, *rest)
        return value * (float("inf") if batch.step > 12 else 1), terms

    monkeypatch.setattr(Stego, "loss", broken)
    with pytest.raises(StageError, match=r"step 19: the loss is (-inf|inf|nan)(.|\n)*head\.learning_rate=5e-05"):
        until(make_config(), "head")


ALIKE = np.array([[1, 0], [0.999, 0.0447]])


@pytest.mark.parametrize(
    ("vectors", "codes", "k", "words"),
    [
        (np.eye(3), np.eye(3)[[0, 0, 1]], 3, "1 of 3 clusters are empty; try clusters.k=2"),
        (ALIKE, ALIKE, 2, r"two of 2 clusters are nearly one \(cosine 1.00\); try clusters.k=1"),
        (np.eye(3), np.eye(3), 3, None),
        (np.eye(1), np.eye(1), 1, None),
        (np.eye(3)[[0, 0, 1, 2]], np.eye(3), 3, None),  # two prototypes of one group
    ],
)
def test_fewer_clusters_than_asked_for_are_reported(vectors, codes, k, words):
    vectors = vectors.astype(np.float32)
    clusters = Clusters(vectors, find_tree(vectors, codes.astype(np.float32)), k)
    found = fewer({"k": k, **look(clusters)})
    assert found is None if words is None else re.fullmatch(words, found)
