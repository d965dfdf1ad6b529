// Routers (routing.h), and tokens in the order of their experts. N rows, E experts, K chosen ones.
#include <cmath>
#include <vector>

#include "formats.h"
#include "routing.h"
#include "simd.h"

extern "C" {

// scores [N, size] in fp32 = x [N, C] in bf16 · a weight laid out in fp32: a row's sums run as the engine's do, in which
// a near tie decides. `size`: E filled up to whole lanes.
void router_scores(const bf16* x, const uint8_t* weight, float* scores, int64_t rows, int64_t inputs, int64_t size,
                   int64_t threads) {
    constexpr int64_t at_once = 48;
    const Weight w{weight, inputs, size, FLOAT32};
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n += at_once) {
        const int64_t count = std::min(at_once, rows - n);
        const Unset<float> wide(count * inputs);
        for (int64_t c = 0; c < count * inputs; c += 16) store(wide.data() + c, load(x + n * inputs + c));
        const Left<float> left{wide.data(), inputs, {}};
        for (int64_t p = 0; p < num_panels(size); p++) panel_product(w, p, left, count, scores + n * size, size, 0);
    }
}

// scores [N, E] → affinity, a sigmoid or softmax; chosen: the K largest of affinity + bias (null: none) in the best groups,
// of equal ones the first; gates: chosen affinities, normalised where the router does, times its factor
void route_forward(const Routing* routing, const float* scores, const float* bias, float* affinity, uint8_t* chosen,
                   float* gates, int64_t rows, int64_t threads) {
    const Routing& r = *routing;
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const int64_t at = n * r.experts;
        bool marked[MOST_EXPERTS];
        const float divisor = divisor_of(r, mark_experts(r, scores + at, bias, affinity + at, marked));
        for (int64_t e = 0; e < r.experts; e++) {
            chosen[at + e] = marked[e];
            gates[at + e] = marked[e] ? affinity[at + e] / divisor * r.scaling : 0;
        }
    }
}

// gradient of scores from those of affinity (balance loss; may be null) and gates
void route_backward(const Routing* routing, const float* affinity, const uint8_t* chosen, const float* gates,
                    const float* daffinity, const float* dgates, float* dscores, int64_t rows, int64_t threads) {
    const Routing& r = *routing;
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const int64_t at = n * r.experts;
        float sum = 0, mixed = 0, whole = 0;
        for (int64_t e = 0; e < r.experts; e++) {
            if (chosen[at + e]) sum += affinity[at + e];
            mixed += dgates[at + e] * gates[at + e];
        }
        const float divisor = divisor_of(r, sum);
        if (!r.normalises || sum < r.floor) mixed = 0;  // then the divisor doesn't move
        for (int64_t e = 0; e < r.experts; e++) {
            float d = daffinity ? daffinity[at + e] : 0.0f;
            if (chosen[at + e]) d += (dgates[at + e] * r.scaling - mixed) / divisor;
            dscores[at + e] = d * affinity[at + e];
            whole += dscores[at + e];
        }
        for (int64_t e = 0; e < r.experts; e++)
            if (r.is_sigmoid) dscores[at + e] *= 1.0f - affinity[at + e];
            else dscores[at + e] -= affinity[at + e] * whole;
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
