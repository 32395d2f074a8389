"""Holds the part of the writing rules that a program can hold: `python .ci/language.py [PATH ...]`.

Checks the text of the project: comments, strings and names in Python, whole files in C++, CUDA, JavaScript and
Markdown.  Prints each finding as `file:line: message` and exits with 1 if there is one.

- Banned words: personification (a file that "tells"), negation by pronoun ("nobody"), pronouns without a noun.
- At most 30 words a sentence in README files, in `--help` and in the help of a flag.
- No help text begins with "of", "what" or "these".
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

LONGEST = 30  # words in a sentence of a README or of help
BANNED = {  # pattern: what to write instead
    r"told": "message, header, fields: name the thing",
    r"tells?": "shows, reports, returns, contains",
    r"says": "states, reports, names, holds",
    r"knows": "holds, contains, has",
    r"wants?|wanted by": "needs, takes, requires",
    r"nobody": "state what is the case: unused, invalid, not computed",
    r"(?:is|are|was|were) none(?! of\b)": "is invalid, is absent, is missing",
    r"theirs": "repeat the noun",
    r"lets? go(?: of)?": "releases, frees",
    r"held against": "compared with",
    r"the other,? one": "repeat the noun",
    r"whoever": "name the actor: a caller, a reader, a thread",
}
PATTERN = re.compile("|".join(rf"\b(?P<_{i}>{words})\b" for i, words in enumerate(BANNED)))
ADVICE = list(BANNED.values())
HELP_BEGINS = re.compile(r"(?:of|what|these)\b", re.I)
SELF = Path(__file__).name


def words_banned(text: str) -> Iterator[tuple[str, str]]:
    for found in PATTERN.finditer(text):
        yield found[0], ADVICE[int(found.lastgroup.removeprefix("_"))]


def python_text(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and string; of the names only `told`: a result called `theirs` reads well."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for offset, line in enumerate(token.string.split("\n")):
                yield token.start[0] + offset, re.sub(r"\{[^{}]*\}", "…", line)  # not the names in an f-string
        elif token.string == "told":
            yield token.start[0], token.string


def prose(markdown: str) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph and list item: no fenced code, tables, headings or HTML."""
    begun, lines, fenced = 0, [], False
    for number, line in enumerate([*markdown.split("\n"), ""], 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        other = fence or fenced or re.match(r"\s*(?:[|#<]|$)", line)
        if lines and (other or re.match(r"\s*(?:[-*]|\d+\.) ", line)):
            yield begun, " ".join(lines)
            lines = []
        if not other:
            begun = begun if lines else number
            lines.append(line.strip())


def sentences(text: str) -> Iterator[str]:
    text = re.sub(r"`[^`]*`|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "Code", text)  # code counts as one word
    yield from re.split(r"(?<=[.!?:;])\s+(?=[A-Z0-9`*\"(])", text)


def long_sentences(text: str) -> Iterator[str]:
    for sentence in sentences(text):
        if len(count := re.findall(r"[^\W\d_][\w'’-]*", sentence)) > LONGEST:
            yield f"{len(count)} words in a sentence, {LONGEST} allowed: {sentence[:60]} …"


def help_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each `help=`, `description=` and `epilog=`; what is formatted in counts as one word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in ("help", "description", "epilog"):
            parts = [part for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            if text := "".join(part.value for part in parts if isinstance(part.value, str)):
                yield node.value.lineno, text


def findings(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    pieces = python_text(text) if path.suffix == ".py" else enumerate(text.split("\n"), 1)
    for number, piece in pieces:
        for word, advice in words_banned(piece):
            yield number, f'"{word}": {advice}'
    if path.suffix == ".md":
        for number, paragraph in prose(text):
            yield from ((number, long) for long in long_sentences(paragraph))
    if path.suffix == ".py" and path.parts[0] == "minires":
        for number, help_text in help_texts(text):
            yield from ((number, long) for long in long_sentences(help_text))
            if HELP_BEGINS.match(help_text):
                yield number, f"help begins with {help_text.split()[0]!r}: begin with a noun phrase"


def main(arguments: list[str]) -> int:
    listed = subprocess.run(["git", "ls-files", "--", *arguments], capture_output=True, text=True, check=True).stdout
    count = 0
    for path in map(Path, listed.splitlines()):
        if path.suffix in (".py", ".md", ".cpp", ".h", ".cu", ".cuh", ".js") and path.name != SELF:
            for number, message in findings(path):
                print(f"{path}:{number}: {message}")
                count += 1
    print(f"{count} findings", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
