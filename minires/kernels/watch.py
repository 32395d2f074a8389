"""Launches of kernels in a program that watches them, in a process of its own: a crash is a result."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.kernels.build import Program

TIME_LIMIT = 100  # seconds; the program's own limit is 10 of the processor


@dataclass(frozen=True)
class Pointer:
    """The argument that points into an array of `run`."""

    array: str
    offset: int = 0  # bytes


@dataclass(frozen=True)
class Launch:
    """A kernel's launch.  arguments: Pointers, ints, floats, and None for a null pointer."""

    kernel: str
    grid: Sequence[int]
    block: Sequence[int]
    arguments: Sequence[Any]
    shared: int = 0


@dataclass(frozen=True)
class Finding:
    """A fault, or advice, with the line where it shows; 0 for none.  file: "" for the kernel's own."""

    kind: str
    line: int
    message: str
    file: str = ""

    def json(self) -> dict[str, Any]:
        return {"kind": self.kind, "line": self.line, "message": self.message}


@dataclass(frozen=True)
class Site:
    """What the accesses of one kind at one line asked of the memory, summed over all warps.

    kind              "global load", "shared store", "cp.async load", "ldmatrix", "mma", "barrier" …
    requests, lanes   instructions of warps, and the lanes that were active in them
    sectors           of 32 bytes of global memory; ideal_sectors: if the bytes lay together
    wavefronts        passes of shared memory; ideal_wavefronts: without bank conflicts
    """

    file: str
    line: int
    kind: str
    requests: int
    lanes: int
    bytes: int
    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int


@dataclass(frozen=True)
class Traffic:
    """Of one global array: bytes that loads requested, distinct bytes among them, elements that were never written."""

    requested_bytes: int
    unique_bytes: int
    unwritten: int
    first_unwritten: int


@dataclass
class Report:
    """What `run` found.

    arrays   the contents after the launches; empty if a launch ended early
    endless  whether it was stopped at the time limit
    """

    findings: list[Finding] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    endless: bool = False


def run(
    program: Program, arrays: Mapping[str, Array | tuple[int, ...]], launches: Sequence[Launch], seed: int = 0
) -> Report:
    """Runs the launches one after another.

    arrays   name -> the contents in float32, or the shape of an array that begins uninitialised
    seed     of the order of the threads; 0: ascending
    """
    names = list(arrays)
    job = [f"seed {seed}", *(f"shared {name} {address} {bytes}" for name, address, bytes in program.variables)]
    with tempfile.TemporaryDirectory(prefix="minires-watch-") as name:
        folder = Path(name)
        for name, content in arrays.items():
            filled = isinstance(content, np.ndarray)
            job.append(f"array {name} {4 * _count(content)} {int(filled)}")
            if isinstance(content, np.ndarray):
                (folder / f"{name}.in").write_bytes(np.ascontiguousarray(content, np.float32).tobytes())
        for launch in launches:
            sizes = [*launch.grid, 1, 1][:3] + [*launch.block, 1, 1][:3]
            arguments = [_word(argument, names) for argument in launch.arguments]
            job.append(" ".join(map(str, ["launch", launch.kernel, *sizes, launch.shared, len(arguments), *arguments])))
        (folder / "job").write_text("\n".join(job) + "\n")
        try:
            subprocess.run([program.file, "job"], cwd=folder, capture_output=True, timeout=TIME_LIMIT, check=False)
            raw = json.loads((folder / "report.json").read_text())
        except (subprocess.TimeoutExpired, FileNotFoundError, json.JSONDecodeError):
            return Report([Finding("wrong-result", 0, "the kernel's process ended without a report")])
        report = _report(program, raw, arrays, max(launch.shared for launch in launches))
        for name, content in arrays.items():
            shape = content.shape if isinstance(content, np.ndarray) else content
            if (folder / f"{name}.out").exists() and not raw["error"]:
                report.arrays[name] = np.fromfile(folder / f"{name}.out", np.float32).reshape(shape)
        return report


def _word(argument: Any, names: Sequence[str]) -> str:
    if argument is None:
        return "n"
    if isinstance(argument, Pointer):
        return f"p {names.index(argument.array)} {argument.offset}"
    return f"f {argument}" if isinstance(argument, float) else f"i {argument}"


