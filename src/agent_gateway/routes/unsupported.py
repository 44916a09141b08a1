"""Routes of the published API for features that no app here has. They answer with an error that says so.

They are not in the OpenAPI document: a generated client does not need them (docs/api.md lists them).
"""

from typing import Final, Literal

from fastapi import APIRouter

from agent_gateway.domain.ids import new_id
from agent_gateway.errors import AppUnavailable, NotFound, NotSupported, NotWorkflowApp
from agent_gateway.routes.dependencies.auth import AppDep

router = APIRouter(include_in_schema=False)

EVERY_METHOD: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@router.get("/apps/annotations")
async def get_annotations(app: AppDep, page: int = 1, limit: int = 20) -> dict[str, object]:
    """No app has annotations; clients list them when they start."""
    return {"data": [], "has_more": False, "limit": limit, "total": 0, "page": page}


@router.post("/apps/annotations")
async def post_annotation(app: AppDep) -> None:
    """Nothing can be annotated."""
    raise AppUnavailable("Annotations are not enabled.")


@router.put("/apps/annotations/{annotation_id}")
@router.delete("/apps/annotations/{annotation_id}")
async def change_annotation(annotation_id: str, app: AppDep) -> None:
    """None exists."""
    raise NotFound("Annotation Not Exists.")


@router.post("/apps/annotation-reply/{action}")
async def post_annotation_reply(action: Literal["enable", "disable"], app: AppDep) -> dict[str, object]:
    """To switch it off is done at once, since it is off."""
    if action == "enable":
        raise AppUnavailable("Annotations are not enabled.")
    return {"job_id": new_id(), "job_status": "completed"}


@router.get("/apps/annotation-reply/{action}/status/{job_id}")
async def get_annotation_reply(
    action: Literal["enable", "disable"], job_id: str, app: AppDep
) -> dict[str, object]:
    """How far a job is that switches it off: done. Others do not exist."""
    if action == "enable":
        raise NotFound("Job Not Exists.")
    return {"job_id": job_id, "job_status": "completed", "error_msg": ""}


@router.api_route("/completion-messages", methods=EVERY_METHOD)
@router.api_route("/completion-messages/{rest:path}", methods=EVERY_METHOD)
async def completion(app: AppDep) -> None:
    """For apps that complete a text."""
    raise AppUnavailable("This is a chat app: post to /chat-messages.")


@router.api_route("/workflows/{rest:path}", methods=EVERY_METHOD)
async def workflows(app: AppDep) -> None:
    """For apps that are workflows."""
    raise NotWorkflowApp("This is a chat app: post to /chat-messages.")


@router.api_route("/datasets", methods=EVERY_METHOD)
@router.api_route("/datasets/{rest:path}", methods=EVERY_METHOD)
@router.api_route("/workspaces/{rest:path}", methods=EVERY_METHOD)
async def knowledge(app: AppDep) -> None:
    """For knowledge bases, and the models that read them."""
    raise NotSupported("This service has no knowledge bases: they belong to the agent backend.")
