"""Settings of the `sftp` sink and its connection."""

from __future__ import annotations

import base64
import binascii
import re

from pydantic import field_validator, model_validator

from trunkline.core.batchfile import BatchFileSettings
from trunkline.core.http.address import parse_network
from trunkline.core.settings import Duration, Secret, Settings, setting

_ALGORITHM = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+$")


class SftpConnection(Settings):
    """A server, who we are there, and how we know that it is the right one."""

    host: str = setting(
        description="Name or address of the server.", examples=["sftp.example.com"], min_length=1, references=True
    )
    port: int = setting(22, description="Its port.", ge=1, le=65535, references=True)
    user: str = setting(description="The user name.", min_length=1, references=True)
    password: Secret | None = setting(None, description="The user's password.", examples=["${env:SFTP_PASSWORD}"])
    private_key: Secret | None = setting(
        None,
        description="A private key, its content and not its path: OpenSSH or PEM form.",
        examples=["${file:/run/secrets/sftp_key}"],
    )
    passphrase: Secret | None = setting(None, description="What unlocks the private key.")
    host_keys: list[str] = setting(
        description="The server's public keys, at least one: lines as in `/etc/ssh/ssh_host_ed25519_key.pub`, or fingerprints "
        "(`SHA256:…`). A server that shows another key is refused; nothing is trusted at first sight. "
        "`ssh-keyscan` shows them; compare with what the server's owner says.",
        examples=[["SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDk8y5C8x8bYzGkKGM"]],
        min_length=1,
        references=True,
    )
    allow_private: list[str] = setting(
        [],
        description="Hosts or CIDRs that may be reached although they are loopback or private addresses.",
        examples=[["127.0.0.1", "10.0.0.0/8"]],
    )
    connect_timeout: Duration = setting(20, description="Until the connection is open and signed in.")
    keepalive: Duration = setting(
        15, description="Between two signs of life; after three unanswered ones it is lost.", gt=0
    )
    timeout: Duration = setting(300, description="For one file with all its steps.", gt=0)

    @field_validator("host_keys")
    @classmethod
    def _well_formed(cls, keys: list[str]) -> list[str]:
        return [_pin(key) for key in keys]

    @field_validator("allow_private")
    @classmethod
    def _hosts_and_networks(cls, entries: list[str]) -> list[str]:
        for entry in entries:
            parse_network(entry)
        return entries

    @model_validator(mode="after")
    def _can_sign_in(self) -> SftpConnection:
        if self.password is None and self.private_key is None:
            raise ValueError("give `password` or `private_key`")
        return self


def _pin(key: str) -> str:
    """A fingerprint, or `<algorithm> <base64>` without the host that `ssh-keyscan` puts before and the comment after."""
    parts = key.split()
    if len(parts) == 1 and key.startswith("SHA256:"):
        _check_base64(key.removeprefix("SHA256:"), 32, key)
        return key.rstrip("=")
    start = next((index for index, part in enumerate(parts[:2]) if _ALGORITHM.match(part)), None)
    if start is None or len(parts) < start + 2:
        raise ValueError(f"a public key line or a fingerprint SHA256:… is expected, found {key[:40]!r}")
    _check_base64(parts[start + 1], None, key)
    return " ".join(parts[start : start + 2])


def _check_base64(text: str, length: int | None, key: str) -> None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{key[:40]!r} is no public key line and no fingerprint") from error
    if length is not None and len(raw) != length:
        raise ValueError(f"{key[:40]!r} is cut: a SHA256 fingerprint has 43 characters after the colon")


class SftpSinkSettings(BatchFileSettings):
    """Where the files go; their name and form come from the shared settings of file-writing sinks."""

    folder: str = setting(
        ".",
        description="The folder on the server, absolute or relative to the user's home.",
        examples=["/upload/flights"],
        min_length=1,
        references=True,
    )
    create_folder: bool = setting(
        False, description="Whether the folder is made, with its parents, when it is not there."
    )
    temporary_folder: str | None = setting(
        None,
        description="A folder on the same file system for files while they are written. Without it they are written beside the "
        "final ones, under hidden names that begin with a dot and end in `.part`.",
    )
    permissions: str | None = setting(
        None,
        description="The permission bits of a file, octal. Without it the server's own.",
        examples=["0640"],
        pattern=r"^0?[0-7]{3}$",
    )

    @field_validator("folder", "temporary_folder")
    @classmethod
    def _printable(cls, folder: str | None) -> str | None:
        if folder is not None and not folder.isprintable():
            raise ValueError("the folder has a character that has no place in a path")
        return folder
