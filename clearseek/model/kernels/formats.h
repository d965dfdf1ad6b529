// Weights in the formats that the engine reads them in, and their products with rows of activations.
//
// A weight [outputs, inputs] lies in panels of 64 outputs, one behind the other, each in the order in which a product
// reads it. Quantised weights are unsigned, with 128 or 8 added, and have a scale for each output and group of inputs,
// behind the group's own words; what is added is taken off each sum, by the sum of the activations. A scale is in fp16 as
// in GGUF's blocks, but for int4's: that is a byte, in units of its output's own factor in fp32, at the panel's head.
#pragma once
#include <cmath>
#include <cstring>

#include "pack.h"
#include "product.h"

enum Format : int64_t { FLOAT32, BFLOAT16, INT8, Q4_0, FP8, INT4 };  // as in `engine/formats.py`; FP8 on GPUs alone
static constexpr int64_t PANEL = 64;
// How far before they are read weights are fetched from memory: a processor doesn't by itself where pages of 4 KiB end
static constexpr int64_t AHEAD_BYTES = 4096;
static constexpr int64_t ahead_bytes(int64_t format) { return format == INT8 ? 4096 : 6144; }
// (always inline: g++ 12 takes calls of a function that only fetches for useless)
template <int64_t F>
static inline __attribute__((always_inline)) void fetch_ahead(const void* line) {
    _mm_prefetch(static_cast<const char*>(line) + ahead_bytes(F), _MM_HINT_T0);
}
static inline __attribute__((always_inline)) void fetch(const void* line) {
    _mm_prefetch(static_cast<const char*>(line), _MM_HINT_T1);
}

struct Weight {
    const uint8_t* data;  // null: there is none
    int64_t inputs, outputs, format;

    bool is_quantised() const { return format >= INT8; }
};

static constexpr int64_t scales_bytes(int64_t format) { return PANEL * (format == INT4 ? 1 : 2); }
static constexpr int64_t head_bytes(int64_t format) { return format == INT4 ? PANEL * 4 : 0; }
static constexpr int64_t group_bytes(int64_t format, int64_t group) {
    return PANEL * (format == INT8 ? group : group / 2) + scales_bytes(format);
}
static inline int64_t panel_bytes(int64_t format, int64_t inputs, int64_t group) {
    if (format == FLOAT32) return PANEL * inputs * 4;
    if (format == BFLOAT16) return PANEL * inputs * 2;
    return head_bytes(format) + inputs / group * group_bytes(format, group);
}
static inline int64_t weight_bytes(const Weight& w, int64_t group) {
    return num_panels(w.outputs) * panel_bytes(w.format, w.inputs, group);
}

// One row of a quantised weight as numbers [inputs]
static inline void load_row(const Weight& w, int64_t row, int64_t group, float* to) {
    const int64_t size = group_bytes(w.format, group), in_word = w.format == INT8 ? 4 : 8, zero = w.format == INT8 ? 128 : 8;
    const uint8_t* panel = w.data + row / PANEL * panel_bytes(w.format, w.inputs, group);
    for (int64_t g = 0; g < w.inputs / group; g++) {
        const uint8_t* at = panel + head_bytes(w.format) + g * size;
        const uint32_t* words = reinterpret_cast<const uint32_t*>(at) + row % PANEL;
        const uint8_t* scales = at + size - scales_bytes(w.format);
        const float scale = w.format == INT4 ? static_cast<float>(reinterpret_cast<const int8_t*>(scales)[row % PANEL]) *
                                                   reinterpret_cast<const float*>(panel)[row % PANEL]
                                             : _cvtsh_ss(reinterpret_cast<const uint16_t*>(scales)[row % PANEL]);
        for (int64_t c = 0; c < group; c++) {
            const uint32_t word = words[c / in_word * PANEL];
            const int64_t byte = word >> c % 4 * 8 & 255;  // in int4 two numbers: four low ones, then four high ones
            const int64_t whole = w.format == INT8 ? byte : c % 8 < 4 ? byte & 15 : byte >> 4;
            to[g * group + c] = scale * static_cast<float>(whole - zero);
        }
    }
}

// Rows of activations as int8 with a scale for each row and group, and the sums of the groups' whole numbers
struct Quantised {
    int8_t* bytes;
    float* scales;
    int32_t* sums;
    int64_t inputs, group;

    Quantised from(int64_t row) const {
        return {bytes + row * inputs, scales + row * (inputs / group), sums + row * (inputs / group), inputs, group};
    }
};

