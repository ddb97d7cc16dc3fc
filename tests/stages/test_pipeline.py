"""Every stage on a tiny corpus: what is made, what is reused, and what happens where the input is odd."""

import io
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.api import open_features, run
from pipeline.artifacts import feature_layout
from pipeline.artifacts.features import open_group, training_views, view_pieces
from pipeline.artifacts.head import TrainedHead
from pipeline.artifacts.masks import decode_png, encode_png, ignore_value, mask_dtype, read_masks
from pipeline.backbones.vit import create_backbone
from pipeline.config import PipelineConfig
from pipeline.core.engine import Job
from pipeline.core.errors import StageError
from pipeline.core.runs import runs
from pipeline.core.store import Store
from pipeline.heads.correspondence import Head
from pipeline.heads.interface import Batch
from pipeline.heads.stego import Stego
from pipeline.images.formats import decode
from pipeline.images.pixels import resize
from pipeline.planning import STAGES, nodes, plan
from pipeline.results import Run
from pipeline.session import session
from pipeline.stages import features, head, masks

NAMES = [stage.name for stage in STAGES if stage.name not in ("reading", "suggestion", "classes")]  # K is given
UNLABELLED = [name for name in NAMES if name not in ("labels", "probe")]
Make = Callable[..., PipelineConfig]


def ran(done: Run) -> list[str]:
    return [row.stage for row in done.stages if row.status == "ran"]


def tokens(done: Run) -> np.ndarray:
    return np.asarray(open_group(done.artifact("features"))["tokens"][:])


def decoded_masks(done: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows = read_masks(done.artifact("masks"))
    return {row["id"]: (decode_png(row["mask"]), decode_png(row["mask_crf"])) for row in rows}


def views(done: Run) -> list[dict[str, Any]]:
    return view_pieces(done.artifact("features")).read().to_pylist()


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# A whole run ----------------------------------------------------------------------------------------------------------


def test_a_run_makes_every_artifact(finished):
    result = json.loads(json.dumps(finished.summary()))
    shown = ["annotation", "classes", "failed", "groups", "k", "protocol", "report", "run", "scores", "stages"]
    assert sorted(result) == shown
    assert result["k"] == len(result["groups"]) == 4
    assert sum(result["groups"]) == pytest.approx(1)
    assert result["protocol"] == "full"
    assert [row["stage"] for row in result["stages"]] == NAMES
    for row in result["stages"]:
        assert sorted(row) == [
            "fingerprint", "parts_repeated", "parts_run", "parts_total", "seconds", "stage", "status",
        ]  # fmt: skip
        assert (row["status"], row["parts_run"]) == ("ran", row["parts_total"])
        manifest = finished.artifact(row["stage"]).manifest
        assert manifest["fingerprint"] == row["fingerprint"]
        assert manifest["items"] > 0
        assert manifest["environment"]["torch"] == torch.__version__.split("+")[0] or manifest["environment"]["torch"]
    assert all(0 <= value[key] <= 100 for value in result["scores"].values() for key in ("accuracy", "miou"))
    page = Path(finished.report).read_text()
    assert page.startswith("<!")
    for method in ("cluster", "cluster_crf", "baseline", "linear_tokens"):
        assert f">{result['scores'][method]['miou']:.1f}<" in page, "the page shows the scores in percent"
    assert finished.id in runs(finished.store)


def test_the_stego_protocol_scores_the_centre_and_re_runs_the_scores_alone(copied: Make, finished):
    """320 × 320 of every image are scored, whatever its size; nothing but scores and report runs."""
    config = copied(scores={"protocol": "stego"})
    result = run(config)
    assert ran(result) == ["scores", "report"]
    assert result.scores.protocol == "stego"
    counts = finished.artifact("scores").read_json("scores.json")["confusion"]["cluster"]
    crops = result.artifact("scores").read_json("scores.json")["confusion"]["cluster"]
    assert np.sum(crops) == 4 * 320 * 320 != np.sum(counts)
    assert "the centre 320 × 320 pixels" in Path(result.report).read_text()


def test_probes_beat_chance_on_separable_textures(finished):
    """Three flat textures are linearly separable even for a random ViT: a label shifted by a row would show."""
    assert finished.scores.linear_tokens.accuracy > 50


def test_every_mask_has_its_own_images_size_and_type(finished, corpus):
    found_masks = decoded_masks(finished)
    assert sorted(found_masks) == sorted(path.name for path in (corpus / "images/val").iterdir())
    shapes = set()
    for name, pair in found_masks.items():
        with Image.open(corpus / "images/val" / name) as image:
            size = (image.height, image.width)
        shapes.add(size)
        for mask in pair:
            assert mask.shape == size
            assert mask.dtype == np.uint8
            assert mask.max() < 4
    assert len({height > width for height, width in shapes}) == 2, "the corpus must have both orientations"


def test_masks_of_many_clusters_are_uint16():
    assert (mask_dtype(255), mask_dtype(256)) == (np.uint8, np.uint16)
    assert (ignore_value(255), ignore_value(256)) == (255, 65535)
    for dtype in (np.uint8, np.uint16):
        mask = np.array([[0, 7, np.iinfo(dtype).max]], dtype)
        back = decode_png(encode_png(mask))
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, mask)


