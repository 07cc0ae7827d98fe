"""Uploaded files as images of a request: what a ``file_id`` names.

OpenAI takes images from files of two purposes: those of ``vision`` are images, and those of ``user_data`` may be one.
"""

from __future__ import annotations

from typing import Final

from api import framework
from api.auth import Caller
from api.openai import conversation
from core import ids
from core.database import Database
from core.settings import Settings
from core.spool import SpooledFile
from jobs.store import files

_PURPOSES: Final = frozenset({"vision", "user_data"})


class ImageFiles:
    """Reads the images in files.

    Args:
        settings: the largest image.
        database: stores files.
    """

    def __init__(self, settings: Settings, *, database: Database) -> None:
        self._max_bytes = settings.max_image_mb * 2**20
        self._database = database

    def of(self, caller: Caller, *, read: bool = True) -> conversation.Files:
        """Return what reads the files of a caller, as content of the current request.

        Without ``read`` it returns empty content for each file that could be read.
        """

        def content_of(file_id: str) -> SpooledFile | None:
            parsed = ids.parse("file", file_id)
            file = parsed and files.get(self._database, parsed, account_id=caller.account_id)
            if not file or file.purpose not in _PURPOSES or file.bytes > self._max_bytes:
                return None
            content = framework.new_file()
            for piece in files.read(self._database, file.id) if read else ():
                content.write(piece)
            return content

        return content_of
