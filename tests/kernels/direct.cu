// launch: block=(64) grid=(ceil(OH*OW/64), O, N)
// A sound convolution by its definition.
extern "C" __global__ void direct(const float* x, const float* w, float* y, int N, int C, int H, int W, int O, int KH,
                                  int KW, int stride, int padding) {
    const int OH = (H + 2 * padding - KH) / stride + 1, OW = (W + 2 * padding - KW) / stride + 1;
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x, o = blockIdx.y, image = blockIdx.z;
    if (pixel >= OH * OW) return;
    const int top = pixel / OW * stride - padding, left = pixel % OW * stride - padding;
    float sum = 0;
    for (int c = 0; c < C; c++)
        for (int p = 0; p < KH; p++)
            for (int q = 0; q < KW; q++) {
                const int i = top + p, j = left + q;
                if (i >= 0 && i < H && j >= 0 && j < W)
                    sum += x[((image * C + c) * H + i) * W + j] * w[((o * C + c) * KH + p) * KW + q];
            }
    y[(image * O + o) * OH * OW + pixel] = sum;
}
