"""Exercises in CUDA: a .cu file, which `minires kernels check` runs in the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires.backends import BackendUnavailable
from minires.exercises.families import Family
from minires.exercises.process import end
from minires.exercises.result import Result, labelled, verdict
from minires.kernels.check import ADVICE

SECONDS = 60
LOADS = "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum"


@dataclass(frozen=True)
class KernelExercise:
    """A kernel that a student writes.

    kind          what it computes: gemm or conv2d
    text          comment of the start file
    parameters    of the kernel
    solution      a whole file
    most_loads    largest number of warps' loads from global memory in the profile; None: any number
    """

    name: str
    teaches: str
    section: str
    kind: str
    text: str
    parameters: str
    solution: str
    hint: str
    why: str
    place: str
    most_loads: int | None = None

    def start(self) -> str:
        comment = "\n".join(f"// {line}".rstrip() for line in self.text.strip().splitlines())
        launch = self.solution.splitlines()[0]
        return f'{launch}\n{comment}\nextern "C" __global__ void {self.kind}({self.parameters}) {{\n    // yours\n}}\n'


MISTAKES = {  # kind of a finding: name of the misconception, explanation and question; the first that is found counts
    "out-of-bounds": (
        "index outside of an array",
        Family(
            "A thread uses an element outside of an array: a thread beyond the edge, or an index with a wrong factor.",
            "Which row and column must the thread in the message use, and which index does your formula give it?",
        ),
    ),
    "divergent-barrier": (
        "barrier inside a branch",
        Family(
            "Not all threads of the block reach the same __syncthreads().",
            "Which threads have left the kernel or skipped the branch before the barrier?",
        ),
    ),
    "race": (
        "barrier missing",
        Family(
            "Threads use an element that other threads write, and no barrier orders them.",
            "Which two lines use the same element, and what makes one thread wait for the other?",
        ),
    ),
    "uninitialised": (
        "read before it is written",
        Family(
            "A value is read that no thread has written yet.",
            "Which thread writes this element, in every block and at every edge?",
        ),
    ),
    "misaligned": (
        "address not aligned",
        Family(
            "A wide access begins at an address that is no multiple of its size.",
            "For which sizes is the begin of every row a multiple of 16 bytes?",
        ),
    ),
    "unwritten": (
        "elements not written",
        Family(
            "Some elements of the result are never written.",
            "How many blocks does the first line launch, and which element does each thread write?",
        ),
    ),
}
WRONG = "The first element in the message: which products does your loop add, and which does the definition?"
TILE = "How many threads of a block load the same element of A? Let one of them load it into shared memory."

GEMM = "const float* A, const float* B, float* C, int M, int N, int K"
CONV = (
    "const float* x, const float* w, float* y, int N, int C, int H, int W, int O, int KH, int KW, int stride, int "
    "padding"
)
GEMM_TEXT = """
C = A · B: C[m][n] = Σ_k A[m][k] · B[k][n], for every M, N, K.
A (M, K), B (K, N), C (M, N), row by row in memory.  The first line is the launch; you may change it.
"""
CONV_TEXT = """
y[n][o][i][j] = Σ_c,p,q x[n][c][i·stride + p − padding][j·stride + q − padding] · w[o][c][p][q]
x (N, C, H, W), w (O, C, KH, KW), y (N, O, OH, OW), contiguous; OH = (H + 2·padding − KH) / stride + 1.
Outside of the image x is 0.  The first line is the launch, with OH and OW known; you may change it.
"""
KERNELS: dict[str, KernelExercise] = {}


def _add(exercise: KernelExercise) -> None:
    KERNELS[exercise.name] = exercise


_add(
    KernelExercise(
        name="gemm_naive",
        teaches="a thread per element, and guards at the edges",
        section="3.3",
        kind="gemm",
        text=GEMM_TEXT,
        parameters=GEMM,
        solution=f"""// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
