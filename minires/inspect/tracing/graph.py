"""The tape in Graphviz's language: nodes in clusters of their modules, edges from the node that made an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minires.inspect.tracing.record import Event, Trace


def graph(trace: Trace) -> str:
    """For `dot -Tsvg`."""
    forward = [event for event in trace.events if event.phase == "forward"]
    lines = [f"digraph {_quoted(trace.title)} {{", "  node [shape=box, fontname=Helvetica, fontsize=10];"]
    tree: dict[str, Any] = {}
    for event in forward:
        place = tree
        for name in filter(None, event.module.split(".")):
            place = place.setdefault(name, {})
        place.setdefault("", []).append(event)
    lines += _cluster(tree, "", "  ")
    for event in forward:
        lines += [f"  n{parent} -> n{event.number};" for parent in event.parents if parent is not None]
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(tree: dict[str, Any], path: str, indent: str) -> list[str]:
    lines = [f"{indent}n{event.number} [label={_quoted(_label(event))}];" for event in tree.get("", [])]
    for name, inner in tree.items():
        if not name:
            continue
        below = f"{path}.{name}" if path else name
        lines.append(f"{indent}subgraph {_quoted(f'cluster_{below}')} {{")
        lines.append(f"{indent}  label={_quoted(below)}; color=gray70; fontname=Helvetica; fontsize=9;")
        lines += _cluster(inner, below, indent + "  ")
        lines.append(f"{indent}}}")
    return lines


def _label(event: Event) -> str:
    (result,) = event.results
    return f"{event.operation}\\n{'×'.join(map(str, result.statistics.shape))}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
