// RMSNorm, with the residual sum before it where there is one; per-head norm and rotary embedding in one pass.
// Rows are N; C is their size, a multiple of 16. Sums over rows are kept per thread and added in order.
#include <cmath>
#include <vector>

#include "rows.h"
#include "simd.h"

template <typename In, typename Out>
static void norm_forward(const In* x, int64_t stride, const bf16* delta, float* total, const float* weight, Out* y,
                         float* scale, int64_t rows, int64_t size, float eps, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const In* row = x + n * stride;
        __m512 squares = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 16) {
            __m512 v = load(row + c);
            if (delta) {
                v = _mm512_add_ps(v, load(delta + n * size + c));
                store(total + n * size + c, v);
            }
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        const float factor = 1.0f / std::sqrt(sum(squares) / size + eps);
        scale[n] = factor;
        for (int64_t c = 0; c < size; c += 16) {
            const __m512 v = delta ? load(total + n * size + c) : load(row + c);
            store(y + n * size + c, _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(factor)), load(weight + c)));
        }
    }
}

// dx = scale * (w·dy − x̂ · mean(w·dy·x̂)) (+ what flows past the norm); dw = Σ dy·x̂
template <typename In, typename Out>
static void norm_backward(const In* x, int64_t stride, const float* weight, const float* scale, const Out* dy,
                          const float* past, In* dx, bf16* ddelta, float* dweight, int64_t rows, int64_t size,
                          int64_t threads) {
    std::vector<float> partial(static_cast<size_t>(threads) * size, 0.0f);
    PARALLEL(threads)
    for (int64_t part = 0; part < threads; part++) {
        float* sums = partial.data() + part * size;
        for (int64_t n = rows * part / threads; n < rows * (part + 1) / threads; n++) {
            const In* row = x + n * stride;
            const __m512 factor = _mm512_set1_ps(scale[n]);
            __m512 dot = _mm512_setzero_ps();
            for (int64_t c = 0; c < size; c += 16) {
                const __m512 hat = _mm512_mul_ps(load(row + c), factor);
                const __m512 g = load(dy + n * size + c);
                store(sums + c, _mm512_fmadd_ps(g, hat, load(sums + c)));
                dot = _mm512_fmadd_ps(_mm512_mul_ps(g, load(weight + c)), hat, dot);
            }
            const __m512 mean = _mm512_set1_ps(sum(dot) / size);
            for (int64_t c = 0; c < size; c += 16) {
                const __m512 hat = _mm512_mul_ps(load(row + c), factor);
                const __m512 g = _mm512_mul_ps(load(dy + n * size + c), load(weight + c));
                __m512 d = _mm512_mul_ps(factor, _mm512_fnmadd_ps(hat, mean, g));
                if (past) d = _mm512_add_ps(d, load(past + n * size + c));
                store(dx + n * size + c, d);
                if (ddelta) store(ddelta + n * size + c, d);
            }
        }
    }
    for (int64_t c = 0; c < size; c++) {
        float total = 0;
        for (int64_t part = 0; part < threads; part++) total += partial[part * size + c];
        dweight[c] = total;
    }
}

// What both ways of `rotate_forward` are told
struct Heads {
    const bf16* x;
    int64_t stride;
    const float *weight, *cos, *sin;
    int64_t positions, rotary;
    bool pairs;
    int64_t rows, heads, size, threads;
};

// Of sizes that the compiler knows a head stays in registers
template <typename Call>
static void with_known_size(int64_t size, int64_t rotary, const Call& call) {
    using std::integral_constant;
    if (size == 32 && rotary == 32) call(integral_constant<int64_t, 32>(), integral_constant<int64_t, 32>());
    else if (size == 64 && rotary == 64) call(integral_constant<int64_t, 64>(), integral_constant<int64_t, 64>());
    else if (size == 128 && rotary == 128) call(integral_constant<int64_t, 128>(), integral_constant<int64_t, 128>());
    else call(integral_constant<int64_t, 0>(), integral_constant<int64_t, 0>());
}

template <int64_t Known, int64_t Turned>
static void rotate(const Heads& k, float eps, bf16* y, float* scale) {
    const int64_t size = Known ? Known : k.size, rotary = Known ? Turned : k.rotary, threads = k.threads;
    PARALLEL(threads)
    for (int64_t n = 0; n < k.rows; n++) {
        const int64_t line = n % k.positions * (rotary / 2);
        alignas(64) float head[Known ? Known : MAX_HEAD];
        for (int64_t h = 0; h < k.heads; h++) {
            const bf16* in = k.x + n * k.stride + h * size;
            __m512 squares = _mm512_setzero_ps();
            for (int64_t c = 0; c < size; c += 16) {
                const __m512 v = load(in + c);
                squares = _mm512_fmadd_ps(v, v, squares);
                store(head + c, v);
            }
            if (k.weight) {
                const float factor = 1.0f / std::sqrt(sum(squares) / size + eps);
                scale[n * k.heads + h] = factor;
                for (int64_t c = 0; c < size; c += 16)
                    store(head + c,
                          _mm512_mul_ps(_mm512_mul_ps(load(head + c), _mm512_set1_ps(factor)), load(k.weight + c)));
            }
            turn(head, size, rotary, k.cos + line, k.sin + line, 1.0f, k.pairs);
            for (int64_t c = 0; c < size; c += 16) store(y + (n * k.heads + h) * size + c, load(head + c));
        }
    }
}