// One group of one row
template <typename Act>
static inline void quantise_group(const Act* x, int64_t group, int8_t* bytes, float* scale, int32_t* sum_of) {
    __m512 top = _mm512_setzero_ps();
    for (int64_t c = 0; c < group; c += 16) top = _mm512_max_ps(top, _mm512_abs_ps(load(x + c)));
    const float largest = _mm512_reduce_max_ps(top);
    const __m512 factor = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    __m512i total = _mm512_setzero_si512();
    for (int64_t c = 0; c < group; c += 16) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(load(x + c), factor));
        total = _mm512_add_epi32(total, whole);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + c), _mm512_cvtsepi32_epi8(whole));
    }
    *scale = largest / 127.0f;
    *sum_of = _mm512_reduce_add_epi32(total);
}

// Numbers that lie in a word of a product's factors
template <typename Act>
static constexpr int64_t IN_WORD = sizeof(uint32_t) / sizeof(Act);

// Scales of sixteen outputs, from the `j`-th of a group's on; in int4 without their outputs' factors
template <int64_t F>
static inline __m512 load_scales(const uint8_t* scales, int64_t j) {
    if (F == INT4) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + j));
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    }
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + 2 * j)));
}
// Sums of sixteen outputs with the factors that scales were left without
template <int64_t F>
static inline __m512 with_factors(__m512 sums, const uint8_t* panel, int64_t j) {
    return F == INT4 ? _mm512_mul_ps(sums, load(reinterpret_cast<const float*>(panel) + j)) : sums;
}

// C [M, 16 N] at (i, j) of quantised rows and a panel in a format of groups
template <int64_t F, typename Out>
struct GroupedTile {
    static constexpr int64_t Bits = F == INT8 ? 8 : 4;
    const uint8_t* panel;
    Quantised x;
    Out* c;
    int64_t ldc;
    bool add;

    // Pass `turn` of `turns` over the panel. The first of few rows fetches a little ahead; many fetch the next panel meanwhile.
    template <int M, int N>
    inline __attribute__((always_inline)) void compute(int64_t i0, int64_t j0, int64_t turn, int64_t turns) const {
        constexpr int64_t in_line = 32 / Bits;  // inputs whose 64 weights share a line
        const int64_t lines = x.group / in_line, groups = x.inputs / x.group, bytes = group_bytes(F, x.group);
        const uint8_t* first = panel + head_bytes(F);
        const int8_t* left = x.bytes + i0 * x.inputs;
        const float* scales = x.scales + i0 * groups;
        const int32_t* sums = x.sums + i0 * groups;
        const bool are_few = M < 4 && turns <= 2, is_first = are_few && turn == 0;
        const int64_t fetched = are_few ? 0 : (bytes / 64 + turns - 1) / turns;
        const uint8_t* next = first + groups * bytes + turn * fetched * 64;
        __m512 total[M][N];
        UNROLLED for (int i = 0; i < M; i++)
            UNROLLED for (int j = 0; j < N; j++) total[i][j] = _mm512_setzero_ps();
        for (int64_t g = 0; g < groups; g++) {
            const uint8_t *at = first + g * bytes, *scale_at = at + lines * 4 * PANEL;
            const uint32_t* right = reinterpret_cast<const uint32_t*>(at) + j0;
            for (int64_t n = 0; n < fetched; n++) fetch(next + g * bytes + 64 * n);
            __m512i part[M][N];
            UNROLLED for (int i = 0; i < M; i++) {
                const __m512i start = _mm512_set1_epi32(-(1 << (Bits - 1)) * sums[i * groups + g]);
                UNROLLED for (int j = 0; j < N; j++) part[i][j] = start;
            }
            for (int64_t k = 0; k < lines; k++) {
                __m512i column[N], upper[N];
                if (is_first)
                    UNROLLED for (int j = 0; j < N; j++) fetch_ahead<F>(right + k * PANEL + 16 * j);
                UNROLLED for (int j = 0; j < N; j++) {
                    column[j] = _mm512_loadu_si512(right + k * PANEL + 16 * j);
                    if (Bits == 4) {
                        upper[j] = _mm512_and_si512(_mm512_srli_epi32(column[j], 4), _mm512_set1_epi8(15));
                        column[j] = _mm512_and_si512(column[j], _mm512_set1_epi8(15));
                    }
                }
                UNROLLED for (int i = 0; i < M; i++) {
                    const int8_t* word = left + i * x.inputs + g * x.group + k * in_line;
                    const __m512i row = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(word));
                    UNROLLED for (int j = 0; j < N; j++)
                        asm("vpdpbusd %2, %1, %0" : "+v"(part[i][j]) : "v"(column[j]), "v"(row));
                    if (Bits == 4) {
                        const __m512i next = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(word + 4));
                        UNROLLED for (int j = 0; j < N; j++)
                            asm("vpdpbusd %2, %1, %0" : "+v"(part[i][j]) : "v"(upper[j]), "v"(next));
                    }
                }
            }
            if (is_first)
                UNROLLED for (int j = 0; j < N; j += F == INT4 ? 4 : 2)
                    fetch_ahead<F>(scale_at + scales_bytes(F) / PANEL * (j0 + 16 * j));
            UNROLLED for (int j = 0; j < N; j++) {
                const __m512 scale = load_scales<F>(scale_at, j0 + 16 * j);
                UNROLLED for (int i = 0; i < M; i++) {
                    const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[i * groups + g]));
                    total[i][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[i][j]), both, total[i][j]);
                }
            }
        }
        UNROLLED for (int i = 0; i < M; i++)
            UNROLLED for (int j = 0; j < N; j++) {
                Out* place = c + (i0 + i) * ldc + j0 + 16 * j;
                const __m512 found = with_factors<F>(total[i][j], panel, j0 + 16 * j);
                store(place, add ? _mm512_add_ps(found, load(place)) : found);
            }
    }
};

