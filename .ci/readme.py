"""Prints the commands of README.md: every line of its `sh` blocks, or of the block that follows `<!-- NAME -->`."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parent.parent / "README.md").read_text()
if len(sys.argv) > 1:
    text = text[text.index(f"<!-- {sys.argv[1]} -->") :]
blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)
print(blocks[0] if len(sys.argv) > 1 else "\n".join(blocks))
