"""What the paper claims, as far as minires can test it: each claim with the function that judges it.

A judge receives the `Evidence` and returns a `Verdict`.  It compares numbers that were computed for this page.  An
`analogue` is another experiment than the paper's, which shows the same effect on smaller data; it proves less.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minires import models, random
from minires.models.blocks import BasicBlock, Bottleneck, conv1x1
from minires.nn import init
from minires.paper import published
from minires.paper.page.evidence import Evidence
from minires.tensor import Tensor

HOLDS, FAILS, NOT_RUN = "holds", "fails", "not run"
NEEDS_TRAINING = "it needs trained networks: run the command below, then minires paper page --results build"


@dataclass(frozen=True)
class Verdict:
    """How a claim was decided.

    status     "holds", "fails" or "not run"
    found      the numbers that decide, or the reason why it was not run
    analogue   the experiment is smaller than the paper's
    """

    status: str
    found: str
    analogue: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in minires' words.

    name       anchor on the page
    section    of the paper
    judge      decides it; None: minires cannot run it, and `why` is the reason
    command    reproduces the verdict; several commands on lines of their own
    """

    name: str
    section: str
    text: str
    command: str
    judge: Callable[[Evidence], Verdict] | None = None
    why: str = ""

    @property
    def commands(self) -> list[str]:
        return self.command.split("\n") if self.command else []

    def verdict(self, evidence: Evidence) -> Verdict:
        return Verdict(NOT_RUN, self.why) if self.judge is None else self.judge(evidence)


def _decided(holds: bool, found: str, analogue: bool = False) -> Verdict:
    return Verdict(HOLDS if holds else FAILS, found, analogue)


# -- section 3: residual learning


def identity_by_construction(evidence: Evidence) -> Verdict:
    """A block whose residual branch is zero returns its input, bit by bit, if the input is not negative."""
    random.manual_seed(0)
    block = BasicBlock(16, 16)
    block.bn2.weight.data[...] = 0  # type: ignore[attr-defined]
    x = np.abs(np.random.default_rng(0).standard_normal((2, 16, 8, 8))).astype(np.float32)
    y = block(Tensor(x)).data
    return _decided(bool((x == y).all()), f"{int((x == y).sum()):,} of {x.size:,} outputs equal the input bit by bit")


def shortcut_passes_gradient(evidence: Evidence) -> Verdict:
    """Each skip-add sends the gradient that it received along both of its paths."""
    adds = [event for event in evidence.basic.events if event.operation == "Add" and event.phase == "backward"]
    statistics = [(event.arrays[0].statistics, [view.statistics for view in event.results]) for event in adds]
    same = sum(all(sent.norm == came.norm and sent.mean == came.mean for sent in both) for came, both in statistics)
    return _decided(same == len(adds) > 0, f"{same} of {len(adds)} skip-adds pass their gradient on unchanged")


def identity_is_free(evidence: Evidence) -> Verdict:
    plain, residual = evidence.count("plain34"), evidence.count("resnet34", "A")
    same = (plain.params, plain.macs) == (residual.params, residual.macs)
    return _decided(
        same, f"plain-34 and ResNet-34 A: {plain.params:,} and {residual.params:,} parameters, "
        f"{plain.macs:,} and {residual.macs:,} multiply-adds",
    )  # fmt: skip


def fraction_of_vgg(evidence: Evidence) -> Verdict:
    ours, vgg = evidence.count("plain34").macs, evidence.count("vgg19").macs
    share = 100 * ours / vgg
    return _decided(share < 20, f"{ours:,} of {vgg:,} multiply-adds: {share:.1f} % (the paper prints 18 %)")


def equal_time_of_stages(evidence: Evidence) -> Verdict:
    """Half the map size and twice the filters: a 3×3 convolution of any stage costs as much."""
    rows = [row for row in evidence.count("plain34").rows if re.fullmatch(r"layer\d\.[12]\.conv2", row.module)]
    costs = sorted({row.macs for row in rows})
    return _decided(
        len(costs) == 1, f"{len(rows)} convolutions in four stages: {', '.join(f'{c:,}' for c in costs)} each"
    )


def order_of_layers(evidence: Evidence) -> Verdict:
    """Every convolution is followed by batch norm; ReLU comes after it."""
    names = [event.operation for event in evidence.basic.events if event.phase == "forward"]
    convolutions = [i for i, name in enumerate(names) if name == "Conv2d"]
    normed = sum(names[i + 1] == "BatchNorm" for i in convolutions)
    return _decided(normed == len(convolutions), f"{normed} of {len(convolutions)} convolutions in the recorded run")


def he_initialisation(evidence: Evidence) -> Verdict:
    """The deviation of drawn weights is √(2/fan) within five standard errors."""
    random.manual_seed(0)
    weight = init.he_normal((256, 128, 3, 3))
    meant, found = math.sqrt(2 / (256 * 9)), float(weight.std())
    allowed = 5 * meant / math.sqrt(2 * weight.size)
    return _decided(abs(found - meant) <= allowed, f"deviation {found:.6f}, √(2/fan) = {meant:.6f} ± {allowed:.6f}")


