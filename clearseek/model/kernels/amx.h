// The products of `product.h` on AMX, whose registers are tiles of 16 × 16 sums. In bf16 the pairs of 16 words are summed
// apart, then added, so that bits differ from AVX-512's; int8's don't. Every row is computed so, whatever is beside it.
#pragma once
#include <cstring>

#include "pack.h"

// Tiles are a thread's own and must be given a shape first: one of these lives wherever products are computed.
// The process has asked for permission before (`library.py`).
struct Tiles {
    struct alignas(64) Shape {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        void use() const { asm volatile("ldtilecfg %0" ::"m"(*this)); }
    };
    Tiles() { Shape().use(); }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
};

// Tiles in another shape while one of these lives, where `is_own` says so
struct Reshaped {
    const bool is_own;
    explicit Reshaped(const Tiles::Shape& shape, bool is_own = true) : is_own(is_own) {
        if (is_own) shape.use();
    }
    ~Reshaped() {
        if (is_own) Tiles::Shape().use();
    }
    Reshaped(const Reshaped&) = delete;
};

#define TILE_LOAD(tile, from, line) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((line) * int64_t{4}) : "memory")
#define TILE_STORE(tile, to, line) \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((line) * int64_t{4}) : "memory")
// sums of one tile += left · right
#define TILE_ADD(sums, left, right)                                                        \
    if (Int8)                                                                              \
        asm volatile("tdpbusd %%tmm" #right ", %%tmm" #left ", %%tmm" #sums ::: "memory"); \
    else                                                                                   \
        asm volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sums ::: "memory")
