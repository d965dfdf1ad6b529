// SwiGLU: alone, or between its two maps, over all rows or over the tokens of each expert.
// N rows, C their size, E experts, I hidden units (multiples of 16).
#include <cmath>
#include <cstring>

#include "rows.h"
#include "weight_gradient.h"

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

// Rows first … last − 1, cut where an expert ends and into `tall` of them at the most
static std::vector<Piece> pieces_of(const int64_t* ends, int64_t experts, int64_t first, int64_t last, int64_t tall) {
    std::vector<Piece> pieces;
    for (int64_t e = 0, begin = first; e < experts; begin = std::max(begin, ends[e++]))
        for (int64_t n = begin; n < std::min(ends[e], last); n += tall)
            pieces.push_back({e, n, std::min({n + tall, ends[e], last})});
    return pieces;
}

// The rows of a piece one behind the other: where they are, or gathered
static const bf16* gathered(const Picked& rows, const Piece& piece, int64_t size, bf16* scratch) {
    if (!rows.which) return rows(piece.begin);
    for (int64_t n = piece.begin; n < piece.end; n++)
        std::memcpy(scratch + (n - piece.begin) * size, rows(n), size * sizeof(bf16));
    return scratch;
}

// y[n] = down · swiglu(up · x[tokens[n]], gates[n]) over stretches of rows that end at ends [E], each with its own
// packed weights; `tokens` null: x in order, `gates` null: 1. Keeps gate_up [N, 2I].
template <typename Kind>
static void forward(const bf16* x, const int32_t* tokens, const float* gates, const int64_t* ends, const uint32_t* up,
                    const uint32_t* down, bf16* gate_up, bf16* y, int64_t experts, int64_t size, int64_t width,
                    int64_t threads) {
    const Picked rows{x, size, tokens};
    const std::vector<Piece> pieces = pieces_of(ends, experts, 0, ends[experts - 1], TALL);
    const int64_t up_size = Kind::packed_size(2 * width, size), down_size = Kind::packed_size(size, width);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        std::vector<bf16> own(TALL * size), hidden(TALL * width);
        Kind kind(std::max(size, width));
        const Tiles tiles;
#pragma omp for schedule(static)
        for (size_t p = 0; p < pieces.size(); p++) {
            const Piece& piece = pieces[p];
            const int64_t count = piece.end - piece.begin;
            bf16* pairs = gate_up + piece.begin * 2 * width;
            kind.times(count, 2 * width, size, gathered(rows, piece, size, own.data()), size,
                       up + piece.expert * up_size, pairs);
            for (int64_t i = 0; i < count; i++)
                swiglu_row(pairs + i * 2 * width, gates ? gates[piece.begin + i] : 1.0f, hidden.data() + i * width, width);
            kind.times(count, size, width, hidden.data(), width, down + piece.expert * down_size, y + piece.begin * size);
        }
    }
}

// From dy[tokens[n]]: dx[n], dgates[n], and the gradients of both weights in fp32, [E, 2I, C] and [E, C, I]; `up` and
// `down` are packed for the way back. The gradient of a weight that does not learn is null. As many rows at a time as
// have their hidden gradients in the cache.
template <typename Kind>
static void backward(const bf16* x, const bf16* dy, const int32_t* tokens, const float* gates, const int64_t* ends,
                     const uint32_t* up, const uint32_t* down, const bf16* gate_up, bf16* dx, float* dgates, float* dup,
                     float* ddown, int64_t experts, int64_t size, int64_t width, int64_t threads) {
    const Picked rows{x, size, tokens}, grads{dy, size, tokens};
    const int64_t up_size = Kind::packed_size(size, 2 * width), down_size = Kind::packed_size(width, size);
    const int64_t total = ends[experts - 1];
    const Unset<bf16> dgate_up(std::min(AT_ONCE, total) * 2 * width), hidden(std::min(AT_ONCE, total) * width);
    if (dup) std::fill(dup, dup + experts * 2 * width * size, 0.0f);
    if (ddown) std::fill(ddown, ddown + experts * size * width, 0.0f);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        std::vector<bf16> own(TALL * size), dhidden(TALL * width);
        Kind kind(std::max(size, 2 * width));
        const Tiles tiles;
        for (int64_t first = 0; first < total; first += AT_ONCE) {
            const int64_t last = std::min(first + AT_ONCE, total);
            const std::vector<Piece> pieces = pieces_of(ends, experts, first, last, TALL);
#pragma omp for schedule(static)
            for (size_t p = 0; p < pieces.size(); p++) {
                const Piece& piece = pieces[p];
                const int64_t count = piece.end - piece.begin;
                bf16* back = dgate_up.data() + (piece.begin - first) * 2 * width;
                kind.times(count, width, size, gathered(grads, piece, size, own.data()), size,
                           down + piece.expert * down_size, dhidden.data());
                for (int64_t i = 0; i < count; i++) {
                    const int64_t n = piece.begin + i;
                    const float dgate =
                        swiglu_row_backward(gate_up + n * 2 * width, gates ? gates[n] : 1.0f, dhidden.data() + i * width,
                                            back + i * 2 * width,
                                            ddown ? hidden.data() + (n - first) * width : nullptr, width);
                    if (dgates) dgates[n] = dgate;
                }
                kind.times(count, size, 2 * width, back, 2 * width, up + piece.expert * up_size, dx + piece.begin * size);
            }
#pragma omp for schedule(static)
            for (int64_t part = 0; part < threads; part++)
                for (const Piece& piece : pieces_of(ends, experts, first, last, AT_ONCE)) {
                    const int64_t n = piece.begin, count = piece.end - n;
                    const Picked outer{dgate_up.data() + (n - first) * 2 * width, 2 * width, nullptr};
                    const Picked inner{hidden.data() + (n - first) * width, width, nullptr};
                    if (dup)
                        weight_gradient<Kind>(outer, rows.from(n), block_of(2 * width, size, part, threads), nullptr, count,
                                              dup + piece.expert * 2 * width * size, size);
                    if (ddown)
                        weight_gradient<Kind>(grads.from(n), inner, block_of(size, width, part, threads), nullptr, count,
                                              ddown + piece.expert * size * width, width);
                }
        }
    }
}

extern "C" {

void feed_forward_forward(int64_t is_int8, const bf16* x, const int32_t* tokens, const float* gates, const int64_t* ends,
                          const uint32_t* up, const uint32_t* down, bf16* gate_up, bf16* y, int64_t experts,
                          int64_t size, int64_t width, int64_t threads) {
    (is_int8 ? forward<Int8> : forward<Bf16>)(x, tokens, gates, ends, up, down, gate_up, y, experts, size, width, threads);
}

void feed_forward_backward(int64_t is_int8, const bf16* x, const bf16* dy, const int32_t* tokens, const float* gates,
                           const int64_t* ends, const uint32_t* up, const uint32_t* down, const bf16* gate_up,
                           bf16* dx, float* dgates, float* dup, float* ddown, int64_t experts, int64_t size,
                           int64_t width, int64_t threads) {
    (is_int8 ? backward<Int8> : backward<Bf16>)(x, dy, tokens, gates, ends, up, down, gate_up, dx, dgates, dup, ddown,
                                                experts, size, width, threads);
}

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
}
