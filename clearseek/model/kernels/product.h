// Products of bfloat16 matrices with fp32 sums, in tiles that stay in registers.
#pragma once
#include "simd.h"

// The right factor of a product, [2K, N]: pairs of its rows, N of two bf16 each, `line` apart; every 64 columns are a
// panel, `panel` from the next. N is a multiple of 16.
struct Right {
    const uint32_t* data;
    int64_t line, panel;
};
static inline Right rows_of(const uint32_t* pairs, int64_t line) { return {pairs, line, 64}; }
// Panels one behind the other, as the tiles read them: the layout of packed weights
static inline Right panels_of(const uint32_t* pairs, int64_t count) { return {pairs, 64, 64 * count}; }
static inline int64_t num_panels(int64_t size) { return (size + 63) / 64; }

// C [M, 16N] (+)= A [M, 2K] · B; `Upright`: A is given as pairs of rows of its transpose, [K, M]
template <int M, int N, bool Upright, typename Out>
static inline void tile(int64_t pairs, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, Out* c,
                        int64_t ldc, bool add) {
    __m512 sums[M][N];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) sums[i][j] = _mm512_setzero_ps();
    for (int i = 0; i < M; i++)  // here by the time the sums are
        for (int j = 0; j < N; j += 64 / (16 * sizeof(Out))) __builtin_prefetch(c + i * ldc + 16 * j, 1);
    for (int64_t k = 0; k < pairs; k++) {
        __m512bh column[N];
        for (int j = 0; j < N; j++) column[j] = (__m512bh)_mm512_loadu_si512(b + k * ldb + 16 * j);
        for (int i = 0; i < M; i++) {
            const uint32_t pair = Upright ? a[k * lda + i] : a[i * lda + k];
            const __m512bh row = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair));
            for (int j = 0; j < N; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], row, column[j]);
        }
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            Out* to = c + i * ldc + 16 * j;
            store(to, add ? _mm512_add_ps(sums[i][j], load(to)) : sums[i][j]);
        }
}

template <int N, bool Upright, typename Out>
static void columns(int64_t rows, int64_t pairs, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                    Out* c, int64_t ldc, bool add) {
    const int64_t next = Upright ? 1 : lda;
    int64_t i = 0;
    for (; i + 6 <= rows; i += 6) tile<6, N, Upright>(pairs, a + i * next, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i + 4 <= rows; i += 4) tile<4, N, Upright>(pairs, a + i * next, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i + 2 <= rows; i += 2) tile<2, N, Upright>(pairs, a + i * next, lda, b, ldb, c + i * ldc, ldc, add);
    for (; i < rows; i++) tile<1, N, Upright>(pairs, a + i * next, lda, b, ldb, c + i * ldc, ldc, add);
}

// C [rows, size] (+)= A · B; leading dimension of A in pairs
template <bool Upright = false, typename Out>
static void product(int64_t rows, int64_t size, int64_t pairs, const uint32_t* a, int64_t lda, Right b, Out* c,
                    int64_t ldc, bool add) {
    for (int64_t j = 0; j < size; j += 64) {
        const uint32_t* band = b.data + j / 64 * b.panel;
        switch (std::min<int64_t>(64, size - j) / 16) {
            case 4: columns<4, Upright>(rows, pairs, a, lda, band, b.line, c + j, ldc, add); break;
            case 3: columns<3, Upright>(rows, pairs, a, lda, band, b.line, c + j, ldc, add); break;
            case 2: columns<2, Upright>(rows, pairs, a, lda, band, b.line, c + j, ldc, add); break;
            case 1: columns<1, Upright>(rows, pairs, a, lda, band, b.line, c + j, ldc, add); break;
        }
    }
}
template <typename Out>
static void product(int64_t rows, int64_t size, int64_t pairs, const bf16* a, int64_t lda, Right b, Out* c,
                    int64_t ldc, bool add) {
    product<false>(rows, size, pairs, reinterpret_cast<const uint32_t*>(a), lda / 2, b, c, ldc, add);
}
