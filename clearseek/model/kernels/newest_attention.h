// Attention of new tokens, one of each sequence, as `attend_tile` computes it, to the bit.
//
// A tile of sixteen rows for the one or few queries that share a key head would be stored nearly empty. Here tiles have as
// many rows as there are queries; several tokens go side by side, each in the others' waiting times, and what the next
// ones read of the cache is fetched meanwhile.
#pragma once
#include "paged_attention.h"

// A new token and a key head
template <typename Act>
struct Newest {
    const int32_t* table;  // the blocks of its sequence
    int64_t head, position;
    const Act* query;    // [group, D]
    const float* sinks;  // [group]; null: none
    Act* out;            // [group, Dv]
};

// Where there are no tiles, or activations are not theirs, `attend_tile` does as well
template <typename Act>
struct NewestAttention {
    static constexpr int64_t MOST = 1;
    static bool suits(int64_t) { return false; }
    NewestAttention(const PagedCache<Act>&, int64_t, int64_t, float) {}
    void attend(const Newest<Act>*, int64_t, const Newest<Act>*, int64_t) const {}
};

#if defined(WITH_AMX) && defined(__AMX_TILE__)
// So many rows of left sides and of sums
static inline Tiles::Shape few_rows_shape(int64_t rows) {
    Tiles::Shape shape;
    std::fill(shape.rows, shape.rows + 5, static_cast<uint8_t>(rows));
    return shape;
}

// Sums in lines of 64 = rows of words, `lda` apart, · N times 16 columns. Of the last words, where they are fewer than
// sixteen, `tail` has the left side, filled up with zeros to lines of sixteen.
template <int N>
static inline void few_rows(const uint32_t* a, int64_t lda, const uint32_t* tail, int64_t words, const uint32_t* b,
                            int64_t line, float* sums) {
    asm volatile("tilezero %%tmm0" ::: "memory");
    if (N > 1) asm volatile("tilezero %%tmm1" ::: "memory");
    if (N > 2) asm volatile("tilezero %%tmm2" ::: "memory");
    if (N > 3) asm volatile("tilezero %%tmm3" ::: "memory");
    const int64_t rest = words % 16, whole = words - rest;
    for (int64_t k = 0; k < whole; k += 16) tile_step<false, 1, N>(a + k, lda, b + k * line, line);
    if (rest) {
        alignas(64) uint32_t edge[16][16 * N];
        for (int64_t k = 0; k < 16; k++)
            for (int j = 0; j < N; j++)
                _mm512_store_si512(&edge[k][16 * j], k < rest ? _mm512_loadu_si512(b + (whole + k) * line + 16 * j)
                                                              : _mm512_setzero_si512());
        tile_step<false, 1, N>(tail, 16, edge[0], 16 * N);
    }
    TILE_STORE(0, sums, 64);
    if (N > 1) TILE_STORE(1, sums + 16, 64);
    if (N > 2) TILE_STORE(2, sums + 32, 64);
    if (N > 3) TILE_STORE(3, sums + 48, 64);
}

// For a layer and a thread
template <>
class NewestAttention<bf16> {
    static constexpr int64_t EARLY = 4;  // blocks of a context that are fetched before their tokens' turn
    const PagedCache<bf16>& cache;
    const int64_t group, window, words;
    const float scale;
    const Reshaped shape;
    const Unset<float> scores, sums;       // [tokens, group, 64], [tokens, group, Dv]
    const Unset<uint32_t> chances, tails;  // [tokens, group, 32], [group, 16]
    const Unset<float> top, total, factor; // [tokens, group]

public:
    static constexpr int64_t MOST = 8;  // tokens at once
    static bool suits(int64_t group) { return group <= 16; }

    NewestAttention(const PagedCache<bf16>& cache, int64_t group, int64_t window, float scale)
        : cache(cache), group(group), window(window), words(cache.size / 2), scale(scale), shape(few_rows_shape(group)),
          scores(MOST * group * 64), sums(MOST * group * cache.value_size), chances(MOST * group * 32), tails(group * 16),
          top(MOST * group), total(MOST * group), factor(MOST * group) {}

    // `next` come after these
    void attend(const Newest<bf16>* items, int64_t count, const Newest<bf16>* next, int64_t num_next) const {
        for (int64_t i = 0; i < count; i++) begin(i, items[i]);
        for (int64_t turn = 0, live = count; live; turn++) {
            live = 0;
            each(items, count, turn, [&](int64_t i, int64_t block) {
                if (i < num_next && turn < EARLY) fetch(next[i], oldest_block(next[i]) + turn);
                if (turn + 1 >= EARLY) fetch(items[i], block + 1);
                score(i, items[i], block);
            });
            each(items, count, turn, [&](int64_t i, int64_t block) { soften_rows(i, items[i], block); });
            each(items, count, turn, [&](int64_t i, int64_t block) {
                add_values(i, items[i], block);
                live += (block + 1) * BLOCK_TOKENS <= items[i].position;
            });
        }
        for (int64_t i = 0; i < count; i++) finish(i, items[i]);
    }

private:
    int64_t oldest_block(const Newest<bf16>& item) const {
        return window ? std::max<int64_t>(0, item.position - window + 1) / BLOCK_TOKENS : 0;
    }
    static int64_t seen(const Newest<bf16>& item, int64_t block) {
        return std::min(BLOCK_TOKENS, item.position + 1 - block * BLOCK_TOKENS);
    }

