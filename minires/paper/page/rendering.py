"""The page as one HTML file without a request: page.html with the outline rendered into it."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module, resources
from typing import Any

import minires
from minires import ops
from minires.inspect import Trace
from minires.inspect.sources import Source, formulas, reference_functions
from minires.inspect.tracing.events import Event, View
from minires.inspect.tracing.page import places, stylesheet
from minires.paper.page import derivations
from minires.paper.page.claims import BY_NAME, FAILS, HOLDS, NOT_RUN, Claim, Verdict
from minires.paper.page.diagrams import diagram
from minires.paper.page.evidence import Evidence, Result, uri
from minires.paper.page.outline import (
    EXERCISES,
    PLACES,
    SECTIONS,
    Code,
    Diagram,
    Equation,
    Judged,
    Operation,
    Part,
    Plate,
    Section,
    Text,
)

COMMANDS = {
    "figure1": "minires paper figure1 --residual --quick --out build",
    "figure4": "minires paper figure4 --quick --out build",
    "figure7": "minires paper all --quick --out build",
}
SHOW = "minires paper page --results build --out build/paper.html"
QUICK = (
    "With <code>--quick</code> each network trains for 300 iterations on Fashion-MNIST, without it for 2,000. "
    "The paper trains on CIFAR-10 and ImageNet, for far longer."
)
BLOCKS = {"basic": "layer1.1", "bottleneck": "layer1.1"}


def page(evidence: Evidence) -> str:
    """The whole page."""
    body = _Body(evidence)
    sections = "".join(body.section(section) for section in SECTIONS)
    contents = "".join(f'<a href="#section-{s.number}">{_numbered(s)}</a>' for s in SECTIONS)
    template = (resources.files("minires.paper.page") / "page.html").read_text(encoding="utf-8")
    made = f"minires {minires.__version__}, {body.counts()}."
    for mark, text in (
        ("STYLE", stylesheet()), ("MADE", escape(made)), ("CONTENTS", contents), ("SECTIONS", sections),
    ):  # fmt: skip
        template = template.replace(f"/*{mark}*/", text)
    return template


def _numbered(section: Section) -> str:
    return escape(section.title if section.number == "0" else f"{section.number} {section.title}")


def find(target: str) -> Any:
    """The object of "module:name.name"."""
    module, _, path = target.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


class _Body:
    """Renders the outline; an anchor is written once, at the first place that shows its line."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.anchors: set[str] = set()
        self.verdicts: list[str] = []

    def counts(self) -> str:
        """How many claims hold, fail, and were not run."""
        hold, fail, open_ = (self.verdicts.count(status) for status in (HOLDS, FAILS, NOT_RUN))
        return f"{hold} claims hold, {fail} fail, {open_} were not run"

    def section(self, section: Section) -> str:
        parts = "".join(self.part(part) for part in section.parts)
        return f'<section id="section-{section.number}"><h2>{_numbered(section)}</h2>{parts}</section>'

    def part(self, part: Part) -> str:
        left = "".join(self.left(block) for block in part.left)
        right = "".join(self.right(block) for block in part.right)
        return f'<div class="part"><div class="left">{left}</div><div class="right">{right}</div></div>'

    def left(self, block: Text | Equation | Plate | Judged) -> str:
        match block:
            case Text(text):
                return f"<p>{_prose(text)}</p>"
            case Equation(number, formula, text):
                head = f'<div class="formula"><span>{escape(formula)}</span><b>({number})</b></div>'
                return f'<div class="equation" id="equation-{number}">{head}<p>{_prose(text)}</p></div>'
            case Judged(names):
                return "".join(self.claim(BY_NAME[name]) for name in names)
            case Plate():
                return self.plate(block)

    def right(self, block: Code | Operation | Diagram | Plate) -> str:
        match block:
            case Code(targets):
                return "".join(self.code(target) for target in targets)
            case Operation(name):
                return self.operation(name)
            case Diagram(kind):
                return self.diagram(kind)
            case Plate():
                return self.result(block)

    # -- the left side

    def plate(self, plate: Plate) -> str:
        """A figure or table in its place: what it shows, the paper's own numbers, and whether minires reproduces it."""
        name = f"{plate.kind} {plate.number}"
        inside = f"<p><b>{name}.</b> {_prose(plate.text)}</p>"
        if plate.rows:
            inside += _table(plate.rows[0], plate.rows[1:])
        if plate.why:
            inside += f'<p>{_badge(NOT_RUN)} <span class="found">{escape(plate.why)}</span></p>'
        return f'<div class="plate" id="{name.lower().replace(" ", "-")}">{inside}</div>'

    def claim(self, claim: Claim) -> str:
        verdict = claim.verdict(self.evidence)
        self.verdicts.append(verdict.status)
        command = "".join(f"<p><code>{escape(line)}</code></p>" for line in claim.commands)
        found = f'<p class="found">{escape(verdict.found)}</p>'
        head = f"<p>{_badge_of(verdict)} {_prose(claim.text)}</p>"
        return f'<div class="claim" id="claim-{claim.name}">{head}{found}{command}</div>'

    # -- the right side

    def result(self, plate: Plate) -> str:
        """The reproduced table or figure, with its verdict and its command."""
        command = COMMANDS.get(plate.item, f"minires paper {plate.item} --out build")
        found, name = self.evidence.result(plate.item), f"{plate.kind} {plate.number}"
        commands = f'<div class="commands"><span>reproduce: <code>{escape(command)}</code></span></div>'
        if found is None:
            text = f"<p>{name} needs trained networks. First run the command below, then <code>{SHOW}</code>.</p>"
            text += f"<p>{QUICK}</p>"
            return _box(f"{name}, reproduced", _badge(NOT_RUN), f'<div class="inside">{text}</div>{commands}')
        notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
        pictures = "".join(
            f'<img class="picture" decoding="async" src="{u}" alt="{escape(found.title)}">'
            for u in (() if plate.kind == "Table" else found.pictures)  # a table's picture repeats its cells
        )
        inside = _table(found.head, found.lines) + (f"<ul>{notes}</ul>" if notes else "") + pictures
        origin = f"<p>{escape(found.title)} ({escape(found.origin)})</p>"
        inside = f'<div class="inside">{origin}{inside}</div>{commands}'
        if plate.kind == "Measurement":  # without a counterpart in the paper
            return _box("Measured by minires", "", inside)
        return _box(f"{name}, reproduced", _verdict_of(found), inside)

    def diagram(self, kind: str) -> str:
        recorded: Trace = getattr(self.evidence, kind)
        figure = "Figure 2" if kind == "basic" else "Figure 5"
        note = (
            f"<p>Block {BLOCKS[kind]} of {escape(recorded.title)}. Blue: the shape after each operation. Red: the norm "
            "of the gradient there. The gradients of both paths add up at x; their sum stands beside x.</p>"
        )
        picture = diagram(recorded, BLOCKS[kind])
        return _box(f"{figure}: the gradient's path", "", f'<div class="inside">{note}{picture}</div>')

    def code(self, target: str) -> str:
        _, _, name = target.partition(":")
        commands = [_exercise(exercise) for exercise in EXERCISES.get(target, ())]
        return _box(f"<code>{escape(name)}</code>", "", self.source(find(target)) + _commands(commands))

    def operation(self, name: str) -> str:
        """An operation of the tape, with everything that belongs to it."""
        cls: Any = getattr(ops, name)
        forth, back = formulas(cls)
        lines = [f'<span class="forth">{escape(f)}</span>' for f in forth]
        lines += [f'<span class="back">{escape(f)}</span>' for f in back]
        inside = f'<div class="formulas">{chr(10).join(lines)}</div>'
        for phase in ("forward", "backward"):
            inside += self.source(getattr(cls, phase), f"{phase}-code")
        steps = "".join(f"<li>{escape(step)}</li>" for step in derivations.steps(name))
        result = "".join(f'<li><span class="back">{escape(f)}</span></li>' for f in back)
        inside += f'<details class="maths"><summary>the maths of backward</summary><ol>{steps}{result}</ol></details>'
        functions = [f for phase in ("forward", "backward") for f in reference_functions(cls, phase)]
        if functions:
            sources = "".join(self.source(function) for function in dict.fromkeys(functions))
            inside += f"<details><summary>the same in NumPy (the reference backend)</summary>{sources}</details>"
        inside += self.arrays(name)
        network, place = PLACES[name]
        trace = f"minires trace {network} --out build/trace.html"
        commands = [
            *(self.stop(name, phase) for phase in ("forward", "backward")),
            f"trace page: <code>{trace}</code>" + (f", then <code>build/trace.html#{place}</code>" if place else ""),
            *(_exercise(exercise) for exercise in EXERCISES.get(name, ())),
        ]
        return _box(f"operation <code>{name}</code>", "", inside + _commands(commands), f"operation-{name}")

    def recorded(self, name: str) -> tuple[Trace, list[Event]]:
        """The run that holds an operation, and the events of one call: forward, then backward."""
        recorded = self.evidence.stem if name == "MaxPool2d" else self.evidence.basic
        _, place = PLACES[name]
        events = [e for e in recorded.events if e.operation == name and (e.module.startswith(place) or not place)]
        return recorded, [event for event in events if event.number == events[0].number]

    def stop(self, name: str, phase: str) -> str:
        """The command that stops a debugger at the recorded call."""
        recorded, events = self.recorded(name)
        at, *stops = places(recorded.events)[events[0].number]
        nth = stops[phase == "backward"]
        further = "" if nth == 1 else f", then <code>c</code> until stop {nth}"
        command = f"minires step {PLACES[name][0]} --at {shlex.quote(at)} --when {phase}"
        return f"debugger: <code>{escape(command, quote=False)}</code>{further}"

    def arrays(self, name: str) -> str:
        """The arrays of one recorded call: forward's, then backward's."""
        recorded, both = self.recorded(name)
        rows = "".join(_arrays(event) for event in both)
        of = f" of {both[0].module}" if both[0].module else ""
        title = f"what {name}{escape(of)} computed ({escape(recorded.title)})"
        return f"<details open><summary>{title}</summary>{rows}</details>"

    def source(self, thing: Any, kind: str = "") -> str:
        """Exact lines with their numbers; each line is an anchor, "file-number"."""
        source = Source.of(inspect.unwrap(thing))
        lines = []
        indent = min((len(line) - len(line.lstrip()) for line in source.lines if line.strip()), default=0)
        for number, line in enumerate(source.lines, source.first):
            anchor = f"{source.file}-{number}"
            attribute = "" if anchor in self.anchors else f' id="{escape(anchor)}"'
            self.anchors.add(anchor)
            link = f'<a href="#{escape(anchor)}">{number}</a>'
            lines.append(f'<span class="line"{attribute}>{link}{escape(line[indent:])}\n</span>')
        last = source.first + len(source.lines) - 1
        head = f'<div class="file">{escape(source.file)}:{source.first}–{last}</div>'
        return f'<div class="source {kind}">{head}<pre>{"".join(lines)}</pre></div>'


