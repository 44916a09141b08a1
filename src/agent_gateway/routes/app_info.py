"""The app that a key opens: its description and its features."""

from fastapi import APIRouter

from agent_gateway.apps.config import FileUploadConfig
from agent_gateway.filetypes import extensions_of
from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.schemas.app_info import (
    AppInfo,
    AppMeta,
    AppParameters,
    AppSite,
    FileUpload,
    ImageUpload,
    SystemParameters,
    Toggle,
    VoiceToggle,
)

router = APIRouter(tags=["app"], responses=error_responses(401, 503))


@router.get("/info", operation_id="getAppInfo", summary="Describe the app", response_description="The app.")
async def get_info(app: AppDep) -> AppInfo:
    """Name, description and mode of the app this key opens."""
    config = app.config
    return AppInfo(
        name=config.name,
        description=config.description,
        tags=config.tags,
        mode=config.mode,
        author_name=config.author_name,
    )


@router.get(
    "/meta",
    operation_id="getAppMeta",
    summary="Describe the app's tools",
    response_description="The icons of its tools.",
)
async def get_meta(app: AppDep) -> AppMeta:
    """Icons of the app's tools. The tools are the backend's, which names no icons."""
    return AppMeta(tool_icons={})


@router.get(
    "/site",
    operation_id="getAppSite",
    summary="Describe the app's chat page",
    response_description="The page.",
)
async def get_site(app: AppDep) -> AppSite:
    """Title, icon, colours and legal texts for a page that shows this app."""
    config, site = app.config, app.config.site
    return AppSite(
        title=site.title or config.name,
        chat_color_theme=site.chat_color_theme,
        chat_color_theme_inverted=site.chat_color_theme_inverted,
        icon_type=site.icon_type,
        icon=site.icon,
        icon_background=site.icon_background,
        icon_url=site.icon_url,
        description=site.description or config.description,
        copyright=site.copyright,
        privacy_policy=site.privacy_policy,
        custom_disclaimer=site.custom_disclaimer,
        input_placeholder=site.input_placeholder,
        default_language=site.default_language,
        show_workflow_steps=site.show_workflow_steps,
        use_icon_as_answer_icon=site.use_icon_as_answer_icon,
    )


@router.get(
    "/parameters",
    operation_id="getAppParameters",
    summary="Describe the app's features",
    response_description="The app's features.",
)
async def get_parameters(app: AppDep, state: StateDep) -> AppParameters:
    """The opening statement, the input form, and which features are on."""
    config = app.config.model_dump(mode="json")
    return AppParameters(
        opening_statement=config["opening_statement"],
        suggested_questions=config["suggested_questions"],
        suggested_questions_after_answer=Toggle(enabled=app.config.suggested_questions_after_answer.enabled),
        speech_to_text=Toggle(enabled=False),
        text_to_speech=VoiceToggle(enabled=False, voice="", language="", autoPlay="disabled"),
        retriever_resource=Toggle(enabled=False),
        annotation_reply=Toggle(enabled=False),
        more_like_this=Toggle(enabled=False),
        sensitive_word_avoidance=Toggle(enabled=False),
        user_input_form=config["user_input_form"],
        file_upload=_file_upload(app.config.file_upload),
        system_parameters=SystemParameters(
            file_size_limit=state.file_sizes.document,
            image_file_size_limit=state.file_sizes.image,
            audio_file_size_limit=state.file_sizes.audio,
            video_file_size_limit=state.file_sizes.video,
            workflow_file_upload_limit=app.config.file_upload.number_limits,
        ),
    )


def _file_upload(config: FileUploadConfig) -> FileUpload:
    known = extensions_of(config.allowed_file_types)
    own = config.allowed_file_extensions if "custom" in config.allowed_file_types else []
    methods = config.allowed_file_upload_methods
    return FileUpload(
        enabled=config.enabled,
        allowed_file_types=config.allowed_file_types,
        allowed_file_extensions=[*known, *own],
        allowed_file_upload_methods=methods,
        number_limits=config.number_limits,
        image=ImageUpload(
            enabled=config.enabled and "image" in config.allowed_file_types,
            number_limits=config.number_limits,
            transfer_methods=methods,
        ),
    )
