"""Settings of the `file` sink."""

from __future__ import annotations

from trunkline.core.batchfile import BatchFileSettings
from trunkline.core.settings import setting


class FileSinkSettings(BatchFileSettings):
    """Where the files go; their name and form come from the shared settings of file-writing sinks."""

    folder: str = setting(
        description="The folder for the files, absolute or relative to where the worker was started. Made when it is not there.",
        examples=["out/flights"],
        min_length=1,
        references=True,
    )