template <int N, typename Tile>
static __attribute__((noinline)) void grouped_tiles_below(int64_t rows, int64_t j, const Tile& tile) {
    const int64_t halves = (N + 1) / 2, rest = rows % 6;
    const int64_t turns = (rows / 6 + rest / 4) * halves + rest % 4 / 2 + rest % 2;
    int64_t i = 0, turn = 0;
    const auto go = [&](auto count, auto columns) {  // as many sums as there are registers for
        for (int at = 0; at < N; at += columns) tile.template compute<count(), columns()>(i, j + 16 * at, turn++, turns);
        i += count;
    };
    using std::integral_constant;
    const integral_constant<int, N == 1 ? 1 : 2> two;
    const integral_constant<int, N> all;
    while (i + 6 <= rows) go(integral_constant<int, 6>(), two);
    if (i + 4 <= rows) go(integral_constant<int, 4>(), two);
    if (i + 2 <= rows) go(integral_constant<int, 2>(), all);
    if (i < rows) go(integral_constant<int, 1>(), all);
}

template <typename Tile>
static void grouped_tiles(int64_t rows, int64_t size, const Tile& tile) {
    int64_t j = 0;
    if (size == 64) return grouped_tiles_below<4>(rows, 0, tile);
    for (; j + 32 <= size; j += 32) grouped_tiles_below<2>(rows, j, tile);
    if (j < size) grouped_tiles_below<1>(rows, j, tile);
}

#if defined(WITH_AMX) && defined(__AMX_TILE__)
#include "grouped_amx.h"
#endif

static constexpr int64_t SLACK = 15;  // rows behind the last that may be read, whatever is in them

// The left side of a product with weights of any format: plain rows, SLACK of them more than are used, and the same
// quantised where a weight is
template <typename Act>
struct Left {
    const Act* rows;
    int64_t stride;
    Quantised quantised;
};

// Columns 64 · panel … of y [rows, outputs] (+)= x · a weight
template <typename Act, typename Out>
static void panel_product(const Weight& w, int64_t panel, const Left<Act>& x, int64_t rows, Out* y, int64_t ldy,
                          int64_t group, bool add = false) {
    const uint8_t* data = w.data + panel * panel_bytes(w.format, w.inputs, group);
    const int64_t size = std::min(PANEL, w.outputs - panel * PANEL);
    Out* to = y + panel * PANEL;
#if defined(WITH_AMX) && defined(__AMX_TILE__)
    if (w.is_quantised() && pays_in_tiles(rows, group)) {
        if (w.format == INT8) return GroupedTiles<INT8, Out>{data, x.quantised, to, ldy, add}.compute(rows, size);
        if (w.format == Q4_0) return GroupedTiles<Q4_0, Out>{data, x.quantised, to, ldy, add}.compute(rows, size);
        return GroupedTiles<INT4, Out>{data, x.quantised, to, ldy, add}.compute(rows, size);
    }
#endif
    if (w.format == INT8) return grouped_tiles(rows, size, GroupedTile<INT8, Out>{data, x.quantised, to, ldy, add});
    if (w.format == Q4_0) return grouped_tiles(rows, size, GroupedTile<Q4_0, Out>{data, x.quantised, to, ldy, add});
    if (w.format == INT4) return grouped_tiles(rows, size, GroupedTile<INT4, Out>{data, x.quantised, to, ldy, add});
    const uint32_t* words = reinterpret_cast<const uint32_t*>(data);
    const Right right{words, PANEL, PANEL, AHEAD_BYTES / 4};
    product(rows, size, w.inputs / IN_WORD<Act>, x.rows, x.stride, right, to, ldy, add, true);
}
