"""Public JSON of speech."""

from pydantic import BaseModel, Field

from agent_gateway.routes.schemas.base import Body, User


class SpeechBody(Body):
    """Body of POST /text-to-audio: a text, or the message whose answer is to be spoken."""

    message_id: str | None = Field(None, description="UUID of the message.")
    text: str | None = Field(None, description="What to say, without a message.")
    user: User


class Transcript(BaseModel):
    """What was said."""

    text: str
