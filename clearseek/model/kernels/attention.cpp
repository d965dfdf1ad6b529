// Softmax attention over packed rows, forward and backward, without scores in memory.
//
// Token t of a row sees tokens start[t] … t: its own segment's earlier ones; where segments share a prefix, also
// begin[t] … end[t] − 1 before them. start, begin and end never fall along a row. Scores, softmax and sums are fp32,
// products take bfloat16 pairs. T positions, H heads, G heads per key head, D and Dv sizes (multiples of 16).
// A key may have a second part that all heads share (DeepSeek's rotary key).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "paged_attention.h"

// x [T, size] → its transpose with pairs along `size`: [size / 2, width]
static void pack_heads_transposed(const bf16* x, int64_t stride, int64_t rows, int64_t size, uint32_t* y, int64_t width) {
    pack_transposed(x, stride, rows, size / 2, y, width);
}

// x [T, size] → pairs of rows: [T / 2, width]
static void pack_heads(const bf16* x, int64_t stride, int64_t rows, int64_t size, uint32_t* y, int64_t width) {
    pack_rows([=](int64_t t) { return x + t * stride; }, rows, size, y, width);
}

static void copy_rows(const bf16* x, int64_t stride, int64_t rows, int64_t size, bf16* y, int64_t width) {
    for (int64_t t = 0; t < rows; t++) std::memcpy(y + t * width, x + t * stride, size * sizeof(bf16));
}

// Where a tensor's token and head lie, in elements; a row of the batch is `length` tokens.
struct View {
    bf16* data;
    int64_t token, head;
    bf16* at(int64_t row, int64_t length, int64_t h) const { return data + row * length * token + h * head; }
};

struct Shape {
    int64_t rows, length, heads, key_heads, own, shared, value;  // own + shared = D
    float scale;
    int64_t threads;
};

static constexpr int64_t BLOCK = 32;  // queries (forward) or keys (backward) handled together

// What the tokens of a row see; `begin` and `end` are null where no segments share a prefix.
struct Sight {
    const int32_t *start, *begin, *end;
    Sight(const Shape& s, const int32_t* starts, const int32_t* prefix, int64_t row)
        : start(starts + row * s.length), begin(prefix ? prefix + row * s.length : nullptr),
          end(prefix ? prefix + (s.rows + row) * s.length : nullptr) {}
    // behind the last token that sees keys of first … last
    int64_t last_viewer(int64_t first, int64_t last, int64_t length) const {
        const int64_t own = std::upper_bound(start, start + length, static_cast<int32_t>(last)) - start;
        if (!begin) return own;
        const int64_t shared = std::upper_bound(begin, begin + length, static_cast<int32_t>(last)) - begin;
        return shared > own && end[shared - 1] > first ? shared : own;
    }
};

// Tokens first … first + size − 1 of a row, a sequence with the `prefix` tokens from `begin` on before them. Its blocks
// are those of the engine's cache: by the place in the sequence, whole ones of a prefix shared with who stands there.
struct Segment {
    int64_t first, size, begin, prefix;
    int64_t repeated;  // the prefix's last tokens, which its own blocks begin with
    std::vector<int32_t> table;

    int64_t held() const { return repeated + size; }
    // Where in the row the n-th token of its own blocks is
    int64_t place(int64_t n) const { return n < repeated ? begin + prefix - repeated + n : first + n - repeated; }
};

static std::vector<Segment> segments_of(const Sight& sight, int64_t length, int32_t& blocks) {
    std::vector<Segment> found;
    for (int64_t t = 0, end; t < length; t = end) {
        for (end = t + 1; end < length && sight.start[end] == sight.start[t]; end++) {
        }
        Segment one{t, end - t, 0, 0, 0, {}};
        if (sight.begin) one.begin = sight.begin[t], one.prefix = sight.end[t] - one.begin;
        if (one.prefix) {
            const auto stands_there = [&](const Segment& o) {
                return o.first == one.begin && !o.prefix && one.prefix <= o.size;
            };
            const auto parent = std::find_if(found.begin(), found.end(), stands_there);
            const int64_t shared = parent == found.end() ? 0 : one.prefix / BLOCK_TOKENS;
            if (shared) one.table.assign(parent->table.begin(), parent->table.begin() + shared);
            one.repeated = one.prefix - shared * BLOCK_TOKENS;
        }
        for (int64_t n = 0; n < one.held(); n += BLOCK_TOKENS) one.table.push_back(blocks++);
        found.push_back(std::move(one));
    }
    return found;
}

// One row's keys and values of one head
struct KeyRow {
    const bf16 *own, *shared, *value;  // `shared`: of what all heads share; null: there is none
    int64_t own_token, shared_token, value_token;
};