def test_worker_processes_give_the_same_values(finished, make_config: Make):
    config = make_config(execution={"executor": "processes", "workers": 2})
    result = run(config)
    assert [row.fingerprint for row in result.stages] == [row.fingerprint for row in finished.stages]
    mine, theirs = (tokens(done).astype(np.float32) for done in (result, finished))
    np.testing.assert_allclose(mine, theirs, atol=0.02)
    mine, theirs = (decoded_masks(done) for done in (result, finished))
    for name in theirs:
        assert np.mean(mine[name][0] == theirs[name][0]) > 0.97


def test_the_same_seed_gives_the_same_values(finished, make_config: Make):
    config = make_config()
    result = run(config)
    for stage, file in (
        ("head", "head.safetensors"),
        ("clusters", "clusters.safetensors"),
        ("probe", "probe.safetensors"),
    ):
        first = finished.artifact(stage).read_tensors(file)
        second = result.artifact(stage).read_tensors(file)
        for name, value in first.items():
            np.testing.assert_allclose(second[name], value, atol=1e-4, err_msg=f"{stage} {name}")
    assert result.scores == finished.scores
    other = make_config(head={"seed": 1})
    changed = run(other).artifact("head").read_tensors("head.safetensors")["linear.weight"]
    assert np.abs(changed - result.artifact("head").read_tensors("head.safetensors")["linear.weight"]).max() > 1e-3


# What is reused -------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(finished, make_config: Make, tmp_path: Path) -> Make:
    """`make_config` on a store that already has every artifact of the finished run."""
    shutil.copytree(finished.config.store, tmp_path / "store")
    return make_config


def test_a_second_run_reuses_everything(copied: Make):
    config = copied()
    assert {row.action for row in plan(config)} == {"reuse"}
    result = run(config)
    assert ran(result) == []
    assert sum(row.parts_run for row in result.stages) == 0
    assert result.scores.cluster.accuracy > 0, "a run that reuses everything still says what was found"
    assert Path(result.report).is_file()


def test_another_k_runs_what_depends_on_it(copied: Make):
    config = copied(clusters={"k": 3})
    wanted = ["clusters", "baseline", "masks", "scores", "report"]
    assert [row.stage for row in plan(config) if row.action == "run"] == wanted
    assert ran(run(config)) == wanted


def test_a_moved_corpus_runs_nothing(copied: Make, corpus: Path, tmp_path: Path):
    shutil.copytree(corpus, tmp_path / "elsewhere")
    assert ran(run(copied(root=tmp_path / "elsewhere"))) == []


def test_labels_added_later_run_only_what_reads_them(make_config: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus / "images", root / "images")
    config = make_config(root=root)
    bare = run(config)
    assert [row.stage for row in bare.stages] == UNLABELLED
    assert bare.scores is None
    assert set(bare.summary()["scores"].values()) == {None}
    assert Path(bare.report).is_file()
    found_scores = bare.artifact("scores").read_json("scores.json")
    assert (found_scores["images"], found_scores["classes"]) == (0, [])
    assert found_scores["label_free"]["silhouette"] is not None
    assert sum(found_scores["cluster_share"]) == pytest.approx(1)

    shutil.copytree(corpus / "labels", root / "labels")
    labelled = run(config)
    assert ran(labelled) == ["labels", "probe", "scores", "report"]
    assert labelled.scores.cluster.accuracy > 0


