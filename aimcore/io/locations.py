"""Files and folders by path or URL: the only module that uses fsspec.

A recipe can come from an untrusted source, and some of fsspec's file systems do more than fetch bytes:
``reference://`` renders templates, ``dask://`` runs code elsewhere, and ``a::b`` chains any of them. Therefore a URL
may only use one of :data:`PROTOCOLS`, or name a member of an archive there (:data:`ARCHIVES`).
``AIMCORE_ALLOW_PROTOCOLS`` adds others. It is an environment variable, because a recipe must not be able to set it.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aimcore.contracts.errors import LocationError, Problem
from aimcore.contracts.messages import shown

ALLOW = "AIMCORE_ALLOW_PROTOCOLS"
"""Environment variable with additional protocols of fsspec that URLs may use, separated by commas."""

_LOCAL_PROTOCOLS = frozenset(("file", "local", "memory"))
_OBJECT_STORES = ("abfs", "az", "gcs", "gs", "hf", "oci", "oss", "s3", "s3a")
_SERVERS = ("ftp", "hdfs", "http", "https", "sftp", "ssh", "webdav", "webhdfs")
PROTOCOLS = frozenset(("file", "local", "memory", *_OBJECT_STORES, *_SERVERS))
"""Protocols that URLs may use: plain stores, which only return stored bytes."""

_PACKAGES = {
    "abfs": "adlfs", "az": "adlfs", "gcs": "gcsfs", "gs": "gcsfs", "hdfs": "pyarrow", "hf": "'aimcore[hub]'",
    "http": "'aimcore[http]'", "https": "'aimcore[http]'", "oci": "ocifs", "oss": "ossfs", "s3": "s3fs", "s3a": "s3fs",
    "sftp": "paramiko", "ssh": "paramiko", "webdav": "webdav4",
}  # fmt: skip
"""What pip installs for a protocol that fsspec has no file system of its own for."""

_ERRORS_OF_STORES = (
    ("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"), ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"), ("gcsfs.retry", "HttpError"), ("paramiko.ssh_exception", "SSHException"),
)  # fmt: skip
"""Modules and exceptions of the libraries of remote file systems: failures of a network that are no ``OSError``."""

ARCHIVES = frozenset(("tar", "zip"))
"""Protocols that read a member of an archive: ``zip://a/1.png::s3://bucket/images.zip``."""


def problem_with(url: str) -> str | None:
    """Return why ``url`` must not be opened, or None. Nothing is opened or imported for this.

    A path, and a URL of :data:`PROTOCOLS`, may be opened; so may ``ARCHIVE://member::URL``.

    >>> problem_with("reference://x").partition(". ")[0]
    "'reference://x' is refused: the protocol 'reference' is not allowed in a URL"
    """
    *wrappers, last = links = [_protocol_of(link, is_chained="::" in url) for link in url.split("::")]
    added = _added()
    refused = [name for name in wrappers if name not in ARCHIVES | added]
    refused += [last] if last not in PROTOCOLS | added else []
    if not refused:
        return None
    names = list(dict.fromkeys(refused))
    named = f"protocol {names[0]!r} is" if len(names) == 1 else f"protocols {' and '.join(map(repr, names))} are"
    how = "in front of '::'" if len(links) > 1 and refused[0] in PROTOCOLS else "in a URL"
    return (
        f"{shown(url)} is refused: the {named} not allowed {how}. Give a path, a URL of "
        f"{', '.join(sorted(PROTOCOLS | added))}, or a member of an archive there, zip://MEMBER::URL or "
        f"tar://MEMBER::URL. To allow another protocol that you trust, set the environment variable {ALLOW}"
    )


def with_store_errors(*kinds: type[Exception]) -> tuple[type[Exception], ...]:
    """Return ``kinds``, and the exceptions of remote file systems that are no ``OSError``, for an ``except`` clause.

    They are those of the libraries that are loaded: others cannot have been raised.
    """
    found = [getattr(sys.modules.get(module), name, None) for module, name in _ERRORS_OF_STORES]
    return (*kinds, *(one for one in found if isinstance(one, type) and issubclass(one, Exception)))


def location_problems(field: str, url: str) -> Iterator[Problem]:
    """Yield the problem with a URL in ``field``, for a component's ``problems()``."""
    message = problem_with(url) if url.strip() else "must be a path or URL, got an empty text"
    if message is not None:
        yield Problem(field, message)


