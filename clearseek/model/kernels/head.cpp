// From scores to log-probabilities of targets and back, and drawing a token: one pass over the vocabulary each.
// N rows of V scores in fp32; any V.
#include <algorithm>
#include <cmath>
#include <vector>

#include "nucleus.h"
#include "product.h"
#include "simd.h"

static inline __mmask16 lanes(int64_t left) { return left >= 16 ? 0xFFFF : (1u << left) - 1; }
static inline __m512 load_some(const float* p, __mmask16 some, float rest) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(rest), some, p);
}

static float largest_of(const float* row, int64_t size) {
    __m512 top[4];  // side by side: one after another they would wait for each other
    UNROLLED for (auto& one : top) one = _mm512_set1_ps(-INFINITY);
    int64_t c = 0;
    for (; c + 64 <= size; c += 64)
        UNROLLED for (int i = 0; i < 4; i++) top[i] = _mm512_max_ps(top[i], load(row + c + 16 * i));
    for (; c < size; c += 16) top[0] = _mm512_max_ps(top[0], load_some(row + c, lanes(size - c), -INFINITY));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3])));
}

// The first place of a number; the last of all where it is nowhere
static int64_t place_of(const float* row, int64_t size, float number) {
    const __m512 wanted = _mm512_set1_ps(number);
    for (int64_t c = 0; c < size; c += 16) {
        const __mmask16 some = lanes(size - c);
        const __mmask16 here = _mm512_mask_cmpeq_ps_mask(some, load_some(row + c, some, 0.0f), wanted);
        if (here) return c + __builtin_ctz(here);
    }
    return size - 1;
}

static constexpr int64_t TALL = HAS_TILES ? 96 : 48;  // rows that share a look at the weights
static constexpr int64_t LEAST = HAS_TILES ? 32 : 6;   // … in whole tiles

static void scores_of(const bf16* states, const uint32_t* weight, float* scores, int64_t rows, int64_t width,
                      int64_t size) {
    product(rows, width, size / 2, states, size, panels_of(weight, size / 2), scores, width, false);
}

// log p(target) of one row of scores; overwrites them with what the exponentials were. `size` of `width` are real.
static float target_log_prob(float* row, int64_t target, float inverse, int64_t size, int64_t width, bf16* slope) {
    const float top = largest_of(row, size), wanted = (row[target] - top) * inverse;
    for (int64_t c = size; c < width; c++) row[c] = -INFINITY;
    __m512 total = _mm512_setzero_ps();
    for (int64_t c = 0; c < width; c += 16) {
        const __m512 shifted = _mm512_sub_ps(load(row + c), _mm512_set1_ps(top));
        const __m512 e = exponential(_mm512_mul_ps(shifted, _mm512_set1_ps(inverse)));
        total = _mm512_add_ps(total, e);
        store(row + c, e);
    }
    const float whole = sum(total), minus = -inverse / whole;
    if (slope) {
        for (int64_t c = 0; c < width; c += 16) store(slope + c, _mm512_mul_ps(load(row + c), _mm512_set1_ps(minus)));
        const __m512 at_target = _mm512_set1_ps(inverse * (1.0f - row[target] / whole));
        slope[target] = static_cast<bf16>(_mm256_extract_epi16(narrow(at_target), 0));
    }
    return wanted - std::log(whole);
}

// The first token whose cumulative weight exceeds the threshold
static int64_t drawn_of_all(const float* weight, int64_t size, double threshold) {
    double reached = 0;
    for (int64_t c = 0; c < size; c += 16) {  // sixteen at once, then one by one
        const __mmask16 some = lanes(size - c);
        const double next = reached + sum(_mm512_maskz_loadu_ps(some, weight + c));
        if (next <= threshold && c + 16 < size) {
            reached = next;
            continue;
        }
        for (int64_t i = c; i < size && i < c + 16; i++) {
            reached += weight[i];
            if (reached > threshold) return i;
        }
    }
    int64_t last = size - 1;  // rounding: the last token that can be drawn at all
    while (last > 0 && weight[last] == 0) last--;
    return last;
}

