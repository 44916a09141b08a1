"""Speech: no app has it. Every request is answered with that."""

from typing import Final, NoReturn

from fastapi import APIRouter, Response

from agent_gateway.errors import AppUnavailable
from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.schemas.audio import SpeechBody, Transcript

router = APIRouter(tags=["app"], responses=error_responses(400, 401, 503))

# The bodies are described but not read: the feature is off, whatever they hold.
RECORDING: Final[dict[str, object]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "user"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "contentMediaType": "application/octet-stream",
                            "description": "The recording.",
                        },
                        "user": {
                            "type": "string",
                            "description": "The client's own identifier of its end user.",
                        },
                    },
                }
            }
        },
    }
}
SPEECH: Final[dict[str, object]] = {
    "audio/mpeg": {"schema": {"type": "string", "contentMediaType": "audio/mpeg"}}
}
TEXT: Final[dict[str, object]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SpeechBody.model_json_schema()}},
    }
}


@router.post(
    "/audio-to-text",
    operation_id="audioToText",
    summary="Turn speech into text",
    response_description="The text.",
    response_model=Transcript,
    openapi_extra=RECORDING,
)
async def post_audio_to_text(app: AppDep) -> NoReturn:
    """Off in every app: see `speech_to_text` of `GET /parameters`."""
    raise AppUnavailable("Speech to text is not enabled.")


@router.post(
    "/text-to-audio",
    operation_id="textToAudio",
    summary="Turn text into speech",
    response_class=Response,
    responses={200: {"description": "The speech.", "content": SPEECH}},
    openapi_extra=TEXT,
)
async def post_text_to_audio(app: AppDep) -> Response:
    """Off in every app: see `text_to_speech` of `GET /parameters`."""
    raise AppUnavailable("Text to speech is not enabled.")
