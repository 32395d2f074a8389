"""Checks the writing rules that a program can check: `python .ci/language.py [PATH ...]`, where minires is installed.

Reads comments, strings and names in Python, and whole files in C++, CUDA, JavaScript and Markdown.  With minires/cli
among the paths it also reads the `--help` of every command.  Prints each finding as `file:line: message` and exits with
1 if there is a finding.

- Banned words: personification (a file that "tells"), negation by pronoun ("nobody"), pronouns without a noun.
- At most 30 words a sentence in README files, and 25 in `--help`.
- No help text of a flag begins with "of", "what" or "these".
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

LONGEST, LONGEST_IN_HELP = 30, 25  # words in a sentence
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
SUFFIXES = (".py", ".md", ".cpp", ".h", ".cu", ".cuh", ".js")


def words_banned(text: str) -> Iterator[tuple[str, str]]:
    for found in PATTERN.finditer(text):
        yield found[0], ADVICE[int(found.lastgroup.removeprefix("_"))]


def python_text(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and string; of the names only `told`: a result called `theirs` reads well."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for offset, line in enumerate(token.string.split("\n")):
                yield token.start[0] + offset, re.sub(r"\{[^{}]*\}", "…", line)  # without the names in an f-string
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


def long_sentences(text: str, longest: int = LONGEST) -> Iterator[str]:
    for sentence in sentences(text):
        if len(count := re.findall(r"[^\W\d_][\w'’-]*", sentence)) > longest:
            yield f"{len(count)} words in a sentence, {longest} allowed: {sentence[:60]} …"


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of every command, and of every item such as `minires paper figure1`."""
    from minires import cli

    found = [cli.parser_of(command) for command in cli.COMMANDS]
    for parser in found:
        yield parser
        found += [item for action in parser._actions for item in items(action)]


def items(action: argparse.Action) -> list[argparse.ArgumentParser]:
    return list(action.choices.values()) if isinstance(action, argparse._SubParsersAction) else []


def help_findings() -> Iterator[str]:
    """The findings in the description, groups, flags and epilog of every parser."""
    for parser in parsers():
        texts = [("", parser.description or ""), *(("", line) for line in (parser.epilog or "").splitlines())]
        texts += [(f" ({group.title})", group.description or "") for group in parser._action_groups]
        for action in parser._actions:
            flag, text = f" {'/'.join(action.option_strings) or action.dest}", action.help or ""
            texts.append((flag, text))
            if HELP_BEGINS.match(text):
                yield f"{parser.prog}{flag}: help begins with {text.split()[0]!r}: begin with a noun phrase"
        for place, text in texts:
            for paragraph in text.split("\n\n"):
                yield from (f"{parser.prog}{place}: {long}" for long in long_sentences(paragraph, LONGEST_IN_HELP))


def findings(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    pieces = python_text(text) if path.suffix == ".py" else enumerate(text.split("\n"), 1)
    for number, piece in pieces:
        for word, advice in words_banned(piece):
            yield number, f'"{word}": {advice}'
    if path.suffix == ".md":
        for number, paragraph in prose(text):
            yield from ((number, long) for long in long_sentences(paragraph))


def main(arguments: list[str]) -> int:
    listed = subprocess.run(["git", "ls-files", "--", *arguments], capture_output=True, text=True, check=True).stdout
    paths = [path for path in map(Path, listed.splitlines()) if path.suffix in SUFFIXES and path.name != SELF]
    found = [f"{path}:{number}: {message}" for path in paths for number, message in findings(path)]
    if any(path.parts[:2] == ("minires", "cli") for path in paths):
        found += help_findings()
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
