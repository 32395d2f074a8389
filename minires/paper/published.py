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

# Table 4: top-5 error of single models on the validation set of ImageNet, in percent.
SINGLE_MODEL_TOP_5 = {"resnet34 B": 5.71, "resnet34 C": 5.60, "resnet50": 5.25, "resnet101": 4.60, "resnet152": 4.49}

# Table 5: top-5 error of an ensemble on the test set of ImageNet, in percent.
ENSEMBLE_TOP_5 = 3.57

# Tables 7 and 8: mean average precision of Faster R-CNN, in percent.
DETECTION = {
    "PASCAL VOC 2007 test": {"VGG-16": 73.2, "ResNet-101": 76.4},
    "PASCAL VOC 2012 test": {"VGG-16": 70.4, "ResNet-101": 73.8},
    "COCO validation, at 0.5": {"VGG-16": 41.5, "ResNet-101": 48.4},
    "COCO validation, from 0.5 to 0.95": {"VGG-16": 21.2, "ResNet-101": 27.2},
}

# Section 4.2: an extremely deep network; its parameters in millions, and its test error in percent.
RESNET_1202 = {"parameters": 19.4, "error": 7.93}
