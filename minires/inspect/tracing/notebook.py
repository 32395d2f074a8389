"""A trace as the output of a notebook's cell: its page in a sandboxed frame."""

from __future__ import annotations

import hashlib
import re
from html import escape
from pathlib import Path

from minires._atomic import make_folder, write_text

LARGEST = 2 * 2**20  # bytes of a page that the notebook's own file holds
FOLDER = "minires-traces"

# Scripts run, but without access to the notebook, its cookies or its server.
FRAME = '<iframe sandbox="allow-scripts" width="100%" height="720" style="border:1px solid #d5dae0" {source}></iframe>'


def frame(title: str, headline: str, page: str) -> str:
    """The headline and the page; see `Trace` for where the page is stored."""
    content = page.encode()
    if len(content) <= LARGEST:
        # Single quotes, because the page's JSON is full of double quotes.
        source = "srcdoc='" + page.replace("&", "&amp;").replace("'", "&#39;") + "'"
        return f"<p>{escape(headline)}</p>" + FRAME.format(source=source)
    size = f"{len(content) / 2**20:.1f} MB"
    # The name holds the page's checksum, so a file of that name and content needs no writing.
    word = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:40] or "trace"
    path = Path(FOLDER, f"{word}-{hashlib.sha256(content).hexdigest()[:12]}.html")
    try:
        if not (path.is_file() and path.read_bytes() == content):
            make_folder(path.parent)
            write_text(path, page)
    except OSError as error:
        reason = (
            f"{FOLDER} cannot be written here: {error.strerror or error}. Save the page elsewhere: trace.save(path)."
        )
        return f"<p>{escape(headline)}. {escape(f'The page has {size} and {reason}')}</p>"
    link = f'<a href="{path.as_posix()}" target="_blank">{path.as_posix()}</a> ({size})'
    return f"<p>{escape(headline)}. {link}</p>" + FRAME.format(source=f'src="{path.as_posix()}"')
