"""The commands that look: status, show, open, init, doctor."""

import json
import webbrowser
from pathlib import Path

import pytest
import yaml

from pipeline import configs, run
from pipeline.cli import doctor, looking
from pipeline.config import load, validate
from pipeline.core.runs import begin_run, find_run
from pipeline.core.store import Store


def test_status_shows_what_tells_runs_from_each_other(call, store, finished, corpus):
    facts = json.loads(call("status", "--store", store, "--json")[1])
    assert {row["state"] for row in facts["artifacts"]} == {"finished"}
    row = next(row for row in facts["runs"] if row["run"] == finished.id)
    assert (row["dataset"], row["head"], row["k"]) == (str(corpus), "stego", 4)
    assert row["finished"] == row["planned"] == len(finished.stages)
    assert 0 < row["miou"] < 100
    status, out, _ = call("status", "--store", store)
    assert status == 0
    assert finished.id in out
    assert f"{row['miou']:.1f}" in out
    assert out.index(finished.id) < out.index("features"), "runs come first"
    assert len(call("status", "--store", store, "--all")[1].splitlines()) > len(facts["artifacts"])
    assert call("status", "--store", "/no/such/store")[0] == 2


def test_status_names_what_is_unfinished_or_damaged(call, make_config):
    config = make_config()
    store = Store(config.store)
    store.mark()
    begin_run(
        store, {"dataset": {"root": "x"}, "clusters": {"k": None}, "head": {"method": "stego"}}, {"head": "a" * 64}
    )
    store.create(f"artifacts/head/{'a' * 64}/spec.json", b"{}")
    store.create(f"artifacts/masks/{'b' * 64}/manifest.json", b"{}")
    status, out, _ = call("status", "--store", config.store)
    assert status == 0
    assert "unfinished aaaaaaaaaaaa" in out
    assert "damaged bbbbbbbbbbbb" in out
    assert "0 of 1" in out
    assert "stegoflow verify" in out


def test_show_a_run(call, store, finished):
    status, out, _ = call("show", finished.id, "--store", store)
    assert status == 0
    assert "restarts" not in out, "the config comes with --config"
    assert str(Path(finished.report).name) in out
    for row in finished.summary()["stages"]:
        assert row["fingerprint"][:12] in out
    facts = json.loads(call("show", finished.id, "--store", store, "--json")[1])
    assert facts["config"]["clusters"]["k"] == facts["k"] == 4
    assert facts["images"] == {"train": 6, "val": 4}


def test_show_a_run_whose_views_follow_the_images(call, make_config):
    result = run(make_config(features={"views": {"size": None}}), until="features")
    status, out, _ = call("show", result.id, "--store", result.config.store)
    height, width = result.artifact("features").manifest["view"]
    assert (status, f"views of {height}×{width} px" in out) == (0, True)


def test_the_config_of_a_run_makes_it_again(call, store, finished, tmp_path):
    status, text, _ = call("show", finished.id, "--store", store, "--config")
    assert status == 0
    assert text.startswith(f"# run {finished.id}, by stegoflow ")
    (tmp_path / "again.yaml").write_text(text)
    rows = json.loads(call("plan", str(tmp_path / "again.yaml"), "--json")[1])["stages"]
    assert {row["stage"]: row["fingerprint"] for row in rows} == finished.record["stages"]
    assert {row["action"] for row in rows} == {"reuse"}


def test_a_config_as_flows_take_it(call, config, store):
    """One JSON object with what the file and --set say, which means the same artifacts."""
    status, out, _ = call("config", config, "--set", "clusters.k=5")
    assert status == 0
    data = json.loads(out)
    assert data["clusters"]["k"] == 5
    assert "suggestion" not in data, "the file does not mention it"
    assert validate(data) == load(config, ["clusters.k=5"])
    assert call("config", config, "--set", "store=s3://KEY:SECRET@bucket")[0] == 2
    assert call("config", config, "--set", "clusters.kk=5")[0] == 2


def test_show_an_artifact(call, store, finished):
    head = finished.record["stages"]["head"]
    facts = json.loads(call("show", head[:16], "--store", store, "--json")[1])
    assert list(facts["lineage"]) == ["features", "neighbours"]
    assert facts["state"] == "finished"
    status, out, _ = call("show", head[:16], "--store", store)
    assert status == 0
    for role, row in facts["lineage"].items():
        assert f"{role} {row['fingerprint'][:12]}" in out
    assert "method" not in out
    assert "method: stego" in call("show", head[:16], "--store", store, "--config")[1]
    assert call("show", "nothing", "--store", store)[0] == 2


