"""Prints the commands of the READMEs: the lines of all `sh` blocks, or of the block that follows `<!-- NAME -->`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "minires/README.md", "csrc/README.md", "benchmarks/README.md", "tests/README.md")


def blocks(name: str | None = None) -> list[str]:
    """The `sh` blocks of all documents in their order; with a name, the one block that is marked with it."""
    text = "\n".join((ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS)
    mark = "" if name is None else f"^<!-- {name} -->\n"
    return re.findall(rf"{mark}^```sh\n(.*?)^```", text, flags=re.M | re.S)


if __name__ == "__main__":
    found = blocks(*sys.argv[1:])
    if len(sys.argv) > 1 and len(found) != 1:
        raise SystemExit(f"{sys.argv[1]}: {len(found)} blocks have this mark; exactly one must")
    print("\n".join(found))
