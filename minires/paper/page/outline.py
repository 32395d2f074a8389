"""The paper's outline in minires' own words: sections, equations, figures, tables, and what stands beside each."""

from __future__ import annotations

from dataclasses import dataclass

from minires.paper import published


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` in backticks."""

    text: str


@dataclass(frozen=True)
class Equation:
    number: int
    formula: str
    text: str


@dataclass(frozen=True)
class Plate:
    """A numbered figure or table.

    kind    "Figure" or "Table"
    text    what it shows
    item    of `minires paper`, which reproduces it; "": minires cannot
    rows    the paper's own numbers, a head and lines; empty: they are in the item's table or not shown
    why     why it is not run
    """

    kind: str
    number: int
    text: str
    item: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Judged:
    """Claims by name, with their verdicts."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Exact lines of functions or classes: "module:name"."""

    targets: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """An operation: forward above backward, the reference code, the derivation, recorded arrays."""

    name: str


@dataclass(frozen=True)
class Diagram:
    """The gradient's path through a recorded block: "basic" or "bottleneck"."""

    kind: str


@dataclass(frozen=True)
class Part:
    """A row of the page: prose on the left, code and results on the right."""

    left: tuple[Text | Equation | Plate | Judged, ...]
    right: tuple[Code | Operation | Diagram | Plate, ...] = ()


@dataclass(frozen=True)
class Section:
    number: str
    title: str
    parts: tuple[Part, ...]


BLOCKS = "minires.models.blocks"
RESNET = "minires.models.resnet"

NO_IMAGENET = "it needs ImageNet and weeks of computing"
NO_DETECTOR = "minires has no object detector"


def _errors(*networks: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("network", "the paper's top-1 error"),
        *((name, f"{published.IMAGENET_TOP_1[name]:.2f} %") for name in networks),
    )


FIGURE_1 = Plate("Figure", 1, "Learning curves of two plain networks on CIFAR-10. With 56 layers both errors are "
                 "higher than with 20.", "figure1")  # fmt: skip
FIGURE_3 = Plate("Figure", 3, "VGG-19, the plain and the residual network with 34 layers, layer by layer. Dotted "
                 "shortcuts increase the dimensions. The residual network has option A here. Table 1 has option B, "
                 "which adds the multiply-adds of three projections.", "figure3")  # fmt: skip
FIGURE_4 = Plate("Figure", 4, "Learning curves on ImageNet with 18 and 34 layers, plain networks in the left panel "
                 "and residual ones in the right. Validation errors are drawn bold.",
                 "figure4")  # fmt: skip
FIGURE_6 = Plate("Figure", 6, "Learning curves on CIFAR-10 in three panels: plain networks, ResNets with 20 to 110 "
                 "layers, ResNets with 110 and 1,202. Plain networks suffer from depth, residual ones gain.",
                 "figure1")  # fmt: skip
FIGURE_7 = Plate("Figure", 7, "How strongly each 3×3 layer responds on CIFAR-10: the standard deviation after batch "
                 "norm, before ReLU and the addition. The upper panel keeps the order of the layers, the lower one "
                 "sorts them.",
                 "figure7")  # fmt: skip
TABLE_1 = Plate("Table", 1, "The networks for ImageNet. Brackets hold the layers of a block, and the factor the number "
                "of blocks. The first block of conv3_x, conv4_x and conv5_x halves the map; before conv2_x the "
                "max pooling does. ResNet-34 has option B here, so its multiply-adds include projections; Figure 3 "
                "has option A.", "table1")  # fmt: skip
TABLE_6 = Plate("Table", 6, "Test errors on CIFAR-10, beside the numbers of layers and of parameters.", "table6")
GRADIENTS = Plate("Measurement", 1, "The norm of the weights' gradient over depth, at initialisation, in four kinds of "
                  "networks. The paper has no such figure.", "gradients")  # fmt: skip

SECTIONS = (
    Section("0", "Abstract", (
        Part((
            Text("Adding layers makes a network harder to optimise. The paper lets layers compute a *residual*: the "
                 "difference to their input instead of the whole output. A shortcut adds the input again."),
            Text("Residual networks stay trainable with 152 layers on ImageNet, and with over 1,000 on CIFAR-10. An "
                 f"ensemble has a top-5 error of {published.ENSEMBLE_TOP_5} % on ImageNet's test set and won the "
                 "classification task of ILSVRC 2015."),
            Text("minires builds the paper's networks for classification, except the one with 1,202 layers. This page "
                 "shows the code beside the paper's argument, and what it computed when the page was made. Colours: "
                 "blue is forward, red is backward."),
            Text("The recorded arrays are those of small untrained networks. Most of them compute on eight *digits*: "
                 "handwritten digits of 8×8 pixels, which are part of minires. Large networks are "
                 "counted, not trained."),
        ), (Code((f"{BLOCKS}:BasicBlock.forward",)),)),
    )),
    Section("1", "Introduction", (
        Part((
            Text("Depth matters for accuracy, so one would like to stack ever more layers. Careful initialisation and "
                 "batch normalisation let networks with tens of layers start to converge."),
            Text("Then a *degradation* appears. With growing depth the accuracy saturates and falls. Overfitting is "
                 "not "
                 "the cause: the training error rises too."),
            FIGURE_1,
            Judged(("degradation",)),
        ), (FIGURE_1,)),
        Part((
            Text("A deeper network could copy a shallower one and fill the additional layers with identities. So a "
                 "solution that is no worse exists. Solvers fail to find it in reasonable time."),
            Judged(("construction",)),
            Text("The paper's remedy: let a few stacked layers fit F(x) = H(x) − x in place of the wanted mapping "
                 "H(x). "
                 "If an identity were best, driving F to zero is easier than fitting an identity by non-linear "
                 "layers."),
            Plate("Figure", 2, "A building block. Two layers compute F(x); a shortcut carries x past them; the sum "
                  "goes through ReLU. The paper draws the forward path alone; the gradient's path is added "
                  "here."),
        ), (Diagram("basic"), Code((f"{BLOCKS}:BasicBlock",)))),
    )),
    Section("2", "Related work", (
        Part((
            Text("Residual representations are older: image descriptors such as VLAD encode residuals to a dictionary, "
                 "and multigrid solvers compute residuals between scales."),
            Text("Shortcuts are older too. Highway networks have shortcuts with gates, whose parameters depend on "
                 "data. "
                 "A closed gate blocks the shortcut. The paper's identity shortcuts have no parameters, and never "
                 "close."),
        ), (Code((f"{BLOCKS}:shortcut_of",)),)),
    )),
    Section("3.1", "Residual learning", (
        Part((
            Text("If stacked layers can approximate H(x), they can approximate H(x) − x as well. The two forms "
                 "differ in "
                 "how easily they are learned. The residual form preconditions the problem: when the best mapping is "
                 "near an identity, small weights suffice."),
            Text("Backward shows what the sum does. At the addition the gradient goes into both paths unchanged. "
                 "The shortcut carries it on to x as it is; F changes it on the way. At x the gradients of the two "
                 "paths add up."),
            Judged(("gradient-path",)),
        ), (Operation("Add"), Code(("minires.autograd:backward",)))),
    )),
    Section("3.2", "Identity mapping by shortcuts", (
        Part((
            Equation(1, "y = F(x, {Wᵢ}) + x", "F is the residual mapping of the block's layers. With two layers "
                     "F = W₂ σ(W₁ x), where σ is ReLU. A second ReLU follows the addition."),
            Text("The identity shortcut costs nothing but the addition. So plain and residual networks of equal depth "
                 "and width can be compared fairly."),
            Judged(("free-identity",)),
            Text("A residual of a single layer is possible, but then y = W₁ x + x is nearly linear, and the paper "
                 "observed no advantage."),
        ), (Code((f"{BLOCKS}:BasicBlock.forward",)),)),
        Part((
            Equation(2, "y = F(x, {Wᵢ}) + Wₛ x", "Where dimensions differ, a linear projection Wₛ on the shortcut "
                                                 "makes "
                     "them equal. Elsewhere it is unnecessary."),
            Text("minires has Wₛ as a 1×1 convolution with batch norm. Option A replaces it by subsampling and zero "
                 "channels."),
        ), (Code((f"{BLOCKS}:make_shortcut", f"{BLOCKS}:ZeroPadShortcut")), Operation("Slice"), Operation("Pad"))),
    )),
    Section("3.3", "Network architectures", (
        Part((
            Text("The *plain* network follows VGG: 3×3 filters, and two rules. Layers with the same map size have the "
                 "same number of filters. Where the map halves, the filters double."),
            Judged(("equal-stages",)),
            Text("Convolutions of stride 2 reduce the map. Global average pooling and one linear layer end the "
                 "network. "
                 "The *residual* network adds shortcuts."),
            Text("Where dimensions increase there are two ways. Option A is the identity with zero channels. Option "
                 "B is "
                 "the projection of equation 2. Both use stride 2 across maps of two sizes."),
            FIGURE_3,
            Judged(("under-vgg",)),
        ), (FIGURE_3, Code((f"{RESNET}:ResNet.__init__", f"{RESNET}:ResNet._after_stem")))),
        Part((
            Text("The first layer is a 7×7 convolution with stride 2, followed by a 3×3 max pooling with stride 2. "
                 "All other convolutions are 3×3, except the 1×1 convolutions of bottlenecks and projections."),
        ), (Operation("Conv2d"), Operation("MaxPool2d"))),
        Part((
            Text("The global average pooling turns 7×7 maps (8×8 on CIFAR-10) into one number per channel. A linear "
                 "layer computes the scores of the classes."),
        ), (Operation("AdaptiveAvgPool2d"), Operation("Reshape"), Operation("Linear"))),
    )),
    Section("3.4", "Implementation", (
        Part((
            Text("Training on ImageNet: the image is resized, with its shorter side drawn from [256, 480]. A random "
                 "crop of 224×224 is taken and mirrored with probability ½. The mean of each pixel is subtracted, and "
                 "the colours are augmented."),
            Text("SGD with batches of 256. The learning rate starts at 0.1 and is divided by 10 at plateaus. Weight "
                 "decay is 0.0001, momentum 0.9. There is no dropout. Training takes up to 60·10⁴ iterations."),
        ), (Code(("minires.optim:SGD.step", "minires.data.augment:Augmentation")),)),
        Part((
            Text("Batch normalisation stands right after each convolution and before the activation."),
            Judged(("norm-order",)),
        ), (Operation("BatchNorm"), Operation("ReLU"))),
        Part((
            Text("Weights are initialised as in the paper's reference [13], for networks with ReLU: a normal "
                 "distribution with variance 2/fan. Here fan is the number of products that make one output, or, in "
                 "minires' default, one gradient: kernel size times input or output channels. ReLU zeroes half of the "
                 "values, so the factor 2 keeps the size of signals from layer to layer."),
            Judged(("he-init",)),
            Text("Tests average the scores of ten crops; the best results also average over several sizes of the "
                 "image."),
        ), (Code(("minires.nn.init:he_normal",)),)),
    )),
    Section("4.1", "ImageNet classification", (
        Part((
            Text("ImageNet 2012 has 1,000 classes, 1.28 million training and 50,000 validation images. The loss is the "
                 "cross-entropy of a softmax."),
            TABLE_1,
            Judged(("flops", "below-vgg")),
        ), (TABLE_1, Operation("CrossEntropy"))),
        Part((
            Text("*Plain networks.* The network of 34 layers has a higher error than that of 18, in training too. The "
                 "authors think that vanishing gradients are an unlikely cause: batch norm keeps the variance of the "
                 "signals above zero, and in their networks the gradients had healthy norms. They conjecture an "
                 "exponentially low rate of convergence."),
            Text("*Residual networks.* Now 34 layers are better than 18, by 2.8 points, and better than the plain "
                 "network by 3.5. With 18 layers both kinds are about equally accurate, but the residual network "
                 "converges faster."),
            FIGURE_4,
            Plate("Table", 2, "Top-1 error of plain and residual networks with 18 and 34 layers, ten crops. The "
                  "residual networks have option A.", "",
                  _errors("plain18", "resnet18", "plain34", "resnet34 A"), NO_IMAGENET),
            Judged(("plain-34",)),
        ), (FIGURE_4,)),
        Part((
            Text("minires measures the gradients at initialisation, before any training. In plain networks with batch "
                 "norm they grow toward the input; with 110 layers they explode. That differs from the paper's remark "
                 "on healthy norms, which is about networks in training. Gradients vanish only without batch norm, in "
                 "networks that the paper does not use. Residual networks with batch norm have far more even "
                 "gradients."),
            Judged(("no-vanishing",)),
        ), (GRADIENTS, Code(("minires.paper.gradients:measure",)))),
        Part((
            Text("*Which shortcut?* A: zero channels, no parameters. B: projections where dimensions increase. C: "
                 "projections everywhere. All three are far better than the plain network. B is slightly better than "
                 "A, "
                 "C slightly better than B. The differences are small, so projections are not essential, and the paper "
                 "leaves out C to save memory and time."),
            Judged(("options", "options-error")),
            Plate("Table", 3, "Top-1 error on ImageNet's validation set, ten crops.", "",
                  _errors("plain34", "resnet34 A", "resnet34 B", "resnet34 C", "resnet50", "resnet101", "resnet152"),
                  NO_IMAGENET),
        ), (Code((f"{BLOCKS}:make_shortcut",)),)),
        Part((
            Text("*Bottlenecks.* For deeper networks a block has three layers: 1×1 reduces the channels, 3×3 works on "
                 "few channels, 1×1 restores them. The reason is training time: such a block costs as much as one of "
                 "two layers. Identity shortcuts matter here: a projection between the wide ends would double the "
                 "cost."),
            Plate("Figure", 5, "Left: the building block on 64 channels, as in ResNet-34. Right: the bottleneck on 256 "
                  "channels, as in ResNet-50, 101 and 152."),
            Judged(("bottleneck-cost", "projection-cost")),
        ), (Diagram("bottleneck"), Code((f"{BLOCKS}:Bottleneck",)))),
        Part((
            Text("ResNet-50, 101 and 152 use bottlenecks and option B. They are more accurate than ResNet-34 by far, "
                 "and no degradation shows."),
            Judged(("errors",)),
            Plate("Table", 4, "Errors of single models on the validation set of ImageNet.", "",
                  (("network", "the paper's top-5 error"),
                   *((name, f"{error:.2f} %") for name, error in published.SINGLE_MODEL_TOP_5.items())), NO_IMAGENET),
            Plate("Table", 5, "Errors of ensembles on ImageNet's test set. Six models of different depth are combined.",
                  "", (("", "the paper's top-5 error"), ("ResNet ensemble", f"{published.ENSEMBLE_TOP_5} %")),
                  NO_IMAGENET),
        )),
    )),
    Section("4.2", "CIFAR-10 and analysis", (
        Part((
            Text("CIFAR-10 has 50,000 training and 10,000 test images of 32×32 in ten classes. The networks are "
                 "simple: a 3×3 convolution, then 2n layers each on maps of 32, 16 and 8 pixels with 16, 32 and 64 "
                 "filters, then global average pooling and a linear layer. That makes 6n + 2 layers. All shortcuts are "
                 "option A."),
            Judged(("layers",)),
            Text("Training: weight decay 0.0001, momentum 0.9, batches of 128, learning rate 0.1, divided by 10 after "
                 "32,000 and 48,000 iterations, 64,000 in all. Images are padded by 4, cropped to 32×32 and mirrored."),
        ), (Code(("minires.models.registry:_recipes",)),)),
        Part((
            FIGURE_6,
            TABLE_6,
            Judged(("parameters", "cifar-errors")),
            Text("With 110 layers a rate of 0.1 is slightly too large at first. The paper uses 0.01 until the training "
                 "error is below 80 %, some 400 iterations, and then goes on with 0.1."),
        ), (FIGURE_6, TABLE_6, Code(("minires.optim:Warmup",)))),
        Part((
            FIGURE_7,
            Text("ResNets have smaller responses than plain networks: residual functions tend to be closer to zero. "
                 "The "
                 "deeper the ResNet, the less each layer changes the signal."),
            Judged(("responses",)),
        ), (FIGURE_7, Code(("minires.paper.figure7:_Deviations",)))),
        Part((
            Text(f"*Over 1,000 layers.* A network with 1,202 layers has a training error below 0.1 %. Its test error, "
                 f"{published.RESNET_1202['error']} %, is worse than with 110 layers. The authors blame overfitting: "
                 f"{published.RESNET_1202['parameters']} million parameters are many for this data set."),
            Judged(("overfitting",)),
        )),
    )),
    Section("4.3", "Object detection on PASCAL VOC and COCO", (
        Part((
            Text("Better features help other tasks. The authors replace VGG-16 by ResNet-101 in the detector Faster "
                 "R-CNN, and change nothing else. On COCO's standard metric that is a gain of 6 points, or 28 %."),
            Plate("Table", 7, "Detection on PASCAL VOC 2007 and 2012, mean average precision.", "",
                  (("test set", "VGG-16", "ResNet-101"),
                   *((name, f"{row['VGG-16']} %", f"{row['ResNet-101']} %")
                     for name, row in published.DETECTION.items() if name.startswith("PASCAL"))), NO_DETECTOR),
            Plate("Table", 8, "Detection on COCO's validation set, mean average precision.", "",
                  (("metric", "VGG-16", "ResNet-101"),
                   *((name, f"{row['VGG-16']} %", f"{row['ResNet-101']} %")
                     for name, row in published.DETECTION.items() if name.startswith("COCO"))), NO_DETECTOR),
            Judged(("detection",)),
        )),
    )),
    Section("A", "Appendix: detection baselines", (
        Part((Text("How ResNet-101 becomes part of Faster R-CNN: the layers up to conv4_x compute the shared maps, and "
                   "conv5_x takes the place of VGG's linear layers. Batch norm's statistics are fixed while the "
                   "detector "
                   "is trained."),)),
    )),
    Section("B", "Appendix: detection improvements", (
        Part((
            Text("Refined boxes, global context, several image sizes at test time, and ensembles add to the "
                 "precision."),
            Plate("Table", 9, "COCO: what each improvement adds.", why=NO_DETECTOR),
            Plate("Table", 10, "PASCAL VOC 2007, class by class.", why=NO_DETECTOR),
            Plate("Table", 11, "PASCAL VOC 2012, class by class.", why=NO_DETECTOR),
            Plate("Table", 12, "ImageNet's detection task.", why=NO_DETECTOR),
        )),
    )),
    Section("C", "Appendix: localisation", (
        Part((
            Text("ImageNet's localisation task asks for the class and a box. One network predicts the boxes of all "
                 "classes: it has a regressor of the box for each class. ResNet-101 computes its features."),
            Plate("Table", 13, "Localisation error on the validation set.", why=NO_DETECTOR),
            Plate("Table", 14, "Localisation error beside other methods.", why=NO_DETECTOR),
        )),
    )),
)  # fmt: skip

# The recorded call of an operation: network and module; `minires step` and the trace page use both.
PLACES = {
    "Add": ("resnet20", "layer1.0"),
    "AdaptiveAvgPool2d": ("resnet20", "avgpool"),
    "BatchNorm": ("resnet20", "layer1.0.bn1"),
    "Conv2d": ("resnet20", "layer1.0.conv1"),
    "CrossEntropy": ("resnet20", ""),
    "Linear": ("resnet20", "fc"),
    "MaxPool2d": ("resnet18 --width 8", "maxpool"),
    "Pad": ("resnet20", "layer2.0.downsample"),
    "ReLU": ("resnet20", "layer1.0.relu"),
    "Reshape": ("resnet20", ""),
    "Slice": ("resnet20", "layer2.0.downsample"),
}

# Operation or target of `Code` -> the exercises on its lines.
EXERCISES = {
    "Add": ("skip_add_backward",),
    "BatchNorm": ("batch_norm_backward",),
    "Conv2d": ("conv2d_backward", "im2col"),
    "CrossEntropy": ("softmax_cross_entropy_backward",),
    "Linear": ("linear_backward",),
    "MaxPool2d": ("max_pool2d_backward",),
    "AdaptiveAvgPool2d": ("avg_pool2d_backward",),
    "ReLU": ("relu_backward",),
    f"{BLOCKS}:BasicBlock": ("residual_block",),
    "minires.nn.init:he_normal": ("he_init",),
    "minires.optim:SGD.step": ("sgd_momentum",),
}
