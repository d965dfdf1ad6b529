// Small products of bfloat16 matrices with fp32 sums, in tiles that stay in registers.
#pragma once
#include "simd.h"

// C [M, N] (+)= A [M, 2K] · B, where B holds pairs of rows interleaved, [K, N] of two bf16 each; N a multiple of 16
template <int M, int N>
static inline void tile(int64_t pairs, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, float* c,
                        int64_t ldc, bool add) {
    __m512 sums[M][N];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) sums[i][j] = add ? load(c + i * ldc + 16 * j) : _mm512_setzero_ps();
    for (int64_t k = 0; k < pairs; k++) {
        __m512bh column[N];
        for (int j = 0; j < N; j++) column[j] = (__m512bh)_mm512_loadu_si512(b + k * ldb + 16 * j);
        for (int i = 0; i < M; i++) {
            const __m512bh row = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i * lda + k]));
            for (int j = 0; j < N; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], row, column[j]);
        }
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) store(c + i * ldc + 16 * j, sums[i][j]);
}

template <int N>
static void columns(int64_t rows, int64_t pairs, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                    float* c, int64_t ldc, bool add) {
    int64_t i = 0;
    for (; i + 6 <= rows; i += 6) tile<6, N>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i + 2 <= rows; i += 2) tile<2, N>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i < rows; i++) tile<1, N>(pairs, a + i * lda, lda, b, ldb, c + i * ldc, ldc, add);
}

// leading dimensions of A in bf16, of B in pairs, of C in floats
static void product(int64_t rows, int64_t size, int64_t pairs, const bf16* a, int64_t lda, const uint32_t* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    const uint32_t* left = reinterpret_cast<const uint32_t*>(a);
    int64_t j = 0;
    for (; j + 64 <= size; j += 64) columns<4>(rows, pairs, left, lda / 2, b + j, ldb, c + j, ldc, add);
    for (; j + 32 <= size; j += 32) columns<2>(rows, pairs, left, lda / 2, b + j, ldb, c + j, ldc, add);
    for (; j < size; j += 16) columns<1>(rows, pairs, left, lda / 2, b + j, ldb, c + j, ldc, add);
}
