// What a linear map and its gradients are computed in: a template argument of their kernels.
#pragma once
#include <vector>

#include "int8.h"

static constexpr int64_t TALL = HAS_TILES ? 96 : 48;  // rows that share a look at the weights

// Rows summed in registers, and outputs that share a look at a panel of inputs
static constexpr int64_t DEEP = 256, BAND = HAS_TILES ? 64 : 48;

// The left side of a weight's gradient: where a thread has tiles, for every output all words, lines of a tile; else what
// `Upright` products read, band after band
static constexpr int64_t left_line(int64_t deep) { return HAS_TILES ? deep : BAND; }

// Outputs as tiles read them, a band at a time: `pack` writes its words, lines BAND apart
template <typename Pack>
static void turn_bands(const Pack& pack, int64_t words, int64_t outputs, uint32_t* y, int64_t line) {
    const Unset<uint32_t> band(line * BAND);
    for (int64_t first = 0; first < outputs; first += BAND) {
        const int64_t count = std::min(BAND, outputs - first);
        pack(first, count, band.data());
        pack_transposed(band.data(), BAND, words, count, y + first * line, line);
    }
}
// A right side's words, filled up with zeros to those that a left side has then
static int64_t filled_up(uint32_t* lines, int64_t words) {
    if (!HAS_TILES) return words;
    std::fill(lines + 64 * words, lines + 64 * up16(words), 0);
    return up16(words);
}

// The left side of a product with a weight: up to TALL rows, given as bf16
struct Bf16 {
    // Words of a weight [outputs, inputs] packed for products with its transpose
    static int64_t packed_size(int64_t outputs, int64_t inputs) { return num_panels(outputs) * 64 * (inputs / 2); }

    explicit Bf16(int64_t) {}
    // y [count, outputs] = x [count, inputs], rows `stride` apart, · a packed weight
    void times(int64_t count, int64_t outputs, int64_t inputs, const bf16* x, int64_t stride, const uint32_t* weight,
               bf16* y) {
        product(count, outputs, inputs / 2, x, stride, panels_of(weight, inputs / 2), y, outputs, false);
    }

    // Both sides of the gradient of a weight over DEEP rows: the outputs' in bands, the inputs' 64 at a time
    struct Stretch {
        static constexpr int64_t LINE = left_line(DEEP / 2);
        Unset<uint32_t> left, right;
        int64_t words = 0;
        explicit Stretch(int64_t outputs) : left(DEEP / 2 * (outputs + BAND)), right(DEEP / 2 * 64) {}
        template <typename RowOf>
        void take_outputs(const RowOf& row, int64_t rows, int64_t size) {
            words = (rows + 1) / 2;
            if (!HAS_TILES) return pack_rows<BAND>(row, rows, size, left.data(), BAND, BAND * words);
            const auto pack = [&](int64_t first, int64_t count, uint32_t* band) {
                pack_rows<BAND>([&](int64_t t) { return row(t) + first; }, rows, count, band, BAND);
            };
            turn_bands(pack, words, size, left.data(), LINE);
        }
        template <typename RowOf>
        void take_inputs(const RowOf& row, int64_t rows, int64_t size, const float* factor) {
            pack_rows(row, rows, size, right.data(), 64, 0, factor);
            words = filled_up(right.data(), (rows + 1) / 2);
        }
        void add(int64_t band, int64_t outputs, int64_t inputs, float* dw, int64_t line) const {
            const uint32_t* from = left.data() + band * BAND * (HAS_TILES ? LINE : words);
            product<!HAS_TILES>(outputs, inputs, words, from, LINE, rows_of(right.data(), 64), dw, line, true);
        }
    };
};

struct Int8 {
    // Behind the words of a weight: its columns' scales, and what their sums start at
    static int64_t num_words(int64_t outputs, int64_t inputs) { return num_panels(outputs) * 64 * (inputs / 4); }
    static int64_t packed_size(int64_t outputs, int64_t inputs) {
        return num_words(outputs, inputs) + 2 * 64 * num_panels(outputs);
    }
    static Int8Right right(const uint32_t* weight, int64_t outputs, int64_t inputs) {
        const uint32_t* behind = weight + num_words(outputs, inputs);
        return {panels_of(weight, inputs / 4), reinterpret_cast<const int32_t*>(behind + 64 * num_panels(outputs)),
                reinterpret_cast<const float*>(behind)};
    }

    Unset<uint8_t> bytes;
    float scale[TALL];
    explicit Int8(int64_t widest) : bytes(TALL * widest) {}
    void times(int64_t count, int64_t outputs, int64_t inputs, const bf16* x, int64_t stride, const uint32_t* weight,
               bf16* y) {
        quantise_rows<true>(x, stride, count, inputs, bytes.data(), scale);
        const Int8Left left{reinterpret_cast<const uint32_t*>(bytes.data()), inputs / 4, scale};
        product(count, outputs, inputs / 4, left, right(weight, outputs, inputs), y, outputs, false);
    }

    struct Stretch {
        static constexpr int64_t LINE = left_line(DEEP / 4);
        Unset<uint32_t> left, right;
        Unset<float> left_scale;
        float right_scale[64];
        int32_t start[64];
        int64_t words = 0;
        explicit Stretch(int64_t outputs)
            : left(DEEP / 4 * (outputs + BAND)), right(DEEP / 4 * 64), left_scale(outputs) {}
        template <typename RowOf>
        void take_outputs(const RowOf& row, int64_t rows, int64_t size) {
            words = (rows + 3) / 4;
            float* scale = left_scale.data();
            if (!HAS_TILES)
                return quantise_columns<true, BAND>(row, rows, size, left.data(), BAND, BAND * words, scale, nullptr);
            const auto pack = [&](int64_t first, int64_t count, uint32_t* band) {
                quantise_columns<true, BAND>([&](int64_t t) { return row(t) + first; }, rows, count, band, BAND, 0,
                                             scale + first, nullptr);
            };
            turn_bands(pack, words, size, left.data(), LINE);
        }
        template <typename RowOf>
        void take_inputs(const RowOf& row, int64_t rows, int64_t size, const float*) {
            quantise_columns<false, 64>(row, rows, size, right.data(), 64, 0, right_scale, start);
            words = filled_up(right.data(), (rows + 3) / 4);
        }
        void add(int64_t band, int64_t outputs, int64_t inputs, float* dw, int64_t line) const {
            const uint32_t* from = left.data() + band * BAND * (HAS_TILES ? LINE : words);
            product<!HAS_TILES>(outputs, inputs, words, {from, LINE, left_scale.data() + band * BAND},
                                {rows_of(right.data(), 64), start, right_scale}, dw, line, true);
        }
    };
};
