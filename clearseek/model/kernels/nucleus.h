// top-k, then top-p: which of the likeliest tokens one is drawn from. Probabilities are whole numbers and the order is
// that of `engine/truncation.py` and `fixed_point.py`: descending scores, of equal ones the lower id first.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "simd.h"

// One row of scores. Tokens go into buckets by how far they are below the likeliest, so that only the buckets in which
// something is decided have to be ordered: a sort of the whole vocabulary costs more than a small model's step.
class Nucleus {
    static constexpr int64_t BUCKETS = 1024, CHANCE_BITS = 24;
    static constexpr float PER_NAT = 32, UNIT = 274877906944.0f;  // 2^38; from 27 nats on a token weighs nothing

    const float *row, *weight;
    const int64_t size;
    const float top, whole, scale;
    float least = -INFINITY;  // the score of the last of the `top_k`
    std::array<int64_t, BUCKETS> sums{};
    std::array<int32_t, BUCKETS> counts{};
    int64_t all = 0;               // what everything weighs
    std::vector<int32_t> ordered;  // tokens of bucket `which`
    int64_t which = -1;

public:
    Nucleus(const float* row, const float* weight, int64_t size, float top, float whole, float inverse)
        : row(row), weight(weight), size(size), top(top), whole(whole), scale(inverse * PER_NAT) {
        alignas(64) std::array<int32_t, 16> buckets;
        for (int64_t c = 0; c < size; c += 16) {
            _mm512_store_si512(buckets.data(), buckets_at(c));
            for (int64_t i = c; i < std::min(c + 16, size); i++) {
                const int64_t weighs = units(i);
                sums[buckets[i - c]] += weighs, all += weighs;
                counts[buckets[i - c]]++;
            }
        }
    }

    // A token of those that are kept, and which share of the whole these are
    int64_t drawn(int64_t top_k, float top_p, float uniform, float& share) {
        const int64_t within = top_k > 0 && top_k < size ? keep_likeliest(top_k) : all;
        const int64_t wanted = static_cast<int64_t>(top_p * (1 << CHANCE_BITS)) * within;
        // what is before the last that is kept is less than `wanted`, what is before the one after it is not
        const int64_t kept = top_p < 1 ? up_to(within, [&](int64_t sum) { return sum << CHANCE_BITS >= wanted; }).sum : within;
        const int64_t chance = static_cast<int64_t>(uniform * (1 << CHANCE_BITS)) * kept >> CHANCE_BITS;
        share = static_cast<float>(kept) / static_cast<float>(all);
        return up_to(within, [&](int64_t sum) { return sum > chance; }).token;
    }

private:
    struct Place {
        int64_t token, sum;  // the sum up to and with it
    };

    int64_t units(int64_t i) const { return static_cast<int64_t>(weight[i] / whole * UNIT); }

    __m512i buckets_at(int64_t c) const {
        const __mmask16 some = size - c >= 16 ? 0xFFFF : (1u << (size - c)) - 1;
        const __m512 scores = _mm512_mask_loadu_ps(_mm512_set1_ps(top), some, row + c);
        const __m512 below = _mm512_mul_ps(_mm512_sub_ps(_mm512_set1_ps(top), scores), _mm512_set1_ps(scale));
        return _mm512_cvttps_epi32(_mm512_min_ps(below, _mm512_set1_ps(BUCKETS - 1)));
    }

    // The tokens of a bucket in their order, without those that top-k leaves out
    const std::vector<int32_t>& in_order(int64_t bucket) {
        if (bucket == which) return ordered;
        ordered.clear(), which = bucket;
        const __m512i wanted = _mm512_set1_epi32(static_cast<int32_t>(bucket));
        for (int64_t c = 0; c < size; c += 16)
            for (uint32_t here = _mm512_cmpeq_epi32_mask(buckets_at(c), wanted); here; here &= here - 1) {
                const int64_t i = c + __builtin_ctz(here);
                if (i < size && row[i] >= least) ordered.push_back(static_cast<int32_t>(i));
            }
        std::sort(ordered.begin(), ordered.end(), [&](int32_t a, int32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
        return ordered;
    }

    // Leave out what is less likely than the `count`-th; returns what the others weigh
    int64_t keep_likeliest(int64_t count) {
        int64_t bucket = 0, sum = 0;
        for (; counts[bucket] < count; bucket++) count -= counts[bucket], sum += sums[bucket];
        least = row[in_order(bucket)[count - 1]];
        which = -1;  // now without the rest of it
        for (const int32_t token : in_order(bucket)) sum += units(token);
        return sum;
    }

    // The first token in the order with which the sum is enough; the last that weighs anything where none is
    template <typename IsEnough>
    Place up_to(int64_t within, const IsEnough& is_enough) {
        int64_t sum = 0, bucket = 0;
        Place last{0, 0};
        for (; sum < within && bucket < BUCKETS; bucket++) {
            if (!counts[bucket]) continue;
            if (sum + sums[bucket] < within && !is_enough(sum + sums[bucket])) {
                sum += sums[bucket];
                continue;
            }
            for (const int32_t token : in_order(bucket)) {
                if (units(token)) last = {token, sum += units(token)};
                if (units(token) && is_enough(sum)) return last;
            }
        }
        return last;
    }
};