template <int64_t Known, int64_t Turned>
static void rotate_back(const Heads& k, const float* scale, const bf16* dy, bf16* dx, float* dweight) {
    const int64_t size = Known ? Known : k.size, rotary = Known ? Turned : k.rotary, threads = k.threads;
    std::vector<float> partial(static_cast<size_t>(threads) * size, 0.0f);
    PARALLEL(threads)
    for (int64_t part = 0; part < threads; part++) {
        alignas(64) float head[Known ? Known : MAX_HEAD], sums[Known ? Known : MAX_HEAD];
        for (int64_t c = 0; c < size; c += 16) store(sums + c, _mm512_setzero_ps());
        for (int64_t n = k.rows * part / threads; n < k.rows * (part + 1) / threads; n++) {
            const int64_t line = n % k.positions * (rotary / 2);
            for (int64_t h = 0; h < k.heads; h++) {
                const int64_t at = (n * k.heads + h) * size;
                for (int64_t c = 0; c < size; c += 16) store(head + c, load(dy + at + c));
                turn(head, size, rotary, k.cos + line, k.sin + line, -1.0f, k.pairs);
                if (k.weight) {
                    const bf16* in = k.x + n * k.stride + h * size;
                    const __m512 factor = _mm512_set1_ps(scale[n * k.heads + h]);
                    __m512 dot = _mm512_setzero_ps();
                    for (int64_t c = 0; c < size; c += 16) {
                        const __m512 hat = _mm512_mul_ps(load(in + c), factor), g = load(head + c);
                        store(sums + c, _mm512_fmadd_ps(g, hat, load(sums + c)));
                        dot = _mm512_fmadd_ps(_mm512_mul_ps(g, load(k.weight + c)), hat, dot);
                    }
                    const __m512 mean = _mm512_set1_ps(sum(dot) / size);
                    for (int64_t c = 0; c < size; c += 16) {
                        const __m512 hat = _mm512_mul_ps(load(in + c), factor);
                        const __m512 g = _mm512_mul_ps(load(head + c), load(k.weight + c));
                        store(head + c, _mm512_mul_ps(factor, _mm512_fnmadd_ps(hat, mean, g)));
                    }
                }
                for (int64_t c = 0; c < size; c += 16) store(dx + at + c, load(head + c));
            }
        }
        std::copy(sums, sums + size, partial.data() + part * size);
    }
    if (!k.weight) return;
    for (int64_t c = 0; c < size; c++) {
        float total = 0;
        for (int64_t part = 0; part < threads; part++) total += partial[part * size + c];
        dweight[c] = total;
    }
}

extern "C" {

// kinds: bit 0: the input is fp32 (else bf16), bit 1: the output is fp32
void rms_norm_forward(int64_t kinds, const void* x, int64_t stride, const bf16* delta, float* total, const float* weight,
                      void* y, float* scale, int64_t rows, int64_t size, float eps, int64_t threads) {
#define CALL(In, Out) \
    norm_forward((const In*)x, stride, delta, total, weight, (Out*)y, scale, rows, size, eps, threads)
    switch (kinds) {
        case 0: CALL(bf16, bf16); break;
        case 1: CALL(float, bf16); break;
        case 2: CALL(bf16, float); break;
        case 3: CALL(float, float); break;
    }
#undef CALL
}

void rms_norm_backward(int64_t kinds, const void* x, int64_t stride, const float* weight, const float* scale,
                       const void* dy, const float* past, void* dx, bf16* ddelta, float* dweight, int64_t rows,
                       int64_t size, int64_t threads) {
#define CALL(In, Out)                                                                                          \
    norm_backward((const In*)x, stride, weight, scale, (const Out*)dy, past, (In*)dx, ddelta, dweight, rows, \
                  size, threads)
    switch (kinds) {
        case 0: CALL(bf16, bf16); break;
        case 1: CALL(float, bf16); break;
        case 2: CALL(bf16, float); break;
        case 3: CALL(float, float); break;
    }
#undef CALL
}

// stream + delta, in fp32
void add_to_stream(const float* stream, const bf16* delta, float* y, int64_t count, int64_t threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < count / 16; i++)
        store(y + 16 * i, _mm512_add_ps(load(stream + 16 * i), load(delta + 16 * i)));
}

// x [rows, heads, size], rows `stride` apart; row n takes line n % positions of cos and sin [positions, rotary / 2].
// `weight` null: no norm. `scale` [rows, heads] keeps the norm's factor for the way back.
void rotate_forward(const bf16* x, int64_t stride, const float* weight, float eps, const float* cos,
                    const float* sin, int64_t positions, int64_t rotary, int64_t pairs, bf16* y, float* scale,
                    int64_t rows, int64_t heads, int64_t size, int64_t threads) {
    with_known_size(size, rotary, [&](auto known, auto turned) {
        rotate<known, turned>({x, stride, weight, cos, sin, positions, rotary, pairs != 0, rows, heads, size, threads},
                              eps, y, scale);
    });
}

void rotate_backward(const bf16* x, int64_t stride, const float* weight, const float* cos, const float* sin,
                     int64_t positions, int64_t rotary, int64_t pairs, const float* scale, const bf16* dy, bf16* dx,
                     float* dweight, int64_t rows, int64_t heads, int64_t size, int64_t threads) {
    with_known_size(size, rotary, [&](auto known, auto turned) {
        rotate_back<known, turned>(
            {x, stride, weight, cos, sin, positions, rotary, pairs != 0, rows, heads, size, threads}, scale, dy, dx,
            dweight);
    });
}
}
