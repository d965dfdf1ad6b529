// The gradient of a weight: the sum over many rows of products of one with another, in fp32.
#pragma once
#include <vector>

#include "pack.h"
#include "product.h"

// Rows of bf16, `stride` apart; those that `which` names, or all in order
struct Picked {
    const bf16* data;
    int64_t stride;
    const int32_t* which;
    const bf16* operator()(int64_t n) const { return data + (which ? which[n] : n) * stride; }
    Picked from(int64_t n) const { return which ? Picked{data, stride, which + n} : Picked{data + n * stride, stride, nullptr}; }
};

static constexpr int64_t TALL = 48;  // rows that share a look at the weights

// Rows summed in registers, and outputs that share a look at a panel of inputs
static constexpr int64_t DEEP = 256, BAND = 48;

// Rows that go both ways, to the inputs and into the weight, before the next do: what is kept of them is in a cache yet
static constexpr int64_t AT_ONCE = 6 * DEEP;

// The rectangle of a weight [outputs, inputs] that one thread sums
struct Block {
    int64_t output, outputs, input, inputs;
};

// Whole lanes of the longer side fall to `part` of `parts`
static inline Block block_of(int64_t outputs, int64_t inputs, int64_t part, int64_t parts) {
    const int64_t lanes = std::max(outputs, inputs) / 16, first = lanes * part / parts * 16;
    const int64_t count = lanes * (part + 1) / parts * 16 - first;
    return outputs >= inputs ? Block{first, count, 0, inputs} : Block{0, outputs, first, count};
}

// dw, `line` apart, += Σ over `rows` of dy[n]ᵀ · x[n] (· factor[n]), of it the block
static void weight_gradient(const Picked& dy, const Picked& x, const Block& block, const float* factor, int64_t rows,
                            float* dw, int64_t line) {
    const int64_t bands = (block.outputs + BAND - 1) / BAND;
    dw += block.output * line + block.input;
    const Unset<uint32_t> left(DEEP / 2 * BAND * bands), right(DEEP / 2 * 64);
    for (int64_t n = 0; n < rows; n += DEEP) {
        const int64_t count = std::min(DEEP, rows - n), pairs = (count + 1) / 2;
        pack_rows<BAND>([&](int64_t t) { return dy(n + t) + block.output; }, count, block.outputs, left.data(), BAND,
                        BAND * pairs);
        for (int64_t c = 0; c < block.inputs; c += 64) {
            const int64_t size = std::min<int64_t>(64, block.inputs - c);
            pack_rows([&](int64_t t) { return x(n + t) + block.input + c; }, count, size, right.data(), 64, 0,
                      factor ? factor + n : nullptr);
            for (int64_t band = 0; band < bands; band++)
                product<true>(std::min(BAND, block.outputs - band * BAND), size, pairs, left.data() + band * BAND * pairs,
                              BAND, rows_of(right.data(), 64), dw + band * BAND * line + c, line, true);
        }
    }
}
