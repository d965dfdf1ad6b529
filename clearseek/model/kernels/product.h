// Products of matrices in tiles whose sums stay in registers: of bfloat16 with fp32 sums, of int8 with whole ones.
// Factors come in words of 32 bits, two bf16 or four int8 that are multiplied by their like and summed.
#pragma once
#include "pack.h"

// The right factor of a product, N columns of words, lines `line` apart; every 64 columns are a panel, `panel` from
// the next. N is a multiple of 16. What comes out of memory is fetched `ahead` words before it is read: then panels lie
// one behind the other, and where rows go over one several times, the next is fetched meanwhile.
struct Right {
    const uint32_t* data;
    int64_t line, panel, ahead = 0;
    const uint32_t* at(int64_t j) const { return data + j / 64 * panel + j % 64; }
};
static inline Right rows_of(const uint32_t* words, int64_t line) { return {words, line, 64}; }
// Panels one behind the other, as the tiles read them: the layout of packed weights
static inline Right panels_of(const uint32_t* words, int64_t count) { return {words, 64, 64 * count}; }
static inline int64_t num_panels(int64_t size) { return (size + 63) / 64; }

// What the sums of columns start at, and what they are multiplied by: see int8.h
struct Int8Right {
    Right words;
    const int32_t* start;
    const float* scale;
};
struct Int8Left {
    const uint32_t* words;
    int64_t line;
    const float* scale;
};

#define UNROLLED _Pragma("GCC unroll 8")  // or sums end up in memory

static inline __m512 add_product(bf16, __m512 sums, __m512i row, __m512i column) {
    return _mm512_dpbf16_ps(sums, (__m512bh)row, (__m512bh)column);
}
static inline __m512 add_product(float, __m512 sums, __m512i row, __m512i column) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(row), _mm512_castsi512_ps(column), sums);
}

// C [M, 16N] at (i, j) of factors of bf16 or fp32 (+)= A · B; a word is two numbers or one. `Upright`: A is given as words
// of its transpose (not to AMX)
template <typename Number, bool Upright, typename Out>
struct FloatTile {
    int64_t words;
    const uint32_t* a;
    int64_t lda;
    Right b;
    Out* c;
    int64_t ldc;
    bool add, has_slack;  // 15 rows behind the last of A may be read
    int64_t passes = 1;  // over a panel, by vectors
    bool goes_on = false;  // from sums that C holds

    template <int M, int N>
    inline __attribute__((always_inline)) void compute(int64_t i0, int64_t j0) const {
        const uint32_t *left = a + i0 * (Upright ? 1 : lda), *right = b.at(j0);
        const int64_t ahead = i0 == 0 ? b.ahead : 0;
        const int64_t fetched = b.ahead && passes > 1 ? words / passes : 0;  // lines of the next panel
        const uint32_t* next = right + (words + i0 / 6 * fetched) * b.line;
        Out* to = c + i0 * ldc + j0;
        __m512 sums[M][N];
        UNROLLED for (int i = 0; i < M; i++)
            UNROLLED for (int j = 0; j < N; j++) sums[i][j] = goes_on ? load(to + i * ldc + 16 * j) : _mm512_setzero_ps();
        for (int i = 0; i < M; i++)  // here by the time the sums are
            for (int j = 0; j < N; j += 64 / (16 * sizeof(Out))) __builtin_prefetch(to + i * ldc + 16 * j, 1);
        int64_t k = 0;
        for (int64_t n = 0; n < fetched; n++, next += b.line) {
            UNROLLED for (int j = 0; j < N; j++) __builtin_prefetch(next + 16 * j, 0, 2);
            for (const int64_t end = k + passes; k < end; k++) add_word<M, N>(left, right, ahead, k, sums);
        }
        for (; k < words; k++) add_word<M, N>(left, right, ahead, k, sums);
        UNROLLED for (int i = 0; i < M; i++)
            UNROLLED for (int j = 0; j < N; j++) put(i0 + i, j0 + 16 * j, sums[i][j]);
    }
    template <int M, int N>
    inline __attribute__((always_inline)) void add_word(const uint32_t* left, const uint32_t* right, int64_t ahead, int64_t k,
                                                        __m512 (&sums)[M][N]) const {
        __m512i column[N];
        if (ahead)
            UNROLLED for (int j = 0; j < N; j++) __builtin_prefetch(right + ahead + k * b.line + 16 * j);
        UNROLLED for (int j = 0; j < N; j++) column[j] = _mm512_loadu_si512(right + k * b.line + 16 * j);
        UNROLLED for (int i = 0; i < M; i++) {
            const uint32_t word = Upright ? left[k * lda + i] : left[i * lda + k];
            const __m512i row = _mm512_set1_epi32(static_cast<int>(word));
            UNROLLED for (int j = 0; j < N; j++) sums[i][j] = add_product(Number{}, sums[i][j], row, column[j]);
        }
    }
    inline __attribute__((always_inline)) void put(int64_t i, int64_t j, __m512 sums) const {
        Out* place = c + i * ldc + j;
        store(place, add ? _mm512_add_ps(sums, load(place)) : sums);
    }
    void put(int64_t i, int64_t j, __m512i sums) const { put(i, j, _mm512_castsi512_ps(sums)); }
    static constexpr bool is_int8 = false;
    const uint32_t* left() const { return a; }
    int64_t left_line() const { return lda; }
    const Right& right() const { return b; }
    const int32_t* starts() const { return nullptr; }
};

