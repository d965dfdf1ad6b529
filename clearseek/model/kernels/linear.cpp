// A linear map and its gradients. N rows, C inputs, D outputs: multiples of 16. Weights come packed, in panels.
#include <utility>

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

// The same in int8, both sizes multiples of 16: see `Int8`
static void quantise(const bf16* weight, uint32_t* forward, uint32_t* backward, int64_t outputs, int64_t inputs,
                     int64_t threads) {
    const auto behind = [](uint32_t* packed, int64_t size, int64_t depth) {
        float* scale = reinterpret_cast<float*>(packed + Int8::num_words(size, depth));
        return std::make_pair(scale, reinterpret_cast<int32_t*>(scale + 64 * num_panels(size)));
    };
    if (forward) {
        const auto [scale, start] = behind(forward, outputs, inputs);
        PARALLEL(threads)
        for (int64_t d = 0; d < outputs; d += 16) {
            const Unset<uint8_t> bytes(16 * inputs);
            quantise_rows<false>(weight + d * inputs, inputs, 16, inputs, bytes.data(), scale + d);
            for (int64_t i = 0; i < 16; i++) {
                int32_t sum = 0;
                for (int64_t c = 0; c < inputs; c++) sum += static_cast<int8_t>(bytes.data()[i * inputs + c]);
                start[d + i] = -128 * sum;
            }
            pack_transposed(reinterpret_cast<const uint32_t*>(bytes.data()), inputs / 4, 16, inputs / 4,
                            forward + d / 64 * 64 * (inputs / 4) + d % 64, 64);
        }
    }
    if (backward) {
        const auto [scale, start] = behind(backward, inputs, outputs);
        PARALLEL(threads)
        for (int64_t c = 0; c < inputs; c += 64)
            quantise_columns<false, 64>([&](int64_t t) { return weight + t * inputs + c; }, outputs,
                                        std::min<int64_t>(64, inputs - c), backward + c * (outputs / 4), 64, 0, scale + c,
                                        start + c);
    }
}

// Rows first … last − 1 of y = x · a packed weight, each times its factor, unless null
template <typename Kind>
static void times(const bf16* x, int64_t stride, const uint32_t* weight, const float* factor, bf16* y, int64_t first,
                  int64_t last, int64_t inputs, int64_t outputs) {
    Kind kind(inputs);
    for (int64_t n = first; n < last; n += TALL) {
        const int64_t count = std::min(TALL, last - n);
        kind.times(count, outputs, inputs, x + n * stride, stride, weight, y + n * outputs);
        for (int64_t i = n; factor && i < n + count; i++)
            for (int64_t c = i * outputs; c < (i + 1) * outputs; c += 16)
                store(y + c, _mm512_mul_ps(load(y + c), _mm512_set1_ps(factor[i])));
    }
}

template <typename Kind>
static void forward(const bf16* x, int64_t stride, const uint32_t* weight, bf16* y, int64_t rows, int64_t inputs,
                    int64_t outputs, int64_t threads) {
    PARALLEL(threads)
    for (int64_t part = 0; part < threads; part++) {
        const Tiles tiles;
        times<Kind>(x, stride, weight, nullptr, y, rows * part / threads, rows * (part + 1) / threads, inputs, outputs);
    }
}

template <typename Kind>
static void backward(const bf16* dy, int64_t dy_stride, const uint32_t* weight, const bf16* x, int64_t x_stride,
                     const float* factor, bf16* dx, float* dw, int64_t rows, int64_t inputs, int64_t outputs,
                     int64_t threads) {
    if (dw) std::fill(dw, dw + outputs * inputs, 0.0f);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        const Tiles tiles;
        for (int64_t first = 0; first < rows; first += AT_ONCE) {
            const int64_t count = std::min(AT_ONCE, rows - first);
            const bf16* grad = dy + first * dy_stride;
            const float* factors = factor ? factor + first : nullptr;
            if (dx) {
#pragma omp for schedule(static) nowait
                for (int64_t part = 0; part < threads; part++)
                    times<Kind>(grad, dy_stride, weight, factors, dx + first * inputs, count * part / threads,
                                count * (part + 1) / threads, outputs, inputs);
            }
            if (dw) {
#pragma omp for schedule(static) nowait
                for (int64_t part = 0; part < threads; part++)
                    weight_gradient<Kind>({grad, dy_stride, nullptr}, {x + first * x_stride, x_stride, nullptr},
                                          block_of(outputs, inputs, part, threads), factors, count, dw, inputs);
            }
        }
    }
}

