// Convolution as a product of matrices: the windows are copied, one row a pixel, and multiplied by gemm_*.
//
// What changed    im2col; any rung of the GEMM ladder computes the product.
// Why faster      it uses all techniques of a fast matrix product.
// Its limit       the matrix of windows is KH·KW times as large as x, and is written and read once.  A 1×1 window with
//                 stride 1 needs no copy (conv_03: x itself is the matrix).
// Registers       32; no shared memory; 8 blocks a multiprocessor.
#include "conv.cuh"

// columns (N·OH·OW, KH·KW·C)
KERNEL(conv_02_im2col)(const real* x, real* columns, CONV_ARGUMENTS) {
    const Conv conv = CONV;
    const Windows windows{x, conv};
    const int k = blockIdx.y * blockDim.x + threadIdx.x, pixel = blockIdx.x * blockDim.y + threadIdx.y;
    if (k >= conv.depth() || pixel >= conv.pixels()) return;
    const real* address = windows.address(pixel, k);
    columns[(long long)pixel * conv.depth() + k] = address ? *address : 0;
}

// Backward as a gather: each pixel of x adds the gradients of all windows that contain it, in a fixed order.
// grad_x (N, H, W, x_pixel), columns (N·OH·OW, KH·KW·C)
KERNEL(conv_02_col2im)(const real* columns, real* grad_x, CONV_ARGUMENTS) {
    const Conv conv = CONV;
    const int c = blockIdx.y * blockDim.x + threadIdx.x, pixel = blockIdx.x * blockDim.y + threadIdx.y;
    if (c >= C || pixel >= N * H * W) return;
    const int column = pixel % W, row = pixel / W % H, n = pixel / (W * H);
    real sum = 0;
    for (int p = 0; p < KH; p++)
        for (int q = 0; q < KW; q++) {
            const int down = row + ph - p * dh, right = column + pw - q * dw;
            if (down < 0 || right < 0 || down % sh || right % sw) continue;
            const int i = down / sh, j = right / sw;
            if (i >= OH || j >= OW) continue;
            sum += columns[(((long long)n * OH + i) * OW + j) * conv.depth() + (p * KW + q) * C + c];
        }
    grad_x[(long long)pixel * x_pixel + c] = sum;
}

// Backward as a scatter, for comparison: simpler, but the order of the additions, and so the last bits, differ from run to
// run.  grad_x must be zero before.
KERNEL(conv_02_col2im_atomic)(const real* columns, real* grad_x, CONV_ARGUMENTS) {
    const Conv conv = CONV;
    const Windows windows{grad_x, conv};
    const int k = blockIdx.y * blockDim.x + threadIdx.x, pixel = blockIdx.x * blockDim.y + threadIdx.y;
    if (k >= conv.depth() || pixel >= conv.pixels()) return;
    const real* address = windows.address(pixel, k);
    if (address) atomicAdd(const_cast<real*>(address), columns[(long long)pixel * conv.depth() + k]);
}