// The same of int8 factors; a sum is multiplied by the scales of its row and its column
template <bool Upright, typename Out>
struct Int8Tile {
    int64_t words;
    Int8Left a;
    Int8Right b;
    Out* c;
    int64_t ldc;
    bool add;

    template <int M, int N>
    inline __attribute__((always_inline)) void compute(int64_t i0, int64_t j0) const {
        const uint32_t *left = a.words + i0 * (Upright ? 1 : a.line), *right = b.words.at(j0);
        Out* to = c + i0 * ldc + j0;
        __m512i sums[M][N];
        UNROLLED for (int i = 0; i < M; i++)
            UNROLLED for (int j = 0; j < N; j++) sums[i][j] = _mm512_loadu_si512(b.start + j0 + 16 * j);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j += 64 / (16 * sizeof(Out))) __builtin_prefetch(to + i * ldc + 16 * j, 1);
        for (int64_t k = 0; k < words; k++) {
            __m512i column[N];
            UNROLLED for (int j = 0; j < N; j++) column[j] = _mm512_loadu_si512(right + k * b.words.line + 16 * j);
            UNROLLED for (int i = 0; i < M; i++) {
                const uint32_t word = Upright ? left[k * a.line + i] : left[i * a.line + k];
                const __m512i row = _mm512_set1_epi32(static_cast<int>(word));
                UNROLLED for (int j = 0; j < N; j++)  // the intrinsic makes g++ 12 keep sums in memory
                    asm("vpdpbusd %2, %1, %0" : "+v"(sums[i][j]) : "v"(row), "v"(column[j]));
            }
        }
        UNROLLED for (int j = 0; j < N; j++)
            UNROLLED for (int i = 0; i < M; i++) put(i0 + i, j0 + 16 * j, sums[i][j]);
    }
    inline __attribute__((always_inline)) void put(int64_t i, int64_t j, __m512i sums) const {
        Out* place = c + i * ldc + j;
        const __m512 sum = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(a.scale[i]));
        const __m512 scale = load(b.scale + j);
        store(place, add ? _mm512_fmadd_ps(sum, scale, load(place)) : _mm512_mul_ps(sum, scale));
    }
    static constexpr bool is_int8 = true, has_slack = false;
    const uint32_t* left() const { return a.words; }
    int64_t left_line() const { return a.line; }
    const Right& right() const { return b.words; }
    const int32_t* starts() const { return b.start; }
};

template <int N, typename Tile>
static __attribute__((noinline)) void tiles_below(int64_t rows, int64_t j, const Tile& tile) {
    int64_t i = 0;
    for (; i + 6 <= rows; i += 6) tile.template compute<6, N>(i, j);
    for (; i + 4 <= rows; i += 4) tile.template compute<4, N>(i, j);
    for (; i + 2 <= rows; i += 2) tile.template compute<2, N>(i, j);
    for (; i < rows; i++) tile.template compute<1, N>(i, j);
}

// All tiles of a result [rows, size], with sums in vector registers
template <typename Tile>
static void vector_tiles(int64_t rows, int64_t size, const Tile& tile) {
    for (int64_t j = 0; j < size; j += 64)
        with_columns(std::min<int64_t>(64, size - j) / 16, [&](auto n) { tiles_below<n()>(rows, j, tile); });
}

