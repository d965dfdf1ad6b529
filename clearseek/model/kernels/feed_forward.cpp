// SwiGLU: alone, or between its two maps, over all rows or over the tokens of each expert.
// N rows, C their size, E experts, I hidden units (multiples of 16).
#include <cmath>
#include <cstring>

#include "rows.h"
#include "weight_gradient.h"

static constexpr int64_t TALL = 48;  // rows that share a look at the weights

// The way back of `swiglu_row` for one row; also gives `y` again, unless null. Returns the gradient of the weight.
static inline float swiglu_row_backward(const bf16* gate, float weight, const bf16* dy, bf16* dgate, bf16* y,
                                        int64_t size) {
    const bf16* up = gate + size;
    const __m512 factor = _mm512_set1_ps(weight), one = _mm512_set1_ps(1.0f);
    __m512 dweight = _mm512_setzero_ps();
    for (int64_t c = 0; c < size; c += 16) {
        const __m512 g = load(gate + c), u = load(up + c), raw = load(dy + c), s = sigmoid(g);
        const __m512 silu = _mm512_mul_ps(g, s), d = _mm512_mul_ps(raw, factor), whole = _mm512_mul_ps(silu, u);
        dweight = _mm512_fmadd_ps(whole, raw, dweight);
        // silu'(g) = s · (1 + g · (1 − s))
        const __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(g, _mm512_sub_ps(one, s), one));
        store(dgate + c, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
        store(dgate + size + c, _mm512_mul_ps(d, silu));
        if (y) store(y + c, _mm512_mul_ps(whole, factor));
    }
    return sum(dweight);
}

// Rows begin … end − 1, all of one expert
struct Piece {
    int64_t expert, begin, end;
};

static std::vector<Piece> pieces_of(const int64_t* ends, int64_t experts) {
    std::vector<Piece> pieces;
    for (int64_t e = 0, begin = 0; e < experts; begin = ends[e++])
        for (int64_t n = begin; n < ends[e]; n += TALL) pieces.push_back({e, n, std::min(n + TALL, ends[e])});
    return pieces;
}

// The rows of a piece one behind the other: where they are, or gathered
static const bf16* gathered(const Picked& rows, const Piece& piece, int64_t size, bf16* scratch) {
    if (!rows.which) return rows(piece.begin);
    for (int64_t n = piece.begin; n < piece.end; n++)
        std::memcpy(scratch + (n - piece.begin) * size, rows(n), size * sizeof(bf16));
    return scratch;
}

extern "C" {

// gate_up [N, E, 2, I] → y [N, E, I] = silu(gate) · up · gates[N, E] (`gates` null: 1)
void swiglu_forward(const bf16* gate_up, const float* gates, bf16* y, int64_t rows, int64_t experts, int64_t size,
                    int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows * experts; n++)
        swiglu_row(gate_up + n * 2 * size, gates ? gates[n] : 1.0f, y + n * size, size);
}

void swiglu_backward(const bf16* gate_up, const float* gates, const bf16* dy, bf16* dgate_up, float* dgates,
                     int64_t rows, int64_t experts, int64_t size, int64_t threads) {
    PARALLEL(threads)
    for (int64_t n = 0; n < rows * experts; n++) {
        const float dgate = swiglu_row_backward(gate_up + n * 2 * size, gates ? gates[n] : 1.0f, dy + n * size,
                                                dgate_up + n * 2 * size, nullptr, size);
        if (dgates) dgates[n] = dgate;
    }
}

// y[n] = down · swiglu(up · x[tokens[n]], gates[n]) over stretches of rows that end at ends [E], each with its own
// packed weights; `tokens` null: x in order, `gates` null: 1. Keeps gate_up [N, 2I].
void feed_forward_forward(const bf16* x, const int32_t* tokens, const float* gates, const int64_t* ends,
                          const uint32_t* up, const uint32_t* down, bf16* gate_up, bf16* y, int64_t experts,
                          int64_t size, int64_t width, int64_t threads) {
    const Picked rows{x, size, tokens};
    const std::vector<Piece> pieces = pieces_of(ends, experts);
    const int64_t up_size = num_panels(2 * width) * 64 * (size / 2), down_size = num_panels(size) * 64 * (width / 2);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        std::vector<bf16> own(TALL * size), hidden(TALL * width);
#pragma omp for schedule(static)
        for (size_t p = 0; p < pieces.size(); p++) {
            const Piece& piece = pieces[p];
            const int64_t count = piece.end - piece.begin;
            bf16* pairs = gate_up + piece.begin * 2 * width;
            product(count, 2 * width, size / 2, gathered(rows, piece, size, own.data()), size,
                    panels_of(up + piece.expert * up_size, size / 2), pairs, 2 * width, false);
            for (int64_t i = 0; i < count; i++)
                swiglu_row(pairs + i * 2 * width, gates ? gates[piece.begin + i] : 1.0f, hidden.data() + i * width, width);
            product(count, size, width / 2, hidden.data(), width, panels_of(down + piece.expert * down_size, width / 2),
                    y + piece.begin * size, size, false);
        }
    }
}

// From dy[tokens[n]]: dx[n], dgates[n], and the gradients of both weights in fp32, [E, 2I, C] and [E, C, I]; `up` and
// `down` are packed for the way back. `hidden` [N, I] and dgate_up [N, 2I] are scratch.
void feed_forward_backward(const bf16* x, const bf16* dy, const int32_t* tokens, const float* gates,
                           const int64_t* ends, const uint32_t* up, const uint32_t* down, const bf16* gate_up,
                           bf16* dgate_up, bf16* hidden, bf16* dx, float* dgates, float* dup, float* ddown,
                           int64_t experts, int64_t size, int64_t width, int64_t threads) {
    const Picked rows{x, size, tokens}, grads{dy, size, tokens};
    const std::vector<Piece> pieces = pieces_of(ends, experts);
    const int64_t up_size = num_panels(size) * 64 * width, down_size = num_panels(width) * 64 * (size / 2);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        std::vector<bf16> own(TALL * size), dhidden(TALL * width);
#pragma omp for schedule(static)
        for (size_t p = 0; p < pieces.size(); p++) {
            const Piece& piece = pieces[p];
            const int64_t count = piece.end - piece.begin;
            product(count, width, size / 2, gathered(grads, piece, size, own.data()), size,
                    panels_of(down + piece.expert * down_size, size / 2), dhidden.data(), width, false);
            for (int64_t n = piece.begin; n < piece.end; n++) {
                const float dgate = swiglu_row_backward(gate_up + n * 2 * width, gates ? gates[n] : 1.0f,
                                                        dhidden.data() + (n - piece.begin) * width,
                                                        dgate_up + n * 2 * width, hidden + n * width, width);
                if (dgates) dgates[n] = dgate;
            }
            product(count, size, width, dgate_up + piece.begin * 2 * width, 2 * width,
                    panels_of(up + piece.expert * up_size, width), dx + piece.begin * size, size, false);
        }
#pragma omp for schedule(static)
        for (int64_t part = 0; part < threads; part++)
            for (int64_t e = 0; e < experts; e++) {
                const int64_t begin = e ? ends[e - 1] : 0;
                weight_gradient({dgate_up, 2 * width, nullptr}, rows, block_of(2 * width, size, part, threads), nullptr,
                                begin, ends[e], dup + e * 2 * width * size, size);
                weight_gradient(grads, {hidden, width, nullptr}, block_of(size, width, part, threads), nullptr, begin,
                                ends[e], ddown + e * size * width, width);
            }
    }
}
}
