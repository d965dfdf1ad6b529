// What a linear map and its gradients are computed in: a template argument of their kernels.
#pragma once
#include <vector>

#include "int8.h"

static constexpr int64_t TALL = 48;  // rows that share a look at the weights

// Rows summed in registers, and outputs that share a look at a panel of inputs
static constexpr int64_t DEEP = 256, BAND = 48;

// Pairs or fours of rows, band after band of outputs as `Upright` products read them → for each output all words,
// filled up with zeros to `depth`, as tiles read them; a right side's lines are filled up with them
static inline void turn_bands(const uint32_t* bands, int64_t words, int64_t outputs, uint32_t* y, int64_t depth) {
    for (int64_t first = 0; first < outputs; first += BAND)
        pack_transposed(bands + first * words, BAND, words, std::min(BAND, outputs - first), y + first * depth, depth);
}
static inline void fill_up(uint32_t* lines, int64_t words) {
    std::fill(lines + 64 * words, lines + 64 * up16(words), 0);
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
        Unset<uint32_t> left, right, turned;
        int64_t words = 0;
        explicit Stretch(int64_t outputs)
            : left(DEEP / 2 * (outputs + BAND)), right(DEEP / 2 * 64), turned(HAS_TILES ? DEEP / 2 * outputs : 0) {}
        template <typename RowOf>
        void take_outputs(const RowOf& row, int64_t rows, int64_t size) {
            words = (rows + 1) / 2;
            pack_rows<BAND>(row, rows, size, left.data(), BAND, BAND * words);
            if (HAS_TILES) turn_bands(left.data(), words, size, turned.data(), DEEP / 2);
        }
        template <typename RowOf>
        void take_inputs(const RowOf& row, int64_t rows, int64_t size, const float* factor) {
            pack_rows(row, rows, size, right.data(), 64, 0, factor);
            if (HAS_TILES) fill_up(right.data(), words);
        }
        void add(int64_t band, int64_t outputs, int64_t inputs, float* dw, int64_t line) const {
            const Right columns = rows_of(right.data(), 64);
            if (HAS_TILES)
                product<false>(outputs, inputs, up16(words), turned.data() + band * BAND * (DEEP / 2), DEEP / 2, columns, dw,
                               line, true);
            else
                product<true>(outputs, inputs, words, left.data() + band * BAND * words, BAND, columns, dw, line, true);
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
        Unset<uint32_t> left, right, turned;
        Unset<float> left_scale;
        float right_scale[64];
        int32_t start[64];
        int64_t words = 0;
        explicit Stretch(int64_t outputs)
            : left(DEEP / 4 * (outputs + BAND)), right(DEEP / 4 * 64), turned(HAS_TILES ? DEEP / 4 * outputs : 0),
              left_scale(outputs) {}
        template <typename RowOf>
        void take_outputs(const RowOf& row, int64_t rows, int64_t size) {
            words = (rows + 3) / 4;
            quantise_columns<true, BAND>(row, rows, size, left.data(), BAND, BAND * words, left_scale.data(), nullptr);
            if (HAS_TILES) turn_bands(left.data(), words, size, turned.data(), DEEP / 4);
        }
        template <typename RowOf>
        void take_inputs(const RowOf& row, int64_t rows, int64_t size, const float*) {
            quantise_columns<false, 64>(row, rows, size, right.data(), 64, 0, right_scale, start);
            if (HAS_TILES) fill_up(right.data(), words);
        }
        void add(int64_t band, int64_t outputs, int64_t inputs, float* dw, int64_t line) const {
            const float* scale = left_scale.data() + band * BAND;
            const Int8Right columns{rows_of(right.data(), 64), start, right_scale};
            if (HAS_TILES)
                product(outputs, inputs, up16(words), {turned.data() + band * BAND * (DEEP / 4), DEEP / 4, scale}, columns,
                        dw, line, true);
            else
                product<true>(outputs, inputs, words, {left.data() + band * BAND * words, BAND, scale}, columns, dw, line,
                              true);
        }
    };
};
