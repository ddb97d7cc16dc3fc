"""The search index: what it finds is what all tokens would say, and it is made on from where it was cut short."""

import shutil

import numpy as np
import pytest

from pipeline.api import open_run
from pipeline.artifacts import search as reading
from pipeline.artifacts.planes import Views
from pipeline.artifacts.search import Index, Place, read_part
from pipeline.core.engine import Node, ensure, silent
from pipeline.core.errors import DamageError
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.numerics.compact import basis, compact
from pipeline.stages import search

EXECUTION = Execution(executor="serial", device="cpu")


def node_of(run, **params):
    inputs = {role: run.record["stages"][role] for role in search.STAGE.inputs}
    return Node(search.STAGE, search.SearchParams(**params), inputs)


def make(node, store):
    with open_executor(EXECUTION) as executor:
        return ensure(node, store, execution=EXECUTION, executor=executor, progress=silent)


def read(artifact, prototypes):
    tensors = artifact.read_tensors("basis.safetensors")
    index = Index(tensors["basis"], tensors["center"], prototypes)
    for part in artifact.markers():
        index.add(int(part.split("-")[0]), read_part(artifact, part))
    return index


@pytest.fixture(scope="module")
def kept(finished, tmp_path_factory):
    """The finished run in a store of its own: an index is written to it."""
    store = shutil.copytree(finished.config.store, tmp_path_factory.mktemp("search") / "store")
    return open_run(store, finished.id)


@pytest.fixture(scope="module")
def index(kept):
    node = node_of(kept)
    make(node, kept.store)
    return read(node.artifact(kept.store), len(kept.clusters.vectors))


def exact(run, place):
    """Of every image the largest cosine of one of its centred tokens to that of a place."""
    views, center = Views(run.artifact("features")), run.features.center
    planes = [views.plane(row, lambda tokens: tokens.astype(np.float32)) - center for row in range(10)]
    unit = [plane / np.linalg.norm(plane, axis=-1, keepdims=True) for plane in planes]
    return np.array([(plane @ unit[place.image][place.y, place.x]).max() for plane in unit])


def test_the_most_similar_patches_are_those_of_the_tokens(kept, index):
    for place in (Place(0, 1, 2), Place(7, 3, 0), Place(9, 2, 2)):
        wanted = exact(kept, place)
        found = index.find(*place, 10)
        assert found[0].place == place
        assert [one.place.image for one in found] == np.argsort(-wanted, kind="stable").tolist()
        np.testing.assert_allclose([one.score for one in found], np.sort(wanted)[::-1], atol=0.01)


def test_cells_that_are_left_out_cost_little(index, monkeypatch):
    whole = [[one.place.image for one in index.find(row, 1, 1, 5)] for row in range(10)]
    monkeypatch.setattr(reading, "FEW", 60)
    assert len(index.table._candidates(np.ones(len(index.basis[0]), np.float32))) < 160
    part = [[one.place.image for one in index.find(row, 1, 1, 5)] for row in range(10)]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(whole, part, strict=True)]) > 0.7


def test_every_patch_is_at_its_nearest_prototype(kept, index):
    codes = Views(kept.artifact("features")).plane(3, lambda tokens: kept.clusters.seen(kept.head(tokens)))
    unit = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    cosines = (unit @ kept.clusters.vectors.T).reshape(-1, len(kept.clusters.vectors))
    held = index.images[3]
    assert held["nearest"].tolist() == cosines.argmax(1).tolist()
    two = np.sort(cosines, 1)[:, ::-1]
    np.testing.assert_allclose(held["cosine"], two[:, 0], atol=1e-3)
    np.testing.assert_allclose(held["lead"], two[:, 0] - two[:, 1], atol=1e-3)


def test_typical_and_borderline_patches_are_of_their_prototypes(index):
    table, inside = index.table, np.array([0, 2])
    for found in (table.typical(inside, 6), table.borderline(inside, 6)):
        assert found
        for one in found:
            image = index.images[one.place.image]
            assert image["nearest"][one.place.y * image["shape"][1] + one.place.x] in inside
    leads = [one.score for one in table.borderline(inside, 6)]
    assert leads[0] == min(leads)
    assert table.beside(inside)[inside].sum() == 0


def test_it_goes_on_where_it_was_cut_short(kept, monkeypatch):
    monkeypatch.setattr(search, "PART", 4)
    node = node_of(kept, components=40)
    parts = []
    whole = search.index_part

    def cut_short(job, part):
        if len(parts) == 2:
            raise KeyboardInterrupt
        parts.append(part)
        return whole(job, part)

    monkeypatch.setattr(search, "index_part", cut_short)
    with pytest.raises(KeyboardInterrupt):
        make(node, kept.store)
    monkeypatch.setattr(search, "index_part", whole)
    done = make(node, kept.store)
    assert (done.parts_run, done.parts_total) == (1, 3)
    assert sorted(read(node.artifact(kept.store), 4).images) == list(range(10))
    part = node.artifact(kept.store).file("tokens/00000000-00000004.safetensors")["path"]
    path = kept.store.folder / node.artifact(kept.store).data(part)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(DamageError, match="damaged"):
            read_part(node.artifact(kept.store), "00000000-00000004")
    finally:
        path.write_bytes(data)


def test_compact_vectors_keep_their_cosines():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(500, 30)).astype(np.float32) * np.linspace(2, 0.1, 30, dtype=np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for components, error in ((30, 0.005), (20, 0.06)):
        numbers, scale = compact(vectors, basis(unit, components))
        back = numbers * scale[:, None]
        assert numbers.dtype == np.int8
        assert (np.linalg.norm(back, axis=1) < 1.01).all()
        assert np.abs(back @ back.T - unit @ unit.T).mean() < error
