// Latent attention of many new tokens of a sequence in the expanded form: of the latents that they see every head's keys and
// values are made once, and read by all of their queries as in grouped-query attention.
//
// Against the absorbed form each query and key costs 2 · rank - nope - value fewer products a head, and what was cached
// before has to be expanded for it (arXiv:2405.04434, §2.1).
#pragma once
#include "paged_attention.h"

// Rows [first, first + count) of one sequence, the last of which sees `keys` tokens; their latents begin at `place`
struct Stretch {
    int64_t first, count, keys, place;

    int64_t end() const { return first + count; }
    int64_t blocks() const { return (keys + BLOCK_TOKENS - 1) / BLOCK_TOKENS; }
};

struct LatentSizes {
    int64_t rank, rotary, nope, value;
};

static constexpr int64_t FEWEST_EXPANDED = 32;  // rows: fewer aren't worth the way

// Whether rows are through earlier in the expanded form, by what is multiplied for a head; a quarter more is what laying out costs
static inline bool pays_expanded(const LatentSizes& s, int64_t count, int64_t keys) {
    if (count < FEWEST_EXPANDED) return false;
    const int64_t pairs = count * keys - count * (count - 1) / 2, saved = pairs * (2 * s.rank - s.nope - s.value);
    return 4 * saved > 5 * (keys - count) * s.rank * (s.nope + s.value);
}

// The latents of a block's first `seen` tokens as rows [64, rank], zeros behind them
template <typename Act>
static void unpack_latents(const PagedCache<Act>& cache, int64_t block, int64_t seen, Act* rows) {
    const int64_t rank = cache.value_size;
    const Act* from = cache.value_block(block, 0);
    if constexpr (sizeof(Act) == 4) std::memcpy(rows, from, seen * rank * sizeof(Act));
    else
        for (int64_t t = 0; t < seen; t += 2)
            for (int64_t c = 0; c < rank; c += 16) {
                const __m512i both = _mm512_loadu_si512(reinterpret_cast<const uint32_t*>(from) + t / 2 * rank + c);
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + t * rank + c), _mm512_cvtepi32_epi16(both));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + (t + 1) * rank + c), _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
            }
    std::fill(rows + seen * rank, rows + BLOCK_TOKENS * rank, Act());
}

// One head's keys and values, of a thread
template <typename Act>
struct ExpandedHead {
    const LatentSizes s;
    std::vector<Act> keys, values, part;
    std::vector<int32_t> table;  // blocks lie in order
    TileScratch scratch;

    ExpandedHead(const LatentSizes& s, int64_t rows) : s(s), part(BLOCK_TOKENS * std::max(s.nope, s.value)), scratch(rows, s.value) {}

    void make_room(int64_t blocks) {
        const size_t tokens = blocks * BLOCK_TOKENS;
        if (keys.size() < tokens * (s.nope + s.rotary)) keys.resize(tokens * (s.nope + s.rotary)), values.resize(tokens * s.value);
        while (static_cast<int64_t>(table.size()) < blocks) table.push_back(static_cast<int32_t>(table.size()));
    }
    PagedCache<Act> cache() { return {keys.data(), values.data(), 1, s.nope + s.rotary, s.value}; }

    // Block `i`: keys and values are `expand(weight, to, line)` of its latents; the rotary part is as `latents` keeps it
    template <typename Expand>
    void lay_out(int64_t i, const PagedCache<Act>& latents, int64_t block, const Weight& key_up, const Weight& value_up, const Expand& expand) {
        Act *to = cache().key_block(i, 0), *rows = cache().value_block(i, 0);
        expand(key_up, part.data(), s.nope);
        using Word = std::conditional_t<sizeof(Act) == 4, uint32_t, Act>;
        const auto row = [&](int64_t t) { return reinterpret_cast<const Word*>(part.data()) + t * s.nope; };
        pack_columns(row, BLOCK_TOKENS, s.nope / IN_WORD<Act>, reinterpret_cast<uint32_t*>(to), BLOCK_TOKENS);
        std::memcpy(to + s.nope * BLOCK_TOKENS, latents.key_block(block, 0) + s.rank * BLOCK_TOKENS, s.rotary * BLOCK_TOKENS * sizeof(Act));
        if constexpr (sizeof(Act) == 4) return expand(value_up, rows, s.value);
        else {
            expand(value_up, part.data(), s.value);
            pack_rows([&](int64_t t) { return part.data() + t * s.value; }, BLOCK_TOKENS, s.value, reinterpret_cast<uint32_t*>(rows), s.value);
        }
    }

    // Its queries [count, nope + rotary] → out [count, value]; rows so far apart
    void attend(const Act* query, int64_t stride, const int64_t* positions, int64_t count, int64_t at_once, int64_t window, float scale, Act* out, int64_t out_stride) {
        for (int64_t n = 0; n < count; n += at_once) {
            const QueryTile<Act> tile{query + n * stride, stride, positions + n, nullptr, std::min(at_once, count - n), window};
            attend_tile(cache(), table.data(), 0, tile, scale, scratch, out + n * out_stride, out_stride);
        }
    }
};
