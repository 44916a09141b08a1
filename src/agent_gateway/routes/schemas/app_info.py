"""Public JSON of what an app says of itself."""

from typing import Literal

from pydantic import BaseModel, Field

from agent_gateway.apps.config import AppMode, UploadMethod
from agent_gateway.filetypes import FileType


class AppInfo(BaseModel):
    """What an app says of itself."""

    name: str
    description: str
    tags: list[str]
    mode: AppMode = Field(description="Which events its streams have.")
    author_name: str


class AppMeta(BaseModel):
    """What is known of an app's tools."""

    tool_icons: dict[str, object]


class AppSite(BaseModel):
    """How a page that shows the app looks."""

    title: str
    chat_color_theme: str
    chat_color_theme_inverted: bool
    icon_type: Literal["emoji", "image", "link"]
    icon: str
    icon_background: str
    icon_url: str | None
    description: str
    copyright: str
    privacy_policy: str
    custom_disclaimer: str
    input_placeholder: str
    default_language: str
    show_workflow_steps: bool
    use_icon_as_answer_icon: bool


class Toggle(BaseModel):
    """A feature that is on or off."""

    enabled: bool


class VoiceToggle(Toggle):
    """Text to speech."""

    voice: str
    language: str
    autoPlay: str  # noqa: N815 - the published contract's name


class ImageUpload(Toggle):
    """The same of images alone, for older clients."""

    number_limits: int
    transfer_methods: list[UploadMethod]


class FileUpload(Toggle):
    """Which files may come with a query."""

    allowed_file_types: list[FileType]
    allowed_file_extensions: list[str] = Field(description="Without the dot.")
    allowed_file_upload_methods: list[UploadMethod]
    number_limits: int = Field(description="The most files of one message.")
    image: ImageUpload


class SystemParameters(BaseModel):
    """Size limits in MB."""

    file_size_limit: int
    image_file_size_limit: int
    audio_file_size_limit: int
    video_file_size_limit: int
    workflow_file_upload_limit: int


class AppParameters(BaseModel):
    """What a front end needs to draw the app."""

    opening_statement: str
    suggested_questions: list[str]
    suggested_questions_after_answer: Toggle
    speech_to_text: Toggle
    text_to_speech: VoiceToggle
    retriever_resource: Toggle
    annotation_reply: Toggle
    more_like_this: Toggle
    sensitive_word_avoidance: Toggle
    user_input_form: list[dict[str, object]]
    file_upload: FileUpload
    system_parameters: SystemParameters
