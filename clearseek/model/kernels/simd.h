// Sixteen lanes at a time: bfloat16 in memory, fp32 in registers. For processors with AVX-512 and its bf16 products.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

using bf16 = uint16_t;

static inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
static inline __m512 load(const bf16* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline __m256i narrow(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
static inline void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
static inline void store(bf16* p, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }

static inline int64_t up16(int64_t n) { return (n + 15) / 16 * 16; }
static inline int64_t down16(int64_t n) { return n / 16 * 16; }
static inline __m512i lane_numbers() {
    return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

static inline float sum(__m512 x) { return _mm512_reduce_add_ps(x); }

// e^x by range reduction and a polynomial of degree 6: within 2 units in the last place; 0 below -87. What is no number
// stays none: the order of the arguments of min and max matters.
static inline __m512 exponential(__m512 x) {
    const __m512 low = _mm512_set1_ps(-87.3f);
    const __mmask16 kept = _mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(88.7f), _mm512_max_ps(low, x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.3981999507e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(8.3334519073e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(4.1665795894e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.6666665459e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.0000001201e-1f));
    y = _mm512_fmadd_ps(_mm512_mul_ps(r, r), y, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_maskz_scalef_ps(kept, y, n);
}

static inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

#define PARALLEL(threads) _Pragma("omp parallel for schedule(static) num_threads(static_cast<int>(threads)) if (threads > 1)")