def test_a_new_image_is_a_new_dataset(make_config: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    before = [node.fingerprint for node in nodes(make_config(root=root), Store(tmp_path / "store"))]
    shutil.copy(root / "images/train/00.png", root / "images/train/copy.png")
    after = [node.fingerprint for node in nodes(make_config(root=root), Store(tmp_path / "store"))]
    same = [name for name, old, new in zip(NAMES, before, after, strict=True) if old == new]
    assert same == ["labels"]


def grown(corpus: Path, root: Path) -> Path:
    """The corpus with one more training image, sorted first, and one renamed."""
    shutil.copytree(corpus, root)
    image = decode(((root / "images/train/00.png").read_bytes()), "00.png")
    write(root / "images/train/000.png", image[::-1])
    (root / "images/train/03.png").rename(root / "images/train/z.png")
    return root


def test_a_grown_corpus_encodes_its_new_image_only(copied: Make, corpus: Path, tmp_path: Path, monkeypatch):
    config = copied(root=grown(corpus, tmp_path / "grown"))
    encode, encoded = features._encode, []
    monkeypatch.setattr(
        features,
        "_encode",
        lambda job, rows, out: encoded.extend(r["id"] for r in rows.values()) or encode(job, rows, out),
    )
    run(config, stage="dataset")
    result = run(config, stage="features")
    assert encoded == ["000.png"]
    assert result.artifact("features").manifest["copied"] == 14
    fresh = copied(root=tmp_path / "grown", store=tmp_path / "fresh")
    run(fresh, stage="dataset")
    scratch = run(fresh, stage="features")
    assert len(encoded) == 1 + 15
    np.testing.assert_allclose(tokens(result), tokens(scratch), atol=0.01)
    for name in ("mean", "center"):
        mine, theirs = (open_group(done.artifact("features"))[name][:] for done in (result, scratch))
        np.testing.assert_allclose(mine, theirs, atol=2e-3, err_msg=name)


def test_a_hole_is_not_copied(copied: Make, corpus: Path, tmp_path: Path):
    """Earlier features that lost a shard: their rows are computed again."""
    config = copied(root=grown(corpus, tmp_path / "grown"))
    shards = list(Path(config.store, "artifacts/features").glob("*/data/features.zarr/tokens/c/0/*/*/*"))
    assert shards  # of every features artifact: other tests may have added runs to the store that is copied
    for shard in shards:
        shard.unlink()
    run(config, stage="dataset")
    result = run(config, stage="features")
    assert result.artifact("features").manifest["copied"] == 0
    assert np.isfinite(tokens(result)).all()


def test_files_that_change_between_plan_and_run_are_refused(make_config: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    for stage in ("dataset", "labels"):
        kind = "images" if stage == "dataset" else "labels"
        with session(make_config(root=root)) as opened:
            node = next(node for node in opened.nodes if node.stage.name == stage)
            shutil.copy(root / kind / "train/00.png", root / kind / "train/added.png")
            with pytest.raises(StageError, match="changed"):
                opened.ensure(node)
            assert not node.artifact(opened.store).exists


def test_a_picture_that_changes_after_it_was_listed_is_refused(make_config: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    with session(make_config(root=root)) as opened:
        dataset, *_, feature = (node for node in opened.nodes if node.stage.name in ("dataset", "features"))
        opened.ensure(dataset)
        shutil.copy(root / "images/train/00.png", root / "images/train/01.png")
        with pytest.raises(StageError, match=r"01\.png changed"):
            opened.ensure(feature)


def test_views_whose_size_the_images_decide(make_config: Make, tmp_path: Path):
    """Every stage runs, and new images of another size are seen as those of the run were."""
    result = run(make_config(features={"views": {"size": None}}))
    facts = result.artifact("features").manifest
    assert min(facts["view"]) == 320  # 322, in patches of 16
    assert facts["shape"][1:3] == [side // 16 for side in facts["view"]]
    assert f"{facts['view'][0]}×{facts['view'][1]} px" in result.artifact("report").read("report.html").decode()
    new = tmp_path / "new"
    new.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3)).astype(np.uint8)).save(new / "a.png")
    assert result.segment(new, tmp_path / "out")["written"] == 1


def test_one_stage_needs_its_inputs(make_config: Make):
    config = make_config()
    with pytest.raises(Exception, match="input features does not exist"):
        run(config, stage="neighbours")
    for stage in ("dataset", "features", "neighbours"):
        assert ran(run(config, stage=stage)) == [stage]


# Small and odd corpora ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("kind", ["whole", "crops", "sliding"])
def test_fewer_images_than_neighbours_asked(images: int, kind: str, make_config: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "few"
    root.mkdir()
    for number in range(images):
        shutil.copy(corpus / f"images/train/{number:02d}.png", root)
    config = make_config(root=root, features={"views": {"kind": kind, "size": [64, 64]}}, neighbours={"k": 7})
    result = run(config)
    near = result.artifact("neighbours").read_table("neighbours.parquet")
    per_image = {"whole": [1] * 3, "crops": [5] * 3, "sliding": [4, 4, 4]}[kind][:images]
    lengths = {len(line) for line in near["neighbours"].to_pylist()}
    assert lengths == {min(7, sum(per_image[1:]))}
    losses = result.artifact("head").read_table("losses.parquet")
    assert ("loss_neighbours" in losses.column_names) == (images > 1)
    assert np.isfinite(np.asarray(losses["loss"])).all()
    assert len(decoded_masks(result)) == images


def test_one_picture_alone(make_config: Make, corpus: Path, tmp_path: Path):
    """One view: no neighbours and no negatives, so that only the self pairs remain."""
    root = tmp_path / "one"
    root.mkdir()
    shutil.copy(corpus / "images/train/00.png", root / "x.png")
    config = make_config(root=root)
    result = run(config)
    losses = result.artifact("head").read_table("losses.parquet").column_names
    assert [name for name in losses if name.startswith("loss_")] == ["loss_self"]
    assert result.artifact("scores").read_json("scores.json")["label_free"]["stability"] is None


def test_more_clusters_than_tokens(make_config: Make):
    with pytest.raises(StageError, match=r"clusters\.k: 97 clusters asked of 96 tokens") as caught:
        run(make_config(clusters={"k": 97}))
    assert caught.value.stage == "clusters"  # type: ignore[attr-defined]


@pytest.fixture
def damaged(corpus: Path, tmp_path: Path) -> Path:
    """A corpus in which one image of each split has no readable pixels, and one of val not even a header."""
    root = tmp_path / "damaged"
    shutil.copytree(corpus, root)
    for name in ("train/02.png", "val/01.png"):
        path = root / "images" / name
        path.write_bytes(path.read_bytes()[:200])
    (root / "images/val/03.png").write_bytes(b"no picture")
    return root


def test_undecodable_images_are_listed_and_ignored(damaged: Path, make_config: Make):
    config = make_config(root=damaged, features={"max_failed_fraction": 0.3})
    result = run(config)
    bad = ["images/train/02.png", "images/val/01.png", "images/val/03.png"]
    assert sorted(result.artifact("features").manifest["failed"]) == bad
    group = open_group(result.artifact("features"))
    for row, value, mean in zip(views(result), group["tokens"][:], group["mean"][:], strict=True):
        for values in (value, mean):
            assert np.isnan(values).all() if row["path"] in bad else np.isfinite(values).all()
    assert np.isfinite(group["center"][:]).all()
    near = result.artifact("neighbours").read_table("neighbours.parquet")
    lost = {row["view"] for row in views(result) if row["path"] in bad}
    assert lost.isdisjoint(near["view"].to_pylist())
    assert lost.isdisjoint(v for line in near["neighbours"].to_pylist() for v in line)

    rows = {row["id"]: row for row in read_masks(result.artifact("masks"))}
    assert rows["03.png"]["mask"] is None, "a picture without a readable size has no mask"
    for column in ("mask", "mask_crf"):
        ignored = decode_png(rows["01.png"][column])
        assert ignored.shape == (rows["01.png"]["height"], rows["01.png"]["width"])
        assert (ignored == 255).all()
        assert decode_png(rows["00.png"][column]).max() < 4
    assert all(np.isfinite(value["accuracy"]) for value in result.summary()["scores"].values())


def test_unassigned_pixels_count_as_wrong(damaged: Path, corpus: Path, make_config: Make):
    """Each method answers for the same labelled pixels, whether or not their picture could be read."""
    config = make_config(root=damaged, features={"max_failed_fraction": 0.3})
    result = run(config).artifact("scores").read_json("scores.json")
    pixels = sum(decode_png(path.read_bytes()).size for path in (corpus / "labels/val").iterdir())
    assert {name: int(np.sum(counts)) for name, counts in result["confusion"].items()} == dict.fromkeys(
        result["confusion"], pixels
    )
    assert result["images"] == 4


def test_a_training_split_without_a_readable_image(corpus: Path, make_config: Make, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    for path in (root / "images/train").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StageError, match="no training image can be decoded"):
        run(make_config(root=root, features={"max_failed_fraction": 1}))


def test_too_many_undecodable_images_are_named(damaged: Path, make_config: Make):
    with pytest.raises(StageError, match=r"3 of 10 images cannot be decoded: images/train/02\.png") as caught:
        run(make_config(root=damaged))
    assert "val/03.png" in caught.value.message
    assert not list(Path(make_config().store, "artifacts/features").glob("*/manifest.json"))


def test_a_label_of_another_size_is_named(corpus: Path, make_config: Make, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    write(root / "labels/val/02.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(StageError, match=r"label of images/val/02\.png is 6×5"):
        run(make_config(root=root))


# Resume ---------------------------------------------------------------------------------------------------------------


def test_features_without_a_marker_are_computed_again(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.artifacts.features.MOST_VIEWS", 4)
    config = make_config()
    with session(config) as opened:
        dataset, feature = (node for node in opened.nodes if node.stage.name in ("dataset", "features"))
        opened.ensure(dataset)
        first = opened.ensure(feature)
        assert (first.parts_run, first.parts_total) == (4, 4)  # 10 views and 4 mirrored ones
        artifact = feature.artifact(opened.store)
        before = np.asarray(open_group(artifact)["tokens"][:])
        folder = Path(config.store, artifact.root)
        (folder / "manifest.json").unlink()
        for part in ("00000004-00000008", "00000012-00000014"):
            (folder / f"parts/{part}.json").unlink()
        assert artifact.markers() == {"00000000-00000004", "00000008-00000012"}
        done: list[str] = []
        encode = features.encode_part
        monkeypatch.setattr(features, "encode_part", lambda job, part: done.append(part.name) or encode(job, part))
        again = opened.ensure(feature)
        assert sorted(done) == ["00000004-00000008", "00000012-00000014"]
        assert (again.status, again.parts_run, again.parts_total) == ("ran", 2, 4)
        np.testing.assert_allclose(np.asarray(open_group(artifact)["tokens"][:]), before, atol=2e-3)
        assert opened.ensure(feature).status == "reused"


def test_features_of_small_parts_equal_those_of_one(make_config: Make, finished, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.artifacts.features.MOST_VIEWS", 2)
    config = make_config(execution={"batch_size": 2})
    mine, whole = tokens(run(config)), tokens(finished)
    assert np.isfinite(mine).all()
    np.testing.assert_allclose(mine.astype(np.float32), whole.astype(np.float32), atol=0.01)


def test_features_laid_out_by_several_runs_at_once(make_config: Make, tmp_path: Path):
    """Zarr's `require` calls look first and create then: whoever comes second must not fail."""
    for attempt in range(8):
        with session(make_config(store=tmp_path / f"store{attempt}")) as opened:
            node = next(node for node in opened.nodes if node.stage.name == "features")
            job = Job(node.artifact(opened.store), node.params, {}, {}, opened.config.execution)
            together = threading.Barrier(3)

            def lay_out(job: Job = job, together: threading.Barrier = together) -> None:
                together.wait()
                feature_layout.create(job, 14, (64, 64), 4, 1)

            with ThreadPoolExecutor(3) as pool:
                for future in [pool.submit(lay_out) for _ in range(3)]:
                    future.result()
            group = open_group(job.out)
            assert set(group.array_keys()) == {"tokens", "mean", "center"}
            assert group.attrs["fingerprint"] == node.fingerprint


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_from_its_checkpoint(make_config: Make, finished, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(head, "CHECKPOINT", 10)
    config = make_config()
    loss, steps = Stego.loss, []

    def dying(method: Stego, batch: Batch, *rest: Any) -> Any:
        steps.append(batch.step)
        if batch.step == 14 and len(steps) == 15:
            raise Killed
        return loss(method, batch, *rest)

    monkeypatch.setattr(Stego, "loss", dying)
    with pytest.raises(Killed):
        run(config)
    assert steps == list(range(15))
    steps.append(-1)
    result = run(config)
    assert steps[16:] == list(range(10, 20))
    resumed, straight = (done.artifact("head") for done in (result, finished))
    for name, value in straight.read_tensors("head.safetensors").items():
        np.testing.assert_allclose(resumed.read_tensors("head.safetensors")[name], value, atol=1e-5, err_msg=name)
    mine, theirs = (artifact.read_table("losses.parquet") for artifact in (resumed, straight))
    assert mine["step"].to_pylist() == theirs["step"].to_pylist() == [0, 10, 19]
    np.testing.assert_allclose(np.asarray(mine["loss"]), np.asarray(theirs["loss"]), atol=1e-5)
    assert {row.stage: row.parts_run for row in result.stages}["head"] == 1


def test_a_training_killed_before_its_manifest_trains_no_more(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    config = make_config()
    result = run(config)
    artifact = result.artifact("head")
    before = artifact.read_tensors("head.safetensors")
    Path(config.store, artifact.root, "manifest.json").unlink()
    monkeypatch.setattr(Stego, "loss", lambda *args: pytest.fail("trained again"))
    again = run(config, stage="head")
    assert ran(again) == ["head"]
    for name, value in again.artifact("head").read_tensors("head.safetensors").items():
        np.testing.assert_array_equal(value, before[name])


# Views ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["whole", "crops", "sliding"])
@pytest.mark.parametrize("mirror", ["none", "predicted", "all"])
def test_views_of_each_kind(kind: str, mirror: str, make_config: Make, corpus: Path):
    config = make_config(features={"views": {"kind": kind, "size": [48, 64]}, "mirror": mirror})
    result = run(config)
    rows = views(result)
    assert [row["view"] for row in rows] == list(range(len(rows)))
    assert tokens(result).shape == (len(rows), 3, 4, 64)
    assert [row["mirrored"] for row in rows] == sorted(row["mirrored"] for row in rows)
    assert all(row["split"] == "train" and not row["mirrored"] for row in rows if row["training"])
    trained = {row["id"] for row in rows if row["training"]}
    assert len(trained) == 6
    plain, mirrored = ([row for row in rows if row["mirrored"] == side] for side in (False, True))
    wanted = {"none": set(), "predicted": {"val"}, "all": {"val", "train"}}[mirror]
    if kind == "crops":
        wanted = wanted - {"train"}  # training images have crops alone, which are never mirrored
        assert len([row for row in plain if row["split"] == "train"]) == 5 * 6
        assert len([row for row in plain if row["split"] == "val"]) == 4
    assert {row["split"] for row in mirrored} == wanted
    window = ("split", "id", "y0", "x0", "height", "width")
    assert sorted(tuple(row[k] for k in window) for row in mirrored) == sorted(
        tuple(row[k] for k in window) for row in plain if row["split"] in wanted
    )
    for row in rows:
        assert row["y0"] >= 0
        assert row["x0"] >= 0
        assert row["y0"] + row["height"] <= row["image_height"] + 1e-6
        assert row["x0"] + row["width"] <= row["image_width"] + 1e-6
        assert row["scale_y"] == pytest.approx(48 / row["height"])
    near = result.artifact("neighbours").read_table("neighbours.parquet")
    training = {row["view"] for row in rows if row["training"]}
    image = {row["view"]: row["id"] for row in rows}
    assert set(near["view"].to_pylist()) == training
    for view, line in zip(near["view"].to_pylist(), near["neighbours"].to_pylist(), strict=True):
        assert set(line) <= training, "a mirrored or predicted view is nobody's neighbour"
        assert image[view] not in {image[other] for other in line}
    for name, (mask, _) in decoded_masks(result).items():
        with Image.open(corpus / "images/val" / name) as picture:
            assert mask.shape == (picture.height, picture.width)
        assert mask.max() < 4


def test_tokens_are_those_of_the_window(finished, corpus: Path, vit: Path):
    """Each row of the store is the backbone on that image, resized; a mirrored row on its mirror image."""
    opened = open_features(finished.config.store)
    backbone = create_backbone(finished.config.features.backbone, str(vit))
    for row in opened.views.to_pylist():
        path = corpus / row["path"]
        pixels = resize(decode(path.read_bytes(), path.name), 64, 64)
        pixels = pixels[:, ::-1].copy() if row["mirrored"] else pixels
        with torch.inference_mode():
            wanted = backbone(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0].numpy()
        np.testing.assert_allclose(opened.tokens[row["view"]], wanted, atol=0.01)
    assert {row["mirrored"] for row in opened.views.to_pylist()} == {False, True}


def test_the_center_is_the_mean_training_token(finished):
    opened = open_features(finished.config.store)
    rows = training_views(opened.artifact)
    every = np.asarray(opened.tokens[:], np.float64)
    assert len(rows) == 6
    np.testing.assert_allclose(opened.center, every[rows].mean((0, 1, 2)), atol=1e-3)
    assert np.abs(opened.center - every.mean((0, 1, 2))).max() > 2e-3, "the other views must make a difference"
    np.testing.assert_allclose(opened.mean, every.mean((1, 2)), atol=1e-3)


def test_masks_average_the_mirror_image(finished):
    """The plane of an image is the mean of its codes and its mirror image's, turned back."""
    artifact = finished.artifact("features")
    table = view_pieces(artifact).read()
    plain, mirrored = (
        next(r for r in table.to_pylist() if r["split"] == "val" and r["mirrored"] == side) for side in (False, True)
    )
    every = tokens(finished).astype(np.float32)
    wanted = (every[plain["view"]] + every[mirrored["view"]][:, ::-1]) / 2
    plane = masks.Views(artifact).plane(plain["image"], lambda values: values.astype(np.float32))
    np.testing.assert_allclose(plane, wanted, atol=1e-5)


def test_windows_that_do_not_end_at_whole_pixels(make_config: Make, tmp_path: Path):
    """An image lower than a window is enlarged, and its windows then start anywhere."""
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(37, 95), (90, 33), (20, 20)]):
        write(tmp_path / f"odd/{number}.png", rng.integers(0, 256, (*shape, 3), np.uint8))
    config = make_config(root=tmp_path / "odd", features={"views": {"kind": "sliding", "size": [48, 64]}})
    result = run(config)
    assert any(row["x0"] % 1 for row in views(result))
    shapes = {name: mask.shape for name, (mask, _) in decoded_masks(result).items()}
    assert shapes == {"0.png": (37, 95), "1.png": (90, 33), "2.png": (20, 20)}


# The head -------------------------------------------------------------------------------------------------------------


def test_the_head_learns(make_config: Make):
    config = make_config(head={"steps": 150, "learning_rate": 3e-3})
    with session(config, until="head") as opened:
        for node in opened.nodes:
            opened.ensure(node)
        losses = np.asarray(node.artifact(opened.store).read_table("losses.parquet")["loss"])
    assert losses[-5:].mean() < losses[:2].mean() - 0.02


def test_a_pool_smaller_than_the_tokens(make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Tokens that do not fit into memory_gib pass through a pool; where the run was cut does not show."""
    monkeypatch.setattr(head, "CHECKPOINT", 10)
    view = 4 * 4 * 64 * 2 / 2**30
    options = {"memory_gib": 4.5 * view, "batch": 2}

    def train(store: str) -> dict[str, np.ndarray]:
        config = make_config(store=tmp_path / store, head=options)
        result = run(config)
        artifact = result.artifact("head")
        assert artifact.manifest["pool"] == 4 < artifact.manifest["views"] == 6
        return artifact.read_tensors("head.safetensors")

    first = train("a")
    loss = Stego.loss

    def dying(method: Stego, batch: Batch, *rest: Any) -> Any:
        if batch.step == 13:
            raise Killed
        return loss(method, batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stego, "loss", dying)
        with pytest.raises(Killed):
            train("b")
    second = train("b")
    for name, value in first.items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(second[name], value, atol=1e-5, err_msg=name)


def test_a_batch_larger_than_the_dataset(make_config: Make):
    """… both where the tokens fit into memory and where they do not."""
    view = 4 * 4 * 64 * 2 / 2**30
    for memory in (1.0, 4.5 * view):
        config = make_config(head={"batch": 64, "memory_gib": memory})
        assert ran(run(config))[-1] == "report"


def test_a_trained_head_is_applied_with_its_center(finished):
    artifact = finished.artifact("head")
    trained = TrainedHead(artifact)
    tensors = {name: torch.from_numpy(value) for name, value in artifact.read_tensors("head.safetensors").items()}
    center = tensors.pop("center")
    plain = Head(64, 8)
    plain.load_state_dict(tensors)
    values = tokens(finished)[:2]
    with torch.no_grad():
        wanted = plain(torch.from_numpy(values.astype(np.float32)) - center).numpy()
    np.testing.assert_allclose(trained(values).compared, wanted, atol=1e-5)


def test_png_is_what_a_mask_is_stored_as(finished):
    row = next(read_masks(finished.artifact("masks")))
    with Image.open(io.BytesIO(row["mask"])) as image:
        assert (image.format, image.size) == ("PNG", (row["width"], row["height"]))
