"""The command line as a script sees it: stdout, exit status, files."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from corpora import SHAPES, small, write_corpus
from PIL import Image

from pipeline.config import reference, validate


def test_help_answers_in_under_a_second():
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--help"], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - start < 3  # under a second when the machine is quiet
    assert done.stderr == ""
    heavy = (
        "import sys, pipeline.cli.main; print(sorted({'torch', 'timm', 'zarr', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout.strip() == "[]"


def test_run_json_prints_one_object_and_nothing_else(call, config):
    status, out, _ = call("run", config, "--json")
    result = json.loads(out)
    assert status == 0
    assert {row["status"] for row in result["stages"]} == {"reused"}
    assert Path(result["report"]).is_file()
    assert out.count("\n") == 1


def test_run_for_people_names_report_and_next_command(call, config):
    status, out, _ = call("run", config)
    assert status == 0
    assert re.search(r"report\S*\.html", out)
    assert "4 groups" in out
    assert "all reused" in out
    assert "stegoflow export" in out


def test_a_run_without_labels_prints_no_empty_scores(call, make_config, tmp_path, vit):
    root = write_corpus(tmp_path / "plain", train=2, val=1, labels=False)
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(small(root, tmp_path / "store", vit)))
    status, out, _ = call("run", str(path))
    assert status == 0
    assert "mIoU" not in out
    assert "None" not in out
    assert "group 0" in out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("clusters.kk=3", "did you mean k?"),
        ("clusters.k=lots", "clusters.k"),
        ("nothing=3", "nothing"),
        ("clusters.k", "expected stage.field=VALUE"),
        ("features.views.size=[65,64]", "no multiple of the patch 16; 64 is"),
        ("features.block=99", "99"),
        ("baseline.k=3", "clusters.k"),
        ("dataset.root=/no/such/folder", "/no/such/folder"),
        ("masks.splits=[test]", "masks.splits"),
        ("features.backbone=vit_smal_patch16_224", "vit_small_patch16_224"),
    ],
)
def test_a_bad_field_is_status_2_and_names_itself(call, config, change, named):
    status, out, err = call("run", config, "--set", change)
    assert (status, out) == (2, "")
    assert named in err
    assert "next:" in err
    status, out, _ = call("run", config, "--set", change, "--json")
    assert status == 2
    error = json.loads(out)["error"]
    assert error["next"]
    assert named in error["message"] + error["next"]


def test_one_stage_needs_its_inputs(call, config, tmp_path):
    status, out, _ = call("run", config, "--stage", "head", "--store", str(tmp_path / "empty"), "--json")
    assert status == 2
    assert "--stage features" in json.loads(out)["error"]["next"]
    status, out, _ = call("run", config, "--stage", "clusters", "--json")
    assert [row["stage"] for row in json.loads(out)["stages"]] == ["clusters"]


def test_a_damaged_name_hides_no_run(call, finished, tmp_path):
    place = shutil.copytree(finished.store.folder, tmp_path / "store")
    call("name", finished.id, "best", "--store", str(place))
    path = place / "names/best/1.json"
    path.write_bytes(path.read_bytes().replace(finished.id.encode(), finished.id[::-1].encode()))
    for command in (["status"], ["show", finished.id]):
        status, out, err = call(*command, "--store", str(place))
        assert status == 0
        assert finished.id in out
        assert f"{path} is damaged" in err
    status, out, _ = call("verify", "--store", str(place))
    assert status == 1
    assert str(path) in out


@pytest.mark.parametrize("command", ["verify", "show", "export"])
def test_a_damaged_run_record_is_named_by_whatever_reads_it(call, finished, tmp_path, command):
    place = tmp_path / "store"
    shutil.copytree(finished.config.store, place)
    run = finished.id
    path = place / "runs" / f"{run}.json"
    data = path.read_bytes()
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    options = ("--out", str(tmp_path / "masks")) if command == "export" else ()
    status, _, err = call(command, run, "--store", str(place), *options)
    assert status == 1
    assert f"{path} is damaged" in err
    assert f"stegoflow forget {run} --store {place}" in err
    assert call("forget", run, "--store", str(place))[0] == 0
    assert "is no artifact" in call("verify", run, "--store", str(place))[2]


def test_export_writes_masks_and_nothing_else(call, store, finished, corpus, tmp_path):
    run = finished.id
    assert call("export", run, "--out", str(tmp_path / "a"), "--store", store)[0] == 0
    wanted = {path.relative_to(corpus / "images/val") for path in (corpus / "images/val").rglob("*.png")}
    written = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert written == wanted | {Path("classes.json"), Path("legend.html")}
    for path in wanted:
        mask = np.asarray(Image.open(tmp_path / "a" / path))
        assert mask.dtype == np.uint8
        assert mask.shape == np.asarray(Image.open(corpus / "images/val" / path)).shape[:2]
        assert mask.max() < 4
    matched = call("export", run, "--out", str(tmp_path / "b"), "--no-crf", "--matched", "--store", store)
    assert matched[0] == 0
    values = {int(v) for path in wanted for v in np.unique(np.asarray(Image.open(tmp_path / "b" / path)))}
    assert values <= {0, 1, 2, 255}  # three classes, four clusters
    assert call("export", run, "--out", str(tmp_path / "c"), "--split", "test", "--store", store)[0] == 2
    assert not (tmp_path / "c").exists()


def test_segment_gives_known_images_the_masks_that_they_have(call, store, finished, corpus, tmp_path):
    run = finished.id
    call("export", run, "--out", str(tmp_path / "a"), "--store", store)
    new = tmp_path / "new images"
    new.mkdir()
    (new / "copy.png").write_bytes((corpus / "images/val/00.png").read_bytes())
    other = write_corpus(tmp_path / "other", train=1, val=0, labels=False)
    (new / "other.png").write_bytes((other / "images/train/00.png").read_bytes())
    status, out, err = call("segment", run, str(new), "--out", str(tmp_path / "b"), "--store", store, "--json")
    assert status == 0, err
    assert json.loads(out)["written"] == 2
    mine, theirs = (np.asarray(Image.open(tmp_path / p)) for p in ("b/copy.png", "a/00.png"))
    assert (mine == theirs).mean() > 0.99
    assert np.asarray(Image.open(tmp_path / "b/other.png")).shape == SHAPES[0]
    latest = json.loads(call("show", "latest", "--store", store, "--json")[1])
    assert latest["pinned"] == [], "a run of `segment` is not what `latest` means"
    assert max(path.stem for path in Path(store, "runs").iterdir()) != latest["run"]


def test_params_are_a_config(call):
    status, out, _ = call("params")
    data = yaml.safe_load(out)
    data["dataset"]["root"] = "."
    assert status == 0
    assert validate(data) == validate({"dataset": {"root": "."}})
    assert "restarts" in reference("clusters")
    assert call("params", "nothing")[0] == 2


def test_a_reader_who_stops_is_no_error(config):
    command = f"{sys.executable} -m pipeline.cli.main params | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
