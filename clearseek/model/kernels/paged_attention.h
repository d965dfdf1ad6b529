// Attention over a cache in blocks of 64 tokens, which lie as products read them.
//
// Of each block and key head: keys as words of a token's neighbours [D / 2, 64], values as words of two tokens' numbers
// [32, Dv]; in fp32 a word is one number. Sums go block by block from the first on, so that a row's result depends on
// nothing but its own context: not on what shares its batch, nor on how its prompt was cut into steps. The trainer's
// forward pass lays its keys and values out so too and calls the same function: see attention.cpp.
#pragma once
#include <cmath>
#include <cstring>

#include "formats.h"
#include "rows.h"

static constexpr int64_t BLOCK_TOKENS = 64;  // as in `engine/blocks.py`

// A layer's cache: `heads` key heads of `size` numbers and values of `value_size`
template <typename Act>
struct PagedCache {
    Act *keys, *values;
    int64_t heads, size, value_size;

    Act* key_block(int64_t block, int64_t head) const { return keys + (block * heads + head) * BLOCK_TOKENS * size; }
    Act* value_block(int64_t block, int64_t head) const { return values + (block * heads + head) * BLOCK_TOKENS * value_size; }

    // One head's key and value of the token at `place` of a block. The newest token of a sequence clears what shares a
    // word with it and comes later; others leave it alone, for another thread may be writing it.
    void write(int64_t block, int64_t head, int64_t place, const Act* key, const Act* value, bool is_newest) const {
        Act *to = key_block(block, head), *row = value_block(block, head);
        if constexpr (sizeof(Act) == 4) {
            for (int64_t c = 0; c < size; c++) to[c * BLOCK_TOKENS + place] = key[c];
            std::memcpy(row + place * value_size, value, value_size * sizeof(Act));
        } else {
            const uint32_t* pairs = reinterpret_cast<const uint32_t*>(key);
            uint32_t *words = reinterpret_cast<uint32_t*>(to), *line = reinterpret_cast<uint32_t*>(row) + place / 2 * value_size;
            for (int64_t c = 0; c < size / 2; c++) words[c * BLOCK_TOKENS + place] = pairs[c];
            const bool is_odd = place % 2;
            const __mmask32 own = is_odd ? 0xAAAAAAAA : is_newest ? 0xFFFFFFFF : 0x55555555;
            for (int64_t c = 0; c < value_size; c += 16) {
                const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(value + c)));
                _mm512_mask_storeu_epi16(line + c, own, is_odd ? _mm512_slli_epi32(wide, 16) : wide);
            }
        }
    }
};

// Rows of queries [rows, D], `stride` apart, that share a key head and a sequence, at ascending positions
template <typename Act>
struct QueryTile {
    const Act* query;
    int64_t stride;
    const int64_t* positions;
    const float* sinks;  // [rows]: a further score without a value; null: none
    int64_t rows, window;  // of so many positions, the row's own included; 0: of all
};

struct TileScratch {
    Unset<float> scores, sums, top, total;
    Unset<uint32_t> chances;
    TileScratch(int64_t rows, int64_t value_size)
        : scores(rows * BLOCK_TOKENS), sums(rows * value_size), top(rows), total(rows), chances(rows * BLOCK_TOKENS) {}
};

