// One decoding step of a whole model: a few rows go through all layers without leaving the cache.
//
// Nothing is shared between rows, so each thread takes its own. Every row uses the forms of the other kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "product.h"
#include "rows.h"
#include "simd.h"

static constexpr int64_t BLOCK = 48;  // rows that share a look at the weights

// A packed weight [outputs, inputs]
struct Matrix {
    const uint32_t* weight;
    int64_t inputs, outputs;
};

// What `kernels/decode.py` fills in, in this order; all int64 or pointers
struct Layer {
    const float *attention_norm, *feed_norm, *query_norm, *key_norm;
    Matrix query_low, query, key_value, key_up, value_up, out;  // GQA: query, key_value, out; latent: all
    const float *router, *bias;
    Matrix gate_up, down, shared_gate_up, shared_down;
    int64_t experts, chosen;  // 0: dense
    bf16 *keys, *values;      // the layer's cache; latent: keys only
};

struct Model {
    int64_t hidden, layers, latent, heads, key_heads, nope, rope, value, rank, length;
    const float *embedding, *norm, *cos, *sin;
};

struct Constants {
    float eps, latent_eps, scale, routed_scaling;
};

struct Scratch {
    Unset<float> stream, scores, gates;
    Unset<bf16> normed, query, low, key, absorbed, mixed, values, pairs, hidden, output, shared;
    Scratch(int64_t rows, int64_t widest, int64_t length)
        : stream(rows * widest), scores(up16(length)), gates(rows * MAX_EXPERTS), normed(rows * widest),
          query(rows * widest), low(rows * widest), key(rows * widest), absorbed(rows * widest), mixed(rows * widest),
          values(rows * widest), pairs(rows * widest), hidden(rows * widest), output(rows * widest),
          shared(rows * widest) {}
};

// y [rows, outputs] in bf16 = x [rows, inputs] · matrix; `part` of several equal matrices; rows `ldx`, `ldy` apart
static void multiply(const Matrix& m, const bf16* x, int64_t ldx, bf16* y, int64_t ldy, int64_t rows,
                     int64_t part = 0) {
    const int64_t pairs = m.inputs / 2;
    product(rows, m.outputs, pairs, x, ldx, panels_of(m.weight + part * num_panels(m.outputs) * 64 * pairs, pairs), y, ldy,
            false);
}

template <typename In>
static void norm_row(const In* x, const float* weight, bf16* y, int64_t size, float eps) {
    __m512 squares = _mm512_setzero_ps();
    for (int64_t c = 0; c < size; c += 16) squares = _mm512_fmadd_ps(load(x + c), load(x + c), squares);
    const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(sum(squares) / size + eps));
    for (int64_t c = 0; c < size; c += 16)
        store(y + c, _mm512_mul_ps(_mm512_mul_ps(load(x + c), factor), load(weight + c)));
}

// Norm of one head (where there is a weight), then turning its last `rotary` numbers; in place
static void turn_head(bf16* x, const float* weight, int64_t size, int64_t rotary, const float* cos, const float* sin,
                      bool pairs, float eps) {
    alignas(64) float head[MAX_HEAD];
    __m512 squares = _mm512_setzero_ps(), factor = _mm512_set1_ps(1.0f);
    for (int64_t c = 0; c < size; c += 16) {
        store(head + c, load(x + c));
        squares = _mm512_fmadd_ps(load(x + c), load(x + c), squares);
    }
    if (weight) {
        factor = _mm512_set1_ps(1.0f / std::sqrt(sum(squares) / size + eps));
        for (int64_t c = 0; c < size; c += 16)
            store(head + c, _mm512_mul_ps(_mm512_mul_ps(load(head + c), factor), load(weight + c)));
    }
    turn(head, size, rotary, cos, sin, 1.0f, pairs);
    for (int64_t c = 0; c < size; c += 16) store(x + c, load(head + c));
}

// One query [D] over `count` cached tokens, `stride` apart → out [Dv]
static void attend_one(const bf16* q, const bf16* key, int64_t key_stride, const bf16* value, int64_t value_stride,
                       int64_t count, int64_t size, int64_t value_size, float scale, float* scores, bf16* out) {
    __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (int64_t t = 0; t < count; t++) {
        __m512 dot = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 32) {
            const __mmask16 some = size - c >= 32 ? 0xFFFF : 0x00FF;
            dot = _mm512_dpbf16_ps(dot, (__m512bh)_mm512_maskz_loadu_epi32(some, q + c),
                                   (__m512bh)_mm512_maskz_loadu_epi32(some, key + t * key_stride + c));
        }
        scores[t] = sum(dot) * scale;
    }
    for (int64_t t = count; t < up16(count); t++) scores[t] = -INFINITY;
    for (int64_t t = 0; t < count; t += 16) top = _mm512_max_ps(top, load(scores + t));
    const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int64_t t = 0; t < count; t += 16) {
        const __m512 p = exponential(_mm512_sub_ps(load(scores + t), largest));
        total = _mm512_add_ps(total, p);
        store(scores + t, p);
    }
    const __m512 factor = _mm512_set1_ps(1.0f / sum(total));
    for (int64_t c = 0; c < value_size; c += 16) {
        __m512 mixed = _mm512_setzero_ps();
        for (int64_t t = 0; t < count; t++)
            mixed = _mm512_fmadd_ps(_mm512_set1_ps(scores[t]), load(value + t * value_stride + c), mixed);
        store(out + c, _mm512_mul_ps(mixed, factor));
    }
}

