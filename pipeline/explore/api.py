"""The explorer over HTTP: its files, and what its page asks for. `security.Guard` stands before all of it."""

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.core.errors import NotFoundError, StegoflowError, render
from pipeline.explore.corpus import COMPONENTS, STATIC
from pipeline.explore.packing import packed_maps, packed_tokens
from pipeline.explore.service import Service
from pipeline.images.pixels import DecodeError

TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
MOST_MAPS = 400
"""Of a request."""


class Find(BaseModel):
    model_config = ConfigDict(extra="forbid")
    row: int = Field(ge=0)
    y: int = Field(ge=0)
    x: int = Field(ge=0)
    count: int = Field(50, ge=1, le=200)


class Nodes(BaseModel):
    model_config = ConfigDict(extra="forbid")
    nodes: list[int]
    count: int = Field(12, ge=1, le=60)


class Edit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: int = Field(ge=0)
    annotation: dict[str, Any]


class View(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int = Field(ge=1)
    open: list[int] = Field(max_length=100_000)


class Classify(BaseModel):
    model_config = ConfigDict(extra="forbid")
    annotation: dict[str, Any]
    rows: list[int] = Field(max_length=MOST_MAPS)
    fine: bool = False
    tile: tuple[int, int, int] | None = None


class Propose(BaseModel):
    model_config = ConfigDict(extra="forbid")
    annotation: dict[str, Any]


class Export(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: str
    splits: list[str] = []
    cut: int = Field(ge=1)


def application(service: Service) -> Starlette:
    """The application of one run."""

    def page(request: Request) -> Response:
        return _file("index.html")

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if Path(name).suffix not in TYPES or not (STATIC / name).is_file():
            return PlainTextResponse("there is no such file", 404)
        return _file(name)

    def facts(request: Request) -> Response:
        return JSONResponse(service.facts())

    def progress(request: Request) -> Response:
        return JSONResponse(service.progress())

    def images(request: Request) -> Response:
        ask = request.query_params
        return JSONResponse(service.listing(_int(ask, "start"), _int(ask, "count", 200), ask.get("query", "")[:200]))

    def picture(request: Request) -> Response:
        ask, row = request.query_params, request.path_params["row"]
        window = None
        if "h" in ask:
            window = tuple(_float(ask, name) for name in ("y", "x", "h", "w"))
        data = service.corpus.picture(row, window, max(16, _int(ask, "side", 160)))  # type: ignore[arg-type]
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def patch(request: Request) -> Response:
        ask, row = request.query_params, request.path_params["row"]
        share, side = min(1.0, max(0.0, _float(ask, "share", 0.25))), min(256, max(16, _int(ask, "side", 96)))
        data = service.corpus.patch(row, _int(ask, "y"), _int(ask, "x"), share, side)
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def tokens(request: Request) -> Response:
        return _binary(packed_tokens(service.corpus.plane(request.path_params["row"]), COMPONENTS))

    def planes(request: Request) -> Response:
        rows = [int(row) for row in request.query_params.get("rows", "").split(",") if row.isdigit()][:MOST_MAPS]
        return _binary(packed_maps([service.corpus.nearest(row) for row in rows]))

    def prototype_map(request: Request) -> Response:
        ask, row = request.query_params, request.path_params["row"]
        if "level" not in ask:
            return _binary(packed_maps([service.corpus.prototype_map(row)]))
        tile = _int(ask, "level"), _int(ask, "down"), _int(ask, "across")
        return _binary(packed_maps([service.corpus.prototype_tile(row, tile)]))

    def annotation(request: Request) -> Response:
        return JSONResponse(service.annotation())

    def find(ask: Find) -> Any:
        return {"found": service.find(ask.row, ask.y, ask.x, ask.count)}

    def groups(ask: Nodes) -> Any:
        return service.groups(ask.nodes, ask.count)

    def group(ask: Nodes) -> Any:
        return service.group(ask.nodes, ask.count)

    def edit(ask: Edit) -> Any:
        return service.save(json.dumps(ask.annotation), ask.after)

    def classify(ask: Classify) -> Any:
        maps = service.classify(json.dumps(ask.annotation), ask.rows, fine=ask.fine, tile=ask.tile)
        return _binary(packed_maps(maps))

    def propose(ask: Propose) -> Any:
        return {"place": service.propose(json.dumps(ask.annotation))}

    def shares(ask: Propose) -> Any:
        return service.shares(json.dumps(ask.annotation))

    def view(ask: View) -> Any:
        service.keep_view(ask.n, ask.open)
        return {}

    def export(ask: Export) -> Any:
        return service.export(ask.format, ask.splits, ask.cut)

    def archive(request: Request) -> Response:
        return _zip(service)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", static),
            *(
                Route(f"/api/{path}", _answered(handler))
                for path, handler in (
                    ("run", facts),
                    ("progress", progress),
                    ("images", images),
                    ("picture/{row:int}", picture),
                    ("patch/{row:int}", patch),
                    ("tokens/{row:int}", tokens),
                    ("planes", planes),
                    ("map/{row:int}", prototype_map),
                    ("annotation", annotation),
                    ("export.zip", archive),
                )
            ),
            *(
                Route(f"/api/{path}", _posted(handler, model), methods=["POST"])
                for path, handler, model in (
                    ("find", find, Find),
                    ("groups", groups, Nodes),
                    ("group", group, Nodes),
                    ("annotation", edit, Edit),
                    ("classify", classify, Classify),
                    ("next", propose, Propose),
                    ("shares", shares, Propose),
                    ("view", view, View),
                    ("export", export, Export),
                )
            ),
        ]
    )