// A segment's own blocks
static void lay_out(const Shape& s, const Segment& one, const KeyRow& row, const PagedCache<bf16>& cache) {
    const auto rows = [&](const bf16* x, int64_t token) {
        return [=, &one](int64_t n) { return x + one.place(n) * token; };
    };
    const int64_t first = one.table[(one.prefix - one.repeated) / BLOCK_TOKENS], words = cache.size / 2 * BLOCK_TOKENS;
    uint32_t* keys = reinterpret_cast<uint32_t*>(cache.key_block(first, 0));
    pack_columns(rows(row.own, row.own_token), one.held(), s.own / 2, keys, BLOCK_TOKENS, words);
    if (row.shared)
        pack_columns(rows(row.shared, row.shared_token), one.held(), s.shared / 2, keys + s.own / 2 * BLOCK_TOKENS,
                     BLOCK_TOKENS, words);
    pack_rows(rows(row.value, row.value_token), one.held(), s.value,
              reinterpret_cast<uint32_t*>(cache.value_block(first, 0)), s.value);
}

struct ForwardScratch {
    std::vector<bf16> keys, values;
    TileScratch tile;
    ForwardScratch(const Shape& s) : tile(BLOCK, s.value) {}

    PagedCache<bf16> room(const Shape& s, int64_t blocks) {
        const size_t size = s.own + s.shared, tokens = blocks * BLOCK_TOKENS;
        if (keys.size() < tokens * size) keys.resize(tokens * size), values.resize(tokens * s.value);
        return {keys.data(), values.data(), 1, static_cast<int64_t>(size), s.value};
    }
};

// Up to BLOCK of a segment's queries from token t of the row on, of one head
static void attend_block(const Shape& s, const Segment& one, const PagedCache<bf16>& cache, TileScratch& scratch,
                         const bf16* query, int64_t query_token, int64_t t, bf16* out, int64_t out_token, float* log_sum) {
    const int64_t count = std::min(BLOCK, one.first + one.size - t);
    int64_t positions[BLOCK];
    for (int64_t i = 0; i < count; i++) positions[i] = one.prefix + t + i - one.first;
    const QueryTile<bf16> tile{query + t * query_token, query_token, positions, nullptr, count, 0};
    attend_tile(cache, one.table.data(), 0, tile, s.scale, scratch, out + t * out_token, out_token);
    for (int64_t i = 0; i < count; i++) log_sum[t + i] = scratch.top.data()[i] + std::log(scratch.total.data()[i]);
}

struct BackwardScratch {
    std::vector<uint32_t> query_t, grad_t, query, grad, dscore_pairs, key_pairs;
    std::vector<bf16> key, key_t, probs, dscores;
    std::vector<float> scores, dprobs, dquery_t, dquery, dkey, dvalue, dshared, delta;
    BackwardScratch(const Shape& s, int64_t width) {
        const int64_t size = s.own + s.shared;
        query_t.assign(size / 2 * width, 0), grad_t.assign(s.value / 2 * width, 0);
        query.assign(width / 2 * size, 0), grad.assign(width / 2 * s.value, 0);
        dscore_pairs.resize(BLOCK / 2 * width), key_pairs.resize(width / 2 * size);
        key.assign(width * size, 0), key_t.assign(size * width, 0);
        probs.resize(BLOCK * width), dscores.resize(BLOCK * width), scores.resize(BLOCK * width);
        dprobs.resize(BLOCK * width), dquery_t.resize(size * width), dquery.resize(width * size), dkey.resize(width * size);
        dvalue.resize(width * s.value), dshared.resize(width * std::max<int64_t>(s.shared, 1)), delta.resize(width);
    }
};

// Probabilities of keys first … first + count − 1 and the gradients of their scores, over queries [low, high)
static void score_gradients(const Shape& s, BackwardScratch& w, int64_t width, const Sight& sight,
                            const float* log_sum, int64_t first, int64_t count, int64_t low, int64_t high) {
    const __m512 scale = _mm512_set1_ps(s.scale);
    for (int64_t i = 0; i < BLOCK; i++) {
        const int64_t key = first + i;
        for (int64_t c = low; c < high; c += 16) {
            __m512 p = _mm512_setzero_ps(), d = p;
            if (i < count) {
                const __m512i place = _mm512_add_epi32(lane_numbers(), _mm512_set1_epi32(static_cast<int>(c)));
                const __mmask16 real =
                    _mm512_cmp_epi32_mask(place, _mm512_set1_epi32(static_cast<int>(s.length)), _MM_CMPINT_LT);
                const __m512i k = _mm512_set1_epi32(static_cast<int>(key));
                const auto upto = [&](const int32_t* bound) {  // queries whose bound is at most k
                    return _mm512_cmp_epi32_mask(_mm512_maskz_loadu_epi32(real, bound + c), k, _MM_CMPINT_LE);
                };
                __mmask16 seen = upto(sight.start);
                if (sight.begin) seen |= upto(sight.begin) & ~upto(sight.end);
                seen &= real & _mm512_cmp_epi32_mask(place, k, _MM_CMPINT_NLT);
                const __m512 score = load(w.scores.data() + i * width + c);
                const __m512 sums = _mm512_maskz_loadu_ps(real, log_sum + c);
                p = _mm512_maskz_mov_ps(seen, exponential(_mm512_fmsub_ps(score, scale, sums)));
                d = _mm512_sub_ps(load(w.dprobs.data() + i * width + c), load(w.delta.data() + c));
                d = _mm512_maskz_mov_ps(seen, _mm512_mul_ps(_mm512_mul_ps(p, d), scale));
            }
            store(w.probs.data() + i * width + c, p);
            store(w.dscores.data() + i * width + c, d);
        }
    }
    pack_heads(w.dscores.data() + low, width, BLOCK, high - low, w.dscore_pairs.data() + low, width);
}