// Each head of rows first … last − 1 of x [N, H, inputs + passed] times its own packed weight; the last `passed` numbers
// are copied
static void by_heads(const bf16* x, const uint32_t* weight, bf16* y, int64_t first, int64_t last, int64_t heads,
                     int64_t inputs, int64_t outputs, int64_t passed) {
    const int64_t from = inputs + passed, to = outputs + passed, size = Bf16::packed_size(outputs, inputs);
    for (int64_t n = first; n < last; n += TALL) {
        const int64_t count = std::min(TALL, last - n);
        for (int64_t h = 0; h < heads; h++) {
            const bf16* left = x + (n * heads + h) * from;
            bf16* out = y + (n * heads + h) * to;
            product(count, outputs, inputs / 2, left, heads * from, panels_of(weight + h * size, inputs / 2), out,
                    heads * to, false);
            for (int64_t i = 0; i < count; i++)
                for (int64_t c = 0; c < passed; c += 16)
                    store(out + i * heads * to + outputs + c, load(left + i * heads * from + inputs + c));
        }
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

// The same of weights in bf16 whose D is a multiple of 16, in int8: as many words as `Int8::packed_size` says
void quantise_weights(const bf16* weights, uint32_t* forward, uint32_t* backward, int64_t count, int64_t outputs,
                      int64_t inputs, int64_t threads) {
    const int64_t size = forward ? Int8::packed_size(outputs, inputs) : Int8::packed_size(inputs, outputs);
    for (int64_t i = 0; i < count; i++)
        quantise(weights + i * outputs * inputs, forward ? forward + i * size : nullptr,
                 backward ? backward + i * size : nullptr, outputs, inputs, threads);
}

// y [N, outputs] = x [N, inputs], rows `stride` apart, · a packed weight; in int8 or bf16
void linear_forward(int64_t is_int8, const bf16* x, int64_t stride, const uint32_t* weight, bf16* y, int64_t rows,
                    int64_t inputs, int64_t outputs, int64_t threads) {
    (is_int8 ? forward<Int8> : forward<Bf16>)(x, stride, weight, y, rows, inputs, outputs, threads);
}

// From dy [N, D] times a factor of each row (null: 1): dx [N, C] through a weight packed for the way back, and
// dw [outputs, C] in fp32 = Σ dy[n]ᵀ · x[n], of dy its first columns. Either may be null. In int8 there are no factors.
void linear_backward(int64_t is_int8, const bf16* dy, int64_t dy_stride, const uint32_t* weight, const bf16* x,
                     int64_t x_stride, const float* factor, bf16* dx, float* dw, int64_t rows, int64_t inputs,
                     int64_t outputs, int64_t threads) {
    (is_int8 ? backward<Int8> : backward<Bf16>)(dy, dy_stride, weight, x, x_stride, factor, dx, dw, rows, inputs,
                                                outputs, threads);
}

// y [N, H, outputs + passed] = x [N, H, inputs + passed], each head times its own packed weight; the last `passed` numbers
// of a head go with it as they are
void heads_forward(const bf16* x, const uint32_t* weight, bf16* y, int64_t rows, int64_t heads, int64_t inputs,
                   int64_t outputs, int64_t passed, int64_t threads) {
    PARALLEL(threads)
    for (int64_t part = 0; part < threads; part++) {
        const Tiles tiles;
        by_heads(x, weight, y, rows * part / threads, rows * (part + 1) / threads, heads, inputs, outputs, passed);
    }
}

// From dy as y above: dx through weights packed for the way back, and dw [H, outputs, inputs] in fp32 (null: not needed)
void heads_backward(const bf16* dy, const uint32_t* weight, const bf16* x, bf16* dx, float* dw, int64_t rows,
                    int64_t heads, int64_t inputs, int64_t outputs, int64_t passed, int64_t threads) {
    const int64_t from = heads * (inputs + passed), to = heads * (outputs + passed);
    if (dw) std::fill(dw, dw + heads * outputs * inputs, 0.0f);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        const Tiles tiles;
        for (int64_t first = 0; first < rows; first += DEEP) {  // both ways while they are in the cache
            const int64_t count = std::min(DEEP, rows - first);
#pragma omp for schedule(static) nowait
            for (int64_t part = 0; part < threads; part++)
                by_heads(dy, weight, dx, first + count * part / threads, first + count * (part + 1) / threads, heads,
                         outputs, inputs, passed);
            if (!dw) continue;
#pragma omp for schedule(static) nowait
            for (int64_t h = 0; h < heads; h++)
                weight_gradient<Bf16>({dy + first * to + h * (outputs + passed), to, nullptr},
                                      {x + first * from + h * (inputs + passed), from, nullptr},
                                      {0, outputs, 0, inputs}, nullptr, count, dw + h * outputs * inputs, inputs);
        }
    }
}
}
