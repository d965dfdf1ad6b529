// Sixteen lanes at a time: bfloat16 in memory, fp32 in registers. For processors with AVX-512 and its bf16 products.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

using bf16 = uint16_t;

// Numbers that somebody writes before they are read
template <typename T>
struct Unset {
    std::unique_ptr<T[]> numbers;
    explicit Unset(int64_t size) : numbers(new T[size]) {}
    T* data() const { return numbers.get(); }
};

static inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
static inline __m512 load(const bf16* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline __m256i narrow(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
static inline void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
static inline void store(bf16* p, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }

// As memory of a type would keep it
template <typename T>
static inline __m512 kept_as(__m512 x) {
    if constexpr (sizeof(T) == sizeof(float)) return x;
    else return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(x)), 16));
}

static inline int64_t up16(int64_t n) { return (n + 15) / 16 * 16; }
static inline int64_t down16(int64_t n) { return n / 16 * 16; }
static inline __m512i lane_numbers() {
    return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

// Work on so many times sixteen columns, 1 to 4, a number that the compiler knows
template <typename Work>
static inline void with_columns(int64_t count, const Work& work) {
    using std::integral_constant;
    switch (count) {
        case 1: return work(integral_constant<int, 1>());
        case 2: return work(integral_constant<int, 2>());
        case 3: return work(integral_constant<int, 3>());
        case 4: return work(integral_constant<int, 4>());
    }
}

static inline float sum(__m512 x) { return _mm512_reduce_add_ps(x); }

// e^x as 2^t, t's whole part by its exponent and the rest by a polynomial of degree 5 (minimax of the relative error,
// exact at 0): within 2e-7, and |x| · 9e-8 for the rounding of t. 0 below -87, infinite above 88.7; NaN stays NaN.
static inline __m512 exponential(__m512 x) {
    const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 y = _mm512_set1_ps(1.86713057e-3f);
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(9.017029253e-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(5.579991388e-2f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(2.401644499e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(6.931513118e-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(kept, y, t);
}

static inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

#define PARALLEL(threads) _Pragma("omp parallel for schedule(static) num_threads(static_cast<int>(threads)) if (threads > 1)")
