"""The pictures of README.md.

    python -m benchmarks.figures [architecture] [race] [trace] [--out DIR]

architecture   the rooms of the package and who uses whom
race           five rows of the CPU benchmark, from results/forms.json
trace          the page of `minires trace`, walking forward and backward; needs the extra browser and Chromium
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from minires.bench.peers import CAPTURED
from minires.bench.report import Table, percent, seconds

RESULTS = Path(__file__).parent / "results"

# -- SVG, written by hand: the same bytes everywhere

INK, PAPER, BLUE, ORANGE, GREY = "#1b2430", "#ffffff", "#2b6cb0", "#c05621", "#718096"
TINTS = ("#edf2f7", "#e6f0fa", "#fdf1e3", "#e8f5ea", "#fbe9ea", "#f1ecf9")


def svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A picture on a white ground, from its elements."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" role="img">\n<title>{escape(title)}</title>\n'
    )
    return head + f'<rect width="100%" height="100%" fill="{PAPER}"/>\n' + "\n".join(parts) + "\n</svg>\n"


def text(
    x: float, y: float, words: str, size: int = 13, color: str = INK, anchor: str = "middle", bold: bool = False
) -> str:
    style = f'font-size="{size}" fill="{color}" text-anchor="{anchor}"' + ' font-weight="bold"' * bold
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{stroke}"/>'


# -- the rooms

# A room imports from rooms below it, or to its right, alone.  (names, what they are)
ROOMS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("cli", "a file a command: minires train, step, trace, verify, bench, …"),),
    (
        *(("paper", "tables, figures"), ("bench", "races"), ("prediction", "pictures"), ("training", "loop, resume")),
        *(("verify", "proofs"), ("inspect", "debug, trace"), ("weights", "foreign files")),
    ),
    (
        ("capture, models, data", "replays, the paper's networks, loaders"),
        ("optim", "SGD, Adam, schedules"),
        ("nn", "modules and layers"),
    ),
    (("functional", "checks"), ("ops", "forward above backward"), ("autograd, tensor", "tape, backward walk")),
    (("backends: arrays in, arrays out", "one contract, specified by the reference; your own object fits too"),),
    (
        *(("reference", "NumPy, CuPy"), ("native", "csrc/cpu, C++")),
        *(("cuda, cublas", "csrc/cuda, on a GPU"), ("emulated", "csrc/cuda, on the CPU")),
    ),
)


def architecture() -> str:
    left, top, wide, high, gap = 20, 16, 880, 50, 10
    parts = []
    for level, row in enumerate(ROOMS):
        width = (wide - gap * (len(row) - 1)) / len(row)
        x, y = float(left), top + level * (high + gap + 6)
        for name, what in row:
            parts.append(box(x, y, width, high, TINTS[level], GREY))
            parts.append(text(x + width / 2, y + 21, name, 14, bold=True))
            parts.append(text(x + width / 2, y + 39, what, 11))
            x += width + gap
    height = top + len(ROOMS) * (high + gap + 6) + 18
    note = "A room uses rooms below it or to its right.  Whatever looks into a run is an observer of the tape."
    return svg(
        left + wide + 20, height, "The rooms of minires", [*parts, text(left, height - 12, note, 11, GREY, "start")]
    )


# -- the race

RACE = (
    ("resnet50", "training", 16),
    ("resnet20", "training", 128),
    ("resnet50", "inference", 8),
    ("resnet50", "inference", 1),
    ("resnet20", "inference", 1),
)
OURS = ("native", "reference")  # and forms of them, such as "native, captured"


def stored(name: str = "forms") -> dict[str, Any]:
    """What `python -m benchmarks.NAME --write` measured."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def fastest_peer(sides: Mapping[str, Any]) -> str:
    return min((name for name in sides if name.partition(",")[0] not in OURS), key=lambda name: sides[name]["seconds"])


