"""The pictures of the READMEs.

    python -m benchmarks.figures [architecture] [race] [convolutions] [memory] [trace] [--png] [--out DIR]

architecture   the rooms of the package and their imports
race           five rows of the CPU benchmark, from results/forms.json
convolutions   each convolution and direction beside PyTorch, as a heat map, from results/native.json
memory         predicted and measured peaks of training, from results/memory.json
trace          the page of `minires trace`, walking forward and backward; needs the extra browser and Chromium
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image

from minires import cli
from minires.bench.peers import CAPTURED
from minires.bench.report import Table, percent, seconds

RESULTS = Path(__file__).parent / "results"

# -- SVG, written by hand: the same bytes on every machine

INK, PAPER, BLUE, ORANGE, GREY = "#1b2430", "#ffffff", "#2b6cb0", "#c05621", "#718096"
TINTS = ("#edf2f7", "#e6f0fa", "#fdf1e3", "#e8f5ea", "#fbe9ea", "#f1ecf9")


def svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """An SVG picture on a white background, from its elements."""
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

# (names, contents): a room imports only from rooms below it or to its right.
ROOMS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("cli", "a file a command: minires train, step, trace, verify, bench, …"),),
    (
        *(("exercises", "mistakes"), ("paper", "tables, figures"), ("bench", "races"), ("prediction", "pictures")),
        *(
            ("training", "loop, resume"),
            ("verify", "proofs"),
            ("inspect", "debug, trace"),
            ("kernels", "check, profile"),
            ("weights", "foreign files"),
        ),
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
    note = "A room uses rooms below it or to its right.  All tools that look into a run are observers of the tape."
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
    """(workload, our seconds, share of the processor's peak, the fastest peer, the peer's seconds) of five rows."""
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
        (workload, seconds(ours), percent(share), peer, seconds(best), f"{ours / best:.2f}")
        for workload, ours, share, peer, best in race_rows(found)
    ]


def race(found: Mapping[str, Any] | None = None) -> str:
    title = "time of minires divided by that of the fastest peer, same run (below 1: minires is faster)"
    rows = [(workload, ours, peer, best) for workload, ours, _, peer, best in race_rows(found or stored())]
    return bars(rows, title, "minires beside its fastest peer", 210)


def bars(rows: Sequence[tuple[str, float, str, float]], title: str, name: str, left: int) -> str:
    """Bars of our time divided by the peer's, on a scale that ends at 5; rows (workload, our time, peer, its time)."""
    top, wide, high, last = 44, 560, 34, 5.0
    one = left + wide / last
    parts = [text(20, 24, title, 13, anchor="start", bold=True)]
    for number, (workload, ours, peer, best) in enumerate(rows):
        y, ratio = top + number * high, ours / best
        parts.append(text(left - 10, y + 17, workload, 12, anchor="end"))
        parts.append(box(left, y + 3, wide * min(ratio, last) / last, high - 14, BLUE if ratio <= 1 else ORANGE))
        end = left + wide * min(max(ratio, 1.04), last) / last
        parts.append(text(end + 8, y + 18, f"{ratio:.2f} of {peer}", 12, anchor="start"))
    bottom = top + len(rows) * high
    parts.append(f'<path d="M{one:g} {top - 8} V{bottom}" stroke="{INK}" stroke-dasharray="4 3"/>')
    parts.append(text(one, bottom + 16, "1", 12))
    return svg(left + 730, bottom + 26, name, parts)


# -- the convolutions


def tint(color: str, share: float) -> str:
    """The color mixed with white; share: 0 (white) to 1 (the color)."""
    channels = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (channel - 255) * share):02x}" for channel in channels)


def convolutions(found: Mapping[str, Any] | None = None) -> str:
    """A row for each convolution, a column for each direction: the time beside PyTorch's, and the share of the peak."""
    found = found or stored("native")
    rows: dict[str, dict[str, Any]] = {}
    for row in found["layers"]:
        rows.setdefault(row["convolution"], {})[row["direction"]] = row["sides"]
    directions = list(next(iter(rows.values())))
    left, top, wide, high, gap = 210, 70, 110, 22, 24
    second = left + len(directions) * wide + gap
    parts = [
        text(left, 24, "time of minires / time of PyTorch", 13, anchor="start", bold=True),
        text(left, 40, "the faster of its two layouts; blue: minires is faster", 11, GREY, "start"),
        text(second, 24, "share of the processor's peak", 13, anchor="start", bold=True),
        text(second, 40, "above 100 %: Winograd's algorithm saves multiply-adds", 11, GREY, "start"),
    ]
    for column, direction in enumerate(directions):
        parts += [text(x + (column + 0.5) * wide, top - 8, direction, 11) for x in (left, second)]
    for number, (name, sides_of) in enumerate(rows.items()):
        y = top + number * high
        parts.append(text(left - 10, y + 15, name, 12, anchor="end"))
        for column, sides in enumerate(sides_of.values()):
            ours = sides[OURS[0]]
            ratio = ours["seconds"] / min(side["seconds"] for peer, side in sides.items() if peer.startswith("torch"))
            share = ours["gflops"] / found["limits"]["peak_gflops"]
            fill = tint(BLUE if ratio <= 1 else ORANGE, min(abs(math.log2(ratio)) / 2, 0.8))
            cells = ((left, fill, f"{ratio:.2f}"), (second, tint(BLUE, min(share / 3.5, 0.8)), percent(share)))
            for start, color, words in cells:
                x = start + column * wide
                parts += [box(x + 1, y + 1, wide - 2, high - 2, color), text(x + wide / 2, y + 15, words, 12)]
    width, height = second + len(directions) * wide + 20, top + len(rows) * high + 12
    return svg(width, height, "Each convolution of ResNet-18, -34 and -50 beside PyTorch", parts)