// A block of rows: `where` and the cache rows are the block's own
struct Rows {
    const int64_t* where;
    int64_t first, count;
};

static void grouped_attention(const Model& m, const Constants& k, const Layer& layer, Scratch& s, const Rows& rows) {
    const int64_t size = m.nope + m.rope, group = m.heads / m.key_heads, kept = m.key_heads * size;
    multiply(layer.query, s.normed.data(), m.hidden, s.query.data(), m.heads * size, rows.count);
    multiply(layer.key_value, s.normed.data(), m.hidden, s.key.data(), 2 * kept, rows.count);
    for (int64_t n = 0; n < rows.count; n++) {
        const int64_t place = rows.where[n], line = place * m.rope / 2, cached = (rows.first + n) * m.length;
        bf16 *query = s.query.data() + n * m.heads * size, *key = s.key.data() + n * 2 * kept;
        for (int64_t h = 0; h < m.heads; h++)
            turn_head(query + h * size, layer.query_norm, size, m.rope, m.cos + line, m.sin + line, false, k.eps);
        for (int64_t h = 0; h < m.key_heads; h++)
            turn_head(key + h * size, layer.key_norm, size, m.rope, m.cos + line, m.sin + line, false, k.eps);
        std::memcpy(layer.keys + (cached + place) * kept, key, kept * sizeof(bf16));
        std::memcpy(layer.values + (cached + place) * kept, key + kept, kept * sizeof(bf16));
        for (int64_t h = 0; h < m.heads; h++) {
            const int64_t at = cached * kept + h / group * size;
            attend_one(query + h * size, layer.keys + at, kept, layer.values + at, kept, place + 1, size, size,
                       k.scale, s.scores.data(), s.mixed.data() + (n * m.heads + h) * size);
        }
    }
    multiply(layer.out, s.mixed.data(), m.heads * size, s.output.data(), m.hidden, rows.count);
}

// The absorbed form: queries move into the latent, so that only it and the shared rotary key are read
static void latent_attention(const Model& m, const Constants& k, const Layer& layer, Scratch& s, const Rows& rows) {
    const int64_t size = m.nope + m.rope, kept = m.rank + m.rope, low = layer.query_low.outputs;
    const bf16* input = s.normed.data();
    if (low) {
        multiply(layer.query_low, input, m.hidden, s.low.data(), low, rows.count);
        for (int64_t n = 0; n < rows.count; n++)
            norm_row(s.low.data() + n * low, layer.query_norm, s.low.data() + n * low, low, k.latent_eps);
        input = s.low.data();
    }
    multiply(layer.query, input, layer.query.inputs, s.query.data(), m.heads * size, rows.count);
    multiply(layer.key_value, s.normed.data(), m.hidden, s.key.data(), kept, rows.count);
    for (int64_t n = 0; n < rows.count; n++) {
        const int64_t place = rows.where[n], line = place * m.rope / 2;
        bf16 *query = s.query.data() + n * m.heads * size, *key = s.key.data() + n * kept;
        for (int64_t h = 0; h < m.heads; h++)
            turn_head(query + h * size, nullptr, size, m.rope, m.cos + line, m.sin + line, true, k.eps);
        norm_row(key, layer.key_norm, key, m.rank, k.latent_eps);
        turn_head(key + m.rank, nullptr, m.rope, m.rope, m.cos + line, m.sin + line, true, k.eps);
        std::memcpy(layer.keys + ((rows.first + n) * m.length + place) * kept, key, kept * sizeof(bf16));
        for (int64_t h = 0; h < m.heads; h++)
            std::memcpy(s.absorbed.data() + (n * m.heads + h) * kept + m.rank, query + h * size + m.nope,
                        m.rope * sizeof(bf16));
    }
    for (int64_t h = 0; h < m.heads; h++)
        multiply(layer.key_up, s.query.data() + h * size, m.heads * size, s.absorbed.data() + h * kept,
                 m.heads * kept, rows.count, h);
    for (int64_t n = 0; n < rows.count; n++)
        for (int64_t h = 0; h < m.heads; h++) {
            const bf16* keys = layer.keys + (rows.first + n) * m.length * kept;
            attend_one(s.absorbed.data() + (n * m.heads + h) * kept, keys, kept, keys, kept, rows.where[n] + 1, kept,
                       m.rank, k.scale, s.scores.data(), s.mixed.data() + (n * m.heads + h) * m.rank);
        }
    for (int64_t h = 0; h < m.heads; h++)
        multiply(layer.value_up, s.mixed.data() + h * m.rank, m.heads * m.rank, s.values.data() + h * m.value,
                 m.heads * m.value, rows.count, h);
    multiply(layer.out, s.values.data(), m.heads * m.value, s.output.data(), m.hidden, rows.count);
}

