"""Families of misconceptions: one explanation and one question each.  The exercises hold the variants."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    sentence: str
    question: str


FAMILIES = {
    # -- any operation
    "sign": Family(
        "The result has the opposite sign.",
        "If the output grows when this input grows, which sign does the derivative have?",
    ),
    "factor": Family(
        "The result is right except for a constant factor.",
        "Which derivative or which mean brings this factor in, and is it part of the function?",
    ),
    "mean for sum": Family(
        "The result is divided by a size: a mean where a sum belongs. grad_output already contains the loss's mean.",
        "y uses this parameter at every position. Do the contributions of the positions add up, or do they average?",
    ),
    "sum for mean": Family(
        "The result is a sum where a mean belongs.",
        "The loss is the mean over the batch. What happens to its gradient when the batch becomes twice as large?",
    ),
    "nothing": Family(
        "The result is zero everywhere.", "Which line writes into the array that you return, and does it run?"
    ),
    "input returned": Family(
        "An input is returned as it came.",
        "How does the output change when one element of this input changes by a little?",
    ),
    "unwritten": Family(
        "Some elements are never written. numpy.empty holds arbitrary numbers; here it is filled with NaN.",
        "Which elements does your loop not reach, and which value must they have?",
    ),
    "range too short": Family(
        "A loop or a slice leaves out the first or the last index.",
        "How often does your loop run, and how many rows does the array have?",
    ),
    "reshaped": Family(
        "reshape stands where axes must be exchanged. It keeps the order of the numbers in memory.",
        "Which element stands at [0, 1] before and after your reshape, and where must it stand?",
    ),
    "transposed": Family(
        "The numbers are right, but two axes are exchanged.",
        "Write the index of each axis beside each factor: in which order must the result have them?",
    ),
    "reversed": Family(
        "The numbers are right, but along some axes in reverse order.",
        "Which element of the result belongs to the first tap of the filter?",
    ),
    "shape": Family(
        "The numbers are right, but the shape is not.", "Which shape has the input that this gradient belongs to?"
    ),
    "order of outputs": Family(
        "The outputs are returned in another order.", "In which order does the docstring list the outputs?"
    ),
    "float32": Family(
        "The result was rounded to float32. All inputs are float64, and so must the result be.",
        "Which array in your code is not float64?",
    ),
    "precision": Family(
        "The result agrees only to some digits. A rounding, a clip, a small constant or a finite difference does this.",
        "Which line changes a number by very little?",
    ),
    "not a number": Family(
        "A computation had no result and gave NaN: 0 / 0, 0 · inf, inf − inf, or a function outside of its domain.",
        "Which operation of your code has no result for these inputs?",
    ),
    "cotangent": Family(
        "grad_output is used as if it were all ones. This gives the gradient of the sum of the outputs alone.",
        "If the loss does not depend on one of the outputs, what must that output contribute?",
    ),
    "wrong mask": Family(
        "The mask is computed from another array or with another condition than the forward's.",
        "For which elements of x does the output of the forward change when x changes?",
    ),
    "kink": Family(
        "At x = 0 the gradient passes. The convention, here and in PyTorch, is a derivative of 0 at the kink.",
        "What does your function return where x is exactly 0?",
    ),
    "derivative": Family(
        "The function itself, or another derivative, stands where the derivative belongs.",
        "What is the slope of the function at this point, as a formula?",
    ),
    "reduction": Family(
        "The sum does not run over exactly the axes along which the input was repeated.",
        "Along which axes does the forward use the same element of this input again?",
    ),
    "broadcast": Family(
        "Broadcasting repeated this input, but its gradient is not summed over the repetitions.",
        "How many elements of the output does one element of this input reach?",
    ),
    "keepdims": Family(
        "The sum is right, but an axis of size 1 was dropped or a leading axis was kept.",
        "Which shape has the input, axis by axis?",
    ),
    "overwritten": Family(
        "Contributions to one element overwrite each other, and only one is left.",
        "How many windows, filters or samples reach this element, and where does your code add their parts?",
    ),
    "sum before product": Family(
        "Two factors are summed before they are multiplied.",
        "Is Σ a·b the same as Σ a · Σ b? Try it with two samples.",
    ),
    # -- windows
    "flip": Family(
        "The taps pair with the wrong pixels. Tap (p, q) of output (i, j) belongs to row i·stride + p − padding. A "
        "loop that adds to this row uses w[p, q] as it is; a correlation of grad_output with w uses w flipped.",
        "The pixel x[h, w] is read by tap (p, q) of which output? Follow the two corners of a filter.",
    ),
    "filters and channels": Family(
        "The axes O and C of the filters are exchanged.",
        "Which index do grad_output and w share, and which is left for the result?",
    ),
    "stride": Family(
        "The stride is ignored: output i is treated as if its window began at row i instead of row i·stride.",
        "At which rows of the padded x does the window of output i = 1 begin when the stride is 2?",
    ),
    "padding": Family(
        "The padding is ignored or not undone: indices of the padded array are used as indices of x.",
        "Which row of the padded array holds row 0 of x, and which rows belong to no pixel of x?",
    ),
    "slice to -0": Family(
        "The slice p:-p is empty for p = 0, because -0 is 0.",
        "What does a[0:-0] return, and how can you write the end of the slice without a negative number?",
    ),
    "leftover": Family(
        "Rows and columns at the end that no window reaches are treated as absent, or as taps of the filter.",
        "With H = 4, a filter of 3 and stride 2 there is one output row. Which rows of x does it not read?",
    ),
    "output size": Family(
        "The number of windows along an axis is wrong.",
        "At which rows of the padded x does a window begin, and does the last window still fit?",
    ),
    "height and width": Family(
        "Height and width are exchanged.", "Which of the two numbers of a pair belongs to the rows?"
    ),
    "bias": Family("The bias is added too often or not at all.", "How often does b[o] occur in y[n, o, i, j]?"),
    "channels": Family(
        "The sum over the input channels is incomplete or scaled.",
        "Over which indices does the sum in y[n, o, i, j] run?",
    ),
    "dilation": Family(
        "The dilation is ignored, or stride and dilation are exchanged.",
        "Tap p of output i reads which row of x? One of the two numbers multiplies i, the other multiplies p.",
    ),
    "groups": Family(
        "Filters and channels are assigned to the wrong groups.",
        "With 4 channels in 2 groups, which channels does the first filter read?",
    ),
    "ties": Family(
        "Where several elements of a window equal its maximum, the gradient goes to the wrong ones. Here and in "
        "PyTorch it goes to the first in row order.",
        "In a window of four equal numbers, how much gradient arrives in total, and where?",
    ),
    "padding competes": Family(
        "The padded zeros take part in the maximum. Padding of max pooling is −∞: it never wins.",
        "All numbers in a corner window are negative. Which element is its maximum?",
    ),
    "pooled differently": Family(
        "The gradient is spread by the rule of another operation.",
        "How does the output change if an element changes that is not the maximum?",
    ),
    "divisor": Family(
        "The sum of a window is divided by the wrong number of pixels.",
        "How many pixels does this window have, and does its padding count?",
    ),
    # -- batch norm
    "through the mean": Family(
        "The path through the batch mean is missing or wrong. Each x also moves the mean of its channel.",
        "Add 1 to every x of a channel. How does y change, and so what must the gradients of a channel sum to?",
    ),
    "through the variance": Family(
        "The path through the batch variance is missing or wrong. Each x also moves the variance of its channel.",
        "Double the distance of every x from its mean. How does y change, and so what must Σ grad_x·x̂ be?",
    ),
    "biased and unbiased": Family(
        "The wrong variance: normalisation divides by M, the running variance is corrected by M / (M − 1).",
        "Which of the two variances describes this batch, and which estimates that of all data?",
    ),
    "eps": Family(
        "eps is in the wrong place or absent. It is added to the variance, under the root.",
        "What do you divide by if all numbers of a channel are equal?",
    ),
    "std and variance": Family(
        "Standard deviation and variance are exchanged.", "Which power of the unit of x must the divisor have?"
    ),
    "axes of the statistics": Family(
        "The statistics are computed over other axes than batch, height and width.",
        "How many means has a batch norm of C channels?",
    ),
    "affine": Family(
        "weight or bias is dropped or exchanged.",
        "What is y when x is already normalised, in terms of weight and bias?",
    ),
    "normalised": Family(
        "The normalised input x̂ is replaced by another array.",
        "weight multiplies which array in the forward?",
    ),
    "momentum of statistics": Family(
        "The running statistics are moved in the wrong way. PyTorch's momentum is the share of the new value.",
        "With momentum 0.1, how far does a running mean of 0 move when the batch mean is 1?",
    ),
    "wrong statistics": Family(
        "Batch statistics and running statistics are exchanged.",
        "Which statistics normalise in training, and which in evaluation?",
    ),
    # -- loss
    "label term": Family(
        "One of the two terms, softmax and one-hot label, is missing or wrong.",
        "When the network is certain and right, what must the gradient be?",
    ),
    "off by one": Family("The labels are shifted by one.", "Which column belongs to label 0?"),
    "softmax": Family(
        "The probabilities are not the softmax of each row.",
        "Which numbers must sum to 1: those of a row, of a column, or all?",
    ),
    "overflow": Family(
        "exp overflows for large logits, and inf / inf is NaN. Subtracting the maximum of the row avoids it.",
        "What is exp(1000) in float64, and what does softmax give when you subtract the same number from a whole row?",
    ),
    "only the label": Family(
        "Only the logit of the label receives a gradient.",
        "The logit of a wrong class grows. Does the probability of the right class stay?",
    ),
    # -- optimiser and initialisation
    "weight decay": Family(
        "Weight decay is missing, or enters at the wrong place. In the paper it is part of the gradient, before the "
        "momentum.",
        "Which gradient has the penalty weight_decay / 2 · |p|²?",
    ),
    "learning rate": Family(
        "The learning rate is inside the velocity. It multiplies the velocity in the step.",
        "What happens to the old velocity when the learning rate drops by 10?",
    ),
    "momentum": Family(
        "The velocity is built or used in another way than v ← momentum · v + g, p ← p − lr · v.",
        "With a constant gradient g and momentum 0.9, which value does the velocity approach?",
    ),
    "fan": Family(
        "The number of inputs of a unit (fan-in) is counted wrongly.",
        "How many numbers are summed to make one output of this layer?",
    ),
    "gain": Family(
        "The factor 2 of ReLU is missing or wrong.",
        "ReLU sets half of the numbers to zero. By which factor must the weights' variance make up for it?",
    ),
    "source of randomness": Family(
        "The weights must depend on rng and on nothing else, so that a seed reproduces a run.",
        "What do two calls with generators of the same seed return, and two calls with different seeds?",
    ),
    "distribution": Family(
        "The weights have another distribution than a normal one around 0.",
        "Which mean and which tails do normal numbers have?",
    ),
    # -- residual block
    "activation": Family(
        "ReLU is missing, is doubled or stands at the wrong place: inside after bn1, and once after the addition.",
        "Can the output of your block be negative, and does the addition see ReLU's output or bn2's?",
    ),
    "shortcut": Family(
        "The shortcut is missing, is wrong or is added at the wrong place.",
        "If both convolutions are zero, what should the block return?",
    ),
    "option A": Family(
        "Option A takes every stride-th pixel of x and appends channels of zeros; it has no parameters.",
        "Which pixel of x belongs to output pixel (1, 1) when the stride is 2, and which channels are new?",
    ),
    "order of layers": Family(
        "The layers are called in another order, or one is left out or used twice.",
        "In which order does Figure 2 list the layers, with a batch norm after each convolution?",
    ),
    "order of columns": Family(
        "The numbers are right, but rows or columns stand in another order.",
        "Which two entries of a row are neighbours: two taps, or two channels?",
    ),
}
