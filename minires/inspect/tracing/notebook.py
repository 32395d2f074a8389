"""A trace as the output of a notebook's cell: its page in a sandboxed frame."""

from __future__ import annotations

import hashlib
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from minires._atomic import make_folder, write_text

if TYPE_CHECKING:
    from minires.inspect.tracing.record import Trace

LARGEST = 2 * 2**20  # bytes of a page that the notebook's own file holds
FOLDER = "minires-traces"

# Scripts run, but without access to the notebook, its cookies or its server.
FRAME = '<iframe sandbox="allow-scripts" width="100%" height="720" style="border:1px solid #d5dae0" {source}></iframe>'


def frame(trace: Trace) -> str:
    """A line about the trace and the page; see `Trace` for where the page is stored."""
    page = trace.page()
    size = len(page.encode())
    if size <= LARGEST:
        # In single quotes, since the page's JSON is full of double ones.
        source = "srcdoc='" + page.replace("&", "&amp;").replace("'", "&#39;") + "'"
        return _line(trace) + FRAME.format(source=source)
    try:
        path = _stored(trace.title, page)
    except OSError as error:
        told = f"{FOLDER} cannot be written here: {error.strerror or error}. Save the page elsewhere: trace.save(path)."
        return _line(trace, escape(f"The page has {size / 2**20:.1f} MB and {told}"))
    link = f'<a href="{path}" target="_blank">{path}</a> ({size / 2**20:.1f} MB)'
    return _line(trace, link) + FRAME.format(source=f'src="{path}"')


def _line(trace: Trace, *more: str) -> str:
    return f"<p>{'. '.join([escape(trace.headline()), *more])}</p>"


def _stored(title: str, page: str) -> str:
    """The relative path of the page's file, written unless it is there: its name holds the page's checksum."""
    content = page.encode()
    word = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:40] or "trace"
    path = Path(FOLDER, f"{word}-{hashlib.sha256(content).hexdigest()[:12]}.html")
    if not (path.is_file() and path.read_bytes() == content):
        make_folder(path.parent)
        write_text(path, page)
    return path.as_posix()
