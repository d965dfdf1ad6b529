// Products of quantised rows with int8 and int4 weights on AMX: a group's whole numbers are summed in tiles, and the sums
// scaled as `GroupedTile` does it, so that the bits are the same. Part of formats.h.
#pragma once

static constexpr int64_t TILES_AHEAD_BYTES = 32768;  // as AHEAD_BYTES, where a panel is gone through once

// Whether as many rows are sooner multiplied in tiles; a group of 32 fills but half of one, and is scaled as often
static inline bool pays_in_tiles(int64_t rows, int64_t group) { return rows >= (group == 32 ? 16 : 6); }

// Shapes of tiles for a group of so many words of four inputs
static inline Tiles::Shape group_shape(int64_t words) {
    Tiles::Shape shape;
    shape.row_bytes[4] = static_cast<uint16_t>(4 * words);
    std::fill(shape.rows + 5, shape.rows + 8, static_cast<uint8_t>(words));
    return shape;
}

// A group's lines of int4 words as those of int8
static inline void widen(const uint32_t* words, int64_t lines, uint32_t* to) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t k = 0; k < lines; k++)
        UNROLLED for (int64_t j = 0; j < PANEL; j += 16) {
            const __m512i both = _mm512_loadu_si512(words + k * PANEL + j);
            _mm512_store_si512(to + 2 * k * PANEL + j, _mm512_and_si512(both, low));
            _mm512_store_si512(to + (2 * k + 1) * PANEL + j, _mm512_and_si512(_mm512_srli_epi32(both, 4), low));
        }
}

#define GROUP_ADD(sums, right) asm volatile("tdpbsud %%tmm" #right ", %%tmm4, %%tmm" #sums ::: "memory")
// Sums [16, 64] of a group's products: signed rows, `inputs` apart, and unsigned weights in words of four
static inline void sum_group(const int8_t* left, int64_t inputs, const uint32_t* right, int64_t words, int32_t* sums) {
    asm volatile("tilezero %%tmm0; tilezero %%tmm1; tilezero %%tmm2; tilezero %%tmm3" ::: "memory");
    for (int64_t k = 0; k < words; k += 16) {
        const uint32_t* at = right + k * PANEL;
        TILE_LOAD(4, left + 4 * k, inputs / 4);
        TILE_LOAD(5, at, PANEL);
        GROUP_ADD(0, 5);
        TILE_LOAD(6, at + 16, PANEL);
        GROUP_ADD(1, 6);
        TILE_LOAD(7, at + 32, PANEL);
        GROUP_ADD(2, 7);
        TILE_LOAD(5, at + 48, PANEL);
        GROUP_ADD(3, 5);
    }
    TILE_STORE(0, sums, PANEL);
    TILE_STORE(1, sums + 16, PANEL);
    TILE_STORE(2, sums + 32, PANEL);
    TILE_STORE(3, sums + 48, PANEL);
}
#undef GROUP_ADD

// C [rows, size] (+)= quantised rows, which may be read SLACK rows further, · a panel. A group is summed while the one
// before it is scaled.
template <int64_t F, typename Out>
struct GroupedTiles {
    static constexpr int64_t Bits = F == INT8 ? 8 : 4;
    const uint8_t* panel;
    const Quantised& x;
    Out* c;
    int64_t ldc;
    bool add;
    const int64_t groups = x.inputs / x.group, bytes = group_bytes(F, x.group);
    const uint8_t* first = panel + head_bytes(F);
    int64_t ahead = 0, fetched = 0;  // of every group, by each pass over the panel
    alignas(64) int32_t sums[2][16 * PANEL];
    alignas(64) float total[16 * PANEL];

    void compute(int64_t rows, int64_t size) {
        const bool is_less = x.group < 64;  // than a tile
        const Reshaped shape(is_less ? group_shape(x.group / 4) : Tiles::Shape(), is_less);
        const int64_t passes = (rows + 15) / 16;
        ahead = passes == 1 ? TILES_AHEAD_BYTES : groups * bytes, fetched = bytes / passes;
        for (int64_t i = 0; i < rows; i += 16) {
            const int64_t count = std::min<int64_t>(16, rows - i);
            std::memset(total, 0, sizeof(total));
            sum(i, 0);
            for (int64_t g = 0; g < groups; g++) {
                if (g + 1 < groups) sum(i, g + 1);
                for (int64_t r = 0; r < count; r += 4) scale(i, g, r, count);
            }
            for (int64_t r = 0; r < count; r++)
                for (int64_t j = 0; j < size; j += 16) {
                    Out* place = c + (i + r) * ldc + j;
                    const __m512 found = with_factors<F>(_mm512_load_ps(total + r * PANEL + j), panel, j);
                    store(place, add ? _mm512_add_ps(found, load(place)) : found);
                }
        }
    }

private:
    // Group g, for the rows from i on
    void sum(int64_t i, int64_t g) {
        alignas(64) uint32_t wide[Bits == 8 ? 1 : 128 / 4 * PANEL];
        const uint32_t* right = reinterpret_cast<const uint32_t*>(first + g * bytes);
        if (Bits == 4) widen(right, x.group / 8, wide), right = wide;
        sum_group(x.bytes + i * x.inputs + g * x.group, x.inputs, right, x.group / 4, sums[g % 2]);
    }

    // Its rows i + r …, four of `count`, into the totals
    inline __attribute__((always_inline)) void scale(int64_t i, int64_t g, int64_t r, int64_t count) {
        const uint8_t *at = first + g * bytes, *next = at + ahead + i / 16 * fetched;
        for (int64_t b = r * fetched / count; b < (r + 4) * fetched / count; b += 64) fetch(next + b);
        __m512 scale[4];
        UNROLLED for (int j = 0; j < 4; j++) scale[j] = load_scales<F>(at + bytes - scales_bytes(F), 16 * j);
        UNROLLED for (int n = 0; n < 4; n++) {
            const int64_t place = (i + std::min(r + n, count - 1)) * groups + g;
            const __m512i start = _mm512_set1_epi32(-(1 << (Bits - 1)) * x.sums[place]);
            const __m512 factor = _mm512_set1_ps(x.scales[place]);
            UNROLLED for (int j = 0; j < 4; j++) {
                const int64_t lane = (r + n) * PANEL + 16 * j;
                const __m512i part = _mm512_add_epi32(start, _mm512_load_si512(sums[g % 2] + lane));
                const __m512 both = _mm512_mul_ps(scale[j], factor), before = _mm512_load_ps(total + lane);
                _mm512_store_ps(total + lane, _mm512_fmadd_ps(_mm512_cvtepi32_ps(part), both, before));
            }
        }
    }
};
