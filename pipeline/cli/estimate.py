"""The command `estimate`: what a run would cost on a corpus of any size."""

from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.progress import progress_bars
from pipeline.cli.store import Json, Sets, StoreURL, print_json
from pipeline.terminal import visible


def estimate(
    config: str,
    /,
    *,
    views: float | None = None,
    workers: int | None = None,
    memory_gib: float | None = None,
    price_put: Annotated[float | None, Parameter(name="--price-put")] = None,
    price_get: Annotated[float | None, Parameter(name="--price-get")] = None,
    price_gb_month: Annotated[float | None, Parameter(name="--price-gb-month")] = None,
    set: Sets = None,
    store: StoreURL = None,
    json: Json = False,
) -> int:
    """Say what a run would take on a corpus of any size: time, bytes, requests, money, memory; and what breaks first.

    Runs nothing. dataset.root is a sample, from a hundred images on: its shares of training, predicted and labelled
    images, views per image and bytes per image are scaled up. Run the config on the sample first: the rates are then
    your machine's and your images'. Stages without an artifact in the store take rates that are built in, of a
    ViT-S/14 on a CPU; the column `rate` says which.

    Only features, masks and scores are spread over workers. `memory` is that of the largest process: what a worker
    needs, every worker needs. A stage breaks where its memory passes --memory-gib.

    Checked on up to 96 images: bytes within 5 %, objects exactly, requests of features, masks and scores within a
    tenth. Times are orders of magnitude, memory is a model; neither was checked against large runs.

        stegoflow estimate my.yaml                                  10⁵ to 10⁹ views, one line each
        stegoflow estimate my.yaml --views 1e6 --workers 64         one size, stage by stage

    Parameters
    ----------
    config
        YAML file; `stegoflow init my.yaml` writes one.
    views
        How many views (windows of images that the backbone sees; mirrored ones come on top). Default: 1e5 to 1e9.
    workers
        Worker processes, on one machine or many. Default: as many as the config would use.
    memory_gib
        Memory that one process may have, in GiB. Default: this machine's.
    price_put
        Dollars for 1000 requests that write or list. Default: 0.005 (Amazon S3 Standard, us-east-1, 2025).
    price_get
        Dollars for 1000 requests that read. Default: 0.0004 (the same).
    price_gb_month
        Dollars for keeping 10⁹ bytes for a month. Default: 0.023 (the same).
    """
    from dataclasses import asdict

    from pipeline.config import load
    from pipeline.estimate import Prices
    from pipeline.estimate import estimate as estimate_config

    given = {"put": price_put, "get": price_get, "gb_month": price_gb_month}
    prices = Prices(**{name: price for name, price in given.items() if price is not None})
    with progress_bars() as progress:
        found = estimate_config(
            load(config, set, store),
            [views] if views is not None else None,
            workers=workers,
            memory_gib=memory_gib,
            prices=prices,
            progress=progress,
        )
    if json:
        return print_json({"prices": asdict(prices), "estimates": [asdict(one) for one in found]})
    from rich.console import Console

    from pipeline.cli.tables import estimate_table, estimates_table
    from pipeline.estimate.rates import MACHINE

    console = Console()
    console.print(estimate_table(found[0]) if views is not None else estimates_table(found))
    said: list[str] = []
    for limit in found[-1].breaks:
        print(f"{'then' if said else 'breaks first'}: {limit.stage}, memory, from {limit.from_views:,} views on")
        if limit.advice not in said:
            print(f"    change: {limit.advice}")
        said.append(limit.advice)
    if not said:
        print(f"nothing breaks; {found[-1].longest} takes longest")
    if any(row.rate == "built in" for row in found[0].stages):
        print(f"rates built in: {MACHINE}")
    print(f"prices: ${prices.put} and ${prices.get} for 1000 puts and gets, ${prices.gb_month} for a GB and month")
    changes = "".join(f" --set {change}" for change in set or ())
    if views is None:
        print(visible(f"next: stegoflow estimate {config} --views 1e6{changes}"))
    else:
        print(visible(f"next: stegoflow plan {config}{changes}"))
    return 0