static void swiglu(const Matrix& gate_up, const Matrix& down, int64_t experts, const float* gates, Scratch& s,
                   int64_t hidden, int64_t count, bf16* output) {
    const int64_t width = down.inputs / experts;
    multiply(gate_up, s.normed.data(), hidden, s.pairs.data(), gate_up.outputs, count);
    for (int64_t n = 0; n < count * experts; n++)
        swiglu_row(s.pairs.data() + n * 2 * width, gates ? gates[n] : 1.0f, s.hidden.data() + n * width, width);
    multiply(down, s.hidden.data(), down.inputs, output, hidden, count);
}

static void feed_forward(const Model& m, const Constants& k, const Layer& layer, Scratch& s, int64_t count) {
    if (!layer.experts) return swiglu(layer.gate_up, layer.down, 1, nullptr, s, m.hidden, count, s.output.data());
    for (int64_t n = 0; n < count; n++) {
        float scores[MAX_EXPERTS], affinity[MAX_EXPERTS];
        uint8_t chosen[MAX_EXPERTS];
        for (int64_t e = 0; e < layer.experts; e++) {
            __m512 dot = _mm512_setzero_ps();
            for (int64_t c = 0; c < m.hidden; c += 16)
                dot = _mm512_fmadd_ps(load(s.normed.data() + n * m.hidden + c), load(layer.router + e * m.hidden + c),
                                      dot);
            scores[e] = sum(dot);
        }
        route_row(scores, layer.bias, affinity, chosen, s.gates.data() + n * layer.experts, layer.experts,
                  layer.chosen, k.routed_scaling);
    }
    swiglu(layer.gate_up, layer.down, layer.experts, s.gates.data(), s, m.hidden, count, s.output.data());
    if (!layer.shared_down.inputs) return;
    swiglu(layer.shared_gate_up, layer.shared_down, 1, nullptr, s, m.hidden, count, s.shared.data());
    for (int64_t i = 0; i < count * m.hidden; i += 16)
        store(s.output.data() + i, _mm512_add_ps(load(s.output.data() + i), load(s.shared.data() + i)));
}

static void add_output(Scratch& s, int64_t size) {
    for (int64_t i = 0; i < size; i += 16)
        store(s.stream.data() + i, _mm512_add_ps(load(s.stream.data() + i), load(s.output.data() + i)));
}

static void norm_block(Scratch& s, const float* weight, int64_t size, int64_t count, float eps, bf16* out) {
    for (int64_t n = 0; n < count; n++) norm_row(s.stream.data() + n * size, weight, out + n * size, size, eps);
}

extern "C" {

// One new token for each of `rows`: extends the caches at `where`, writes normalised final states [rows, hidden].
void decode_step(const Model* model, const Layer* layers, const float* constants, const int64_t* tokens,
                 const int64_t* where, bf16* states, int64_t widest, int64_t rows, int64_t threads) {
    const Model& m = *model;
    const Constants& k = *reinterpret_cast<const Constants*>(constants);
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        Scratch s(std::min(BLOCK, rows), widest, m.length);
        const Tiles tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < rows; first += BLOCK) {
            const Rows block{where + first, first, std::min(BLOCK, rows - first)};
            for (int64_t n = 0; n < block.count; n++)
                std::memcpy(s.stream.data() + n * m.hidden, m.embedding + tokens[first + n] * m.hidden,
                            m.hidden * sizeof(float));
            for (int64_t l = 0; l < m.layers; l++) {
                const Layer& layer = layers[l];
                norm_block(s, layer.attention_norm, m.hidden, block.count, k.eps, s.normed.data());
                m.latent ? latent_attention(m, k, layer, s, block) : grouped_attention(m, k, layer, s, block);
                add_output(s, block.count * m.hidden);
                norm_block(s, layer.feed_norm, m.hidden, block.count, k.eps, s.normed.data());
                feed_forward(m, k, layer, s, block.count);
                add_output(s, block.count * m.hidden);
            }
            norm_block(s, m.norm, m.hidden, block.count, k.eps, states + first * m.hidden);
        }
    }
}
}
