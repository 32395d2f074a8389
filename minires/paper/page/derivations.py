"""How the formula of each backward follows from that of its forward.

L is the loss, g = ∂L/∂y the gradient that arrives, δ the Kronecker delta (1 where its indices are equal, else 0).
Every derivation is the chain rule  ∂L/∂x_k = Σ_i  g_i · ∂y_i/∂x_k  for one operation.  The result is not repeated here:
the page takes it from the operation's docstring.
"""

from __future__ import annotations

STEPS: dict[str, str] = {
    "Conv2d": """
        Fix the geometry: output (i, j) meets input (h, w) on tap (p, q) exactly if h = i·s+p·d−pad and w = j·s+q·d−pad.
        Outside its H rows and W columns x is 0: that is the padding, and no gradient is kept there.
        y[n,o,i,j] = Σ_c,p,q x[n,c,h,w] · weight[o,c,p,q] + bias[o] is linear in x, in weight and in bias.
        ∂y[n',o,i,j]/∂x[n,c,h,w] = δ(n,n') · weight[o,c,p,q] for the tap on which they meet, else 0.
        Multiply by g and sum over n', o, i, j: δ leaves n' = n, and each (i, j) that meets (h, w) leaves its tap.
        With s = d = 1 that is i = h + pad − p: the index runs against p, so the filter is flipped.
        With s = 2 and odd d each axis keeps only the taps of one parity: of 3×3 taps a pixel meets 1, 2 or 4.
        ∂y[n,o',i,j]/∂weight[o,c,p,q] = δ(o,o') · x[n,c,i·s+p·d−pad,j·s+q·d−pad].
        The same tap is used at every position and in every image: its gradient sums over n, i, j.
        ∂y[n,o',i,j]/∂bias[o] = δ(o,o'): again a sum over n, i, j.
    """,
    "BatchNorm": """
        For one channel with M values: m = Σ x_i/M, v = Σ (x_i−m)²/M, r = 1/√(v+eps), x̂_i = (x_i−m)·r, y_i = w·x̂_i + b.
        ∂L/∂b = Σ g_i and ∂L/∂w = Σ g_i·x̂_i, as y is linear in both.  Write a_i = ∂L/∂x̂_i = w·g_i.
        Every x̂_i depends on x_k in three ways: directly, through m, and through v.
        Directly: ∂x̂_i/∂x_k = r·δ(i,k), which gives the term r·a_k.
        Through m: ∂m/∂x_k = 1/M and ∂x̂_i/∂m = −r, which gives −r · Σ a_i / M.
        Through v: ∂v/∂x_k = 2·(x_k−m)/M, since the term through m holds the factor Σ (x_i−m) = 0.
        ∂x̂_i/∂v = (x_i−m)·(−½)·r³ = −½·x̂_i·r², which gives −½·r²·Σ a_i·x̂_i · 2·(x_k−m)/M = −r·x̂_k·Σ a_i·x̂_i/M.
        Add the three terms and take w out of them.
        In evaluation m and v are constants, and the first term alone remains.
    """,
    "ReLU": """
        y_i = max(x_i, 0) depends on x_i alone.
        ∂y_i/∂x_k = 0 for i ≠ k: the Jacobian is diagonal.
        For x_k > 0: y_k = x_k, so the derivative is 1.
        For x_k < 0: y_k = 0, so the derivative is 0.
        At x_k = 0 every number in [0, 1] is a subgradient; minires takes 0.
        y_k > 0 holds exactly if x_k > 0, so backward needs y alone.
    """,
    "Add": """
        y_i = x_i + other_i: each derivative is 1 where the indices are equal.
        Σ_i g_i·δ(i,k) = g_k, so both inputs receive g unchanged: this is the shortcut's path.
        Nothing scales the gradient on the shortcut, whatever the weights of F are.
        If an axis of `other` has size 1, one element is added at all positions of that axis.
        Its gradient is then the sum over these positions.
    """,
    "Linear": """
        y[n,o] = Σ_k x[n,k]·weight[o,k] + bias[o].
        ∂y[n',o]/∂x[n,k] = δ(n,n')·weight[o,k]; summed with g: Σ_o g[n,o]·weight[o,k].
        ∂y[n,o']/∂weight[o,k] = δ(o,o')·x[n,k]; summed with g: Σ_n g[n,o]·x[n,k].
        ∂y[n,o']/∂bias[o] = δ(o,o'); summed with g: Σ_n g[n,o].
        As matrices, with g and x holding a row for each image, these three sums are:
    """,
    "CrossEntropy": """
        For one row z of logits: p_k = exp(z_k)/Σ_j exp(z_j), and y = −Σ_k t_k·log p_k.
        log p_k = z_k − log Σ_j exp(z_j).
        ∂ log Σ_j exp(z_j)/∂z_i = exp(z_i)/Σ_j exp(z_j) = p_i.
        ∂ log p_k/∂z_i = δ(i,k) − p_i.
        ∂y/∂z_i = −Σ_k t_k·(δ(i,k) − p_i) = −t_i + p_i·Σ_k t_k.
        The targets sum to 1, so ∂y/∂z_i = p_i − t_i.
        With reduction "mean" the loss is the mean of the rows: each row's gradient is divided by their number.
    """,
    "Softmax": """
        y_i = exp(x_i)/S with S = Σ_j exp(x_j).
        ∂y_i/∂x_k = δ(i,k)·exp(x_i)/S − exp(x_i)·exp(x_k)/S².
        That is y_i·(δ(i,k) − y_k).
        Σ_i g_i·y_i·δ(i,k) = g_k·y_k.
        Σ_i g_i·y_i·y_k = y_k·Σ_i g_i·y_i.
        The difference has the common factor y_k.
    """,
    "MaxPool2d": """
        y[n,c,i,j] is the largest x of its window, found at (h*, w*).
        A small change of any other x of the window leaves y as it is: its derivative is 0.
        A change of x[n,c,h*,w*] changes y by as much: its derivative is 1.
        Windows of size 3 and stride 2 overlap: one pixel can be the maximum of several.
        Its gradient sums g over all windows that it won.
        Where maxima are equal, y has no derivative; minires takes the first in row-major order.
    """,
    "AvgPool2d": """
        y[n,c,i,j] = Σ x[n,c,h,w] / K over the K pixels of the window.
        ∂y[n,c,i,j]/∂x[n,c,h,w] = 1/K if the window (i, j) holds (h, w), else 0.
        Σ over i, j of g[n,c,i,j] · that derivative leaves the windows that hold (h, w).
        K counts the padding if count_include_pad is set; padding itself receives no gradient.
        Windows cut off at the border have their own K.
    """,
    "AdaptiveAvgPool2d": """
        With output size (1, 1) the one window is the whole map: y[n,c] = Σ_h,w x[n,c,h,w] / (H·W).
        ∂y[n',c']/∂x[n,c,h,w] = δ(n,n')·δ(c,c') / (H·W).
        So every pixel of a map receives g[n,c] / (H·W).
        For other output sizes the windows are [⌊i·H/OH⌋, ⌈(i+1)·H/OH⌉), which may overlap by a row.
        A pixel then sums the shares of all windows that hold it.
    """,
    "Pad": """
        y[n,c,h,w] = x[n,c−before,h,w] inside, and the constant `value` outside.
        A constant has derivative 0: what arrives at the added channels is dropped.
        Inside, the derivative is 1 where the indices fit.
        So the gradient is g, cropped to the place of x.
        The shortcut of option A thus has no parameters.
    """,
    "Slice": """
        y[k] = x[index(k)]: each output copies one input.
        ∂y[k]/∂x[m] = 1 if m = index(k), else 0.
        Basic indexing copies no input twice, so no sums arise.
        Inputs that are not copied receive 0.
        Option A keeps every second pixel: three quarters of the shortcut's pixels receive 0.
    """,
    "Reshape": """
        y holds the elements of x in the same row-major order.
        y_k = x_k for the flat index k.
        ∂y_k/∂x_m = δ(k,m).
        Σ_k g_k·δ(k,m) = g_m for the flat index m.
        So the gradient is g with the shape of x.
    """,
    "Dropout": """
        y_i = x_i·m_i/(1−p) with a mask m_i in {0, 1}, drawn in forward.
        The mask depends on no input, so it is a constant.
        ∂y_i/∂x_k = δ(i,k)·m_k/(1−p).
        Backward must use the mask of its forward, so the node keeps it.
        The expectation over the mask is x_i·(1−p)/(1−p) = x_i.
    """,
}


def steps(operation: str) -> list[str]:
    """The lines of an operation's derivation; empty for an operation without one."""
    return [line.strip() for line in STEPS.get(operation, "").strip().split("\n") if line.strip()]
