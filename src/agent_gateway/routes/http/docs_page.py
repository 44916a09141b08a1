"""The page that shows the OpenAPI document. It loads nothing from other hosts.

Its URLs are relative to the page, so that a path in front of the gateway is kept.
"""

from typing import Final

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS: Final = "docs/assets"
ICON: Final = "favicon.ico"


def install(app: FastAPI) -> None:
    """Add the page and the files that it loads."""
    app.add_route("/docs", _docs, include_in_schema=False)
    app.mount(f"/{ASSETS}", StaticFiles(packages=[("fastapi_offline", "static")]))


async def _docs(_request: Request) -> HTMLResponse:
    """Swagger UI, from the files of the package `fastapi-offline`."""
    page = get_swagger_ui_html(
        title="Agent Gateway",
        openapi_url="openapi.json",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=ICON,
        # A validator on another host would learn who reads the page, and would read the document.
        swagger_ui_parameters={"validatorUrl": None},
    )
    # A page of another port could lay it under the pointer of somebody who is signed in.
    page.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
    return page