# -- section 4.1: ImageNet


def printed_flops(evidence: Evidence) -> Verdict:
    apart = {name: evidence.count(name).macs / 1e9 - flops for name, flops in published.FLOPS.items()}
    worst = max(apart, key=lambda name: abs(apart[name]))
    return _decided(
        abs(apart[worst]) < 0.1,
        "ours less the paper's, ×10⁹: " + ", ".join(f"{name} {difference:+.2f}" for name, difference in apart.items()),
    )


def deepest_is_below_vgg(evidence: Evidence) -> Verdict:
    deep, vgg = evidence.count("resnet152").macs, [evidence.count(name).macs for name in ("vgg16", "vgg19")]
    return _decided(deep < min(vgg), f"{deep:,}; VGG-16 {vgg[0]:,}, VGG-19 {vgg[1]:,}")


def _weights(module: BasicBlock | Bottleneck) -> int:
    """Weights of the convolutions on F: at stride 1 also the multiply-adds per pixel."""
    return sum(p.size for path, p in module.named_parameters() if path.startswith("conv"))


def similar_complexity(evidence: Evidence) -> Verdict:
    basic, bottleneck = _weights(BasicBlock(64, 64)), _weights(Bottleneck(256, 64))
    ratio = bottleneck / basic
    return _decided(0.8 < ratio < 1.25, f"multiply-adds per pixel: {basic:,} and {bottleneck:,}, ratio {ratio:.2f}")


def projection_doubles(evidence: Evidence) -> Verdict:
    bare, projection = _weights(Bottleneck(256, 64)), conv1x1(256, 256).weight.size
    ratio = (bare + projection) / bare
    return _decided(
        1.8 < ratio < 2.2, f"multiply-adds per pixel {bare:,}, with a projection {bare + projection:,}: ×{ratio:.2f}"
    )


def no_vanishing_gradients(evidence: Evidence) -> Verdict:
    """In plain networks with batch norm the gradient near the input is no smaller than near the output.

    It decides against vanishing alone: exploding gradients pass.  An analogue: the paper looked at networks in
    training, minires looks at new ones on random images.
    """
    result = evidence.result("gradients")
    assert result is not None
    norms = {line[0]: (float(line[1]), float(line[2])) for line in result.lines}
    plain = {name: pair for name, pair in norms.items() if name.startswith("plain") and "with batch" in name}
    found = "; ".join(f"{name.split(',')[0]}: {first:g} near the input, {last:g} near the output"
                      for name, (first, last) in plain.items())  # fmt: skip
    if any(first > 100 * last for first, last in plain.values()):
        found += " (not vanishing, but exploding: not the healthy norms that the paper found in training)"
    return _decided(bool(plain) and all(first >= last for first, last in plain.values()), found, analogue=True)


def _trained(item: str) -> Callable[[Evidence], Verdict]:
    """The verdict of a figure of training curves: its notes "holds: …" and "FAILS: …"."""

    def judge(evidence: Evidence) -> Verdict:
        result = evidence.result(item)
        if result is None:
            return Verdict(NOT_RUN, NEEDS_TRAINING)
        judged = [note for note in result.notes if note.startswith(("holds: ", "FAILS: "))]
        holds = bool(judged) and not any(note.startswith("FAILS") for note in judged)
        return _decided(holds, "; ".join(judged), result.analogue)

    return judge


def smaller_responses(evidence: Evidence) -> Verdict:
    """Mean deviation of the responses: residual below plain at equal depth, and the deeper residual below the other."""
    result = evidence.result("figure7")
    if result is None:
        return Verdict(NOT_RUN, NEEDS_TRAINING)
    if result.trained_on is None:
        return Verdict(NOT_RUN, "the folder holds Figure 7 of untrained networks, which decides nothing")
    mean = {line[0]: float(line[2]) for line in result.lines}
    pairs = [(f"resnet{depth}", f"plain{depth}") for depth in (20, 56)] + [("resnet56", "resnet20")]
    held = [(a, b) for a, b in pairs if a in mean and b in mean]
    found = "; ".join(f"mean deviation of {a} {mean[a]:.3f}, of {b} {mean[b]:.3f}" for a, b in held)
    return _decided(bool(held) and all(mean[a] < mean[b] for a, b in held), found, result.analogue)


def shortcut_parameters(evidence: Evidence) -> Verdict:
    a, b, c = (evidence.count("resnet34", option).params for option in "ABC")
    return _decided(a < b < c, f"ResNet-34: {a:,} with A, {b:,} with B, {c:,} with C")


# -- section 4.2: CIFAR-10


def layers_of_cifar(evidence: Evidence) -> Verdict:
    found = {}
    for name in published.CIFAR_PARAMETERS:
        model = models.create(name)
        found[name] = sum(p.ndim > 1 for _, p in model.named_parameters())
    right = all(layers == int(name.removeprefix("resnet")) for name, layers in found.items())
    return _decided(right, ", ".join(f"{name}: {layers} layers with weights" for name, layers in found.items()))