    // Those that have a block left
    template <typename Work>
    void each(const Newest<bf16>* items, int64_t count, int64_t turn, const Work& work) const {
        for (int64_t i = 0; i < count; i++) {
            const int64_t block = oldest_block(items[i]) + turn;
            if (block * BLOCK_TOKENS <= items[i].position) work(i, block);
        }
    }

    // What a token reads of a block, if it has one there
    void fetch(const Newest<bf16>& item, int64_t block) const {
        if (block * BLOCK_TOKENS > item.position) return;
        const int64_t count = seen(item, block);
        const uint32_t* keys = reinterpret_cast<const uint32_t*>(cache.key_block(item.table[block], item.head));
        const uint32_t* values = reinterpret_cast<const uint32_t*>(cache.value_block(item.table[block], item.head));
        for (int64_t k = 0; k < words; k++)
            for (int64_t c = 0; c < count; c += 16) __builtin_prefetch(keys + k * BLOCK_TOKENS + c);
        for (int64_t c = 0; c < (count + 1) / 2 * cache.value_size; c += 16) __builtin_prefetch(values + c);
    }

    void begin(int64_t i, const Newest<bf16>& item) const {
        std::fill_n(sums.data() + i * group * cache.value_size, group * cache.value_size, 0.0f);
        for (int64_t r = 0; r < group; r++) {
            top.data()[i * group + r] = item.sinks ? item.sinks[r] : -INFINITY;
            total.data()[i * group + r] = item.sinks ? 1.0f : 0.0f;
        }
    }

    void score(int64_t i, const Newest<bf16>& item, int64_t block) const {
        const uint32_t* query = reinterpret_cast<const uint32_t*>(item.query);
        const uint32_t* keys = reinterpret_cast<const uint32_t*>(cache.key_block(item.table[block], item.head));
        const int64_t rest = words % 16;
        for (int64_t r = 0; rest && r < group; r++)
            _mm512_storeu_si512(tails.data() + r * 16, load_pairs(query + (r + 1) * words - rest, rest));
        float* to = scores.data() + i * group * 64;
        with_columns(up16(seen(item, block)) / 16, [&](auto n) {
            few_rows<n()>(query, words, tails.data(), words, keys, BLOCK_TOKENS, to);
        });
    }

    void soften_rows(int64_t i, const Newest<bf16>& item, int64_t block) const {
        const int64_t columns = up16(seen(item, block));
        with_columns(columns / 16, [&](auto lanes) {
            for (int64_t r = i * group; r < (i + 1) * group; r++) {
                bf16* out = reinterpret_cast<bf16*>(chances.data() + r * 32);
                factor.data()[r] = soften<lanes()>(scores.data() + r * 64, block * BLOCK_TOKENS, item.position, window, scale,
                                                   top.data()[r], total.data()[r], out);
                if (lanes() % 2) store(out + 16 * lanes(), _mm512_setzero_ps());  // to whole tiles
            }
        });
    }

    void add_values(int64_t i, const Newest<bf16>& item, int64_t block) const {
        const int64_t width = cache.value_size, count = (seen(item, block) + 1) / 2, rest = count % 16;
        const uint32_t* values = reinterpret_cast<const uint32_t*>(cache.value_block(item.table[block], item.head));
        const uint32_t *left = chances.data() + i * group * 32, *tail = left + count - rest;
        alignas(64) float found[16 * 64];
        for (int64_t c = 0; c < width; c += 64) {
            with_columns(std::min<int64_t>(64, width - c) / 16, [&](auto n) {
                if (rest)
                    for (int64_t r = 0; r < group; r++) std::memcpy(tails.data() + r * 16, tail + r * 32, 64);
                few_rows<n()>(left, 32, tails.data(), count, values + c, width, found);
                for (int64_t r = 0; r < group; r++)
                    for (int j = 0; j < 16 * n(); j += 16) {
                        float* to = sums.data() + (i * group + r) * width + c + j;
                        const __m512 before = _mm512_mul_ps(load(to), _mm512_set1_ps(factor.data()[i * group + r]));
                        store(to, _mm512_add_ps(load(found + r * 64 + j), before));
                    }
            });
        }
    }

    void finish(int64_t i, const Newest<bf16>& item) const {
        const int64_t width = cache.value_size;
        for (int64_t r = 0; r < group; r++) {
            const __m512 part = _mm512_set1_ps(1.0f / total.data()[i * group + r]);
            for (int64_t c = 0; c < width; c += 16)
                store(item.out + r * width + c, _mm512_mul_ps(load(sums.data() + (i * group + r) * width + c), part));
        }
    }

};
#endif
