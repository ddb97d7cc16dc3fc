"""The session in storage_layout.md runs as written."""

import re
import shutil
from pathlib import Path

import numpy as np

DOCUMENT = Path(__file__).parents[1] / "storage_layout.md"


def test_the_session_runs(finished, tmp_path: Path):
    session = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))
    store = shutil.copytree(finished.config.store, tmp_path / "store")
    for record in (store / "runs").iterdir():
        if record.stem != finished.id:  # of other tests
            record.unlink()
    names: dict = {"STORE": str(store)}
    exec(compile(session, str(DOCUMENT), "exec"), names)
    assert names["mask"].dtype == np.uint8
    assert names["mask"].max() < names["run"]["config"]["clusters"]["k"]
    assert set(names["scores"]["scores"]) > {"cluster", "baseline"}