extern "C" __global__ void gemm({GEMM}) {{
    const int m = blockIdx.y * blockDim.y + threadIdx.y, n = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= M || n >= N) return;
    float sum = 0;
    for (int k = 0; k < K; ++k) sum += A[m * K + k] * B[k * N + n];
    C[m * N + n] = sum;
}}
""",
        hint="One thread computes one element. Neighbouring threads of a warp should have neighbouring n.",
        why=(
            "Each thread reads a row of A and a column of B. The threads of a warp read the same element of A, which "
            "is one transaction, and neighbouring elements of B, which are few. Threads beyond the edge must do "
            "nothing."
        ),
        place="csrc/cuda/gemm_01_naive.cu, in gdb on the CPU (csrc/README.md)",
    )
)
_add(
    KernelExercise(
        name="gemm_tile",
        teaches="shared memory and barriers",
        section="3.3",
        kind="gemm",
        text=GEMM_TEXT + "Load tiles of A and B into shared memory, so that each thread of a block uses them.\n",
        parameters=GEMM,
        solution=f"""// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
extern "C" __global__ void gemm({GEMM}) {{
    __shared__ float a[16][16], b[16][16];
    const int row = threadIdx.y, column = threadIdx.x, m = blockIdx.y * 16 + row, n = blockIdx.x * 16 + column;
    float sum = 0;
    for (int first = 0; first < K; first += 16) {{
        a[row][column] = m < M && first + column < K ? A[m * K + first + column] : 0;
        b[row][column] = n < N && first + row < K ? B[(first + row) * N + n] : 0;
        __syncthreads();  // the tiles are complete
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        __syncthreads();  // all threads have read them
    }}
    if (m < M && n < N) C[m * N + n] = sum;
}}
""",
        hint=(
            "Two barriers in the loop: one after the tiles are written, one before they are overwritten. No thread "
            "may leave the kernel before the last barrier, not even beyond the edge."
        ),
        why=(
            "Each element of a tile is loaded once by one thread and used by 16, so global memory is read 16 times "
            "less. The first barrier makes the writes visible, the second keeps fast threads from overwriting what "
            "slow ones still read."
        ),
        place="csrc/cuda/gemm_03_shared.cu, in gdb on the CPU (csrc/README.md)",
        most_loads=16_384,
    )
)
_add(
    KernelExercise(
        name="conv_direct",
        teaches="the geometry of a convolution, a thread per output",
        section="3.4",
        kind="conv2d",
        text=CONV_TEXT,
        parameters=CONV,
        solution=f"""// launch: block=(64) grid=(ceil(OH*OW/64), O, N)
extern "C" __global__ void conv2d({CONV}) {{
    const int OH = (H + 2 * padding - KH) / stride + 1, OW = (W + 2 * padding - KW) / stride + 1;
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x, o = blockIdx.y, n = blockIdx.z;
    if (pixel >= OH * OW) return;
    const int top = pixel / OW * stride - padding, left = pixel % OW * stride - padding;
    float sum = 0;
    for (int c = 0; c < C; ++c)
        for (int p = 0; p < KH; ++p)
            for (int q = 0; q < KW; ++q) {{
                const int h = top + p, v = left + q;
                if (h >= 0 && h < H && v >= 0 && v < W)
                    sum += x[((n * C + c) * H + h) * W + v] * w[((o * C + c) * KH + p) * KW + q];
            }}
    y[(n * O + o) * OH * OW + pixel] = sum;
}}
""",
        hint=(
            "Compute the row and column of the window's first element, which may be negative. Test each tap before "
            "reading."
        ),
        why=(
            "Every output is a sum of its own, so threads need nothing from each other. The test of the border "
            "replaces the padding: a tap outside of the image contributes 0."
        ),
        place="csrc/cuda/conv_01_direct.cu, in gdb on the CPU (csrc/README.md)",
    )
)
_add(
    KernelExercise(
        name="conv_im2col",
        teaches="a convolution as a tiled matrix product, without storing the matrix",
        section="3.4",
        kind="conv2d",
        text=CONV_TEXT + "Multiply tiles of w (O, C·KH·KW) with tiles of im2col's matrix, which you gather from x.\n",
        parameters=CONV,
        solution=f"""// launch: block=(16,16) grid=(ceil(OH*OW/16), ceil(O/16), N)
