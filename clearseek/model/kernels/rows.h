// What is done to one row: shared by the kernels over whole batches and by the decoding step.
#pragma once
#include <cmath>

#include "simd.h"

// One head of one token in fp32: turn its last `rotary` numbers; `sign` −1 turns back.
static inline void turn(float* head, int64_t size, int64_t rotary, const float* cos, const float* sin, float sign,
                        bool pairs) {
    float* x = head + size - rotary;
    const int64_t half = rotary / 2;
    if (pairs) {  // neighbours: every cosine twice, sines with a minus before the first of a pair
        const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
        const __m512 signs = _mm512_mask_blend_ps(0x5555, _mm512_set1_ps(sign), _mm512_set1_ps(-sign));
        for (int64_t c = 0; c < rotary; c += 16) {
            const __m512 v = load(x + c);
            const __m512 a = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(cos + c / 2)));
            const __m512 b = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(sin + c / 2)));
            const __m512 other = _mm512_permute_ps(v, 0xB1);
            store(x + c, _mm512_fmadd_ps(_mm512_mul_ps(b, signs), other, _mm512_mul_ps(v, a)));
        }
        return;
    }
    if (half % 16 == 0) {  // halves
        for (int64_t c = 0; c < half; c += 16) {
            const __m512 a = load(cos + c), b = _mm512_mul_ps(load(sin + c), _mm512_set1_ps(sign));
            const __m512 first = load(x + c), second = load(x + half + c);
            store(x + c, _mm512_fnmadd_ps(second, b, _mm512_mul_ps(first, a)));
            store(x + half + c, _mm512_fmadd_ps(first, b, _mm512_mul_ps(second, a)));
        }
        return;
    }
    for (int64_t c = 0; c < half; c += 16) {  // the last few lanes may be fewer than sixteen
        const __mmask16 some = half - c >= 16 ? 0xFFFF : (1u << (half - c)) - 1;
        const __m512 a = _mm512_maskz_loadu_ps(some, cos + c);
        const __m512 b = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, sin + c), _mm512_set1_ps(sign));
        const __m512 first = _mm512_maskz_loadu_ps(some, x + c);
        const __m512 second = _mm512_maskz_loadu_ps(some, x + half + c);
        _mm512_mask_storeu_ps(x + c, some, _mm512_fnmadd_ps(second, b, _mm512_mul_ps(first, a)));
        _mm512_mask_storeu_ps(x + half + c, some, _mm512_fmadd_ps(first, b, _mm512_mul_ps(second, a)));
    }
}

// silu(gate) · up · weight of one expert's row [2, I]
static inline void swiglu_row(const bf16* gate, float weight, bf16* y, int64_t size) {
    const bf16* up = gate + size;
    for (int64_t c = 0; c < size; c += 16) {
        const __m512 g = load(gate + c), silu = _mm512_mul_ps(g, sigmoid(g));
        store(y + c, _mm512_mul_ps(_mm512_mul_ps(silu, load(up + c)), _mm512_set1_ps(weight)));
    }
}

static constexpr int64_t MAX_HEAD = 512;  // as in `kernels/library.py`