// Scores of one row and the first 16 · Lanes tokens of a block, which are all that any row of its tile sees → chances in
// `out`; the row's running top and total, and the factor of what it summed
template <int Lanes, typename Act>
static inline float soften(float* scores, int64_t first, int64_t position, int64_t window, float scale, float& top,
                           float& total, Act* out) {
    __m512 value[Lanes], largest = _mm512_set1_ps(top);
    const int64_t oldest = window ? std::max<int64_t>(0, position - window + 1) : 0;
    UNROLLED for (int i = 0; i < Lanes; i++) {
        const int64_t begin = first + 16 * i;
        const __mmask16 seen = first_lanes(position + 1 - begin) & ~first_lanes(oldest - begin);
        value[i] = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), seen, load(scores + 16 * i), _mm512_set1_ps(scale));
        largest = _mm512_max_ps(largest, value[i]);
    }
    const float highest = _mm512_reduce_max_ps(largest);
    if (highest == -INFINITY) {  // nothing seen yet
        UNROLLED for (int i = 0; i < Lanes; i++) store(out + 16 * i, _mm512_setzero_ps());
        return 1.0f;
    }
    __m512 added = _mm512_setzero_ps();
    UNROLLED for (int i = 0; i < Lanes; i++) {
        const __m512 chance = exponential(_mm512_sub_ps(value[i], _mm512_set1_ps(highest)));
        added = _mm512_add_ps(added, chance);
        store(out + 16 * i, chance);
    }
    const float factor = top == highest ? 1.0f : _mm512_cvtss_f32(exponential(_mm512_set1_ps(top - highest)));
    top = highest;
    total = total * factor + sum(added);
    return factor;
}

// A tile's rows over their sequence's blocks → out [rows, Dv], rows `out_stride` apart; each row's largest score and
// its sum of exponentials stay in `s`
template <typename Act>
static void attend_tile(const PagedCache<Act>& cache, const int32_t* table, int64_t head, const QueryTile<Act>& tile,
                        float scale, TileScratch& s, Act* out, int64_t out_stride) {
    const int64_t rows = tile.rows, width = cache.value_size, last = tile.positions[rows - 1];
    Act* chances = reinterpret_cast<Act*>(s.chances.data());
    float* sums = s.sums.data();
    std::fill(sums, sums + rows * width, 0.0f);
    for (int64_t i = 0; i < rows; i++) {
        s.top.data()[i] = tile.sinks ? tile.sinks[i] : -INFINITY;
        s.total.data()[i] = tile.sinks ? 1.0f : 0.0f;
    }
    const int64_t oldest = tile.window ? std::max<int64_t>(0, tile.positions[0] - tile.window + 1) : 0;
    for (int64_t block = oldest / BLOCK_TOKENS; block * BLOCK_TOKENS <= last; block++) {
        const int64_t first = block * BLOCK_TOKENS, seen = std::min(BLOCK_TOKENS, last + 1 - first);
        const uint32_t* keys = reinterpret_cast<const uint32_t*>(cache.key_block(table[block], head));
        const uint32_t* values = reinterpret_cast<const uint32_t*>(cache.value_block(table[block], head));
        const int64_t columns = up16(seen);
        product(rows, columns, cache.size / IN_WORD<Act>, tile.query, tile.stride, rows_of(keys, BLOCK_TOKENS),
                s.scores.data(), BLOCK_TOKENS, false);
        const auto soften_all = [&](auto lanes) {
            for (int64_t i = 0; i < rows; i++) {
                const float factor = soften<lanes()>(s.scores.data() + i * BLOCK_TOKENS, first, tile.positions[i], tile.window,
                                                     scale, s.top.data()[i], s.total.data()[i], chances + i * BLOCK_TOKENS);
                if (factor == 1.0f) continue;
                for (int64_t c = 0; c < width; c += 16)
                    store(sums + i * width + c, _mm512_mul_ps(load(sums + i * width + c), _mm512_set1_ps(factor)));
            }
        };
        using std::integral_constant;
        switch (columns / 16) {
            case 1: soften_all(integral_constant<int, 1>()); break;
            case 2: soften_all(integral_constant<int, 2>()); break;
            case 3: soften_all(integral_constant<int, 3>()); break;
            case 4: soften_all(integral_constant<int, 4>()); break;
        }
        const int64_t words = (seen + IN_WORD<Act> - 1) / IN_WORD<Act>;
        product(rows, width, words, chances, BLOCK_TOKENS, rows_of(values, width), sums, width, true);
    }
    for (int64_t i = 0; i < rows; i++) {
        const __m512 factor = _mm512_set1_ps(1.0f / s.total.data()[i]);
        for (int64_t c = 0; c < width; c += 16) store(out + i * out_stride + c, _mm512_mul_ps(load(sums + i * width + c), factor));
    }
}