static constexpr int64_t STRETCH = 128, FEWEST_WORDS = 1024, MOST_ROWS = 24;  // 32 KiB of panels of 256 KiB and more

// A few rows go over a panel from memory several times: where two don't fit into the second cache, it comes in stretches that
// stay in the first, while the next is on its way. The sums between them are in C, or in fp32 beside it; they are what they
// would be in one go.
template <typename Number, typename Out>
static void stretched_panel(int64_t rows, int64_t size, const FloatTile<Number, false, Out>& tile) {
    constexpr bool is_kept = !std::is_same<Out, float>::value;
    alignas(64) float kept[is_kept ? MOST_ROWS * 64 : 1];
    float* sums = is_kept ? kept : reinterpret_cast<float*>(tile.c);
    for (int64_t k = 0; k < tile.words; k += STRETCH) {
        const Right part{tile.b.data + k * tile.b.line, tile.b.line, tile.b.panel, tile.b.ahead};
        vector_tiles(rows, size, FloatTile<Number, false, float>{std::min(STRETCH, tile.words - k), tile.a + k, tile.lda, part, sums,
                                                                 is_kept ? 64 : tile.ldc, false, false, tile.passes, k > 0});
    }
    for (int64_t i = 0; is_kept && i < rows; i++)
        for (int64_t j = 0; j < size; j += 16) store(tile.c + i * tile.ldc + j, load(kept + i * 64 + j));
}

// C [rows, size] (+)= A · B by vectors
template <typename Number, typename Out>
static void product_by_vectors(int64_t rows, int64_t size, const FloatTile<Number, false, Out>& tile) {
    const bool is_stretched = tile.b.ahead && tile.passes > 1 && rows <= MOST_ROWS && tile.words >= FEWEST_WORDS && !tile.add;
    is_stretched ? stretched_panel(rows, size, tile) : vector_tiles(rows, size, tile);
}

#if defined(WITH_AMX) && defined(__AMX_TILE__)
#include "amx.h"
static constexpr bool HAS_TILES = true;
#else
struct Tiles {};
static constexpr bool HAS_TILES = false;

template <typename Tile>
static void compute_tiles(int64_t rows, int64_t size, const Tile& tile) {
    vector_tiles(rows, size, tile);
}
#endif

// C [rows, size] (+)= A · B of bf16; `words` and A's leading dimension count pairs
template <bool Upright = false, typename Out>
static void product(int64_t rows, int64_t size, int64_t words, const uint32_t* a, int64_t lda, Right b, Out* c,
                    int64_t ldc, bool add, bool has_slack = false) {
    compute_tiles(rows, size, FloatTile<bf16, Upright, Out>{words, a, lda, b, c, ldc, add, has_slack, (rows + 5) / 6});
}
template <typename Out>
static void product(int64_t rows, int64_t size, int64_t words, const bf16* a, int64_t lda, Right b, Out* c,
                    int64_t ldc, bool add, bool has_slack = false) {
    const uint32_t* left = reinterpret_cast<const uint32_t*>(a);
    if (HAS_TILES) return product<false>(rows, size, words, left, lda / 2, b, c, ldc, add, has_slack);
    product_by_vectors(rows, size, FloatTile<bf16, false, Out>{words, left, lda / 2, b, c, ldc, add, has_slack, (rows + 5) / 6});
}
// … of fp32, which AMX doesn't know; `words` counts numbers
template <typename Out>
static void product(int64_t rows, int64_t size, int64_t words, const float* a, int64_t lda, Right b, Out* c,
                    int64_t ldc, bool add, bool has_slack = false) {
    const uint32_t* left = reinterpret_cast<const uint32_t*>(a);
    product_by_vectors(rows, size, FloatTile<float, false, Out>{words, left, lda, b, c, ldc, add, has_slack, (rows + 5) / 6});
}
// … of int8; `words` counts fours
template <bool Upright = false, typename Out>
static void product(int64_t rows, int64_t size, int64_t words, const Int8Left& a, const Int8Right& b, Out* c,
                    int64_t ldc, bool add) {
    compute_tiles(rows, size, Int8Tile<Upright, Out>{words, a, b, c, ldc, add});
}