def _answered(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """A handler whose errors are JSON."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except (StegoflowError, DecodeError, ValueError, KeyError) as error:
            return failure(error)

    return answer


def _posted(handler: Callable[[Any], Any], model: type[BaseModel]) -> Any:
    """A handler of a JSON body."""

    async def answer(request: Request) -> Response:
        try:
            body = await request.body()
            found = await run_in_threadpool(handler, model.model_validate_json(body))
            return found if isinstance(found, Response) else JSONResponse(found)
        except (StegoflowError, DecodeError, ValueError, KeyError) as error:
            return failure(error)

    return answer


def failure(error: Exception) -> Response:
    """An error as the page shows it."""
    if isinstance(error, ValidationError):
        text = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return JSONResponse({"error": text, "next": ""}, 400)
    if isinstance(error, StegoflowError):
        status = 404 if isinstance(error, NotFoundError) else 400
        return JSONResponse({"error": error.message, "next": render(error.next)}, status)
    return JSONResponse({"error": str(error), "next": ""}, 404 if isinstance(error, DecodeError) else 400)


def _file(name: str) -> Response:
    data = (STATIC / name).read_bytes()
    kind = TYPES[Path(name).suffix] + "; charset=utf-8"
    return Response(data, headers={"content-type": kind, "cache-control": "no-cache"})


def _binary(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream", headers={"cache-control": "no-store"})


def _zip(service: Service) -> Response:
    """The files of the last export."""
    state = service.exports.state()
    if not state or not state["finished"] or state["error"]:
        raise NotFoundError("there is no finished export")
    out, sink = Path(state["out"]), tempfile.TemporaryFile()  # noqa: SIM115 (open while it is sent)
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(out.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(out).as_posix())
    size = sink.tell()
    sink.seek(0)
    blocks = iter(lambda: sink.read(1 << 20), b"")
    named = {"content-disposition": f'attachment; filename="{out.name}.zip"', "content-length": str(size)}
    return StreamingResponse(blocks, media_type="application/zip", headers=named, background=BackgroundTask(sink.close))


def _int(ask: Any, name: str, default: int = 0) -> int:
    return int(ask.get(name, default))


def _float(ask: Any, name: str, default: float = 0.0) -> float:
    found = float(ask.get(name, default))
    if not abs(found) < 1e9:
        raise ValueError(f"{name}: {found} is no place in an image")
    return found