def parameters_of_table_6(evidence: Evidence) -> Verdict:
    ours = {name: evidence.count(name).params / 1e6 for name in published.CIFAR_PARAMETERS}
    digits = {name: len(str(million).partition(".")[2]) for name, million in published.CIFAR_PARAMETERS.items()}
    right = all(round(ours[name], digits[name]) == million for name, million in published.CIFAR_PARAMETERS.items())
    return _decided(right, ", ".join(f"{name} {million:.3f} M" for name, million in ours.items()))


_NO_IMAGENET = "it needs ImageNet and weeks of computing; minires reads such a data set with --data folder"
_NO_CIFAR = "it needs CIFAR-10, which is not part of minires, and 64,000 iterations a network"

CLAIMS = (
    Claim("construction", "1", "A deeper network need not be worse: extra blocks that pass their input on change "
                               "nothing.",
          "minires paper page --json", identity_by_construction),
    Claim("degradation", "1", "The deeper plain network has the larger training error.",
          "minires paper figure1 --residual --quick --out build", _trained("figure1")),
    Claim("gradient-path", "3.1", "The addition passes the gradient to the shortcut and to F alike. "
          "The paper shows the path; minires adds the measurement.",
          "minires step resnet20 --at Add --when backward", shortcut_passes_gradient),
    Claim("free-identity", "3.2", "An identity shortcut adds neither parameters nor multiply-adds.",
          "minires summary plain34 --depth 1\nminires summary resnet34 --shortcut A --depth 1", identity_is_free),
    Claim("under-vgg", "3.3", "The plain network of 34 layers needs under a fifth of VGG-19's multiply-adds.",
          "minires paper figure3 --out build", fraction_of_vgg),
    Claim("equal-stages", "3.3", "Where maps halve, filters double, so a layer's cost stays the same.",
          "minires summary plain34 --depth 3", equal_time_of_stages),
    Claim("norm-order", "3.4", "Batch norm stands right after each convolution and before the activation.",
          "minires trace resnet20 --out build/trace.html", order_of_layers),
    Claim("he-init", "3.4", "Weights are drawn as in the paper's reference [13].", "minires paper page --json",
          he_initialisation),
    Claim("flops", "4.1", "Table 1 prints 1.8, 3.6, 3.8, 7.6 and 11.3 ×10⁹ multiply-adds. "
          "minires counts the same to within 0.1 ×10⁹.",
          "minires paper table1 --out build", printed_flops),
    Claim("below-vgg", "4.1", "The network of 152 layers needs fewer multiply-adds than VGG-16 and VGG-19.",
          "minires models resnet152 vgg16 vgg19", deepest_is_below_vgg),
    Claim("plain-34", "4.1", "The plain network of 34 layers trains worse than that of 18; residual networks reverse "
                             "this.",
          "minires paper figure4 --quick --out build", _trained("figure4")),
    Claim("no-vanishing", "4.1", "With batch norm the gradients of plain networks do not vanish. The paper found "
          "healthy norms in training. minires measures at initialisation, where the gradients grow toward the input.",
          "minires paper gradients --out build", no_vanishing_gradients),
    Claim("options", "4.1", "Option A needs the fewest parameters, option C the most.",
          "\n".join(f"minires summary resnet34 --shortcut {option} --depth 1" for option in "ABC"),
          shortcut_parameters),
    Claim("options-error", "4.1", "Of ResNet-34, C has a slightly lower error than B, and B than A.",
          "minires train resnet34 --data folder --shortcut C", why=_NO_IMAGENET),
    Claim("bottleneck-cost", "4.1", "A bottleneck on 256 channels costs about as much as a block on 64.",
          "minires summary resnet34 --depth 2\nminires summary resnet50 --depth 2", similar_complexity),
    Claim("projection-cost", "4.1", "A projection in place of a bottleneck's identity doubles its cost.",
          "minires summary resnet50 --depth 2\nminires summary resnet50 --shortcut C --depth 2", projection_doubles),
    Claim("errors", "4.1", "ResNet-50, 101 and 152 are more accurate the deeper they are.",
          "minires train resnet50 --data folder", why=_NO_IMAGENET),
    Claim("layers", "4.2", "The networks for CIFAR-10 have 6n + 2 layers with weights.",
          "minires paper table6 --out build", layers_of_cifar),
    Claim("parameters", "4.2", "Table 6 prints 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters.",
          "minires paper table6 --out build", parameters_of_table_6),
    Claim("cifar-errors", "4.2", "Test errors fall from 8.75 % with 20 layers to 6.43 % with 110.",
          "minires train resnet20 --data cifar10", why=_NO_CIFAR),
    Claim("responses", "4.2", "Residual networks have smaller responses than plain ones, deeper ones the smallest.",
          "minires paper all --quick --out build", smaller_responses),
    Claim("overfitting", "4.2", "A network of 1,202 layers trains well and tests worse than that of 110.",
          "", why=_NO_CIFAR + "; minires has no network of 1,202 layers"),
    Claim("detection", "4.3", "Replacing VGG-16 by ResNet-101 in a detector raises its precision on PASCAL VOC and "
                              "COCO.",
          "", why="minires has no object detector"),
)  # fmt: skip
BY_NAME = {claim.name: claim for claim in CLAIMS}
