// Matrices laid out as products read them: two bf16 that are multiplied together side by side.
#pragma once
#include <algorithm>

#include "simd.h"

static inline __mmask16 first_lanes(int64_t count) {
    return count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1;
}

// `count` pairs of neighbours as 32 bits each, zeros behind them
static inline __m512i load_pairs(const uint32_t* p, int64_t count) {
    return _mm512_maskz_loadu_epi32(first_lanes(count), p);
}
static inline __m512i load_pairs(const bf16* p, int64_t count) {
    return _mm512_maskz_loadu_epi32(first_lanes(count), p);
}
static inline __m512i load_pairs(const float* p, int64_t count) {
    const __m512 low = _mm512_maskz_loadu_ps(first_lanes(2 * count), p);
    const __m512 high = _mm512_maskz_loadu_ps(first_lanes(2 * count - 16), p + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline __m256i load_narrow(const bf16* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline __m256i load_narrow(const float* p) { return narrow(load(p)); }

// Sixteen by sixteen numbers of 32 bits, in place
static inline void transpose_block(__m512i* r) {
    __m512i u[16];
    for (int i = 0; i < 16; i += 2) {
        u[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        u[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(u[i], u[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(u[i], u[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(u[i + 1], u[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(u[i + 1], u[i + 3]);
    }
    for (int i = 0; i < 4; i++) {  // r[4 g + i] holds rows 4 g … 4 g + 3 of columns i, 4 + i, 8 + i, 12 + i
        const __m512i a = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), b = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD), e = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
        u[i] = _mm512_shuffle_i32x4(a, b, 0x88), u[8 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
        u[4 + i] = _mm512_shuffle_i32x4(d, e, 0x88), u[12 + i] = _mm512_shuffle_i32x4(d, e, 0xDD);
    }
    std::copy(u, u + 16, r);
}

// Rows of pairs [rows, pairs], told by `row(t)` → their transpose [pairs, rows], lines `line` apart and every 64 rows
// `panel` apart. Rows are filled up with zeros to whole lanes, for which there must be room.
template <typename RowOf>
static void pack_columns(const RowOf& row, int64_t rows, int64_t pairs, uint32_t* y, int64_t line, int64_t panel = 64) {
    using In = std::remove_const_t<std::remove_pointer_t<decltype(row(0))>>;
    const int64_t wide = sizeof(In) == sizeof(uint32_t) && !std::is_same<In, float>::value ? 1 : 2;
    for (int64_t t = 0; t < rows; t += 16)
        for (int64_t c = 0; c < pairs; c += 16) {
            __m512i block[16];
            for (int64_t i = 0; i < 16; i++)
                block[i] = t + i < rows ? load_pairs(row(t + i) + c * wide, pairs - c) : _mm512_setzero_si512();
            transpose_block(block);
            uint32_t* to = y + t / 64 * panel + t % 64 + c * line;
            for (int64_t i = 0; i < std::min<int64_t>(16, pairs - c); i++) _mm512_storeu_si512(to + i * line, block[i]);
        }
}

// The same of x [rows, pairs], its rows `stride` apart
template <typename In>
static void pack_transposed(const In* x, int64_t stride, int64_t rows, int64_t pairs, uint32_t* y, int64_t line) {
    pack_columns([=](int64_t t) { return x + t * stride; }, rows, pairs, y, line);
}

// Rows [rows, size], told by `row(t)` → pairs of them [rows / 2, size], lines `line` apart and every `Wide` columns
// `panel` apart; a missing last row counts as zeros. `factor` of a row is multiplied in, unless null.
template <int64_t Wide = 64, typename RowOf>
static void pack_rows(const RowOf& row, int64_t rows, int64_t size, uint32_t* y, int64_t line, int64_t panel = 64,
                      const float* factor = nullptr) {
    for (int64_t t = 0; t < rows; t += 2) {
        const bool is_pair = t + 1 < rows;
        const auto *first = row(t), *second = is_pair ? row(t + 1) : first;
        for (int64_t c = 0; c < size; c += 16) {
            __m256i a = load_narrow(first + c), b = is_pair ? load_narrow(second + c) : _mm256_setzero_si256();
            if (factor) {
                a = narrow(_mm512_mul_ps(load(first + c), _mm512_set1_ps(factor[t])));
                if (is_pair) b = narrow(_mm512_mul_ps(load(second + c), _mm512_set1_ps(factor[t + 1])));
            }
            const __m512i both =
                _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
            _mm512_storeu_si512(y + t / 2 * line + c / Wide * panel + c % Wide, both);
        }
    }
}