#define TILE_START(sums, column)                   \
    if (Int8)                                      \
        TILE_LOAD(sums, start + 16 * (column), 0); \
    else                                           \
        asm volatile("tilezero %%tmm" #sums ::: "memory")

// The lines of the tile that lies `ahead` words on; none for 0
static inline __attribute__((always_inline)) void fetch_tile(const uint32_t* tile, int64_t line, int64_t ahead) {
    for (int64_t k = 0; ahead && k < 16; k++) __builtin_prefetch(tile + ahead + k * line);
}

// Sixteen words of depth: M × N tiles of sums, numbered row by row. The right side's tile that lies `ahead` words on is
// fetched before each is loaded; 0: none is.
template <bool Int8, int M, int N>
static inline __attribute__((always_inline)) void tile_step(const uint32_t* a, int64_t lda, const uint32_t* b,
                                                            int64_t line, int64_t ahead = 0) {
    TILE_LOAD(4, a, lda);
    fetch_tile(b + 0, line, ahead);
    TILE_LOAD(5, b, line);
    TILE_ADD(0, 4, 5);
    if (N > 1) fetch_tile(b + 16, line, ahead);
    if (N > 1) TILE_LOAD(6, b + 16, line);
    if (N > 1) TILE_ADD(1, 4, 6);
    if (M > 1) TILE_LOAD(7, a + 16 * lda, lda);
    if (M > 1) TILE_ADD(2, 7, 5);
    if (M > 1 && N > 1) TILE_ADD(3, 7, 6);
    if (N > 2) fetch_tile(b + 32, line, ahead);
    if (N > 2) TILE_LOAD(7, b + 32, line);
    if (N > 2) TILE_ADD(2, 4, 7);
    if (N > 3) fetch_tile(b + 48, line, ahead);
    if (N > 3) TILE_LOAD(5, b + 48, line);
    if (N > 3) TILE_ADD(3, 4, 5);
}
#undef TILE_ADD

// A block of M × N tiles of sums at (i, j), of which `rows` are put in place. The last words of the left side, `rest`,
// are filled up with zeros to sixteen, as are those of the right one: `edge`.
template <int M, int N, typename Tile>
static void tile_block(const Tile& tile, const uint32_t* a, int64_t lda, const uint32_t* edge, int64_t rest, int64_t i,
                       int64_t rows, int64_t j) {
    constexpr bool Int8 = Tile::is_int8;
    const int32_t* start = tile.starts() + j;
    const Right right = tile.right();
    const uint32_t* b = right.at(j);
    TILE_START(0, 0);
    if (N > 1) TILE_START(1, 1);
    if (M > 1) TILE_START(2, 0);
    if (M > 1 && N > 1) TILE_START(3, 1);
    if (N > 2) TILE_START(2, 2);
    if (N > 3) TILE_START(3, 3);
    const int64_t whole = tile.words - rest;
    const int64_t ahead = i == 0 ? right.ahead : 0;
    for (int64_t k = 0; k < whole; k += 16) tile_step<Int8, M, N>(a + k, lda, b + k * right.line, right.line, ahead);
    if (rest) tile_step<Int8, M, N>(a + whole, lda, edge, 64);
    alignas(64) int32_t sums[16 * M][16 * N];
    TILE_STORE(0, sums, 16 * N);
    if (N > 1) TILE_STORE(1, &sums[0][16], 16 * N);
    if (M > 1) TILE_STORE(2, sums[16 * (M - 1)], 16 * N);
    if (M > 1 && N > 1) TILE_STORE(3, &sums[16 * (M - 1)][16], 16 * N);
    if (N > 2) TILE_STORE(2, &sums[0][32 % (16 * N)], 16 * N);
    if (N > 3) TILE_STORE(3, &sums[0][48 % (16 * N)], 16 * N);
    for (int64_t r = 0; r < std::min<int64_t>(rows, 16 * M); r++)
        for (int c = 0; c < N; c++) tile.put(i + r, j + 16 * c, _mm512_load_si512(&sums[r][16 * c]));
}
#undef TILE_START

// All of a result [rows, size]. Rows that fill no tile are copied, but for one alone, which takes all places of a tile, and
// where whatever lies behind the last may be read.
template <typename Tile>
static void compute_tiles(int64_t rows, int64_t size, const Tile& tile) {
    const int64_t rest = tile.words % 16, depth = up16(tile.words), lda = tile.left_line();
    const uint32_t* a = tile.left();
    const bool as_they_are = !rest && (tile.has_slack || rows == 1);
    const int64_t first = as_they_are ? up16(rows) : rest ? 0 : down16(rows);  // the first row that is copied
    const int64_t whole = as_they_are || rest ? up16(rows) : first;
    const Unset<uint32_t> filled((up16(rows) - first) * depth);
    for (int64_t i = first; i < up16(rows); i++) {
        uint32_t* to = filled.data() + (i - first) * depth;
        const int64_t real = i < rows ? tile.words : 0;
        std::memcpy(to, a + i * lda, 4 * real);
        std::memset(to + real, 0, 4 * (depth - real));
    }
    alignas(64) uint32_t edge[16 * 64] = {};
    for (int64_t j = 0; j < size; j += 64) {
        const int64_t columns = std::min<int64_t>(64, size - j) / 16;
        const Right right = tile.right();
        for (int64_t k = 0; k < rest; k++)
            std::memcpy(edge + 64 * k, right.at(j) + (tile.words - rest + k) * right.line, 64 * columns);
        for (int64_t i = 0; i < rows;) {
            const bool is_copied = i >= first;
            const uint32_t* left = is_copied ? filled.data() + (i - first) * depth : a + i * lda;
            const int64_t line = is_copied ? depth : rows == 1 ? 0 : lda;
            const auto block = [&](auto m, auto n, int64_t at) {
                tile_block<m(), n()>(tile, left, line, edge + at, rest, i, rows - i, j + at);
            };
            using std::integral_constant;
            const integral_constant<int, 1> one;
            const integral_constant<int, 2> two;
            if (i + 32 <= whole) {
                columns > 1 ? block(two, two, 0) : block(two, one, 0);
                if (columns > 2) columns > 3 ? block(two, two, 32) : block(two, one, 32);
                i += 32;
                continue;
            }
            with_columns(columns, [&](auto n) { block(one, n, 0); });
            i += 16;
        }
    }
}
