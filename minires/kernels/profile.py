"""What a kernel asks of the memory, counted exactly: requests, sectors, wavefronts, bank conflicts, barriers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires._checks import choice
from minires.arrays import Array
from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS
from minires.backends.kernels.own import ARRAYS, OwnKernel, read
from minires.backends.kernels.provider import sources
from minires.kernels.build import Program, kernels_of, ladder_program, own_program
from minires.kernels.cases import PROFILED, shapes_of
from minires.kernels.launches import launches_of
from minires.kernels.watch import Finding, Launch, Pointer, Report, Site, Traffic, run

# Nsight Compute's metrics: name -> (kinds of accesses, what is summed)
METRICS = {
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": (("global load",), "requests"),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": (("global load",), "sectors"),
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": (("global store",), "requests"),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": (("global store",), "sectors"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum": (("shared load", "ldmatrix"), "wavefronts"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": (("shared load", "ldmatrix"), "conflicts"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum": (("shared store",), "wavefronts"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": (("shared store",), "conflicts"),
    "cp.async requests": (("cp.async load",), "requests"),
    "cp.async sectors": (("cp.async load",), "sectors"),
    "ldmatrix": (("ldmatrix",), "requests"),
    "mma": (("mma",), "requests"),
    "barriers": (("barrier",), "requests"),
}
SECTORS = 2.0  # times the ideal, from which on a line is called uncoalesced
WAVEFRONTS = 1.5  # times the ideal, from which on a line is called a bank conflict


@dataclass(frozen=True)
class Profile:
    """sizes: of the operation.  sites: each line and kind of access.  traffic: each global array.  findings: faults."""

    sizes: Mapping[str, int]
    sites: tuple[Site, ...]
    traffic: Mapping[str, Traffic]
    findings: tuple[Finding, ...]

    @property
    def total(self) -> dict[str, int]:
        """Sums over all launches; warps execute requests, ldmatrix, mma and barriers."""
        return {name: sum(map(_summand(what), self._of(kinds))) for name, (kinds, what) in METRICS.items()}

    @property
    def advice(self) -> list[Finding]:
        """A line whose accesses cost much more than they need."""
        found = []
        for site in self.sites:
            if site.sectors > SECTORS * site.ideal_sectors:
                cost, ideal = site.sectors / site.requests, site.ideal_sectors / site.requests
                remedy = "let neighbouring threads (threadIdx.x) use neighbouring addresses"
                message = f"{site.kind}s take {cost:.4g} sectors a request, {ideal:.4g} would do; {remedy}"
                found.append(Finding("uncoalesced", site.line, message, site.file))
            if site.wavefronts > WAVEFRONTS * site.ideal_wavefronts:
                cost, ideal = site.wavefronts / site.requests, site.ideal_wavefronts / site.requests
                remedy = "lanes of a warp use the same bank; pad the rows of the array by one element"
                message = (
                    f"{site.kind}s take {cost:.4g} wavefronts a request, {ideal:.4g} without bank conflicts; {remedy}"
                )
                found.append(Finding("bank-conflict", site.line, message, site.file))
        return found

    def json(self) -> dict[str, Any]:
        lines = [{**vars(site), "file": Path(site.file).name, **per_request(site)} for site in self.sites]
        loads = ("requested_bytes", "unique_bytes")
        arrays = {name: {load: getattr(t, load) for load in loads} for name, t in self.traffic.items()}
        return {"sizes": dict(self.sizes), "total": self.total, "lines": lines, "arrays": arrays}

    def _of(self, kinds: Iterable[str]) -> list[Site]:
        return [site for site in self.sites if site.kind in kinds]


def _summand(what: str) -> Any:
    return lambda site: site.wavefronts - site.ideal_wavefronts if what == "conflicts" else getattr(site, what)


def per_request(site: Site) -> dict[str, float]:
    """Lanes, sectors and wavefronts of an average request, as far as they apply."""
    names = ("lanes", "sectors", "wavefronts")
    return {f"{name}/request": getattr(site, name) / site.requests for name in names if getattr(site, name)}


def profile_file(path: str | Path, kind: str | None = None) -> Profile:
    """The profile of a kernel file; kind: "gemm", "conv2d", or None: its arguments show which operation it is."""
    try:
        kernel = read(path, kind or "gemm")
    except ValueError as error:
        if kind:
            raise
        try:
            kernel = read(path, "conv2d")
        except ValueError:
            raise error from None
    with own_program(kernel) as program:
        return profile_program(kernel, program)


def profile_program(kernel: OwnKernel, program: Program) -> Profile:
    """The profile of a kernel of your own on the sizes `PROFILED`."""
    sizes = PROFILED[kernel.kind]
    grid, block = kernel.launch_of(**sizes)
    *inputs, out = shapes_of(kernel.kind, sizes)
    contents: list[Array | tuple[int, ...]] = [*map(_numbers, inputs), out]
    arrays = dict(zip(ARRAYS[kernel.kind], contents, strict=True))
    launch = Launch(kernel.name, grid, block, [*map(Pointer, arrays), *sizes.values()], kernel.shared_of(**sizes))
    return _profile(sizes, run(program, arrays, [launch]))


def profile_rung(rung: str, sizes: Mapping[str, int] | None = None, seed: int = 0) -> Profile:
    """The profile of all launches of a rung of the GEMM or of the convolution ladder."""
    kind = "gemm" if rung in GEMMS else "conv2d"
    choice(rung, "rung", (*GEMMS, *CONVOLUTIONS))
    if sizes is None:
        sizes = PROFILED[kind] | ({"KH": 1, "KW": 1, "padding": 0} if rung == "conv_03_1x1" else {})
    shapes = shapes_of(kind, sizes)
    if kind == "conv2d":
        shapes = tuple((N, H, W, C) for N, C, H, W in shapes)  # NHWC
    arrays = dict(zip(ARRAYS[kind], (*map(_numbers, shapes[:2]), np.empty(shapes[2], np.float32)), strict=True))
    kept = launches_of(rung, sizes, *arrays.values())
    names = {id(array): name for name, array in arrays.items()}
    contents: dict[str, Array | tuple[int, ...]] = {}

    def argument(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        whole = value
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        name = names.setdefault(id(whole), f"workspace{len(names)}")
        contents[name] = whole if name in ARRAYS[kind][:2] else whole.shape
        return Pointer(name, value.ctypes.data - whole.ctypes.data)

    launches = [Launch(one.kernel, one.grid, one.block, [*map(argument, one.arguments)]) for one in kept]
    kernels = {one.kernel for one in kept}
    files = [file for file in sorted(sources().glob("*.cu")) if kernels & set(kernels_of(file))]
    return _profile(sizes, run(ladder_program(files), contents, launches, seed))


def _numbers(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)


def _profile(sizes: Mapping[str, int], report: Report) -> Profile:
    return Profile(sizes, tuple(report.sites), report.traffic, tuple(report.findings))