def test_show_a_run_that_has_not_come_far(call, make_config):
    config = make_config()
    store = Store(config.store)
    store.mark()
    recorded = {"dataset": {"root": "x"}, "features": {}, "clusters": {"k": None}, "head": {"method": "stego"}}
    run = begin_run(store, recorded, {"head": "a" * 64})
    status, out, _ = call("show", run, "--store", config.store)
    assert status == 0
    assert "not known yet" in out
    assert find_run(store, run)["run"] == run


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """What was given to a browser."""
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", found.append)
    return found


def test_open_opens_the_report(call, store, finished, opened, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    for words in (("open",), ("open", finished.id)):
        status, out, _ = call(*words, "--store", store)
        assert status == 0
        assert Path(out.strip()).is_file()
        assert opened.pop() == Path(out.strip()).as_uri()


def test_open_without_a_display_prints_the_path(call, store, opened, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    status, out, _ = call("open", "--store", store)
    assert status == 0
    assert Path(out.strip()).is_file()
    assert opened == []


@pytest.mark.parametrize("kind", [name for name in configs.names() if name != "demo"])
def test_init_writes_a_config_that_loads(call, tmp_path, kind):
    path = tmp_path / "my.yaml"
    status, out, _ = call("init", str(path), "--for", kind)
    assert status == 0
    assert str(path) in out
    assert load(path).dataset.root


def test_init_touches_no_file_that_exists(call, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    status, out, err = call("init", str(path))
    assert (status, out) == (2, "")
    assert path.read_text() == "mine"
    assert call("init", str(tmp_path / "no/such/folder/my.yaml"))[0] == 2
    status, _, err = call("init", str(tmp_path / "other.yaml"), "--for", "nonsense")
    assert status == 2
    assert "folder" in err
    assert not (tmp_path / "other.yaml").exists()


def test_doctor_finds_what_is_wrong(call, config, store, tmp_path):
    status, out, _ = call("doctor", config, "--json")
    states = {check["what"]: check["state"] for check in json.loads(out)["checks"]}
    assert status == 0
    assert {states[what] for what in ("packages", "device", "weights", "dataset", "store")} == {"ok"}
    (tmp_path / "file").write_text("")
    status, out, _ = call("doctor", config, "--store", str(tmp_path / "file"))
    assert status == 1
    assert "FAIL  store" in out


def test_doctor_names_missing_extras_and_what_they_are_for(monkeypatch, make_config):
    monkeypatch.setattr(doctor, "installed", lambda package: package not in ("pydensecrf", "faiss"))
    found = {check.what: check for check in doctor._extras()}
    assert found["extra crf"].state == "warning"
    assert "masks.crf=true" in found["extra crf"].found
    assert found["extra crf"].next == "pip install 'stegoflow[crf]'"
    assert found["extra cpu"].state == "error", "no run does without"


def test_doctor_waits_for_nobody(monkeypatch):
    from threading import Event

    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    (late,) = doctor._within("store", lambda: Event().wait(5) or iter(()))
    assert (late.what, late.state) == ("store", "warning")


def test_doctor_leaves_no_trace(call, tmp_path, corpus, vit):
    from corpora import small

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small(corpus, tmp_path / "store", vit)))
    assert call("doctor", str(path))[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    (tmp_path / "store").mkdir()
    assert call("doctor", str(path))[0] == 0
    assert list((tmp_path / "store").iterdir()) == []
    assert validate(small(corpus, tmp_path / "store", vit)).store == str(tmp_path / "store")


def test_status_lists_the_newest_runs_of_many(call, make_config):
    config = make_config()
    store = Store(config.store)
    store.mark()
    recorded = {"dataset": {"root": "x"}, "clusters": {"k": None}, "head": {"method": "stego"}}
    made = [begin_run(store, recorded, {}) for _ in range(looking.NEWEST + 2)]
    out = call("status", "--store", config.store)[1]
    assert [run for run in made if run not in out] == made[:2]
    assert "2 older runs" in out
    assert all(run in call("status", "--store", config.store, "--all")[1] for run in made)
