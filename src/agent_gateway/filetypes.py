"""Determines the kind and the media type of a file from its name, and a name that is safe to show.

The content of a file is never read. What a client says about a file counts only as far as the table below
knows it.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

FileType = Literal["image", "document", "audio", "video", "custom"]
"""The kinds of the published contract; `custom` is any other kind."""

OCTETS: Final = "application/octet-stream"
PDF: Final = "application/pdf"
MAX_NAME: Final = 200
"""Characters of a file's name, its extension included."""
MB: Final = 1024 * 1024

_TEXTS: Final = frozenset({"application/json", "application/xml", "message/rfc822", "application/yaml"})
"""Media types of texts whose names do not show it."""
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_KNOWN: Final[dict[FileType, dict[str, str]]] = {
    "image": {
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "png": "image/png",
        "webp": "image/webp",
        "gif": "image/gif",
        "svg": "image/svg+xml",
    },
    "document": {
        "txt": "text/plain",
        "md": "text/markdown",
        "markdown": "text/markdown",
        "mdx": "text/markdown",
        "csv": "text/csv",
        "json": "application/json",
        "pdf": PDF,
        "html": "text/html",
        "htm": "text/html",
        "xml": "application/xml",
        "doc": "application/msword",
        "docx": f"{_OFFICE}.wordprocessingml.document",
        "xls": "application/vnd.ms-excel",
        "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
        "ppt": "application/vnd.ms-powerpoint",
        "pptx": f"{_OFFICE}.presentationml.presentation",
        "eml": "message/rfc822",
        "msg": "application/vnd.ms-outlook",
        "epub": "application/epub+zip",
    },
    "audio": {
        "mp3": "audio/mpeg",
        "mpga": "audio/mpeg",
        "m4a": "audio/mp4",
        "wav": "audio/wav",
        "amr": "audio/amr",
        "ogg": "audio/ogg",
    },
    "video": {
        "mp4": "video/mp4",
        "mov": "video/quicktime",
        "mpeg": "video/mpeg",
        "webm": "video/webm",
    },
}
_BY_EXTENSION: Final = {
    extension: (kind, mime_type)
    for kind, extensions in _KNOWN.items()
    for extension, mime_type in extensions.items()
}
_EXTENSION_OF: Final = {
    # The first extension of a media type is its usual one.
    mime_type: extension
    for extension, (_, mime_type) in reversed(_BY_EXTENSION.items())
}
_ACTIVE: Final = frozenset({"text/html", "image/svg+xml", "application/xml"})
"""Media types of the table that can hold scripts."""
_INLINE: Final = frozenset(
    mime_type
    for kind, mime_type in _BY_EXTENSION.values()
    if kind != "document" or mime_type in ("text/plain", PDF)
)
"""Media types that a browser may show in place, unless they can hold scripts."""

_EXTENSION: Final = re.compile(r"[a-z0-9]{1,16}")
_MIME_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,126}")


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The largest size of a file of each kind, in megabytes."""

    image: int
    document: int
    audio: int
    video: int

    def most(self, kind: FileType) -> int:
        """The largest size of one kind in bytes; a kind that is none of the four counts as a document."""
        return MB * {"image": self.image, "audio": self.audio, "video": self.video}.get(kind, self.document)


@dataclass(frozen=True, slots=True)
class Description:
    """The description of a file, from its name."""

    name: str
    extension: str
    """Lower case, without the dot; empty when there is none."""
    type: FileType
    mime_type: str


def extensions_of(kinds: list[FileType]) -> list[str]:
    """The extensions of files of these kinds."""
    return [extension for kind in kinds for extension in _KNOWN.get(kind, {})]


def describe(name: str, content_type: str = "") -> Description | None:
    """The description of a file that a client calls `name`; None when nothing of that name can be shown.

    The content type of the client decides only for a name without an extension, such as the `blob` of a
    browser.
    """
    name = clean_name(name)
    if not name:
        return None
    extension = _extension(name)
    if not extension and (usual := _EXTENSION_OF.get(_mime_type(content_type))):
        name, extension = f"{name[: MAX_NAME - 1 - len(usual)]}.{usual}", usual
    kind, mime_type = _BY_EXTENSION.get(extension, ("custom", OCTETS))
    return Description(name, extension, kind, mime_type)


def describe_artifact(number: int, media_type: str, extension: str = "") -> Description:
    """The description of a file that an agent made: it has a media type and a number, but no name.

    The extension that the agent gave decides only when the media type is unknown.
    """
    mime_type = _mime_type(media_type)
    given = _extension(f"x.{extension.removeprefix('.')}")
    if mime_type == OCTETS and given in _BY_EXTENSION:
        mime_type = _BY_EXTENSION[given][1]
    extension = _EXTENSION_OF.get(mime_type) or given or "bin"
    kind = _BY_EXTENSION.get(extension, (_family(mime_type), mime_type))[0]
    stem = kind if kind != "custom" else "file"
    return Description(f"{stem}-{number}.{extension}", extension, kind, mime_type)


def clean_name(name: str) -> str:
    """The last part of a path, without invisible characters and direction marks; may be empty."""
    last = re.split(r"[/\\]", name)[-1]
    # The categories of controls, direction marks and halves of surrogate pairs all begin with C.
    seen = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in last)
    seen = " ".join(seen.split()).strip(". ")
    if len(seen) <= MAX_NAME:
        return seen
    if extension := _extension(seen):
        return f"{seen[: MAX_NAME - 1 - len(extension)]}.{extension}"
    return seen[:MAX_NAME].rstrip(". ")


def is_text(mime_type: str) -> bool:
    """Whether files of this media type are texts, by the type alone."""
    return mime_type.startswith("text/") or mime_type.endswith(("+xml", "+json")) or mime_type in _TEXTS


def served_as(mime_type: str) -> str:
    """The media type under which a file is served: never one that a browser would run."""
    known = mime_type in _EXTENSION_OF and mime_type not in _ACTIVE
    return mime_type if known else OCTETS


def may_be_inline(mime_type: str) -> bool:
    """Whether a browser may show the file in place; other files are only saved."""
    return mime_type in _INLINE and mime_type not in _ACTIVE


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    extension = extension.lower()
    return extension if dot and stem and _EXTENSION.fullmatch(extension) else ""


def _mime_type(text: str) -> str:
    mime_type = text.partition(";")[0].strip().lower()
    return mime_type if _MIME_TYPE.fullmatch(mime_type) else OCTETS


def _family(mime_type: str) -> FileType:
    match mime_type.partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
        case _:
            return "custom"
