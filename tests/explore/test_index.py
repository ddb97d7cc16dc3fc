"""The search index in a store: what keeps it, and what lets it go."""

import json
import shutil

from pipeline.artifacts import search
from pipeline.core import gc, runs
from pipeline.core.artifact import Artifact
from pipeline.core.store import Store


def test_the_index_of_a_run_is_kept_as_long_as_the_run(explored, explorer, tmp_path, call):
    store = Store(shutil.copytree(explored.store.folder, tmp_path / "store"))
    name = explorer.service.corpus.indexing.artifact.fingerprint
    kept = Artifact(store, search.STAGE, name)
    status, out, _ = call("gc", "--store", store.url, "--grace", "0s", "--delete", "--json")
    assert status == 0
    assert kept.exists
    assert not [row for row in json.loads(out)["removals"] if "/search/" in row["path"]]
    other = {search.STAGE: search.VERSION + 1}
    assert [row.path for row in gc.collect(store, 0.0, delete=False, companions=other)] == [kept.root]
    for run in runs.runs(store):
        runs.forget(store, run)
    gc.collect(store, 0.0, delete=True, companions={search.STAGE: search.VERSION})
    assert not kept.exists
