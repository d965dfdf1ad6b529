// SwiGLU over one or several experts, and DeepSeek-V3's router. N rows, E experts, I hidden units (a multiple of 16).
#include <cmath>
#include <cstring>
#include <vector>

#include "rows.h"
#include "simd.h"

extern "C" {

// gate_up [N, E, 2, I] → y [N, E, I] = silu(gate) · up · gates[N, E] (`gates` null: 1)
void swiglu_forward(const bf16* gate_up, const float* gates, bf16* y, int64_t rows, int64_t experts, int64_t size,
                    int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows * experts; n++)
        swiglu_row(gate_up + n * 2 * size, gates ? gates[n] : 1.0f, y + n * size, size);
}

void swiglu_backward(const bf16* gate_up, const float* gates, const bf16* dy, bf16* dgate_up, float* dgates,
                     int64_t rows, int64_t experts, int64_t size, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows * experts; n++) {
        const bf16 *gate = gate_up + n * 2 * size, *up = gate + size;
        bf16 *dgate = dgate_up + n * 2 * size, *dup = dgate + size;
        const __m512 weight = _mm512_set1_ps(gates ? gates[n] : 1.0f), one = _mm512_set1_ps(1.0f);
        __m512 dweight = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 16) {
            const __m512 g = load(gate + c), u = load(up + c), raw = load(dy + n * size + c), s = sigmoid(g);
            const __m512 silu = _mm512_mul_ps(g, s), d = _mm512_mul_ps(raw, weight);
            dweight = _mm512_fmadd_ps(_mm512_mul_ps(silu, u), raw, dweight);
            // silu'(g) = s · (1 + g · (1 − s))
            const __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(g, _mm512_sub_ps(one, s), one));
            store(dgate + c, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
            store(dup + c, _mm512_mul_ps(d, silu));
        }
        if (dgates) dgates[n] = sum(dweight);
    }
}

// scores [N, E] → affinity = sigmoid, chosen: the `count` largest of affinity + bias (of equal ones the first),
// gates: chosen affinities normalised to sum `scaling`
void route_forward(const float* scores, const float* bias, float* affinity, uint8_t* chosen, float* gates,
                   int64_t rows, int64_t experts, int64_t count, float scaling, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const int64_t at = n * experts;
        route_row(scores + at, bias, affinity + at, chosen + at, gates + at, experts, count, scaling);
    }
}

// gradient of scores from those of affinity (balance loss; may be null) and gates
void route_backward(const float* affinity, const uint8_t* chosen, const float* gates, const float* daffinity,
                    const float* dgates, float* dscores, int64_t rows, int64_t experts, float scaling, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const int64_t at = n * experts;
        float total = 1e-20f, mixed = 0;
        for (int64_t e = 0; e < experts; e++) {
            if (chosen[at + e]) total += affinity[at + e];
            mixed += dgates[at + e] * gates[at + e];
        }
        for (int64_t e = 0; e < experts; e++) {
            const float a = affinity[at + e];
            float d = daffinity ? daffinity[at + e] : 0.0f;
            if (chosen[at + e]) d += (dgates[at + e] * scaling - mixed) / total;
            dscores[at + e] = d * a * (1.0f - a);
        }
    }
}

// Tokens sorted by expert, in order within each: `tokens` which token stands where and `sorted` its gate, `places`
// [N, K] where a token's copies stand, `ends` [E] where each expert's stretch ends: at a multiple of `step`, the places
// left over keep what they held. Returns in ends[E] how many copies there are. Of more than K marks in a row, which
// scores that are no numbers may leave, the first K count.
void sort_by_expert(const uint8_t* chosen, const float* gates, int32_t* tokens, int32_t* places, float* sorted,
                    int64_t* ends, int64_t rows, int64_t experts, int64_t count, int64_t step, int64_t /* threads */) {
    std::vector<int64_t> next(experts + 1, 0);
    for (int64_t n = 0; n < rows; n++)
        for (int64_t e = 0, k = 0; e < experts && k < count; e++)
            if (chosen[n * experts + e]) next[e + 1]++, k++;
    ends[experts] = 0;
    for (int64_t e = 0; e < experts; e++) {
        ends[experts] += next[e + 1];
        ends[e] = next[e + 1] = next[e] + (next[e + 1] + step - 1) / step * step;
    }
    for (int64_t n = 0; n < rows; n++)
        for (int64_t e = 0, k = 0; e < experts && k < count; e++)
            if (chosen[n * experts + e]) {
                tokens[next[e]] = static_cast<int32_t>(n);
                sorted[next[e]] = gates[n * experts + e];
                places[n * count + k++] = static_cast<int32_t>(next[e]++);
            }
}

// The way back of `sorted` above: gates [N, E], zero where an expert was not chosen
void gates_of_tokens(const uint8_t* chosen, const int32_t* places, const float* sorted, float* gates, int64_t rows,
                     int64_t experts, int64_t count, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++)
        for (int64_t e = 0, k = 0; e < experts; e++)
            gates[n * experts + e] = chosen[n * experts + e] && k < count ? sorted[places[n * count + k++]] : 0.0f;
}

// y[i] = x[tokens[i]], rows of `size`; zeros where the token is -1
void gather_rows(const bf16* x, const int32_t* tokens, bf16* y, int64_t rows, int64_t size, int64_t threads) {
    PARALLEL(threads)
    for (int64_t i = 0; i < rows; i++) {
        if (tokens[i] < 0) std::memset(y + i * size, 0, size * sizeof(bf16));
        else std::memcpy(y + i * size, x + tokens[i] * size, size * sizeof(bf16));
    }
}

// y[n] = Σ_k x[places[n, k]], summed in fp32
void combine_rows(const bf16* x, const int32_t* places, bf16* y, int64_t rows, int64_t count, int64_t size,
                  int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++)
        for (int64_t c = 0; c < size; c += 16) {
            __m512 total = _mm512_setzero_ps();
            for (int64_t k = 0; k < count; k++)
                total = _mm512_add_ps(total, load(x + places[n * count + k] * size + c));
            store(y + n * size + c, total);
        }
}
}
