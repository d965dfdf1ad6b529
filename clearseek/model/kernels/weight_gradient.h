// The gradient of a weight: the sum over many rows of products of one with another, in fp32.
#pragma once
#include "arithmetic.h"

// Rows of bf16, `stride` apart; those that `which` names, or all in order
struct Picked {
    const bf16* data;
    int64_t stride;
    const int32_t* which;
    const bf16* operator()(int64_t n) const { return data + (which ? which[n] : n) * stride; }
    Picked from(int64_t n) const { return which ? Picked{data, stride, which + n} : Picked{data + n * stride, stride, nullptr}; }
};

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

// dw, `line` apart, += Σ over `rows` of dy[n]ᵀ · x[n] (· factor[n]), of it the block; in int8 there are no factors
template <typename Kind>
static void weight_gradient(const Picked& dy, const Picked& x, const Block& block, const float* factor, int64_t rows,
                            float* dw, int64_t line) {
    dw += block.output * line + block.input;
    typename Kind::Stretch stretch(block.outputs);
    for (int64_t n = 0; n < rows; n += DEEP) {
        const int64_t count = std::min(DEEP, rows - n);
        stretch.take_outputs([&](int64_t t) { return dy(n + t) + block.output; }, count, block.outputs);
        for (int64_t c = 0; c < block.inputs; c += 64) {
            const int64_t size = std::min<int64_t>(64, block.inputs - c);
            stretch.take_inputs([&](int64_t t) { return x(n + t) + block.input + c; }, count, size,
                                factor ? factor + n : nullptr);
            for (int64_t first = 0; first < block.outputs; first += BAND)
                stretch.add(first / BAND, std::min(BAND, block.outputs - first), size, dw + first * line + c, line);
        }
    }
}