# -- the memory of training


def memory(found: Mapping[str, Any] | None = None) -> str:
    """For each training run a bar of the predicted arrays, one of the measured peak, and a line at the run's limit."""
    found = found or stored("memory")["peaks"]
    rows = [dict(zip(found["head"], row, strict=True)) for row in found["rows"]]
    sizes = [[float(row[name].split()[0].replace(",", "")) for name in MEMORY] for row in rows]
    left, top, wide, high = 330, 66, 520, 30
    scale = wide / max(map(max, sizes))
    parts = [text(20, 24, "peak memory of training, predicted and measured", 13, anchor="start", bold=True)]
    for x, color, words in ((left, BLUE, "arrays, predicted"), (left + 170, ORANGE, "measured")):
        parts += [box(x, 38, 14, 12, color), text(x + 20, 49, words, 12, anchor="start")]
    parts.append(f'<path d="M{left + 284} 36 V52" stroke="{INK}" stroke-width="2"/>')
    parts.append(text(left + 292, 49, "predicted with gaps: the check before a run", 12, anchor="start"))
    for number, (row, (arrays, limit, measured)) in enumerate(zip(rows, sizes, strict=True)):
        y = top + number * high
        at_a_time = "" if row["at a time"] == row["batch"] else f", {row['at a time']} at a time"
        name = f"{row['backend']}: {row['network']}, {row['batch']} × {row['images']}{at_a_time}"
        parts.append(text(left - 10, y + 17, name, 11, anchor="end"))
        parts += [box(left, y + 2, scale * arrays, 11, BLUE), box(left, y + 14, scale * measured, 11, ORANGE)]
        parts.append(f'<path d="M{left + scale * limit:g} {y + 1} V{y + 26}" stroke="{INK}" stroke-width="2"/>')
        parts.append(text(left + scale * limit + 8, y + 18, f"{row['measured']} measured", 11, anchor="start"))
    return svg(left + wide + 150, top + len(rows) * high + 8, "Peak memory of training", parts)


MEMORY = ("arrays predicted", "with gaps", "measured")

# -- by a browser: the page of the trace, and PNG files

STEPS = 20
SUM = 92 / 147  # place on the scrubber: backward of the ReLU of layer3.0, whose output has two uses
WINDOW, WIDTH, MILLISECONDS = (1500, 940), 900, 700  # of the browser, of the picture, of a frame
SCRUB = """
const scrubber = document.querySelector("input[type=range]");
scrubber.value = Math.round(arguments[0] * Number(scrubber.max));
scrubber.dispatchEvent(new Event("input"));
"""


@contextlib.contextmanager
def chromium(width: int, height: int) -> Iterator[Any]:
    """Chromium without a display, with a window of this size."""
    from selenium import webdriver  # extra browser

    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit("needs Chromium and its driver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


def trace() -> tuple[bytes, bytes]:
    """Screenshots of the page: a GIF along the scrubber, and a PNG of the step where two gradients add up."""
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "trace.html"
        if code := cli.main(["trace", "resnet20", "--data", "digits", "--index", "3", "--out", str(page)]):
            raise SystemExit(code)
        with chromium(*WINDOW) as browser:
            browser.get(page.as_uri())
            for step in range(STEPS):
                browser.execute_script(SCRUB, step / (STEPS - 1))
                shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
                size = (WIDTH, round(shot.height * WIDTH / shot.width))
                frames.append(shot.resize(size, Image.Resampling.LANCZOS).quantize(64, dither=Image.Dither.NONE))
            browser.execute_script(SCRUB, SUM)
            still = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    gif, png = io.BytesIO(), io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True)
    still.quantize(128, dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    return gif.getvalue(), png.getvalue()


def png(drawing: Path) -> bytes:
    """An SVG file as a PNG of its own size."""
    root = ElementTree.parse(drawing).getroot()
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    with chromium(width, height + 200) as browser:  # the window's frame takes a part of the height
        browser.get(drawing.absolute().as_uri())
        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    file = io.BytesIO()
    shot.crop((0, 0, width, height)).quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


PICTURES = {"architecture": architecture, "race": race, "convolutions": convolutions, "memory": memory}


def write(names: Sequence[str], folder: Path, as_png: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == "trace":
            for suffix, picture in zip(("gif", "png"), trace(), strict=True):
                (folder / f"trace.{suffix}").write_bytes(picture)
            continue
        drawing = folder / f"{name}.svg"
        drawing.write_text(PICTURES[name](), encoding="utf-8")
        if as_png:
            (folder / f"{name}.png").write_bytes(png(drawing))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all but trace")
    parser.add_argument("--png", action="store_true", help="a PNG beside each SVG; needs Chromium, as trace does")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*PICTURES, "trace"}:
        parser.error(f"unknown picture {unknown.pop()!r}; known are {', '.join([*PICTURES, 'trace'])}")
    write(arguments.names or list(PICTURES), arguments.out, arguments.png)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