def _report(program: Program, raw: dict[str, Any], arrays: Mapping[str, Any], dynamic: int) -> Report:
    sites = raw["sites"]
    addresses = sorted({site["pc"] for site in sites} - {0})
    places = dict(zip(addresses, program.places(addresses), strict=True))
    for site in sites:
        if site["pc"]:
            site["file"], site["line"] = places[site["pc"]]
        del site["pc"]
    variables = {name: bytes for name, _, bytes in program.variables} | {"dynamic shared memory": dynamic}
    findings = [_finding(found, sites, arrays, variables) for found in raw["findings"]]
    if raw["error"]:
        failure = _failure(raw["error"], sites[raw["crash"]])
        endless = raw["error"] == "time limit"
        if endless or all(found.line != failure.line for found in findings):  # else the crash's reason is known
            findings.append(failure)
    traffic = {entry.pop("name"): Traffic(**entry) for entry in raw["arrays"]}
    joined = _joined([Site(**site) for site in sites[1:]])
    return Report(findings, joined, traffic, endless=raw["error"] == "time limit")


def place(file: str, line: int) -> str:
    """A place in the source, for messages: the line of a kernel file, or a header with its line."""
    if not line:
        return "an unknown line"
    return f"line {line}" if file.endswith(".cu") else f"{Path(file).name}:{line}"


def _joined(sites: Sequence[Site]) -> list[Site]:
    """One Site for each file, line and kind, in the order of lines."""
    sums: dict[tuple[str, int, str], list[int]] = {}
    for site in sites:
        values = list(vars(site).values())
        key = (site.file, site.line, site.kind)
        sums[key] = [a + b for a, b in zip(sums.get(key, [0] * 7), values[3:], strict=True)]
    return [Site(*key, *values) for key, values in sorted(sums.items()) if values[0]]


def _finding(
    found: dict[str, Any], sites: Sequence[dict[str, Any]], arrays: Mapping[str, Any], variables: Mapping[str, int]
) -> Finding:
    kind, name, site, other = found["kind"], found["name"], sites[found["site"]], sites[found["other_site"]]
    element = _element(name, found["element"], arrays) if name else f"the address {found['element']}"
    what = f"{found['text']} {element} at {place(site['file'], site['line'])}"
    if kind == "race":
        earlier = f"{found['other_text']} {element} at {place(other['file'], other['line'])}"
        reason = {
            "flight": "no cp_async_wait and barrier between",
            "blocks": "no barrier orders blocks",
        }.get(found["note"], "no barrier between")
        # A thread that used the higher line first has come to the lower line in the next round of the loop.
        same = site["file"] == other["file"]
        first_next = same and other["line"] < site["line"] and found["other_after_later"]
        later_next = same and site["line"] < other["line"] and found["later_after_other"]
        rounds = [" in the next round of the loop" if following else "" for following in (first_next, later_next)]
        message = f"{earlier}{rounds[0]} before {what.replace(element, 'it')}{rounds[1]}: {reason}"
    elif kind == "out-of-bounds":
        size = f"{_count(arrays[name])} elements" if name in arrays else f"{variables.get(name, 0)} bytes"
        message = f"{what}: out of bounds, {f'{name} has {size}' if name else 'no array is there'}"
    elif kind == "misaligned":
        message = f"{what} with {found['bytes']} bytes: misaligned, a GPU needs a multiple of {found['bytes']} bytes"
    else:
        message = f"{what}, which is not initialised"
    times = f", {found['times']} times" if found["times"] > 1 else ""
    return Finding(kind, site["line"], f"{message} ({found['block']}{times})", site["file"])


def _count(content: Array | tuple[int, ...]) -> int:
    return int(np.prod(content.shape if isinstance(content, np.ndarray) else content))


def _element(name: str, index: str, arrays: Mapping[str, Any]) -> str:
    """A[2][5] for an element of a global array, A[1000] beyond its end and in shared memory."""
    shape = np.shape(arrays[name]) if isinstance(arrays.get(name), np.ndarray) else arrays.get(name, ())
    inside = 0 <= int(index) < int(np.prod(shape)) and len(shape) > 0
    return name + "".join(f"[{i}]" for i in (np.unravel_index(int(index), shape) if inside else [index]))


def _failure(error: str, site: dict[str, Any]) -> Finding:
    """The finding for a launch that ended early: a crash, or an error of the emulator with file and line."""
    if error in ("invalid address", "division by zero", "invalid instruction"):
        kind = "out-of-bounds" if error == "invalid address" else "wrong-result"
        message = f"the kernel crashed at {place(site['file'], site['line'])}: {error}"
        return Finding(kind, site["line"], message, site["file"])
    if error == "time limit":
        message = f"the kernel does not end; it was at {place(site['file'], site['line'])}"
        return Finding("wrong-result", site["line"], message, site["file"])
    kind = "race" if "cp.async" in error else "divergent-barrier"
    places = [word.rpartition(":")[2].strip(",") for word in error.split() if word.rpartition(":")[0]]
    lines = [int(place) for place in places if place.isdigit()]
    message = re.sub(r"\S*/([^/\s]+:\d+)", r"\1", error.partition(": ")[2])
    return Finding(kind, lines[0] if lines else 0, message)
