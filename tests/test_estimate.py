"""The estimate against real runs: one run is measured, and two others, half and twice as large, are foretold."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from corpora import small, write_corpus

from pipeline.cli.tables import duration, size
from pipeline.config import PipelineConfig, validate
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.estimate import Prices, estimate
from pipeline.results import run

SIZES = (24, 48, 96)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vit) -> dict[int, tuple[PipelineConfig, dict]]:
    """Runs on 24, 48 and 96 images, each in a store of its own."""
    folder = tmp_path_factory.mktemp("sizes")
    found = {}
    for count in SIZES:
        root = write_corpus(folder / f"corpus{count}", train=count * 2 // 3, val=count // 3)
        config = validate(small(root, folder / f"store{count}", vit))
        found[count] = config, run(config)
    return found


def test_a_measured_size_foretells_others(runs):
    """Bytes to 5 %, objects exactly, in every stage."""
    config, _ = runs[48]
    for count, found in zip(SIZES, estimate(config, list(SIZES)), strict=True):
        other, result = runs[count]
        store = Store(other.store)
        real = {row.stage: row.fingerprint for row in result.stages}
        assert [row.stage for row in found.stages] == list(real)
        for row in found.stages:
            entries = list(store.entries(f"artifacts/{row.stage}/{real[row.stage]}"))
            assert row.objects == len(entries), f"{row.stage} at {count}"
            assert row.bytes_written == pytest.approx(sum(entry.size for entry in entries), rel=0.05), row.stage
            assert row.rate == "same recipe"


def test_requests_are_those_that_a_run_makes(runs, tmp_path, monkeypatch):
    """Gets to a tenth in the stages with parts; puts but for ten, of metadata that Zarr writes again."""
    import obstore

    from pipeline.session import Session

    counts: dict[tuple[str, str], int] = {}
    at = [""]
    for name in ("get", "get_async", "get_range_async", "get_ranges_async", "head", "head_async", "put", "put_async"):
        real = getattr(obstore, name, None)
        if real is None:
            continue

        kind = "puts" if name.startswith("put") else "gets"

        def counted(*args, real=real, kind=kind, **options):
            counts[at[0], kind] = counts.get((at[0], kind), 0) + 1
            return real(*args, **options)

        monkeypatch.setattr(obstore, name, counted)
    ensure = Session.ensure

    def told(self, node):
        at[0] = node.stage.name
        return ensure(self, node)

    monkeypatch.setattr(Session, "ensure", told)
    config, _ = runs[96]
    run(config.model_copy(update={"store": str(tmp_path / "store")}))
    found = {row.stage: row for row in estimate(runs[48][0], [96])[0].stages}
    for name in ("features", "masks", "scores"):
        assert found[name].gets == pytest.approx(counts[name, "gets"], rel=0.1), name
        assert found[name].objects == pytest.approx(counts[name, "puts"], abs=10), name


def test_without_artifacts_rates_are_built_in(runs, tmp_path):
    config = runs[24][0].model_copy(update={"store": str(tmp_path / "empty")})
    found = estimate(config)
    assert [one.views for one in found] == [10**5, 10**6, 10**7, 10**8, 10**9]
    assert {row.rate for one in found for row in one.stages} == {"built in"}
    for smaller, larger in pairwise(found):
        for field in ("seconds", "bytes_written", "objects", "gets"):
            assert smaller.total(field) < larger.total(field)
        assert smaller.memory < larger.memory


def test_other_settings_are_told(runs):
    config = runs[24][0].model_copy(update={"clusters": runs[24][0].clusters.model_copy(update={"k": 3})})
    rates = {row.stage: row.rate for row in estimate(config, [1000])[0].stages}
    assert (rates["features"], rates["clusters"], rates["masks"]) == ("same recipe", "other settings", "same recipe")
    without = config.model_copy(update={"masks": config.masks.model_copy(update={"crf": False})})
    rates = {row.stage: row.rate for row in estimate(without, [1000])[0].stages}
    assert rates["masks"] == "built in", "seconds with CRF say nothing of masks without"


def test_workers_help_three_stages_alone(runs):
    (one,), (eight,) = (estimate(runs[48][0], [1e5], workers=workers) for workers in (1, 8))
    for slow, fast in zip(one.stages, eight.stages, strict=True):
        assert slow.seconds_one == fast.seconds_one == slow.seconds
        assert fast.spread == (fast.stage in ("features", "masks", "scores"))
        assert (fast.seconds < slow.seconds) == fast.spread
    masks = next(row for row in eight.stages if row.stage == "masks")
    assert masks.seconds == pytest.approx(masks.seconds_one / 8, rel=0.01)


def test_what_breaks_first_moves_with_the_memory(runs):
    config, _ = runs[48]

    def limits(memory: float) -> dict:
        breaks = estimate(config, [1e12], memory_gib=memory)[0].breaks
        assert [one.from_views for one in breaks] == sorted(one.from_views for one in breaks)
        return {one.stage: one.from_views for one in breaks}

    little, much = limits(8), limits(80)
    assert set(little) == set(much)
    assert {"features", "masks", "scores"} <= set(little)
    for stage, views in little.items():
        assert 8 * views < much[stage] < 25 * views
    first = estimate(config, [1e5], memory_gib=8)[0].breaks
    assert all(one.from_views <= 1e5 for one in first)
    assert all(one.advice for one in first)


def test_money_is_requests_and_bytes(runs):
    found = estimate(runs[48][0], [1e5], prices=Prices(put=1000, get=0, gb_month=1))[0]
    assert found.total("cost") == pytest.approx(found.total("puts"), rel=0.01)
    assert found.total("cost_month") == pytest.approx(found.total("bytes_written") / 1e9, rel=0.01)


def test_the_command(runs, call, tmp_path, vit):
    path = tmp_path / "config.yaml"
    config = runs[48][0]
    path.write_text(yaml.safe_dump(small(Path(config.dataset.root), config.store, vit)))
    status, out, err = call("estimate", str(path))
    assert status == 0, err
    for word in ("1e5", "1e9", "breaks first", "sharded FAISS", "hierarchical k-means", "trained on a sample", "next:"):
        assert word in out
    status, out, _ = call("estimate", str(path), "--views", "1000", "--workers", "4", "--price-put", "1", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["prices"] == {"put": 1, "get": 0.0004, "gb_month": 0.023}
    (one,) = facts["estimates"]
    assert (one["views"], one["workers"]) == (1000, 4)
    assert call("estimate", str(path), "--views", "1000")[0] == 0
    for wrong in (("--views", "0"), ("--workers", "-1"), ("--memory-gib", "0"), ("--views", "nan")):
        status, _, err = call("estimate", str(path), *wrong)
        assert status == 2, wrong
        assert "next:" in err
        assert wrong[0] in err


def test_an_unusable_size_names_the_option(runs):
    with pytest.raises(ConfigError, match="--views"):
        estimate(runs[48][0], [-1])


def test_words_for_times_and_sizes():
    assert [duration(s) for s in (1, 600, 7200, 1e6, 1e9)] == ["1 s", "10.0 min", "2.0 h", "11.6 days", "32 years"]
    assert [size(b) for b in (500, 2e6, 3e12, 4e15)] == ["0.5 kB", "2.0 MB", "3.0 TB", "4.0 PB"]