def _box(title: str, badge: str, inside: str, anchor: str = "") -> str:
    attribute = f' id="{anchor}"' if anchor else ""
    return f'<div class="box"{attribute}><h3>{badge}{title}</h3>{inside}</div>'


def _commands(commands: Sequence[str]) -> str:
    return f'<div class="commands">{"".join(f"<span>{c}</span>" for c in commands)}</div>' if commands else ""


def _exercise(name: str) -> str:
    return f"exercise: <code>minires exercise {name}</code>"


def _badge(status: str, kind: str = "") -> str:
    return f'<span class="badge {kind or status.replace(" ", "-")}">{status}</span>'


def _badge_of(verdict: Verdict) -> str:
    if verdict.analogue and verdict.status != NOT_RUN:
        return _badge(verdict.status) + " " + _badge("an analogue only", "analogue")
    return _badge(verdict.status)


def _verdict_of(found: Result) -> str:
    """The verdict of a table or figure as a whole."""
    if found.name == "table6" and not found.reproduced:
        return _badge("errors: not run", "not-run")
    if found.name == "figure7" and found.trained_on is None:
        return _badge(NOT_RUN)
    kind = HOLDS if found.reproduced else FAILS
    badge = _badge(kind if found.trained_on else "reproduced" if found.reproduced else FAILS, kind)
    return badge + (_badge("an analogue only", "analogue") if found.analogue else "")


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f'<table class="cells">{row(head, "th")}{"".join(row(line, "td") for line in lines)}</table>'


def _prose(text: str) -> str:
    text = text.replace(" %", "\u00a0%")
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    return re.sub(r"(?<![\w*])\*([^*]+)\*", r"<i>\1</i>", text)


def _arrays(event: Event) -> str:
    views = "".join(map(_array, (*event.arrays, *event.results)))
    return f'<div class="{event.phase}-code"><div class="row">{views}</div></div>'


def _array(view: View) -> str:
    statistics = view.statistics
    shape = "×".join(map(str, statistics.shape)) or "scalar"
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in statistics.numbers())
    image = (
        "" if view.picture is None else f'<img src="{uri(view.picture, "png")}" alt="{escape(view.name)} as a picture">'
    )
    head = f"<h4>{escape(view.name)} <span>{shape} {statistics.dtype}</span></h4>"
    return f'<div class="array">{head}<table>{rows}</table>{image}</div>'
