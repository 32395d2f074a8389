"""List the hand-written CUDA kernels; compare, check, profile or step through a kernel without a GPU.

Select a kernel by its name, as in mr.backend('cuda', gemm=..., conv2d=...).  The last column of the list describes what
a kernel adds to the kernel before it.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS, RUNGS
from minires.backends.kernels.own import SIZES
from minires.cli.common import UsageError, print_json, say
from minires.cli.parser import Parser, Whole, add
from minires.cli.tables import print_table
from minires.kernels import model, step
from minires.kernels.check import ADVICE, check
from minires.kernels.profile import Profile, profile_file, profile_rung
from minires.kernels.watch import Finding, Site

EXAMPLES = ("kernels check mine.cu --as gemm", "kernels step gemm_04_registers --thread 37")
COMMANDS = {
    "check": "check a kernel file: results, races, bounds, alignment, uninitialised values",
    "profile": "count what a kernel asks of the memory, line by line",
}
TABLE = ("kernel", "sectors/load", "sectors/store", "wavefronts/k", "registers", "blocks", "share", "ms", "bound by")
HEAD = ("line", "access", "requests", "lanes", "sectors", "ideal sectors", "wavefronts", "ideal wavefronts")


def flags(parser: Parser) -> None:
    subparsers = parser.add_subparsers(dest="item", metavar="ITEM", parser_class=Parser)
    add(parser, "--json")
    parser.add_argument("--table", action="store_true", help="counts and modelled times of the GEMM ladder; needs g++")
    device = f"GPU of the modelled times: {', '.join(model.DEVICES)} (default: h200)"
    parser.add_argument("--device", choices=tuple(model.DEVICES), metavar="GPU", help=device)
    for item, text in COMMANDS.items():
        description = f"{text[0].upper()}{text[1:]}.  Needs g++, but no GPU."
        one = subparsers.add_parser(item, help=text, description=description)
        if item == "check":
            one.add_argument("file", metavar="FILE", help="kernel file: one function, its launch in the first line")
            one.add_argument("--as", dest="kind", choices=tuple(SIZES), required=True, help="operation of the kernel")
        else:
            one.add_argument("kernel", metavar="KERNEL", help="rung of a ladder, or kernel file")
            text = "operation of the kernel file (default: found by its arguments)"
            one.add_argument("--as", dest="kind", choices=tuple(SIZES), help=text)
        add(one, "--json", default=argparse.SUPPRESS)
    text = "step through a kernel in gdb, a rung or your own .cu file"
    _flags_of_step(subparsers.add_parser("step", help=text, description=f"{text[0].upper()}{text[1:]}."))


def _flags_of_step(parser: Parser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="name of a rung, or a path that ends in .cu")
    parser.add_argument("--as", dest="kind", choices=("gemm", "conv2d"), help="kind of the .cu file")
    parser.add_argument(
        "--size", type=_sizes, default={}, metavar="M=N,...",
        help="sizes that differ from the default, such as M=150,N=70,K=40 (conv2d: N,C,H,W,O,KH,KW,stride,padding)",
    )  # fmt: skip
    add(parser, "--seed", help="seed of the threads' order; 0: ascending (default: 0)", type=Whole(0, 2**31 - 1))
    parser.add_argument(
        "--break", dest="line", metavar="LINE", help="line to stop at, its number or text (default: the kernel's begin)"
    )
    parser.add_argument(
        "--thread", type=_thread, default=(), metavar="X,Y,Z", help="thread to stop in (default: the first to arrive)"
    )
    parser.add_argument(
        "--ex", action="append", default=[], metavar="COMMAND", help="command for gdb after it stops; may be repeated"
    )
    parser.add_argument("--batch", action="store_true", help="no prompt: gdb runs its commands and ends")


def _sizes(text: str) -> dict[str, int]:
    try:
        return {name.strip(): int(size) for name, size in (word.split("=") for word in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be sizes such as M=150,N=70,K=40, got {text!r}") from None


def _thread(text: str) -> tuple[int, ...]:
    try:
        index = tuple(map(int, text.split(",")))
    except ValueError:
        index = ()
    if not 1 <= len(index) <= 3 or min(index) < 0:
        raise argparse.ArgumentTypeError(f"must be one to three indices such as 37 or 3,1, got {text!r}")
    return index


def run(arguments: argparse.Namespace) -> int:
    if arguments.item and arguments.table:
        raise UsageError(f"--table: not with {arguments.item}")
    if arguments.device and not arguments.table:
        raise UsageError("--device requires --table")
    if arguments.table:
        return _table(arguments.device or "h200", arguments.json)
    if arguments.item == "step":
        return _step(arguments)
    try:
        if arguments.item == "check":
            return _check(arguments.file, arguments.kind, arguments.json)
        if arguments.item == "profile":
            return _profile(arguments.kernel, arguments.kind, arguments.json)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if arguments.json:
        print_json([asdict(rung) for rung in RUNGS])
        return 0
    rows = [(r.name, r.kind, f"sm_{r.needs.replace('.', '')}" if r.needs else "", r.adds) for r in RUNGS]
    kinds = [rung.kind for rung in RUNGS]
    last = [i for i, kind in enumerate(kinds) if kind in ("gemm", "conv2d") and kind not in kinds[i + 1 :]]
    print_table(("kernel", "computes", "needs", "what it adds"), rows, drop=("needs", "computes"), sections=last)
    return 0


def _table(device: str, as_json: bool) -> int:
    rows = model.table(device)
    modelled = rows[0].registers is not None
    if as_json:
        print_json({"device": device if modelled else None, "rows": [asdict(row) for row in rows]})
        return 0
    title = f"the GEMM ladder; ms: {model.SIZE}³ on {device}, model, not measured" if modelled else "the GEMM ladder"
    head = TABLE if modelled else TABLE[:4]
    print_table(head, [_cells(row)[: len(head)] for row in rows], title, right=head[1:8])
    if not modelled:
        say("registers, blocks, share and modelled times need NVRTC: pip install 'minires[contract]'")
    return 0


def _cells(row: model.Row) -> tuple[str, ...]:
    counts = (f"{row.load_sectors:.3g}", f"{row.store_sectors:.3g}", f"{row.wavefronts:.3g}" if row.wavefronts else "")
    if row.share is None:
        return (row.rung, *counts)
    return (
        row.rung,
        *counts,
        str(row.registers),
        str(row.blocks),
        f"{row.share:.0%}",
        f"{row.milliseconds:.2f}",
        row.bound or "",
    )


def _step(arguments: argparse.Namespace) -> int:
    try:
        chosen = step.step(arguments.kernel, arguments.kind, arguments.size)
        stop = chosen.stop(arguments.line, arguments.thread)
        command = chosen.command(chosen.program(), arguments.seed or 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    say("program:", shlex.join(command), indent=None, error=True)
    sys.stdout.flush()
    outer = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is gdb's
    try:
        ran = subprocess.run(step.gdb(command, stop, arguments.ex, arguments.batch), check=False)
    finally:
        signal.signal(signal.SIGINT, outer)
    return 0 if ran.returncode == 0 else 1


def _check(file: str, kind: str, as_json: bool) -> int:
    result = check(file, kind)
    if as_json:
        profile = result.profile.json() if result.profile else None
        findings = [finding.json() for finding in result.findings]
        print_json({"passed": result.passed, "findings": findings, "profile": profile})
    else:
        _say_findings(file, result.findings)
        if result.profile:
            _print_profile(Path(file).name, result.profile)
        say("passed" if result.passed else "failed")
    return 0 if result.passed else 1


def _profile(kernel: str, kind: str | None, as_json: bool) -> int:
    rung = kernel in (*GEMMS, *CONVOLUTIONS)
    if rung and kind:
        raise ValueError("--as requires a kernel file, not a rung")
    profile = profile_rung(kernel) if rung else profile_file(kernel, kind)
    findings = (*profile.findings, *profile.advice)
    if as_json:
        print_json({"findings": [finding.json() for finding in findings], "profile": profile.json()})
    else:
        _print_profile(kernel, profile)
        _say_findings(kernel, findings)
    return 1 if profile.findings else 0


def _say_findings(file: str, findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        mark = "advice: " if finding.kind in ADVICE else ""
        say(f"{Path(finding.file or file).name}:{finding.line}: {mark}{finding.kind}: {finding.message}", indent=4)


def _print_profile(name: str, profile: Profile) -> None:
    """A row for each line and kind of access: averages of a warp's request, and what an ideal request would cost."""
    sizes = " ".join(f"{name}={size}" for name, size in profile.sizes.items())
    several = len({site.file for site in profile.sites}) > 1
    rows = [_row(site, several) for site in profile.sites]
    print_table(HEAD, rows, f"{name}, {sizes}", right=HEAD[2:])
    print_table(("in all", "count"), [(name, f"{count:,}") for name, count in profile.total.items()], right=("count",))


def _row(site: Site, with_file: bool) -> tuple[str, ...]:
    place = f"{Path(site.file).name}:{site.line}" if with_file else str(site.line)
    costs = (site.lanes, site.sectors, site.ideal_sectors, site.wavefronts, site.ideal_wavefronts)
    return (place, site.kind, f"{site.requests:,}", *(f"{cost / site.requests:.4g}" if cost else "" for cost in costs))