def file_system(url: str | Path) -> tuple[Any, str]:
    """Return the fsspec file system of ``url``, and the path on it. A ``Path`` is always local.

    Raises:
        LocationError: the URL's protocol is refused, unknown or lacks a package, or its host cannot be reached.
    """
    import fsspec  # here, because it takes a while to load

    if "\0" in str(url):
        raise LocationError(f"{shown(str(url))} cannot be opened: it contains a null character")
    if isinstance(url, Path):
        return fsspec.filesystem("file"), url.absolute().as_posix()
    message = problem_with(url)
    if message is not None:
        raise LocationError(message)
    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, OSError, TypeError, ValueError) as error:
        # fsspec names the missing package of a protocol. A URL without a host is a TypeError.
        package = _PACKAGES.get(_protocol_of(url.rpartition("::")[2], is_chained=False))
        hint = f": pip install {package}" if package and isinstance(error, ImportError) else ""
        raise LocationError(f"{shown(url)} cannot be opened: {error}{hint}") from error
    return files, str(path)


def open_location(url: str | Path, mode: str = "rb", *, encoding: str = "utf-8") -> Any:
    """Return a file for a ``with`` statement. Glob characters have no meaning; nothing is decompressed.

    Args:
        url: a path or URL.
        mode: as for Python's ``open``. Writing creates missing folders.
        encoding: encoding of text.

    Raises:
        LocationError: see :func:`file_system`. The ``with`` statement raises an OSError for all other failures.
    """
    from fsspec.core import OpenFile

    files, path = file_system(url)
    if "r" not in mode:
        with suppress(PermissionError):  # the user may write to the bucket, but not create it
            files.makedirs(posixpath.dirname(path), exist_ok=True)
    return OpenFile(files, path, mode, encoding=encoding)


def local_path(url: str | Path) -> Path | None:
    """Return the path of ``url`` on a local disk, or None if it is elsewhere.

    Raises:
        LocationError: see :func:`file_system`.
    """
    from fsspec.implementations.local import LocalFileSystem

    files, path = file_system(url)
    return Path(path) if isinstance(files, LocalFileSystem) else None


def is_local(url: str | Path) -> bool:
    """Return whether ``url`` is a path, or a URL of this machine's disk or memory. Nothing is opened for this."""
    text = str(url)
    return isinstance(url, Path) or ("::" not in text and _protocol_of(text, is_chained=False) in _LOCAL_PROTOCOLS)


def is_on_web(url: str) -> bool:
    """Return whether ``url`` is read over HTTP, where folders cannot be listed. Nothing is opened for this.

    >>> is_on_web("https://host/a.png"), is_on_web("zip://a.png::https://host/a.zip")
    (True, False)
    """
    return url.rpartition("::")[2].startswith(("http://", "https://")) and not in_archive(url)


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query, which may be a key or a signature; a path as it is.

    >>> without_secrets("https://me:key@host/model.pth?token=1"), without_secrets("models/what?.pth")
    ('https://host/model.pth', 'models/what?.pth')
    >>> without_secrets("zip://model.pth::https://host/models.zip?token=1")
    'zip://model.pth::https://host/models.zip'
    """
    return "::".join(_without_secrets(link) for link in url.split("::"))


def _without_secrets(link: str) -> str:
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if "://" in link else link


def in_archive(url: str) -> bool:
    """Return whether ``url`` is a member of an archive: ``zip://MEMBER::URL``."""
    return "::" in url and url.partition("://")[0] in ARCHIVES


def zarr_location(url: str) -> Path | str:
    """Return what zarr should open for ``url``: a local path where possible, else the URL, which zarr passes to fsspec.

    zarr writes local files atomically by itself.

    Raises:
        LocationError: see :func:`file_system`.
    """
    path = local_path(url)
    return url if path is None else path


def _protocol_of(link: str, *, is_chained: bool) -> str:
    """Return the protocol that fsspec reads in one link of a URL; ``file`` for a path."""
    protocol, colon, _ = link.partition("://")
    if colon and len(protocol) != 1:  # C://pictures is a path
        return protocol
    if link.startswith("data:"):
        return "data"
    # A plain word in a chain, such as "simplecache::", is a protocol; paths in chains have other characters.
    return link if is_chained and link.replace("_", "").isalnum() else "file"


def _added() -> frozenset[str]:
    """Return the protocols that the user allows."""
    return frozenset(name.strip() for name in os.environ.get(ALLOW, "").split(",") if name.strip())