def race_rows(found: Mapping[str, Any]) -> list[tuple[str, float, float, str, float]]:
    """(workload, our seconds, share of the processor's peak, the fastest peer, its seconds) of the five rows."""
    sides_of = {(row["network"], row["task"], row["batch"]): row["sides"] for row in found["networks"]}
    rows = []
    for network, task, batch in RACE:
        sides = sides_of[network, task, batch]
        ours, peer = sides[CAPTURED], fastest_peer(sides)
        share = ours["gflops"] / found["limits"]["peak_gflops"]
        rows.append((f"{network} {task} {batch}", ours["seconds"], share, peer, sides[peer]["seconds"]))
    return rows


def race_table(found: Mapping[str, Any]) -> Table:
    head = ("network, task, batch", "minires, captured", "of the peak", "fastest peer", "its time", "ratio")
    return head, [
        (workload, seconds(ours), percent(share), peer, seconds(theirs), f"{ours / theirs:.2f}")
        for workload, ours, share, peer, theirs in race_rows(found)
    ]


def race(found: Mapping[str, Any] | None = None) -> str:
    """Bars of our time divided by the fastest peer's, on a scale that ends at 5."""
    rows = race_rows(found or stored())
    left, top, wide, high, last = 210, 44, 560, 34, 5.0
    one = left + wide / last
    parts = [
        text(
            20,
            24,
            "time of minires divided by that of the fastest peer, same run (below 1: minires is faster)",
            13,
            anchor="start",
            bold=True,
        )
    ]
    for number, (workload, ours, _, peer, theirs) in enumerate(rows):
        y, ratio = top + number * high, ours / theirs
        parts.append(text(left - 10, y + 17, workload, 12, anchor="end"))
        parts.append(box(left, y + 3, wide * min(ratio, last) / last, high - 14, BLUE if ratio <= 1 else ORANGE))
        end = left + wide * min(max(ratio, 1.04), last) / last
        parts.append(text(end + 8, y + 18, f"{ratio:.2f} of {peer}", 12, anchor="start"))
    bottom = top + len(rows) * high
    parts.append(f'<path d="M{one:g} {top - 8} V{bottom}" stroke="{INK}" stroke-dasharray="4 3"/>')
    parts.append(text(one, bottom + 16, "1", 12))
    return svg(940, bottom + 26, "minires beside its fastest peer", parts)


# -- the page of the trace

STEPS = 20
WINDOW, WIDTH, MILLISECONDS = (1500, 940), 900, 700  # of the browser, of the picture, of a frame
SCRUB = """
const scrubber = document.querySelector("input[type=range]");
scrubber.value = Math.round(arguments[0] * Number(scrubber.max));
scrubber.dispatchEvent(new Event("input"));
"""


def trace() -> bytes:
    """An animated GIF: screenshots of the page while the scrubber walks forward and backward."""
    from PIL import Image
    from selenium import webdriver

    from minires import cli

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit("needs Chromium and its driver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size={},{}".format(*WINDOW))
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "trace.html"
        if code := cli.main(["trace", "resnet20", "--data", "digits", "--index", "3", "--out", str(page)]):
            raise SystemExit(code)
        chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            chromium.get(page.as_uri())
            for step in range(STEPS):
                chromium.execute_script(SCRUB, step / (STEPS - 1))
                shot = Image.open(io.BytesIO(chromium.get_screenshot_as_png())).convert("RGB")
                size = (WIDTH, round(shot.height * WIDTH / shot.width))
                frames.append(shot.resize(size, Image.Resampling.LANCZOS).quantize(64, dither=Image.Dither.NONE))
        finally:
            chromium.quit()
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True)
    return file.getvalue()


def write(names: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == "trace":
            (folder / "trace.gif").write_bytes(trace())
        else:
            (folder / f"{name}.svg").write_text(PICTURES[name](), encoding="utf-8")


PICTURES = {"architecture": architecture, "race": race}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: architecture and race")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*PICTURES, "trace"}:
        parser.error(f"unknown picture {unknown.pop()!r}; known are architecture, race, trace")
    write(arguments.names or list(PICTURES), arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