static void attend_backward_block(const Shape& s, BackwardScratch& w, int64_t width, const bf16* value,
                                  int64_t value_token, const Sight& sight, const float* log_sum, int64_t first) {
    const int64_t count = std::min(BLOCK, s.length - first), size = s.own + s.shared;
    const int64_t low = down16(first), high = up16(sight.last_viewer(first, first + count - 1, s.length));
    product(count, high - low, size / 2, w.key.data() + first * size, size, rows_of(w.query_t.data() + low, width),
            w.scores.data() + low, width, false);
    product(count, high - low, s.value / 2, value + first * value_token, value_token, rows_of(w.grad_t.data() + low, width),
            w.dprobs.data() + low, width, false);
    score_gradients(s, w, width, sight, log_sum, first, count, low, high);
    product(count, s.value, (high - low) / 2, w.probs.data() + low, width, rows_of(w.grad.data() + low / 2 * s.value, s.value),
            w.dvalue.data() + first * s.value, s.value, true);
    product(count, size, (high - low) / 2, w.dscores.data() + low, width, rows_of(w.query.data() + low / 2 * size, size),
            w.dkey.data() + first * size, size, true);
    product(size, high - low, BLOCK / 2, w.key_t.data() + first, width, rows_of(w.dscore_pairs.data() + low, width),
            w.dquery_t.data() + low, width, true);
}

static void attend_backward_head(const Shape& s, BackwardScratch& w, int64_t width, const bf16* query,
                                 int64_t query_token, const bf16* value, int64_t value_token, const bf16* out,
                                 const bf16* grad, int64_t out_token, const Sight& sight, const float* log_sum,
                                 bf16* dquery, int64_t dquery_token) {
    const int64_t size = s.own + s.shared;
    pack_heads_transposed(query, query_token, s.length, size, w.query_t.data(), width);
    pack_heads_transposed(grad, out_token, s.length, s.value, w.grad_t.data(), width);
    pack_heads(query, query_token, s.length, size, w.query.data(), size);
    pack_heads(grad, out_token, s.length, s.value, w.grad.data(), s.value);
    for (int64_t t = 0; t < s.length; t++) {
        __m512 dot = _mm512_setzero_ps();
        for (int64_t c = 0; c < s.value; c += 16)
            dot = _mm512_fmadd_ps(load(out + t * out_token + c), load(grad + t * out_token + c), dot);
        w.delta[t] = sum(dot);
    }
    std::fill(w.dquery_t.begin(), w.dquery_t.end(), 0.0f);
    for (int64_t first = 0; first < s.length; first += BLOCK)
        attend_backward_block(s, w, width, value, value_token, sight, log_sum, first);
    float* rows = w.dquery.data();  // back to rows of queries
    pack_transposed(reinterpret_cast<const uint32_t*>(w.dquery_t.data()), width, size, s.length,
              reinterpret_cast<uint32_t*>(rows), size);
    for (int64_t t = 0; t < s.length; t++)
        for (int64_t c = 0; c < size; c += 16)
            store(dquery + t * dquery_token + c, load(rows + t * size + c));
}

