"""The viewer's HTTP application: the built page, and JSON about circuits. Only loopback serves it (`server`)."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from sparsecircuits.errors import UserError
from sparsecircuits.viewer.groups import Groups
from sparsecircuits.viewer.guard import Guard
from sparsecircuits.viewer.library import Changed, Library
from sparsecircuits.viewer.picture import page_name, render_html, render_shell
from sparsecircuits.viewer.requests import RunRequest, SteerRequest
from sparsecircuits.viewer.schema import CircuitList, Refusal, Saved, Words
from sparsecircuits.viewer.sent import Sent

STATIC = {"app.js": "text/javascript; charset=utf-8", "app.css": "text/css; charset=utf-8"}
Id = Annotated[str, PathParameter(max_length=200)]
NodeName = Annotated[str, PathParameter(max_length=200)]


def build_app(library: Library, hosts: Iterable[str] = ()) -> Guard:
    """The application around a library of circuits, behind its guard (see `Guard` for `hosts`)."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_page(app)
    _add_circuits(app, library)
    return Guard(app, hosts)


def _json(value: Sent, status: int = 200, afterwards: BackgroundTask | None = None) -> Response:
    return Response(value.to_json(), status_code=status, media_type="application/json", background=afterwards)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    def told(_request: Request, error: UserError) -> Response:
        return _json(Refusal(error=str(error)), 409 if isinstance(error, Changed) else 422)

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return _json(Refusal(error=f"{where}: {first['msg']}"), 422)

    @app.exception_handler(HTTPException)
    def refused(_request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}\n".lower(), status_code=error.status_code)


def _add_page(app: FastAPI) -> None:
    @app.get("/")
    def page() -> Response:
        return HTMLResponse(render_shell())

    def serve(name: str, kind: str) -> None:
        body = files(__package__).joinpath("static", name).read_bytes()

        @app.get(f"/{name}")
        def static() -> Response:
            return Response(body, media_type=kind)

    for name, kind in STATIC.items():
        serve(name, kind)


def _add_circuits(app: FastAPI, library: Library) -> None:
    @app.get("/api/circuits")
    def circuits() -> Response:
        return _json(CircuitList(circuits=library.list()))

    @app.get("/api/circuits/{identifier}")
    def circuit(identifier: Id, quick: bool = False) -> Response:
        afterwards = None if quick else BackgroundTask(library.warm, identifier)
        return _json(library.payload(identifier, quick), afterwards=afterwards)

    @app.get("/api/circuits/{identifier}/nodes/{name}")
    def node(identifier: Id, name: NodeName) -> Response:
        return _json(library.live(identifier).node(name))

    @app.get("/api/circuits/{identifier}/curve")
    def curve(identifier: Id) -> Response:
        return _json(library.live(identifier).curve())

    @app.get("/api/circuits/{identifier}/words")
    def words(identifier: Id) -> Response:
        return _json(Words(nodes=library.live(identifier).words))

    @app.post("/api/circuits/{identifier}/run")
    def run(identifier: Id, request: RunRequest) -> Response:
        return _json(library.live(identifier).run(request))

    @app.post("/api/circuits/{identifier}/loss")
    def loss(identifier: Id, request: RunRequest) -> Response:
        return _json(library.live(identifier).loss(request))

    @app.post("/api/circuits/{identifier}/continued")
    def continued(identifier: Id, request: RunRequest) -> Response:
        return _json(library.live(identifier).continued(request))

    @app.post("/api/circuits/{identifier}/steer")
    def steer(identifier: Id, request: SteerRequest) -> Response:
        return _json(library.bridge_of(identifier).steer(library.live(identifier), request))

    @app.post("/api/circuits/{identifier}/steer/controls")
    def controls(identifier: Id, request: SteerRequest) -> Response:
        return _json(library.bridge_of(identifier).controls(library.live(identifier), request))

    @app.post("/api/circuits/{identifier}/groups")
    def save_groups(identifier: Id, groups: Groups) -> Response:
        return _json(Saved(saved=library.save_groups(identifier, groups).name))

    @app.get("/api/circuits/{identifier}/offline")
    def offline(identifier: Id) -> Response:
        payload = library.offline(identifier)
        name = page_name(payload.title)
        headers = {"Content-Disposition": f'attachment; filename="{name}.html"'}
        return HTMLResponse(render_html(payload), headers=headers)
