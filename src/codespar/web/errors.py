"""Every failure of a request as the API's one shape of error, under the status that says what to do about it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from codespar.domain.base import CodesparError
from codespar.forges.base import PullRequestNotFound, RepositoryUnusable
from codespar.store.base import StoreError
from codespar.web.base import ApiError, NoSuchProject, error_body


def handle_errors(app: FastAPI) -> None:
    """Answer with them instead of the framework's own."""
    body = error_body

    @app.exception_handler(ApiError)
    async def api_error(_request: Request, error: ApiError) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return JSONResponse(body(error.code, str(error), error.next_step), error.status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
        match error.status_code:
            case 404 | 405:
                code = "not_found" if error.status_code == 404 else "method_not_allowed"
                told = f"there is no {request.method} {request.url.path[:100]}"
                answer = body(code, told, "the routes are in /openapi.json")
            case 413:
                answer = body("too_large", error.detail, "send less")
            case _:
                answer = body("invalid", error.detail, "the request's schema is in /openapi.json")
        return JSONResponse(answer, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> JSONResponse:
        told = "the server failed at this request"
        return JSONResponse(body("internal", told, "the server's log says why; please report it"), 500)

    @app.exception_handler(NoSuchProject)
    async def no_project(_request: Request, error: NoSuchProject) -> JSONResponse:
        return JSONResponse(body("no_such_project", str(error)), 404)

    @app.exception_handler(PullRequestNotFound)
    async def no_pull(_request: Request, error: PullRequestNotFound) -> JSONResponse:
        return JSONResponse(body("no_such_pull_request", str(error)), 404)

    @app.exception_handler(RepositoryUnusable)
    async def unusable(_request: Request, error: RepositoryUnusable) -> JSONResponse:
        return JSONResponse(body("repository_unusable", str(error)), 422)

    @app.exception_handler(StoreError)
    async def not_kept(_request: Request, error: StoreError) -> JSONResponse:
        """Nothing was committed, so nothing is acknowledged: whoever sent it sends it again."""
        return JSONResponse(body("not_kept", str(error), "send it again"), 503)

    @app.exception_handler(CodesparError)
    async def refused(_request: Request, error: CodesparError) -> JSONResponse:
        return JSONResponse(body("refused", str(error)), 409)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]
        )
        return JSONResponse(body("invalid", problems, "the request's schema is in /openapi.json"), 422)