extern "C" {

// Returns out [rows, T, H, Dv] and the logarithm of every softmax's sum, [rows, H, T].
void attention_forward(const int64_t* sizes, float scale, bf16* query, int64_t query_token, bf16* key,
                       int64_t key_token, int64_t key_head, bf16* shared, int64_t shared_token, bf16* value,
                       int64_t value_token, int64_t value_head, const int32_t* start, const int32_t* prefix, bf16* out,
                       float* log_sum, int64_t threads) {
    const Shape s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], scale, threads};
    const int64_t size = s.own + s.shared, group = s.heads / s.key_heads;
    const View q{query, query_token, size}, k{key, key_token, key_head}, v{value, value_token, value_head};
    const View o{out, s.heads * s.value, s.value};
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        ForwardScratch w(s);
        const Tiles tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < s.rows * s.key_heads; item++) {
            const int64_t row = item / s.key_heads, head = item % s.key_heads;
            int32_t blocks = 0;
            const std::vector<Segment> segments = segments_of(Sight(s, start, prefix, row), s.length, blocks);
            const PagedCache<bf16> cache = w.room(s, blocks);
            const KeyRow keys{k.at(row, s.length, head), s.shared ? shared + row * s.length * shared_token : nullptr,
                              v.at(row, s.length, head), key_token, shared_token, value_token};
            for (const Segment& one : segments) {
                lay_out(s, one, keys, cache);
                for (int64_t t = one.first; t < one.first + one.size; t += BLOCK)
                    for (int64_t h = head * group; h < (head + 1) * group; h++)
                        attend_block(s, one, cache, w.tile, q.at(row, s.length, h), query_token, t,
                                     o.at(row, s.length, h), o.token, log_sum + (row * s.heads + h) * s.length);
            }
        }
    }
}

void attention_backward(const int64_t* sizes, float scale, bf16* query, int64_t query_token, bf16* key,
                        int64_t key_token, int64_t key_head, bf16* shared, int64_t shared_token, bf16* value,
                        int64_t value_token, int64_t value_head, const int32_t* start, const int32_t* prefix, bf16* out,
                        const float* log_sum, bf16* grad, bf16* dquery, bf16* dkey, int64_t dkey_token,
                        int64_t dkey_head, bf16* dshared, bf16* dvalue, int64_t dvalue_token, int64_t dvalue_head, int64_t threads) {
    const Shape s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], scale, threads};
    const int64_t size = s.own + s.shared, width = (s.length + BLOCK - 1) / BLOCK * BLOCK, group = s.heads / s.key_heads;
    const View q{query, query_token, size}, k{key, key_token, key_head}, v{value, value_token, value_head};
    const View o{out, s.heads * s.value, s.value}, g{grad, o.token, s.value}, dq{dquery, s.heads * size, size};
    const View dk{dkey, dkey_token, dkey_head}, dv{dvalue, dvalue_token, dvalue_head};
#pragma omp parallel num_threads(static_cast<int>(threads)) if (threads > 1)
    {
        BackwardScratch w(s, width);
        const Tiles tiles;
#pragma omp for schedule(dynamic, 1)
        for (int64_t row = 0; row < s.rows; row++) {
            const Sight sight(s, start, prefix, row);
            std::fill(w.dshared.begin(), w.dshared.end(), 0.0f);
            for (int64_t head = 0; head < s.key_heads; head++) {
                copy_rows(k.at(row, s.length, head), key_token, s.length, s.own, w.key.data(), size);
                if (s.shared)
                    copy_rows(shared + row * s.length * shared_token, shared_token, s.length, s.shared,
                              w.key.data() + s.own, size);
                pack_heads(w.key.data(), size, s.length, size, w.key_pairs.data(), size);
                pack_transposed(w.key_pairs.data(), size, (s.length + 1) / 2, size,
                          reinterpret_cast<uint32_t*>(w.key_t.data()), width / 2);
                std::fill(w.dkey.begin(), w.dkey.end(), 0.0f);
                std::fill(w.dvalue.begin(), w.dvalue.end(), 0.0f);
                for (int64_t h = head * group; h < (head + 1) * group; h++)
                    attend_backward_head(s, w, width, q.at(row, s.length, h), query_token, v.at(row, s.length, head),
                                         value_token, o.at(row, s.length, h), g.at(row, s.length, h), o.token,
                                         sight, log_sum + (row * s.heads + h) * s.length,
                                         dq.at(row, s.length, h), dq.token);
                for (int64_t t = 0; t < s.length; t++) {
                    const float* dkey_row = w.dkey.data() + t * size;
                    for (int64_t c = 0; c < s.own; c += 16)
                        store(dk.at(row, s.length, head) + t * dkey_token + c, load(dkey_row + c));
                    for (int64_t c = 0; c < s.shared; c += 16) {
                        float* kept = w.dshared.data() + t * s.shared + c;
                        store(kept, _mm512_add_ps(load(kept), load(dkey_row + s.own + c)));
                    }
                    for (int64_t c = 0; c < s.value; c += 16)
                        store(dv.at(row, s.length, head) + t * dvalue_token + c,
                              load(w.dvalue.data() + t * s.value + c));
                }
            }
            for (int64_t c = 0; c < s.length * s.shared; c += 16)
                store(dshared + row * s.length * s.shared + c, load(w.dshared.data() + c));
        }
    }
}
}
