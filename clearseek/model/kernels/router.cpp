// DeepSeek-V3's router, and tokens in the order of their experts. N rows, E experts, K chosen ones.
#include <cmath>
#include <vector>

#include "rows.h"
#include "simd.h"

extern "C" {

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
// [N, K] where a token's copies stand, `ends` [E] where each expert's stretch ends. Of more than K marks in a row,
// which scores that are no numbers may leave, the first K count.
void sort_by_expert(const uint8_t* chosen, const float* gates, int32_t* tokens, int32_t* places, float* sorted,
                    int64_t* ends, int64_t rows, int64_t experts, int64_t count, int64_t /* threads */) {
    std::vector<int64_t> next(experts + 1, 0);
    for (int64_t n = 0; n < rows; n++)
        for (int64_t e = 0, k = 0; e < experts && k < count; e++)
            if (chosen[n * experts + e]) next[e + 1]++, k++;
    for (int64_t e = 0; e < experts; e++) ends[e] = next[e + 1] += next[e];
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
