// Numbers of bf16 as int8 times a scale, for products at twice bf16's rate. A left factor has a scale for each row, a
// right one for each column, so that sums are exact and scales come last (arXiv:2304.13013; in fp8 arXiv:2412.19437,
// section 3.3). The processor multiplies unsigned by signed numbers: what is left has 128 added, and sums start at
// minus what that adds to them. Whatever isn't finite makes its row's or column's scale so.
#pragma once
#include <cmath>

#include "pack.h"
#include "product.h"

static constexpr float LARGEST = 127.0f, TOO_SMALL = 1e-30f;  // below, all is 0

// The bf16 numbers at even and at odd places, as fp32
static inline __m512i evens(__m512i both) { return _mm512_slli_epi32(both, 16); }
static inline __m512i odds(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi32(0xFFFF0000)); }
// Sixteen numbers each, in turn; `upper` the second half of them
static inline __m512i in_turn(__m512i even, __m512i odd, bool upper) {
    const __m512i lower = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutex2var_epi32(even, upper ? _mm512_add_epi32(lower, _mm512_set1_epi32(8)) : lower, odd);
}
// Magnitudes of 32 bf16 as whole numbers, in the same order; a NaN's is the largest
static inline __m512i magnitudes(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi16(0x7FFF)); }

static inline __m512 factor_of(__m512 largest) {
    const __mmask16 kept = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(TOO_SMALL), _CMP_GT_OQ);
    return _mm512_maskz_div_ps(kept, _mm512_set1_ps(LARGEST), largest);
}
static inline __m512 scale_of(__m512 largest) { return _mm512_mul_ps(largest, _mm512_set1_ps(1.0f / LARGEST)); }

// x · factor rounded, in the lowest byte of each lane; `left` with 128 added
template <bool Left>
static inline __m512i lowest_byte(__m512i x, __m512 factor) {
    const __m512 whole = _mm512_set1_ps(12582912.0f + (Left ? 128.0f : 0.0f));  // 1.5 · 2^23: units are the last bit
    return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(x), factor, whole));
}

// The bits of each lane that `mask` has from one, the others from another
static inline __m512i choose(__m512i one, __m512i other, int mask) {
    return _mm512_ternarylogic_epi32(one, other, _mm512_set1_epi32(mask), 0xE4);
}

// x [count, size], rows `stride` apart → their bytes, one row behind the other, and their scales
template <bool Left>
static void quantise_rows(const bf16* x, int64_t stride, int64_t count, int64_t size, uint8_t* y, float* scale) {
    const auto part = [=](int64_t i, int64_t c) { return load_pairs(x + i * stride + c, (size - c) / 2); };
    const __m512i halves = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24,
                                            22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    for (int64_t i = 0; i < count; i++) {
        __m512i top = _mm512_setzero_si512();
        for (int64_t c = 0; c < size; c += 32) top = _mm512_max_epu16(top, magnitudes(part(i, c)));
        const uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(evens(top), odds(top)));
        const __m512 all = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(largest))), factor = factor_of(all);
        scale[i] = _mm512_cvtss_f32(scale_of(all));
        const auto bytes = [=](__m512i both) {  // in the lower half of each lane
            const __m512i even = lowest_byte<Left>(evens(both), factor), odd = lowest_byte<Left>(odds(both), factor);
            return choose(even, _mm512_slli_epi32(odd, 8), 0xFF);
        };
        for (int64_t c = 0; c < size; c += 64) {
            const __m512i all_bytes = _mm512_permutex2var_epi16(bytes(part(i, c)), halves, bytes(part(i, c + 32)));
            const __mmask64 some = size - c >= 64 ? ~0ull : (1ull << (size - c)) - 1;
            _mm512_mask_storeu_epi8(y + i * size + c, some, all_bytes);
        }
    }
}

// Rows of bf16 [rows, size], told by `row(t)` → words of four rows' bytes [rows / 4, size], lines `line` apart and every
// `Wide` columns `panel` apart, missing rows as zeros; the columns' scales, and for a right factor its sums' start.
template <bool Left, int64_t Wide, typename RowOf>
static void quantise_columns(const RowOf& row, int64_t rows, int64_t size, uint32_t* y, int64_t line, int64_t panel,
                             float* scale, int32_t* start) {
    const Unset<float> factors(size + 16);  // of 32 columns first those at even places
    for (int64_t c = 0; c < size; c += 32) {
        __m512i top = _mm512_setzero_si512();
        for (int64_t t = 0; t < rows; t++) top = _mm512_max_epu16(top, magnitudes(load_pairs(row(t) + c, (size - c) / 2)));
        const __m512 even = _mm512_castsi512_ps(evens(top)), odd = _mm512_castsi512_ps(odds(top));
        const __m512i scales[2] = {_mm512_castps_si512(scale_of(even)), _mm512_castps_si512(scale_of(odd))};
        store(factors.data() + c, factor_of(even));
        store(factors.data() + c + 16, factor_of(odd));
        for (int64_t part = 0; part < std::min<int64_t>(2, (size - c) / 16); part++)
            _mm512_storeu_si512(scale + c + 16 * part, in_turn(scales[0], scales[1], part));
    }
    if (!Left) std::fill(start, start + size, 0);
    for (int64_t t = 0; t < rows; t += 4)
        for (int64_t c = 0; c < size; c += 32) {
            __m512i four[4], words[2];
            for (int64_t i = 0; i < 4; i++)
                four[i] = t + i < rows ? load_pairs(row(t + i) + c, (size - c) / 2) : _mm512_setzero_si512();
            for (int odd = 0; odd < 2; odd++) {
                const __m512 factor = load(factors.data() + c + 16 * odd);
                __m512i bytes[4];
                for (int i = 0; i < 4; i++)
                    bytes[i] = _mm512_slli_epi32(lowest_byte<Left>(odd ? odds(four[i]) : evens(four[i]), factor), 8 * i);
                words[odd] = choose(choose(bytes[0], bytes[1], 0xFF), choose(bytes[2], bytes[3], 0xFFFFFF), 0xFFFF);
            }
            for (int64_t part = 0; part < std::min<int64_t>(2, (size - c) / 16); part++) {
                const int64_t to = c + 16 * part;
                const __m512i columns = in_turn(words[0], words[1], part);
                _mm512_storeu_si512(y + t / 4 * line + to / Wide * panel + to % Wide, columns);
                if (!Left) {
                    const __m512i ones = _mm512_set1_epi8(1), sums = _mm512_loadu_si512(start + to);
                    _mm512_storeu_si512(start + to, _mm512_dpbusd_epi32(sums, ones, columns));
                }
            }
        }
    if (!Left)
        for (int64_t c = 0; c < size; c++) start[c] *= -128;
}
