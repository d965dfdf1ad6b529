// A linear map and its gradients. N rows, C inputs, D outputs: multiples of 16. Weights come packed, in panels.
#include <cstring>

#include "weight_gradient.h"

template <typename In>
static void pack(const In* weight, uint32_t* forward, uint32_t* backward, int64_t outputs, int64_t inputs,
                 int64_t threads) {
    if (forward) {
        PARALLEL(threads)
        for (int64_t d = 0; d < outputs; d += 16)
            pack_transposed(weight + d * inputs, inputs, std::min<int64_t>(16, outputs - d), inputs / 2,
                            forward + d / 64 * 64 * (inputs / 2) + d % 64, 64);
    }
    if (backward) {
        PARALLEL(threads)
        for (int64_t d = 0; d < outputs; d += 2)
            pack_rows([&](int64_t t) { return weight + (d + t) * inputs; }, std::min<int64_t>(2, outputs - d), inputs,
                      backward + d / 2 * 64, 64, 64 * (up16(outputs) / 2));
    }
}

// Rows first … last − 1 of y = x · a packed weight, each times its factor, unless null
static void times(const bf16* x, int64_t stride, const uint32_t* weight, const float* factor, bf16* y, int64_t first,
                  int64_t last, int64_t inputs, int64_t outputs) {
    for (int64_t n = first; n < last; n += TALL) {
        const int64_t count = std::min(TALL, last - n);
        product(count, outputs, inputs / 2, x + n * stride, stride, panels_of(weight, inputs / 2), y + n * outputs,
                outputs, false);
        for (int64_t i = n; factor && i < n + count; i++)
            for (int64_t c = i * outputs; c < (i + 1) * outputs; c += 16)
                store(y + c, _mm512_mul_ps(load(y + c), _mm512_set1_ps(factor[i])));
    }
}

extern "C" {

// weights [count, D, C] (`is_wide`: in fp32, else bf16; D may be any number), each → `forward`, its transpose's panels
// [D / 64, C / 2, 64], or `backward`, its own [C / 64, D / 2, 64], D filled up to whole lanes; the other is null
void pack_weights(int64_t is_wide, const void* weights, uint32_t* forward, uint32_t* backward, int64_t count,
                  int64_t outputs, int64_t inputs, int64_t threads) {
    const int64_t size = 64 * (forward ? num_panels(outputs) * (inputs / 2) : num_panels(inputs) * (up16(outputs) / 2));
    for (int64_t i = 0; i < count; i++) {
        uint32_t *one = forward ? forward + i * size : nullptr, *other = backward ? backward + i * size : nullptr;
        const int64_t at = i * outputs * inputs;
        is_wide ? pack(static_cast<const float*>(weights) + at, one, other, outputs, inputs, threads)
                : pack(static_cast<const bf16*>(weights) + at, one, other, outputs, inputs, threads);
    }
}

// y [N, outputs] = x [N, inputs], rows `stride` apart, · a packed weight
void linear_forward(const bf16* x, int64_t stride, const uint32_t* weight, bf16* y, int64_t rows, int64_t inputs,
                    int64_t outputs, int64_t threads) {
    PARALLEL(threads)
    for (int64_t part = 0; part < threads; part++)
        times(x, stride, weight, nullptr, y, rows * part / threads, rows * (part + 1) / threads, inputs, outputs);
}

// From dy [N, D] times a factor of each row (null: 1): dx [N, C] through a weight packed for the way back, and
// dw [outputs, C] in fp32 = Σ dy[n]ᵀ · x[n], of dy its first columns. Either may be null.
void linear_backward(const bf16* dy, int64_t dy_stride, const uint32_t* weight, const bf16* x, int64_t x_stride,
                     const float* factor, bf16* dx, float* dw, int64_t rows, int64_t inputs, int64_t outputs,
                     int64_t threads) {
        if (dw) std::fill(dw, dw + outputs * inputs, 0.0f);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    for (int64_t first = 0; first < rows; first += AT_ONCE) {
        const int64_t count = std::min(AT_ONCE, rows - first);
        const bf16* grad = dy + first * dy_stride;
        if (dx) {
#pragma omp for schedule(static) nowait
            for (int64_t part = 0; part < threads; part++)
                times(grad, dy_stride, weight, factor ? factor + first : nullptr, dx + first * inputs,
                      count * part / threads, count * (part + 1) / threads, outputs, inputs);
        }
        if (dw) {
#pragma omp for schedule(static) nowait
            for (int64_t part = 0; part < threads; part++)
                weight_gradient({grad, dy_stride, nullptr}, {x + first * x_stride, x_stride, nullptr},
                                block_of(outputs, inputs, part, threads), factor ? factor + first : nullptr, count, dw,
                                inputs);
        }
    }
}
}
