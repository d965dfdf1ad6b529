// Which experts a token goes to: the routers of DeepSeek-V3 and of what came before and beside it.
#pragma once
#include <algorithm>
#include <cmath>

struct Routing {  // as `routing_of` in `experts.py` fills it in
    int64_t experts, chosen, groups, allowed_groups, best_in_group, is_sigmoid, normalises;
    float scaling, floor;
};

static constexpr int64_t MOST_EXPERTS = 512;  // as in `library.py`

// The `count` largest of `values` are marked; of equal ones the first
static inline void mark_largest(const float* values, int64_t size, int64_t count, bool* marked) {
    std::fill(marked, marked + size, false);
    for (int64_t n = 0; n < count; n++) {
        int64_t best = -1;
        for (int64_t e = 0; e < size; e++)
            if (!marked[e] && (best < 0 || values[e] > values[best])) best = e;
        marked[best] = true;
    }
}

// Scores [E] of one token → affinities [E], which experts are chosen, and the sum of those affinities. The engine and the
// trainer both decide so: a near tie is the same one to both.
static inline float mark_experts(const Routing& r, const float* scores, const float* bias, float* affinity, bool* marked) {
    float ranked[MOST_EXPERTS], best[MOST_EXPERTS];
    float largest = -INFINITY, total = 0;
    for (int64_t e = 0; e < r.experts; e++) largest = std::max(largest, scores[e]);
    for (int64_t e = 0; e < r.experts; e++) {
        affinity[e] = r.is_sigmoid ? 1.0f / (1.0f + std::exp(-scores[e])) : std::exp(scores[e] - largest);
        total += affinity[e];
    }
    for (int64_t e = 0; e < r.experts; e++) {
        if (!r.is_sigmoid) affinity[e] /= total;
        ranked[e] = affinity[e] + (bias ? bias[e] : 0.0f);
        if (std::isnan(ranked[e])) ranked[e] = INFINITY;  // still exactly `chosen` are taken
    }
    if (r.groups > 1) {
        const int64_t size = r.experts / r.groups;
        for (int64_t g = 0; g < r.groups; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (int64_t e = g * size; e < (g + 1) * size; e++) {
                if (ranked[e] > first) second = first, first = ranked[e];
                else second = std::max(second, ranked[e]);
            }
            best[g] = r.best_in_group == 2 ? first + second : first;
        }
        mark_largest(best, r.groups, r.allowed_groups, marked);
        for (int64_t e = 0; e < r.experts; e++)
            if (!marked[e / size]) ranked[e] = -INFINITY;
    }
    mark_largest(ranked, r.experts, r.chosen, marked);
    float sum = 0;
    for (int64_t e = 0; e < r.experts; e++)
        if (marked[e]) sum += affinity[e];
    return sum;
}

// What the chosen affinities, whose sum is given, are divided by
static inline float divisor_of(const Routing& r, float sum) {
    return !r.normalises ? 1.0f : r.floor > 0 ? std::max(sum, r.floor) : sum + 1e-20f;
}

// Scores [E] of one token → its experts [K], in their order, and their gates
static inline void choose_experts(const Routing& r, const float* scores, const float* bias, int32_t* chosen, float* gates) {
    float affinity[MOST_EXPERTS];
    bool marked[MOST_EXPERTS];
    const float divisor = divisor_of(r, mark_experts(r, scores, bias, affinity, marked));
    for (int64_t e = 0, count = 0; e < r.experts; e++)
        if (marked[e]) chosen[count] = static_cast<int32_t>(e), gates[count++] = affinity[e] / divisor * r.scaling;
}
