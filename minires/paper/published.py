"""Numbers printed in the paper (He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015).

They are for comparison.  Tables show them in columns of their own, apart from computed numbers.
"""

from __future__ import annotations

# Table 1, last row: "FLOPs", which are multiply-adds, in units of 10⁹.
FLOPS = {"resnet18": 1.8, "resnet34": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}

# Figure 3: the same unit.
FIGURE_3_FLOPS = {"vgg19": 19.6, "plain34": 3.6, "resnet34": 3.6}

# Table 6: parameters in millions, test error on CIFAR-10 in percent (ResNet-110: best, and mean ± deviation of 5 runs).
CIFAR_PARAMETERS = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}
CIFAR_ERRORS = {"resnet20": 8.75, "resnet32": 7.51, "resnet44": 7.17, "resnet56": 6.97, "resnet110": 6.43}
CIFAR_ERROR_OF_5_RUNS = {"resnet110": (6.61, 0.16)}

# Table 3: 10-crop top-1 error on the validation set of ImageNet, in percent; ResNet-34 with shortcuts A, B and C.
IMAGENET_TOP_1 = {
    "plain18": 27.94, "plain34": 28.54, "resnet18": 27.88, "resnet34 A": 25.03, "resnet34 B": 24.52,
    "resnet34 C": 24.19, "resnet50": 22.85, "resnet101": 21.75, "resnet152": 21.43,
}  # fmt: skip