extern "C" __global__ void conv2d({CONV}) {{
    __shared__ float a[16][16], b[16][16];
    const int OH = (H + 2 * padding - KH) / stride + 1, OW = (W + 2 * padding - KW) / stride + 1, K = C * KH * KW;
    const int row = threadIdx.y, column = threadIdx.x, n = blockIdx.z;
    const int o = blockIdx.y * 16 + row, pixel = blockIdx.x * 16 + column;
    const int top = pixel / OW * stride - padding, left = pixel % OW * stride - padding;
    float sum = 0;
    for (int first = 0; first < K; first += 16) {{
        a[row][column] = o < O && first + column < K ? w[o * K + first + column] : 0;
        const int k = first + row, c = k / (KH * KW), h = top + k / KW % KH, v = left + k % KW;
        const bool inside = k < K && pixel < OH * OW && h >= 0 && h < H && v >= 0 && v < W;
        b[row][column] = inside ? x[((n * C + c) * H + h) * W + v] : 0;
        __syncthreads();  // the tiles are complete
        for (int i = 0; i < 16; ++i) sum += a[row][i] * b[i][column];
        __syncthreads();  // all threads have read them
    }}
    if (o < O && pixel < OH * OW) y[(n * O + o) * OH * OW + pixel] = sum;
}}
""",
        hint=(
            "Begin with gemm_tile. Row k of the matrix is tap (p, q) of channel c: k = (c·KH + p)·KW + q. Column is a "
            "pixel."
        ),
        why=(
            "The convolution is a matrix product of filters and windows. A tile of the windows is gathered directly "
            "from x, so the large matrix of im2col never exists, and each gathered number is used by 16 filters."
        ),
        place="csrc/cuda/conv_04_implicit.cu, in gdb on the CPU (csrc/README.md)",
        most_loads=18_432,
    )
)


def check_kernel(name: str, file: Path, seconds: float = SECONDS) -> Result:
    """Checks a kernel's file with `minires kernels check`, in a process of its own.

    Raises BackendUnavailable without the emulator's compiler.
    """
    exercise = KERNELS[name]
    command = [sys.executable, "-P", "-m", "minires", "kernels", "check", str(file), "--as", exercise.kind, "--json"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        lines = [f"no answer after {seconds:g} s, compilation included"]
        return verdict(name, "no-answer", lines, "Which loop ends, and which condition ends it?")
    finally:
        end(process)
    message = err.decode("utf-8", "replace").strip()
    if process.returncode == 3:
        raise BackendUnavailable(message.removeprefix("error: "))
    try:
        fields = json.loads(out)
    except ValueError:
        kept = [line for line in message.splitlines() if not line.startswith(("usage: ", "try "))]
        lines = ["the file is no kernel that compiles", *(line.removeprefix("error: ") for line in kept[:8])]
        return verdict(name, "not-loaded", lines, "Which line of the file does the message name?")
    return judged(exercise, fields)


def judged(exercise: KernelExercise, fields: Mapping[str, Any]) -> Result:
    """The verdict on the JSON of `minires kernels check`."""
    findings = [one for one in fields["findings"] if one["kind"] not in ADVICE]
    advice = [
        f"advice         line {one['line']}: {one['message']}" for one in fields["findings"] if one["kind"] in ADVICE
    ]
    if not fields["passed"]:
        lines = [f"{one['kind']} at line {one['line']}: {one['message']}" for one in findings[:4]]
        kinds = [kind for kind in MISTAKES if any(one["kind"] == kind for one in findings)]
        if not kinds:
            return verdict(exercise.name, "wrong", lines, WRONG, findings=findings)
        name, family = MISTAKES[kinds[0]]
        lines += ["", *labelled("misconception", name), *labelled("", family.sentence)]
        return verdict(exercise.name, "wrong", lines, family.question, name, findings=findings)
    loads = ((fields.get("profile") or {}).get("total") or {}).get(LOADS)
    if exercise.most_loads is not None and loads is not None and loads > exercise.most_loads:
        lines = [
            "the numbers are right",
            (
                f"warps load from global memory {loads:,} times in the profile; at most "
                f"{exercise.most_loads:,} are allowed"
            ),
        ]
        return verdict(exercise.name, "wrong", lines, TILE, "tile not used", loads=loads)
    lines = [
        *labelled("tried", "sizes that are no multiples of a tile, in the emulator, with every access watched"),
        *labelled("why it works", exercise.why),
        f"step through   {exercise.place}",
        *advice,
    ]
    return verdict(exercise.name, "passed", lines, loads=loads)