extern "C" {

// Scores [N, width] in fp32 = states [N, C] · a weight laid out by `pack_weight`, from bf16 with fp32 sums.
void packed_head(const bf16* states, const uint32_t* weight, float* scores, int64_t rows, int64_t width, int64_t size,
                 int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n += TALL) {
        const Tiles tiles;
        scores_of(states + n * size, weight, scores + n * width, std::min(TALL, rows - n), width, size);
    }
}

// The same scores, never stored: log p(target) at temperature 1 / inverse over the first V of `width` columns, and
// unless null `slopes` [N, width] in bf16, its derivative by the scores: inverse · (1 at the target − p)
void target_log_probs(const bf16* states, const uint32_t* weight, const int64_t* targets, float inverse,
                      float* log_prob, bf16* slopes, int64_t rows, int64_t vocabulary, int64_t width, int64_t size,
                      int64_t threads) {
    const int64_t block = std::clamp<int64_t>(512 * 1024 / (4 * width) / LEAST * LEAST, LEAST, TALL);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        std::vector<float> scores(block * width);
        const Tiles tiles;
#pragma omp for schedule(static)
        for (int64_t first = 0; first < rows; first += block) {
            const int64_t count = std::min(block, rows - first);
            scores_of(states + first * size, weight, scores.data(), count, width, size);
            for (int64_t i = 0; i < count; i++)
                log_prob[first + i] =
                    target_log_prob(scores.data() + i * width, targets[first + i], inverse, vocabulary, width,
                                    slopes ? slopes + (first + i) * width : nullptr);
        }
    }
}

// From rows `width` apart: the first token whose cumulative probability exceeds uniform · total; its log-probability; the
// row's entropy. `inverse` 0: the likeliest token, of equal ones the first, and the rest as at temperature 1. Of scores
// that are no numbers any token, whose log-probability is none either. Where `top_k` is above 0 or `top_p` below 1 the
// likeliest tokens alone are drawn from, most likely first: see `Nucleus`. `kept`, unless null, is the share of these.
void draw(const float* scores, int64_t width, const float* uniforms, float inverse, int64_t top_k, float top_p,
          int64_t* tokens, float* log_probs, float* entropies, float* kept, float* scratch, int64_t rows, int64_t size,
          int64_t threads) {
    const bool takes_likeliest = inverse == 0, is_cut = (top_k > 0 && top_k < size) || top_p < 1;
    if (takes_likeliest) inverse = 1;
    PARALLEL(threads)
    for (int64_t n = 0; n < rows; n++) {
        const float *row = scores + n * width, top = largest_of(row, size);
        float* weight = scratch + n * size;
        __m512 total = _mm512_setzero_ps(), mean = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 16) {
            const __mmask16 some = lanes(size - c);
            __m512 shifted = _mm512_sub_ps(load_some(row + c, some, top), _mm512_set1_ps(top));
            // a score of -inf weighs nothing; 0 · -inf would not be a number
            shifted = _mm512_max_ps(_mm512_set1_ps(-100.0f), _mm512_mul_ps(shifted, _mm512_set1_ps(inverse)));
            const __m512 e = _mm512_maskz_mov_ps(some, exponential(shifted));
            _mm512_mask_storeu_ps(weight + c, some, e);
            total = _mm512_add_ps(total, e);
            mean = _mm512_fmadd_ps(e, shifted, mean);
        }
        const float whole = sum(total), log_sum = std::log(whole);
        int64_t chosen = -1;
        float share = 1;
        if (takes_likeliest) chosen = place_of(row, size, top);
        else if (is_cut && std::isfinite(whole)) chosen = Nucleus(row, weight, size, top, whole, inverse).drawn(top_k, top_p, uniforms[n], share);
        else chosen = drawn_of_all(weight, size, static_cast<double>(uniforms[n]) * whole);
        tokens[n] = chosen;
        log_probs[n] = (row[chosen] - top) * inverse - log_sum;
        entropies[n] = log_sum - sum(mean) / whole;
        if (kept) kept[n] = share;
    }
}
}
