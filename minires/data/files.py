"""Finds the files of a data set, and downloads them on request."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from minires._atomic import refuse_link
from minires.data.errors import DataError

SYSTEM = Path("/usr/share/datasets")  # of Debian's data set packages


@dataclass(frozen=True)
class Remote:
    """A file at its official address, with the MD5 that its authors published and its size in bytes."""

    name: str
    address: str
    md5: str
    size: int


def user_cache() -> Path:
    """The folder of downloads: $XDG_CACHE_HOME/minires, by default ~/.cache/minires."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "minires"


def folders(name: str, data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """The folders to search for the files of data set `name`, in this order."""
    roots = [Path(data_dir)] if data_dir else []
    roots += [Path(os.environ["MINIRES_DATA"])] if os.environ.get("MINIRES_DATA") else []
    found = [folder for root in roots for folder in (root, root / name)]
    return [*found, SYSTEM / name, user_cache() / name]


def find(name: str, data_dir: str | os.PathLike[str] | None, choices: Sequence[Sequence[str]]) -> Path | None:
    """The first folder that holds, for each group of `choices`, at least one of its file names."""
    for folder in folders(name, data_dir):
        if all(any((folder / file).is_file() for file in group) for group in choices):
            return folder
    return None


def find_or_download(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    choices: Sequence[Sequence[str]],
    remotes: Sequence[Remote] | None,
    wanted: str,
    remedy: str,
) -> Path:
    """The folder that `find` returns, or a new one with the downloaded files.

    remotes   the files to download when none are found; None: raise DataError, which mentions `wanted` and `remedy`
    """
    folder = find(name, data_dir, choices)
    if folder is None:
        if remotes is None:
            searched = ", ".join(map(str, folders(name, data_dir)))
            raise DataError(f"data set {name!r} not found: looked for {wanted} in {searched}; {remedy}")
        folder = (Path(data_dir) if data_dir else user_cache()) / name
        for remote in remotes:
            download(remote, folder)
    return folder


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https addresses only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise urllib.error.HTTPError(newurl, code, f"redirected to {newurl}, which is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(remote: Remote, folder: Path) -> Path:
    """Downloads the file into `folder`: checks its size and MD5, then renames it to its final name.

    Raises DataError for a failed download, and as soon as more bytes arrive than expected.
    """
    target = folder / remote.name
    try:
        refuse_link(folder)
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{remote.name}.", dir=folder)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with (
            os.fdopen(handle, "wb") as out,
            Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
        ):
            digest = hashlib.md5(usedforsecurity=False)
            with urllib.request.build_opener(_SecureRedirects).open(remote.address, timeout=60) as response:
                task = progress.add_task(remote.name, total=remote.size)
                length, received = int(response.headers.get("Content-Length") or 0), 0
                while block := response.read(1 << 20):
                    received += len(block)
                    if max(length, received) > remote.size:
                        raise DataError(f"{remote.address}: sends more than the {remote.size:,} bytes of the file")
                    out.write(block)
                    digest.update(block)
                    progress.advance(task, len(block))
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != remote.md5:
            raise DataError(f"{remote.address}: checksum {digest.hexdigest()} is not the published {remote.md5}")
        os.replace(partial, target)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
        raise DataError(f"cannot download {remote.address}: {reason}") from None
    finally:
        Path(partial).unlink(missing_ok=True)
    return target
