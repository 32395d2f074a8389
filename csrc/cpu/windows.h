// im2col in blocks: each block of windows is written just before its product, into memory that stays in the cache.
#pragma once

#include "simd.h"

namespace {

// The row of window (n, h, w): for each tap (r, s) and channel c, in this order,
//     image[n, h · step_h + row[r], w · step_w + column[s], c], or 0 outside of the image.
template <typename T>
struct Windows {
    const T* image;      // its first channel
    long H, W, C;        // C: the channels of a window
    long pitch;          // from pixel to pixel
    long rows, columns;  // of taps
    const long *row, *column;
    long step_h, step_w;
    long out_h, out_w;  // windows in an image

    long depth() const { return rows * columns * C; }
    // Whether window p is pixel p.
    bool are_pixels() const {
        return rows == 1 && columns == 1 && row[0] == 0 && column[0] == 0 && step_h == 1 && step_w == 1 && out_h == H &&
               out_w == W;
    }
};

// Numbers first … last − 1 of the rows of windows begin … end − 1, `to_pitch` apart.
template <typename T>
void write_windows(const Windows<T>& s, long begin, long end, long first, long last, T* to, long to_pitch) {
    // Taps of a filter's row that are neighbours in memory form one run.
    bool joined = s.C == s.pitch;
    for (long i = 1; i < s.columns; i++) joined &= s.column[i] == s.column[i - 1] + 1;
    const long run = joined ? s.columns * s.C : s.C;  // contiguous numbers
    const long runs = joined ? 1 : s.columns;         // in a row of taps
    const long first_run = first / run;
    const long first_row = first_run / runs, first_column = first_run % runs, first_offset = first % run;

    long w = begin % s.out_w, h = begin / s.out_w % s.out_h, n = begin / s.out_w / s.out_h;
    for (long p = begin; p < end; p++, to += to_pitch) {
        const T* image = s.image + n * s.H * s.W * s.pitch;
        long r = first_row, c = first_column, offset = first_offset, done = 0;
        const long wanted = last - first;
        while (done < wanted) {
            const long ih = h * s.step_h + s.row[r], iw = w * s.step_w + s.column[c];
            const long length = min(run - offset, wanted - done);
            T* out = to + done;
            if (ih < 0 || ih >= s.H) {
                zero(out, length);
            } else {
                // Numbers inside_begin … inside_end − 1 of the run lie in the image.
                const long width = joined ? s.columns : 1;
                const long inside_begin = min(max(-iw, 0), width) * s.C;
                const long inside_end = max(min(s.W - iw, width), 0) * s.C;
                const long a = min(max(inside_begin - offset, 0), length);
                const long b = max(min(inside_end - offset, length), a);
                if (a > 0) zero(out, a);
                if (b > a) copy(out + a, image + (ih * s.W + iw) * s.pitch + offset + a, b - a);
                if (b < length) zero(out + b, length - b);
            }
            done += length;
            offset = 0;
            if (++c == runs) c = 0, r++;
        }
        if (++w == s.out_w) {
            w = 0;
            if (++h == s.out_h) h = 0, n++;
        }
    }
}

}  // namespace
