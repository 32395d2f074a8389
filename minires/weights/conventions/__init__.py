"""Whose names are these?  A table for each program that writes weights of these networks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from minires.weights.conventions.cifar import CIFAR
from minires.weights.conventions.huggingface import HUGGING_FACE, HUGGING_FACE_BODY
from minires.weights.conventions.rules import Convention, Rule
from minires.weights.conventions.timm import TIMM
from minires.weights.conventions.torchvision import TORCHVISION

__all__ = ["CONVENTIONS", "Convention", "Rule", "Translation", "translate"]

CONVENTIONS = (TORCHVISION, CIFAR, TIMM, HUGGING_FACE, HUGGING_FACE_BODY)

# What stands behind a prefix such as "module." (DataParallel), "_orig_mod." (torch.compile) or "backbone.".
_PREFIX = re.compile(
    r"((?:[^.]+\.)*?)(?:conv1|bn1|layer\d+\.\d+|fc|linear|features\.\d+|pre_logits|resnet\.(?:embedder|encoder)"
    r"|embedder|encoder\.stages|classifier\.\d+)\."
)


@dataclass(frozen=True)
class Translation:
    """The names of a file in torchvision's.

    prefix   what all of them begin with in the file, "" or such as "module."
    names    torchvision's name -> name in the file
    others   names in the file that the convention does not know, or knows twice
    """

    convention: Convention
    prefix: str
    names: dict[str, str]
    others: tuple[str, ...]


def translate(names: Iterable[str]) -> Translation | None:
    """By the convention that knows the most names, behind the prefix that most have; None where none knows any."""
    names = list(names)
    prefixes = Counter(match[1] for match in map(_PREFIX.match, names) if match)
    if not prefixes:
        return None
    prefix = prefixes.most_common(1)[0][0]
    # max takes the first of equals: torchvision where others would do as well
    found = max((_by(convention, prefix, names) for convention in CONVENTIONS), key=lambda found: len(found.names))
    return found if found.names else None


def _by(convention: Convention, prefix: str, names: list[str]) -> Translation:
    known: dict[str, str] = {}
    others = []
    for name in names:
        ours = convention.ours(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if ours is None or ours in known:
            others.append(name)
        else:
            known[ours] = name
    return Translation(convention, prefix, known, tuple(others))
