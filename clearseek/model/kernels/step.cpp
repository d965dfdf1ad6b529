// One step of the engine: new tokens of many sequences go through all layers of a model, whatever their numbers.
//
// Large models are shared out inside each layer: a thread has some outputs of every product. Small ones go by
// sequences: a thread has some of them and takes them through alone. What comes out is the same.
//
// Plain weights round where the trainer's kernels do (attention.cpp, linear.cpp, feed_forward.cpp): what a product gives
// is kept in the activations' precision before anything else is done with it. So a token's log-probability has the
// very bits that training computes for it. Quantised weights keep fp32 there.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "expanded_attention.h"
#include "newest_attention.h"
#include "paged_attention.h"
#include "routing.h"
#include "team.h"

static constexpr int64_t TILE_ROWS = 48;  // queries that share a look at a block of the cache
static constexpr int64_t ROUTED_AT_ONCE = 12;

// What `engine/layout.py` fills in, in this order; all int64 or pointers
struct StepLayer {
    const float *attention_norm, *feed_norm, *query_norm, *key_norm, *latent_norm;
    // Grouped-query: query, key_value, out; latent: all, `latent_keys` [heads, nope, rank] only where prompts are expanded
    Weight query_low, query, key_value, key_up, latent_keys, value_up, out;
    const float *query_bias, *key_value_bias, *out_bias, *sinks;
    Weight router, gate, up, down;         // experts one behind the other
    const float *selection_bias, *router_bias;
    Weight own_gate, own_up, own_down;     // shared experts; all there is of a dense layer
    const float *gate_bias, *up_bias, *down_bias;              // of experts, [experts, outputs]
    const float *own_gate_bias, *own_up_bias, *own_down_bias;
    const float* shared_gate;                                  // [hidden]: what shared experts give is times its sigmoid
    const float *mixed_norm, *fed_norm;                        // of what each half adds to the stream
    const float *cos, *sin;                // [positions, rotary / 2]
    int64_t key_heads, window;
    void *keys, *values;
    int16_t* routes;  // experts of every token in the cache [blocks, positions, chosen]; null: not asked for
};

struct StepModel {
    int64_t hidden, layers, is_latent, heads, head_size, rotary, value_size, rank, turns_pairs, norm_after_turn, group;
    int64_t gives_stream;  // states that are asked for are those before the last norm
    const void* embedding;  // rows; of a quantised one panels
    int64_t embedding_format;
    const float* norm;
    Weight head;
    Weight join;  // of a multi-token module: [hidden, embedding and state]; its stream begins with what this makes of them
    const float *embedding_norm, *state_norm;
};

struct StepConstants {
    float eps, latent_eps, scale, value_scale;
    float limit, alpha;  // gpt-oss's experts: clamped, with a sharper sigmoid; 0: SwiGLU as it is
};

// Rows of new tokens, those of a sequence behind one another
struct StepBatch {
    const int64_t *tokens, *positions, *sequences;  // [N]
    const int32_t* tables;                          // [sequences, table_width]: blocks of each
    int64_t table_width, rows;
    const int64_t* wanted;  // rows whose scores are asked for
    int64_t num_wanted;
    float *scores, *states;  // [wanted, width], and the final states of all rows [N, hidden]; null: not asked for
    int64_t width;
    const float* inputs;  // of a multi-token module: the states [N, hidden] that the tokens follow
};

static LatentSizes sizes_of(const StepModel& m) { return {m.rank, m.rotary, m.head_size - m.rotary, m.value_size}; }

struct Tile {
    int64_t first, count;

    int64_t end() const { return first + count; }
};

// A team's rows: stretches whose latents are expanded, what is between them, and that again in tiles for attention
struct RowPlan {
    std::vector<Stretch> stretches;
    std::vector<Tile> others, tiles;

    int64_t latents() const { return stretches.empty() ? 0 : stretches.back().place + stretches.back().blocks() * BLOCK_TOKENS; }
};

// Where rows from `first` on of the same sequence end
static int64_t end_of_sequence(const StepBatch& b, int64_t first, int64_t last) {
    int64_t end = first + 1;
    while (end < last && b.sequences[end] == b.sequences[first]) end++;
    return end;
}

// The rows of a team
static RowPlan plan_of(const StepModel& m, const StepLayer& layer, const StepBatch& b, int64_t first, int64_t last) {
    RowPlan plan;
    const int64_t sharing = m.is_latent ? m.heads : m.heads / std::max<int64_t>(1, layer.key_heads);
    const int64_t most = std::max<int64_t>(1, TILE_ROWS / sharing);  // of one sequence in a tile
    const LatentSizes sizes = sizes_of(m);
    for (int64_t n = first, end; n < last; n = end) {
        end = end_of_sequence(b, n, last);
        const int64_t keys = b.positions[end - 1] + 1;
        if (layer.latent_keys.data && pays_expanded(sizes, end - n, keys)) {
            plan.stretches.push_back({n - first, end - n, keys, plan.latents()});
            continue;
        }
        for (int64_t at = n; at < end; at += most) plan.tiles.push_back({at - first, std::min(most, end - at)});
        if (!plan.others.empty() && plan.others.back().end() == n - first) plan.others.back().count += end - n;
        else plan.others.push_back({n - first, end - n});
    }
    return plan;
}

template <typename Act>
struct Activations {
    std::vector<float> stream, added, expert_outputs, gates, own_gates;
    std::vector<Act> normed, low, query, key, absorbed, mixed, values, latents, gathered, hidden, own_hidden;
    std::vector<int8_t> bytes, latent_bytes, gathered_bytes, hidden_bytes;
    std::vector<float> scales, latent_scales, gathered_scales, hidden_scales;
    std::vector<int32_t> sums, latent_sums, gathered_sums, hidden_sums, chosen;
};

template <typename T>
static T* room(std::vector<T>& kept, int64_t size) {
    if (static_cast<int64_t>(kept.size()) < size) kept.resize(size);
    return kept.data();
}

static constexpr int64_t FEW_ROWS = 4, FETCHED_FIRST_BYTES = 32768;

template <typename Act>
class Step {
    const StepModel& m;
    const StepLayer* layers;
    const StepConstants& k;
    const Routing& routing;
    const StepBatch& b;
    Team& team;
    Activations<Act>& a;
    const int64_t first, rows;  // this team's
    const RowPlan& plan;
    const bool are_alone;  // no two rows of one sequence
    const bool has_keys;   // they are in the cache already
    std::vector<int64_t> mine;  // which of the wanted rows are this team's
    std::optional<ExpandedHead<Act>> expanded;  // of this thread alone, as are the next three
    std::vector<int8_t> head_bytes;
    std::vector<float> head_scales;
    std::vector<int32_t> head_sums;

public:
    Step(const StepModel& m, const StepLayer* layers, const StepConstants& k, const Routing& routing, const StepBatch& b,
         Team& team, Activations<Act>& a, int64_t first, int64_t rows, const RowPlan& plan, bool has_keys = false)
        : m(m), layers(layers), k(k), routing(routing), b(b), team(team), a(a), first(first), rows(rows), plan(plan),
          are_alone(std::adjacent_find(b.sequences + first, b.sequences + first + rows) == b.sequences + first + rows), has_keys(has_keys) {
        for (int64_t i = 0; i < b.num_wanted; i++)
            if (b.wanted[i] >= first && b.wanted[i] < first + rows) mine.push_back(i);
    }

    // How much room a team needs; before its threads start
    void make_room() {
        const int64_t query = m.heads * m.head_size, mixed = m.heads * std::max(m.rank, m.value_size);
        const int64_t tall = rows + SLACK;  // of what products read
        room(a.stream, rows * m.hidden), room(a.normed, tall * m.hidden), room(a.query, tall * query);
        room(a.mixed, tall * mixed), room(a.values, tall * m.heads * m.value_size);
        if (m.is_latent) room(a.absorbed, rows * m.heads * (m.rank + m.rotary));
        const int64_t latents = (plan.latents() + SLACK) * m.rank;
        if (plan.latents()) room(a.latents, latents), room(a.latent_bytes, latents);
        if (plan.latents()) room(a.latent_scales, latents / m.group + 1), room(a.latent_sums, latents / m.group + 1);
        int64_t widest = std::max(m.hidden, std::max(query, m.heads * m.value_size)), groups = 0;
        if (m.join.data) room(a.gathered, tall * 2 * m.hidden), widest = std::max(widest, 2 * m.hidden);
        for (int64_t l = 0; l < m.layers; l++) {
            const StepLayer& layer = layers[l];
            room(a.key, rows * layer.key_value.outputs), room(a.low, tall * layer.query_low.outputs);
            const int64_t own_hidden = tall * layer.own_down.inputs;
            room(a.own_hidden, own_hidden), room(a.hidden_bytes, own_hidden);
            room(a.hidden_scales, own_hidden / m.group + 1), room(a.hidden_sums, own_hidden / m.group + 1);
            widest = std::max({widest, layer.own_down.inputs, layer.query_low.outputs});
            if (layer.mixed_norm || layer.fed_norm || layer.router.data) room(a.added, rows * m.hidden);
            if (!layer.router.data) continue;
            if (layer.shared_gate) room(a.own_gates, rows);
            const int64_t slots = rows * routing.chosen;
            room(a.hidden, (slots + SLACK) * layer.down.inputs), room(a.expert_outputs, slots * m.hidden);
            room(a.gathered, (slots + SLACK) * m.hidden), room(a.gates, slots), room(a.chosen, slots);
            groups = std::max(groups, (slots + SLACK) * std::max(m.hidden, layer.down.inputs));
        }
        room(a.bytes, tall * widest), room(a.scales, rows * widest / m.group + 1), room(a.sums, rows * widest / m.group + 1);
        room(a.gathered_bytes, groups), room(a.gathered_scales, groups / m.group + 1), room(a.gathered_sums, groups / m.group + 1);
    }

    void run() {
        m.join.data ? join() : team.share(rows, [&](int64_t n) { embed(n, stream(n)); });
        for (int64_t l = 0; l + 1 < m.layers; l++) go_through(layers[l]);
        if (few_are_wanted()) return end_with_few(layers[m.layers - 1]);
        go_through(layers[m.layers - 1]);
        finish([&](int64_t n) { return first + n; });
    }

private:
    void go_through(const StepLayer& layer) {
        if (!m.is_latent && !has_keys) fetch_first({&layer.query, &layer.key_value});
        norm_for_attention(layer);
        m.is_latent ? latent_attention(layer) : grouped_attention(layer);
        if (!layer.router.data) fetch_first({&layer.own_gate});
        norm_rows(layer.feed_norm, layer.own_gate.is_quantised() || layer.gate.is_quantised());
        feed_forward(layer);
    }

    void norm_for_attention(const StepLayer& layer) {
        norm_rows(layer.attention_norm, layer.query_low.is_quantised() || layer.query.is_quantised() || layer.key_value.is_quantised());
    }

    // Whether nobody asks what the last layer makes of most rows. A multi-token module is asked for states of wanted ones only.
    bool few_are_wanted() const {
        return (!b.states || m.join.data) && !layers[m.layers - 1].routes && 2 * static_cast<int64_t>(mine.size()) <= rows;
    }

    // The last layer for wanted rows alone; the others leave their keys and values
    void end_with_few(const StepLayer& layer) {
        norm_for_attention(layer);
        linear(layer.key_value, left(a.normed.data(), m.hidden), a.key.data(), layer.key_value_bias);
        team.wait();
        const int64_t heads = m.is_latent ? 1 : layer.key_heads, count = static_cast<int64_t>(mine.size());
        team.share(rows * heads, [&](int64_t i) {
            m.is_latent ? take_in_latent(layer, latents_of(layer), i) : take_in_key(layer, keys_of(layer), i / heads, i % heads);
        });
        std::vector<int64_t> positions, sequences, wanted;
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = b.wanted[mine[i]];
            positions.push_back(b.positions[row]), sequences.push_back(b.sequences[row]), wanted.push_back(i);
            if (team.rank == 0 && row - first != i) std::memcpy(stream(i), stream(row - first), m.hidden * sizeof(float));
        }
        if (!count) return;
        const StepBatch few{nullptr, positions.data(), sequences.data(), b.tables, b.table_width, count, wanted.data(), count,
                            b.scores + mine[0] * b.width, b.states, b.width, nullptr};
        const RowPlan plan_of_few = plan_of(m, layer, few, 0, count);
        Step rest(m, layers, k, routing, few, team, a, 0, count, plan_of_few, true);
        if (team.rank == 0) rest.make_room();
        rest.go_through(layer);
        rest.finish([&](int64_t i) { return b.wanted[mine[i]]; });
    }

    Quantised quantised(int64_t inputs) const { return {a.bytes.data(), a.scales.data(), a.sums.data(), inputs, m.group}; }
    Left<Act> left(const Act* rows_of, int64_t inputs) const { return {rows_of, inputs, quantised(inputs)}; }
    float* stream(int64_t n) { return a.stream.data() + n * m.hidden; }

    void embed(int64_t n, float* to) const {
        const int64_t at = b.tokens[first + n] * m.hidden;
        if (m.embedding_format >= INT8)
            load_row({static_cast<const uint8_t*>(m.embedding), m.hidden, 0, m.embedding_format}, b.tokens[first + n], m.group, to);
        else if (m.embedding_format == FLOAT32) std::memcpy(to, static_cast<const float*>(m.embedding) + at, m.hidden * sizeof(float));
        else
            for (int64_t c = 0; c < m.hidden; c += 16) store(to + c, load(static_cast<const bf16*>(m.embedding) + at + c));
    }

    // A state and the embedding of the token that follows it, each normed, in one
    void join() {
        Act* both = a.gathered.data();
        team.share(rows, [&](int64_t n) {
            Act* row = both + n * 2 * m.hidden;
            embed(n, stream(n));
            norm_row(stream(n), m.embedding_norm, row, m.hidden, k.eps);
            norm_row(b.inputs + (first + n) * m.hidden, m.state_norm, row + m.hidden, m.hidden, k.eps);
        });
        team.wait();
        if (m.join.is_quantised()) {
            quantise(both, rows, quantised(2 * m.hidden));
            team.wait();
        }
        linear(m.join, left(both, 2 * m.hidden), a.stream.data());
    }

    template <typename In, typename To>
    static void norm_row(const In* x, const float* weight, To* y, int64_t size, float eps) {
        __m512 squares = _mm512_setzero_ps();
        for (int64_t c = 0; c < size; c += 16) squares = _mm512_fmadd_ps(load(x + c), load(x + c), squares);
        const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(sum(squares) / size + eps));
        for (int64_t c = 0; c < size; c += 16)
            store(y + c, _mm512_mul_ps(_mm512_mul_ps(load(x + c), factor), load(weight + c)));
    }

    // What this thread is to read first of weights whose panels are shared out together comes nearer, before it waits for
    // others: memory would have nothing to do meanwhile. Of many rows it is too little to matter.
    void fetch_first(std::initializer_list<const Weight*> weights) const {
        if (rows > FEW_ROWS) return;
        int64_t panels = 0;
        for (const Weight* w : weights) panels += num_panels(w->outputs);
        int64_t p = panels * team.rank / team.size;
        for (const Weight* w : weights) {
            const int64_t own = num_panels(w->outputs), bytes = panel_bytes(w->format, w->inputs, m.group);
            if (p < own) {
                for (int64_t at = 0; at < std::min(FETCHED_FIRST_BYTES, (own - p) * bytes); at += 64) fetch(w->data + p * bytes + at);
                return;
            }
            p -= own;
        }
    }

    // Some groups of a row, from column `begin` on
    void quantise_part(const Act* row, const Quantised& to, int64_t begin, int64_t count) const {
        for (int64_t c = begin; c < begin + count; c += m.group)
            quantise_group(row + c, m.group, to.bytes + c, to.scales + c / m.group, to.sums + c / m.group);
    }
    void quantise_row(const Act* row, const Quantised& to) const { quantise_part(row, to, 0, to.inputs); }

    // Groups of rows [count, inputs] from `x`, each thread its part
    void quantise(const Act* x, int64_t count, const Quantised& to) {
        const int64_t groups = to.inputs / m.group;
        team.share(count * groups,
                   [&](int64_t i) { quantise_group(x + i * m.group, m.group, to.bytes + i * m.group, to.scales + i, to.sums + i); });
    }

    void norm_rows(const float* weight, bool is_quantised) {
        team.wait();
        Act* normed = a.normed.data();
        const Quantised q = quantised(m.hidden);
        team.share(rows, [&](int64_t n) {
            norm_row(stream(n), weight, normed + n * m.hidden, m.hidden, k.eps);
            if (is_quantised) quantise_row(normed + n * m.hidden, q.from(n));
        });
        team.wait();
    }

    // Panel p of y [rows, outputs] (+)= x · w
    template <typename Out>
    void linear_panel(const Weight& w, int64_t p, const Left<Act>& x, Out* y, const float* bias, bool add) {
        panel_product(w, p, x, rows, y, w.outputs, m.group, add);
        const int64_t end = std::min(w.outputs, (p + 1) * PANEL);
        for (int64_t n = 0; bias && n < rows; n++)
            for (int64_t c = p * PANEL; c < end; c += 16)
                store(y + n * w.outputs + c, _mm512_add_ps(load(y + n * w.outputs + c), load(bias + c)));
    }

    // All of it
    template <typename Out>
    void linear(const Weight& w, const Left<Act>& x, Out* y, const float* bias = nullptr) {
        team.take(num_panels(w.outputs), [&](int64_t p) { linear_panel(w, p, x, y, bias, false); });
    }

    // Panel p of what a half of a layer ends with, into the stream or beside it: rounded first, as the trainer's is
    void ending_panel(const Weight& w, int64_t p, const Left<Act>& x, float* y, const float* bias, bool add) {
        if (w.is_quantised()) return linear_panel(w, p, x, y, bias, add);
        const int64_t size = std::min(PANEL, w.outputs - p * PANEL);
        const Weight one{w.data + p * panel_bytes(w.format, w.inputs, m.group), w.inputs, size, w.format};
        alignas(64) Act part[TILE_ROWS * PANEL];
        for (int64_t n = 0; n < rows; n += TILE_ROWS) {
            const int64_t some = std::min(TILE_ROWS, rows - n);
            panel_product(one, 0, Left<Act>{x.rows + n * x.stride, x.stride, {}}, some, part, PANEL, m.group);
            for (int64_t i = 0; i < some; i++)
                for (int64_t c = 0; c < size; c += 16) {
                    __m512 found = load(part + i * PANEL + c);
                    if (bias) found = kept_as<Act>(_mm512_add_ps(found, load(bias + p * PANEL + c)));
                    float* place = y + (n + i) * w.outputs + p * PANEL + c;
                    store(place, add ? _mm512_add_ps(load(place), found) : found);
                }
        }
    }

    void ending(const Weight& w, const Left<Act>& x, const float* norm, const float* bias) {
        team.take(num_panels(w.outputs), [&](int64_t p) { ending_panel(w, p, x, added(norm), bias, !norm); });
        add_normed(norm);
    }

    // Two products of the same rows
    void linear(const Weight& first, Act* to, const float* bias, const Weight& second, Act* other, const float* other_bias,
                const Left<Act>& x) {
        const int64_t panels = num_panels(first.outputs);
        team.take(panels + num_panels(second.outputs), [&](int64_t p) {
            p < panels ? linear_panel(first, p, x, to, bias, false)
                       : linear_panel(second, p - panels, x, other, other_bias, false);
        });
    }

    // A head of 16 · N numbers, all turned by halves: as below, in registers
    template <int N>
    void turn_whole(Act* x, const float* weight, const float* cos, const float* sin) const {
        __m512 v[N], squares = _mm512_setzero_ps();
        UNROLLED for (int i = 0; i < N; i++) v[i] = load(x + 16 * i);
        if (weight) {
            UNROLLED for (int i = 0; i < N; i++) squares = _mm512_fmadd_ps(v[i], v[i], squares);
            const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(sum(squares) / (16 * N) + k.eps));
            UNROLLED for (int i = 0; i < N; i++) v[i] = _mm512_mul_ps(_mm512_mul_ps(v[i], factor), load(weight + 16 * i));
        }
        UNROLLED for (int i = 0; i < N / 2; i++) {
            const __m512 a = load(cos + 16 * i), b = load(sin + 16 * i), first = v[i], second = v[i + N / 2];
            store(x + 16 * i, _mm512_fnmadd_ps(second, b, _mm512_mul_ps(first, a)));
            store(x + 16 * (i + N / 2), _mm512_fmadd_ps(first, b, _mm512_mul_ps(second, a)));
        }
    }

    // One head of one token: norm where there is a weight, and turning `rotary` numbers from `begin` on; in place
    void turn_head(const StepLayer& layer, Act* x, const float* weight, int64_t size, int64_t begin, int64_t position) const {
        if (size == m.rotary && !m.turns_pairs && !m.norm_after_turn) {
            const int64_t line = position * size / 2;
            if (size == 32) return turn_whole<2>(x, weight, layer.cos + line, layer.sin + line);
            if (size == 64) return turn_whole<4>(x, weight, layer.cos + line, layer.sin + line);
            if (size == 128) return turn_whole<8>(x, weight, layer.cos + line, layer.sin + line);
        }
        alignas(64) float head[MAX_HEAD];
        for (int64_t c = 0; c < size; c += 16) store(head + c, load(x + c));
        if (weight && !m.norm_after_turn) norm_row(head, weight, head, size, k.eps);
        const int64_t line = position * m.rotary / 2;
        turn(head + begin, m.rotary, m.rotary, layer.cos + line, layer.sin + line, 1.0f, m.turns_pairs);
        if (weight && m.norm_after_turn) {  // two kernels in training, with rows in memory between them
            for (int64_t c = 0; c < size; c += 16) store(head + c, kept_as<Act>(load(head + c)));
            norm_row(head, weight, head, size, k.eps);
        }
        for (int64_t c = 0; c < size; c += 16) store(x + c, load(head + c));
    }

    const int32_t* table(int64_t n) const { return b.tables + b.sequences[first + n] * b.table_width; }

    // Whether no later token of its sequence is in this batch
    bool is_newest(int64_t n) const { return n + 1 == rows || b.sequences[first + n + 1] != b.sequences[first + n]; }

    // What attention left, through the last product into the stream
    void put_out(const StepLayer& layer, const Act* x, int64_t size, bool is_quantised = false) {
        if (layer.out.is_quantised() && !is_quantised) {
            quantise(x, rows, quantised(size));
            team.wait();
        }
        ending(layer.out, left(x, size), layer.mixed_norm, layer.out_bias);
    }

    // Where a half of a layer puts its outputs: into the stream, or beside it where they are normed first
    float* added(const float* norm) { return norm ? a.added.data() : a.stream.data(); }

    void add_normed(const float* norm) {
        if (!norm) return;
        team.wait();
        team.share(rows, [&](int64_t n) {
            float* row = a.added.data() + n * m.hidden;
            norm_row(row, norm, row, m.hidden, k.eps);
            for (int64_t c = 0; c < m.hidden; c += 16)
                store(stream(n) + c, _mm512_add_ps(load(stream(n) + c), kept_as<Act>(load(row + c))));
        });
    }

    void grouped_attention(const StepLayer& layer) {
        const int64_t size = m.head_size, heads = m.heads, key_heads = layer.key_heads, group = heads / key_heads;
        const PagedCache<Act> cache = keys_of(layer);
        Act *query = a.query.data(), *mixed = a.mixed.data();
        linear_with_keys(layer, layer.query, query, layer.query_bias);
        team.wait();
        const auto turn_query = [&](int64_t n, int64_t head) {
            turn_head(layer, query + (n * heads + head) * size, layer.query_norm, size, 0, b.positions[first + n]);
        };
        const auto prepare = [&](int64_t n, int64_t part) {
            for (int64_t h = part * group; h < (part + 1) * group; h++) turn_query(n, h);
            if (!has_keys) take_in_key(layer, cache, n, part);
        };
        // who has computed a part quantises it, where groups don't reach further
        const int64_t width = heads * m.value_size, part_width = group * m.value_size;
        const bool is_quantised = layer.out.is_quantised() && part_width % m.group == 0;
        const auto settle = [&](int64_t n, int64_t part) {
            if (is_quantised) quantise_part(mixed + n * width, quantised(width).from(n), part * part_width, part_width);
        };
        if (goes_alone(group)) attend_newest(layer, cache, key_heads, group, query, mixed, prepare, settle);
        else if (are_alone) attend(layer, cache, key_heads, group, query, size, mixed, prepare, settle);
        else {
            const int64_t parts = heads + (has_keys ? 0 : key_heads);
            team.share(rows * parts, [&](int64_t i) {
                const int64_t n = i / parts, h = i % parts;
                h < heads ? turn_query(n, h) : take_in_key(layer, cache, n, h - heads);
            });
            team.wait();
            attend(layer, cache, key_heads, group, query, size, mixed, nothing, settle);
        }
        fetch_first({&layer.out});
        team.wait();
        put_out(layer, mixed, width, is_quantised);
    }

    static void nothing(int64_t, int64_t) {}

    PagedCache<Act> keys_of(const StepLayer& layer) const {
        return {static_cast<Act*>(layer.keys), static_cast<Act*>(layer.values), layer.key_heads, m.head_size, m.value_size};
    }
    PagedCache<Act> latents_of(const StepLayer& layer) const {
        return {static_cast<Act*>(layer.keys), static_cast<Act*>(layer.values), 1, m.rank + m.rotary, m.rank};
    }

    // A product of the normed rows, and that for keys and values where they aren't there yet
    void linear_with_keys(const StepLayer& layer, const Weight& w, Act* to, const float* bias) {
        const Left<Act> x = left(a.normed.data(), m.hidden);
        has_keys ? linear(w, x, to, bias) : linear(w, to, bias, layer.key_value, a.key.data(), layer.key_value_bias, x);
    }

    // A token's row of keys and values: one head of it into the cache
    void take_in_key(const StepLayer& layer, const PagedCache<Act>& cache, int64_t n, int64_t head) {
        const int64_t position = b.positions[first + n];
        Act* row = a.key.data() + n * layer.key_value.outputs;
        Act *key = row + head * cache.size, *value = row + layer.key_heads * cache.size + head * cache.value_size;
        turn_head(layer, key, layer.key_norm, cache.size, 0, position);
        if (k.value_scale != 1.0f)
            for (int64_t c = 0; c < cache.value_size; c += 16)
                store(value + c, _mm512_mul_ps(load(value + c), _mm512_set1_ps(k.value_scale)));
        cache.write(table(n)[position / BLOCK_TOKENS], head, position % BLOCK_TOKENS, key, value, is_newest(n));
    }

    // Whether every row is a sequence's only one, and `count` query heads that share a key head can be attended for at once
    bool goes_alone(int64_t count) const { return are_alone && NewestAttention<Act>::suits(count); }

    // As `attend` where each row goes alone
    template <typename Prepare, typename Settle>
    void attend_newest(const StepLayer& layer, const PagedCache<Act>& cache, int64_t parts, int64_t count, const Act* query,
                       Act* mixed, const Prepare& prepare, const Settle& settle) {
        using Attention = NewestAttention<Act>;
        const int64_t heads = parts * count, items = rows * parts;
        const int64_t at_once = std::clamp<int64_t>(items / team.size, 1, Attention::MOST);
        const auto newest = [&](int64_t begin, Newest<Act>* to) {
            const int64_t end = std::min(items, begin + at_once);
            for (int64_t i = begin; i < end; i++) {
                const int64_t n = i / parts, part = i % parts, at = n * heads + part * count;
                to[i - begin] = {table(n), cache.heads == 1 ? 0 : part, b.positions[first + n], query + at * cache.size,
                                 layer.sinks ? layer.sinks + part * count : nullptr, mixed + at * cache.value_size};
            }
            return std::max<int64_t>(0, end - begin);
        };
        const Attention attention(cache, count, layer.window, k.scale);
        team.take((items + at_once - 1) / at_once, [&](int64_t i) {
            Newest<Act> these[Attention::MOST], next[Attention::MOST];
            const int64_t some = newest(i * at_once, these), more = newest((i + 1) * at_once, next);
            for (int64_t j = i * at_once; j < i * at_once + some; j++) prepare(j / parts, j % parts);
            attention.attend(these, some, next, more);
            for (int64_t j = i * at_once; j < i * at_once + some; j++) settle(j / parts, j % parts);
        });
    }

    // Every tile and part of the heads: `parts` parts of `count` query heads [N, heads, D] that share a key head. `prepare`
    // has a row's part ready, the cache included; no other part may need it. `settle` is called when it is there.
    template <typename Prepare, typename Settle>
    void attend(const StepLayer& layer, const PagedCache<Act>& cache, int64_t parts, int64_t count, const Act* query,
                int64_t size, Act* mixed, const Prepare& prepare, const Settle& settle) {
        const int64_t heads = parts * count, width = cache.value_size;
        const int64_t most = std::max(TILE_ROWS, count);
        TileScratch scratch(most, width);
        Unset<Act> picked(most * size), out(most * width);
        Unset<int64_t> positions(most);
        Unset<float> sinks(most);
        team.take(static_cast<int64_t>(plan.tiles.size()) * parts, [&](int64_t i) {
            const Tile& tile = plan.tiles[i / parts];
            const int64_t part = i % parts, tokens_at_once = std::max<int64_t>(1, most / count);
            for (int64_t n = tile.first; n < tile.first + tile.count; n++) prepare(n, part);
            for (int64_t n = tile.first; n < tile.first + tile.count; n += tokens_at_once) {
                const int64_t tokens = std::min(tokens_at_once, tile.first + tile.count - n), filled = tokens * count;
                for (int64_t r = 0; r < filled; r++) {
                    const int64_t token = n + r / count, head = part * count + r % count;
                    std::memcpy(picked.data() + r * size, query + (token * heads + head) * size, size * sizeof(Act));
                    positions.data()[r] = b.positions[first + token];
                    if (layer.sinks) sinks.data()[r] = layer.sinks[head];
                }
                const QueryTile<Act> rows_{picked.data(), size, positions.data(), layer.sinks ? sinks.data() : nullptr, filled, layer.window};
                attend_tile(cache, table(n), cache.heads == 1 ? 0 : part, rows_, k.scale, scratch, out.data(), width);
                for (int64_t r = 0; r < filled; r++) {
                    const int64_t token = n + r / count, head = part * count + r % count;
                    std::memcpy(mixed + (token * heads + head) * width, out.data() + r * width, width * sizeof(Act));
                }
                for (int64_t token = n; token < n + tokens; token++) settle(token, part);
            }
        });
    }

    static Weight of_head(const Weight& w, int64_t head, int64_t group) {
        return {w.data + head * weight_bytes(w, group), w.inputs, w.outputs, w.format};
    }

    // y = x · one head's weight, for the rows that are not expanded; quantised on the way
    void head_product(const Weight& w, int64_t head, const Act* x, int64_t ldx, Act* y, int64_t ldy) {
        const int64_t groups = w.inputs / m.group;
        const Weight one = of_head(w, head, m.group);
        for (const Tile& some : plan.others) {
            Left<Act> given{x + some.first * ldx, ldx, {}};
            if (w.is_quantised()) {
                given.quantised = {room(head_bytes, (rows + SLACK) * w.inputs), room(head_scales, rows * groups), room(head_sums, rows * groups),
                                   w.inputs, m.group};
                for (int64_t n = 0; n < some.count; n++) quantise_row(given.rows + n * ldx, given.quantised.from(n));
            }
            for (int64_t p = 0; p < num_panels(w.outputs); p++) panel_product(one, p, given, some.count, y + some.first * ldy, ldy, m.group);
        }
    }

    // What stretches see of the cache, as rows that products read
    void gather_latents(const PagedCache<Act>& cache, bool is_quantised) {
        const Quantised to{a.latent_bytes.data(), a.latent_scales.data(), a.latent_sums.data(), m.rank, m.group};
        for (const Stretch& stretch : plan.stretches)
            team.share(stretch.blocks(), [&](int64_t i) {
                const int64_t begin = stretch.place + i * BLOCK_TOKENS, seen = std::min(BLOCK_TOKENS, stretch.keys - i * BLOCK_TOKENS);
                Act* rows_of = a.latents.data() + begin * m.rank;
                unpack_latents(cache, table(stretch.first)[i], seen, rows_of);
                for (int64_t t = 0; is_quantised && t < BLOCK_TOKENS; t++) quantise_row(rows_of + t * m.rank, to.from(begin + t));
            });
    }

    // Attention of the stretches, a head at a time → a.values
    void attend_expanded(const StepLayer& layer, const PagedCache<Act>& cache) {
        const Quantised all{a.latent_bytes.data(), a.latent_scales.data(), a.latent_sums.data(), m.rank, m.group};
        team.take(static_cast<int64_t>(plan.stretches.size()) * m.heads, [&](int64_t item) {
            const Stretch& stretch = plan.stretches[item / m.heads];
            const int64_t h = item % m.heads, size = m.heads * m.head_size, width = m.heads * m.value_size;
            const Weight keys = of_head(layer.latent_keys, h, m.group), values = of_head(layer.value_up, h, m.group);
            if (!expanded) expanded.emplace(sizes_of(m), TILE_ROWS);
            expanded->make_room(stretch.blocks());
            for (int64_t i = 0; i < stretch.blocks(); i++) {
                const int64_t begin = stretch.place + i * BLOCK_TOKENS;
                const Left<Act> x{a.latents.data() + begin * m.rank, m.rank, all.from(begin)};
                expanded->lay_out(i, cache, table(stretch.first)[i], keys, values, [&](const Weight& w, Act* to, int64_t line) {
                    for (int64_t p = 0; p < num_panels(w.outputs); p++) panel_product(w, p, x, BLOCK_TOKENS, to, line, m.group);
                });
            }
            expanded->attend(a.query.data() + stretch.first * size + h * m.head_size, size, b.positions + first + stretch.first, stretch.count,
                        TILE_ROWS, layer.window, k.scale, a.values.data() + stretch.first * width + h * m.value_size, width);
        });
    }

    // The absorbed form: queries move into the latent, so that only it and the shared rotary key are read. Stretches go by
    // the expanded one.
    void latent_attention(const StepLayer& layer) {
        const int64_t size = m.head_size, nope = size - m.rotary, kept = m.rank + m.rotary, heads = m.heads;
        const int64_t low = layer.query_low.outputs;
        const PagedCache<Act> cache = latents_of(layer);
        Act *query = a.query.data(), *absorbed = a.absorbed.data();
        linear_with_keys(layer, low ? layer.query_low : layer.query, low ? a.low.data() : query, low ? layer.query_bias : nullptr);
        if (low) {
            team.wait();
            team.share(rows, [&](int64_t n) {
                Act* row = a.low.data() + n * low;
                norm_row(row, layer.query_norm, row, low, k.latent_eps);
            });
            team.wait();
            if (layer.query.is_quantised()) {
                quantise(a.low.data(), rows, quantised(low));
                team.wait();
            }
            linear(layer.query, left(a.low.data(), low), query);
        }
        team.wait();
        const int64_t parts = heads + !has_keys;
        team.share(rows * parts, [&](int64_t i) {
            const int64_t n = i / parts, h = i % parts;
            if (h == heads) return take_in_latent(layer, cache, n);
            Act* head = query + (n * heads + h) * size;
            turn_head(layer, head, nullptr, size, nope, b.positions[first + n]);
            std::memcpy(absorbed + (n * heads + h) * kept + m.rank, head + nope, m.rotary * sizeof(Act));
        });
        team.wait();
        if (!plan.stretches.empty()) {
            gather_latents(cache, layer.latent_keys.is_quantised() || layer.value_up.is_quantised());
            team.wait();
            attend_expanded(layer, cache);
        }
        if (!plan.others.empty()) attend_absorbed(layer, cache);
        team.wait();
        put_out(layer, a.values.data(), heads * m.value_size);
    }

    // A token's latent and rotary key into the cache
    void take_in_latent(const StepLayer& layer, const PagedCache<Act>& cache, int64_t n) {
        const int64_t position = b.positions[first + n];
        Act* row = a.key.data() + n * layer.key_value.outputs;
        norm_row(row, layer.latent_norm, row, m.rank, k.latent_eps);
        turn_head(layer, row + m.rank, nullptr, m.rotary, 0, position);
        cache.write(table(n)[position / BLOCK_TOKENS], 0, position % BLOCK_TOKENS, row, row, is_newest(n));
    }

    void attend_absorbed(const StepLayer& layer, const PagedCache<Act>& cache) {
        const int64_t size = m.head_size, kept = cache.size, heads = m.heads;
        Act *absorbed = a.absorbed.data(), *mixed = a.mixed.data();
        team.share(heads, [&](int64_t h) {
            head_product(layer.key_up, h, a.query.data() + h * size, heads * size, absorbed + h * kept, heads * kept);
        });
        team.wait();
        int64_t pieces = 1;  // of the heads, so that there is something for every thread
        while (static_cast<int64_t>(plan.tiles.size()) * pieces < team.size && heads % (2 * pieces) == 0) pieces *= 2;
        const int64_t count = heads / pieces;
        if (goes_alone(count)) attend_newest(layer, cache, pieces, count, absorbed, mixed, nothing, nothing);
        else attend(layer, cache, pieces, count, absorbed, kept, mixed, nothing, nothing);
        team.wait();
        team.share(heads, [&](int64_t h) {
            head_product(layer.value_up, h, mixed + h * m.rank, heads * m.rank, a.values.data() + h * m.value_size,
                         heads * m.value_size);
        });
    }

    struct Sides {
        Weight gate, up;
        const float *gate_bias, *up_bias;
        bool is_clamped;
    };

    // 16 hidden units of one row
    __m512 hidden_unit(__m512 gate, __m512 up, bool is_clamped) const {
        if (!is_clamped) return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up);
        const __m512 limit = _mm512_set1_ps(k.limit);
        gate = _mm512_min_ps(gate, limit);
        up = _mm512_max_ps(_mm512_min_ps(up, limit), _mm512_set1_ps(-k.limit));
        const __m512 swish = _mm512_mul_ps(gate, sigmoid(_mm512_mul_ps(gate, _mm512_set1_ps(k.alpha))));
        return _mm512_mul_ps(swish, _mm512_add_ps(up, _mm512_set1_ps(1.0f)));
    }

    // 64 hidden units of a SwiGLU for `count` rows, each times its gate
    void hidden_units(const Sides& of, int64_t panel, const Left<Act>& x, int64_t count, const float* gates, Act* hidden,
                      int64_t line) {
        of.gate.is_quantised() ? hidden_units_of<float>(of, panel, x, count, gates, hidden, line)
                               : hidden_units_of<Act>(of, panel, x, count, gates, hidden, line);
    }

    // `Side`: what both products are kept as
    template <typename Side>
    void hidden_units_of(const Sides& of, int64_t panel, const Left<Act>& x, int64_t count, const float* gates, Act* hidden,
                         int64_t line) {
        constexpr int64_t tall = 32;  // rows at a time: two tiles
        const int64_t size = std::min(PANEL, of.gate.outputs - panel * PANEL), bytes = panel_bytes(of.gate.format, of.gate.inputs, m.group);
        const Weight gate{of.gate.data + panel * bytes, of.gate.inputs, size, of.gate.format};
        const Weight up{of.up.data + panel * bytes, of.up.inputs, size, of.up.format};
        alignas(64) Side gated[tall * PANEL], upper[tall * PANEL];
        for (int64_t n = 0; n < count; n += tall) {
            const int64_t some = std::min(tall, count - n);
            Left<Act> part{x.rows + n * x.stride, x.stride, {}};
            if (gate.is_quantised()) part.quantised = x.quantised.from(n);
            panel_product(gate, 0, part, some, gated, PANEL, m.group);
            panel_product(up, 0, part, some, upper, PANEL, m.group);
            for (int64_t i = 0; i < some; i++) {
                Act* to = hidden + (n + i) * line + panel * PANEL;
                const __m512 factor = _mm512_set1_ps(gates ? gates[n + i] : 1.0f);
                for (int64_t c = 0; c < size; c += 16) {
                    __m512 g = load(gated + i * PANEL + c), u = load(upper + i * PANEL + c);
                    if (of.gate_bias) {
                        g = _mm512_add_ps(g, load(of.gate_bias + panel * PANEL + c));
                        u = _mm512_add_ps(u, load(of.up_bias + panel * PANEL + c));
                    }
                    store(to + c, _mm512_mul_ps(hidden_unit(g, u, of.is_clamped), factor));
                }
            }
        }
    }

    // Tokens of a layer in the order of their experts
    struct Order {
        std::vector<int64_t> ends, slots;  // of each expert; the slot of each token's choice
        std::vector<float> gates;
        std::vector<int64_t> active;
    };

    Order order() const {
        Order o;
        const int64_t count = rows * routing.chosen;
        std::vector<int64_t> next(routing.experts + 1, 0);
        for (int64_t i = 0; i < count; i++) next[a.chosen[i] + 1]++;
        for (int64_t e = 0; e < routing.experts; e++) {
            if (next[e + 1]) o.active.push_back(e);
            next[e + 1] += next[e];
        }
        o.ends.assign(next.begin() + 1, next.end());
        o.slots.resize(count), o.gates.resize(count);
        for (int64_t i = 0; i < count; i++) {
            const int64_t slot = next[a.chosen[i]]++;
            o.slots[i] = slot, o.gates[slot] = a.gates[i];
        }
        return o;
    }

    // Experts and gates of every token. Many rows go through the router some at a time, so that its weights are read once
    void route(const StepLayer& layer) {
        const int64_t at_once = rows < 4 * ROUTED_AT_ONCE ? 1 : ROUTED_AT_ONCE, outputs = layer.router.outputs;
        team.share((rows + at_once - 1) / at_once, [&](int64_t i) {
            const int64_t begin = i * at_once, count = std::min(at_once, rows - begin);
            Unset<float> wide(count * m.hidden), scores(count * outputs);
            const Act* normed = a.normed.data() + begin * m.hidden;
            for (int64_t c = 0; c < count * m.hidden; c += 16) store(wide.data() + c, load(normed + c));
            const Left<float> x{wide.data(), m.hidden, {}};
            for (int64_t p = 0; p < num_panels(outputs); p++)
                panel_product(layer.router, p, x, count, scores.data(), outputs, m.group);
            for (int64_t r = 0; r < count; r++) route_row(layer, begin + r, wide.data() + r * m.hidden, scores.data() + r * outputs);
        });
        team.wait();
    }

    void route_row(const StepLayer& layer, int64_t n, const float* row, float* scores) {
        for (int64_t e = 0; layer.router_bias && e < routing.experts; e++) scores[e] += layer.router_bias[e];
        int32_t* chosen = a.chosen.data() + n * routing.chosen;
        choose_experts(routing, scores, layer.selection_bias, chosen, a.gates.data() + n * routing.chosen);
        if (layer.shared_gate) {
            __m512 score = _mm512_setzero_ps();
            for (int64_t c = 0; c < m.hidden; c += 16) score = _mm512_fmadd_ps(load(row + c), load(layer.shared_gate + c), score);
            a.own_gates[n] = 1.0f / (1.0f + std::exp(-sum(score)));
        }
        if (!layer.routes) return;
        const int64_t position = b.positions[first + n], block = table(n)[position / BLOCK_TOKENS];
        std::copy_n(chosen, routing.chosen, layer.routes + (block * BLOCK_TOKENS + position % BLOCK_TOKENS) * routing.chosen);
    }

    static Sides own_sides(const StepLayer& layer) {
        return {layer.own_gate, layer.own_up, layer.own_gate_bias, layer.own_up_bias, false};
    }

    void feed_forward(const StepLayer& layer) {
        if (layer.router.data) return routed(layer);
        const Left<Act> x = left(a.normed.data(), m.hidden);
        Act* hidden = a.own_hidden.data();
        const int64_t width = layer.own_down.inputs;
        // who has computed a panel quantises it, where groups don't reach further
        const bool is_quantised = layer.own_down.is_quantised(), at_once = is_quantised && PANEL % m.group == 0;
        const Quantised units{a.hidden_bytes.data(), a.hidden_scales.data(), a.hidden_sums.data(), width, m.group};
        team.take(num_panels(width), [&](int64_t p) {
            hidden_units(own_sides(layer), p, x, rows, nullptr, hidden, width);
            const int64_t begin = p * PANEL, count = std::min(PANEL, width - begin);
            for (int64_t n = 0; at_once && n < rows; n++) quantise_part(hidden + n * width, units.from(n), begin, count);
        });
        fetch_first({&layer.own_down});
        team.wait();
        if (is_quantised && !at_once) {
            quantise(hidden, rows, units);
            team.wait();
        }
        ending(layer.own_down, {hidden, width, units}, layer.fed_norm, layer.own_down_bias);
    }

    void routed(const StepLayer& layer) {
        route(layer);
        const Order o = order();
        const int64_t chosen = routing.chosen, slots = rows * chosen, width = layer.down.inputs, own_width = layer.own_down.inputs;
        Left<Act> x = left(a.normed.data(), m.hidden), gathered = x;
        const bool is_gathered = rows > 1, is_quantised = layer.gate.is_quantised();
        const Quantised room_{a.gathered_bytes.data(), a.gathered_scales.data(), a.gathered_sums.data(), m.hidden, m.group};
        if (is_gathered) {
            const int64_t groups = m.hidden / m.group;
            gathered = {a.gathered.data(), m.hidden, room_};
            team.share(slots, [&](int64_t i) {
                const int64_t n = i / chosen, slot = o.slots[i];
                if (!is_quantised)
                    std::memcpy(a.gathered.data() + slot * m.hidden, x.rows + n * m.hidden, m.hidden * sizeof(Act));
                else {
                    const Quantised from = x.quantised.from(n), to = room_.from(slot);
                    std::memcpy(to.bytes, from.bytes, m.hidden);
                    std::memcpy(to.scales, from.scales, groups * sizeof(float));
                    std::memcpy(to.sums, from.sums, groups * sizeof(int32_t));
                }
            });
            team.wait();
        }
        const int64_t panels = num_panels(width), own_panels = layer.own_gate.data ? num_panels(own_width) : 0;
        const int64_t count = static_cast<int64_t>(o.active.size());
        Act *hidden = a.hidden.data(), *own_hidden = a.own_hidden.data();
        const auto begin_of = [&](int64_t e) { return e ? o.ends[e - 1] : 0; };
        const auto expert = [&](const Weight& w, int64_t e) {
            return Weight{w.data + e * weight_bytes(w, m.group), w.inputs, w.outputs, w.format};
        };
        team.take(count * panels + own_panels, [&](int64_t i) {
            if (i < own_panels) {
                const float* own_gates = layer.shared_gate ? a.own_gates.data() : nullptr;
                return hidden_units(own_sides(layer), i, x, rows, own_gates, own_hidden, own_width);
            }
            i -= own_panels;
            const int64_t e = o.active[i / panels], begin = begin_of(e);
            Left<Act> part = gathered;
            if (is_gathered) {
                part.rows += begin * m.hidden;
                if (is_quantised) part.quantised = gathered.quantised.from(begin);
            }
            const auto bias_of = [&](const float* bias) { return bias ? bias + e * width : nullptr; };
            const Sides sides{expert(layer.gate, e), expert(layer.up, e), bias_of(layer.gate_bias), bias_of(layer.up_bias), k.limit > 0};
            hidden_units(sides, i % panels, part, o.ends[e] - begin, o.gates.data() + begin, hidden + begin * width, width);
        });
        team.wait();
        const Quantised hidden_q{a.gathered_bytes.data(), a.gathered_scales.data(), a.gathered_sums.data(), width, m.group};
        if (layer.down.is_quantised()) quantise(hidden, slots, hidden_q);
        if (own_panels && layer.own_down.is_quantised()) quantise(own_hidden, rows, quantised(own_width));
        if (layer.down.is_quantised()) team.wait();
        const int64_t out_panels = num_panels(m.hidden), own_out = own_panels ? out_panels : 0;
        float *outputs = a.expert_outputs.data(), *own = a.added.data();
        const auto kept = [&](__m512 x) { return layer.down.is_quantised() ? x : kept_as<Act>(x); };
        team.take(count * out_panels + own_out, [&](int64_t i) {
            if (i < own_out)
                return ending_panel(layer.own_down, i, left(own_hidden, own_width), own, layer.own_down_bias, false);
            i -= own_out;
            const int64_t e = o.active[i / out_panels], begin = begin_of(e);
            Left<Act> part{hidden + begin * width, width, {}};
            if (layer.down.is_quantised()) part.quantised = hidden_q.from(begin);
            panel_product(expert(layer.down, e), i % out_panels, part, o.ends[e] - begin, outputs + begin * m.hidden, m.hidden, m.group);
        });
        team.wait();
        team.share(rows * (m.hidden / 16), [&](int64_t i) {
            const int64_t n = i / (m.hidden / 16), c = i % (m.hidden / 16) * 16;
            __m512 total = _mm512_setzero_ps();
            for (int64_t j = 0; j < chosen; j++)
                total = _mm512_add_ps(total, kept(load(outputs + o.slots[n * chosen + j] * m.hidden + c)));
            for (int64_t j = 0; layer.down_bias && j < chosen; j++) {
                const float* bias = layer.down_bias + a.chosen[n * chosen + j] * m.hidden + c;
                total = _mm512_fmadd_ps(load(bias), _mm512_set1_ps(a.gates[n * chosen + j]), total);
            }
            total = kept(total);
            if (own_out) total = kept(_mm512_add_ps(total, load(own + n * m.hidden + c)));
            float* place = added(layer.fed_norm) + n * m.hidden + c;
            store(place, layer.fed_norm ? total : _mm512_add_ps(load(place), total));
        });
        add_normed(layer.fed_norm);
    }

    // States where they are asked for, each at its place among the batch's rows, and scores
    template <typename Place>
    void finish(const Place& place) {
        team.wait();
        if (b.states) {
            team.share(rows, [&](int64_t n) { give_state(n, b.states + place(n) * m.hidden); });
            team.wait();
        }
        give_scores();
    }

    // A row's final state, in the activations' precision; before the last norm in fp32
    void give_state(int64_t n, float* to) {
        if (m.gives_stream) {
            std::memcpy(to, stream(n), m.hidden * sizeof(float));
            return;
        }
        Act* state = a.normed.data() + n * m.hidden;
        norm_row(stream(n), m.norm, state, m.hidden, k.eps);
        for (int64_t c = 0; c < m.hidden; c += 16) store(to + c, load(state + c));
    }

    // Scores of the wanted rows among this team's
    void give_scores() {
        if (mine.empty()) return;
        const int64_t count = static_cast<int64_t>(mine.size());
        Act* states = a.normed.data();
        const Quantised q = quantised(m.hidden);
        team.share(count, [&](int64_t i) {
            norm_row(stream(b.wanted[mine[i]] - first), m.norm, states + i * m.hidden, m.hidden, k.eps);
        });
        team.wait();
        if (m.head.is_quantised()) {
            quantise(states, count, q);
            team.wait();
        }
        const Left<Act> x{states, m.hidden, q};  // what is mine lies together
        team.take(num_panels(m.head.outputs),
                  [&](int64_t p) { panel_product(m.head, p, x, count, b.scores + mine[0] * b.width, b.width, m.group); });
    }
};

// Where each of `parts` teams' rows end: about equal, and never inside a sequence
static std::vector<int64_t> cuts_of(const StepBatch& b, int64_t parts) {
    std::vector<int64_t> cuts{0};
    for (int64_t part = 1; part < parts; part++) {
        int64_t cut = std::max(cuts.back(), b.rows * part / parts);
        while (cut > cuts.back() && cut < b.rows && b.sequences[cut] == b.sequences[cut - 1]) cut++;
        cuts.push_back(cut);
    }
    cuts.push_back(b.rows);
    return cuts;
}

// All that a step is told of a model. `teams` share out the rows, and each has as many of the threads as are left for it.
struct Model {
    const StepModel* model;
    const StepLayer* layers;
    const StepConstants* constants;
    const Routing* routing;
    int64_t teams;
};

// A thread's own, from one call to the next: memory that the system has handed out before is the fastest
template <typename Act>
static std::vector<Activations<Act>>& kept_activations() {
    static thread_local std::vector<Activations<Act>> kept;
    return kept;
}

template <typename Act>
static void step(const Model& model, const StepBatch& b, std::vector<Activations<Act>>& activations, int64_t threads) {
    const StepModel& m = *model.model;
    const StepLayer* layers = model.layers;
    const int64_t teams = std::min(model.teams, std::min(threads, std::max<int64_t>(1, b.rows)));
    const int64_t size = threads / teams;
    const std::vector<int64_t> cuts = cuts_of(b, teams);
    std::vector<Team::Meeting> meetings(teams);
    activations.resize(std::max<int64_t>(teams, activations.size()));
    std::vector<RowPlan> plans(teams);
    for (int64_t t = 0; t < teams; t++) {
        plans[t] = plan_of(m, layers[0], b, cuts[t], cuts[t + 1]);
        meetings[t].expect(size);
    }
    const auto go = [&](int64_t t, int64_t rank, int64_t members) {
        const int64_t rows = cuts[t + 1] - cuts[t];
        const Tiles own_tiles;
        Team team(meetings[t], rank, members);
        Step<Act> mine(m, layers, *model.constants, *model.routing, b, team, activations[t], cuts[t], rows, plans[t]);
        if (rank == 0) mine.make_room();
        team.wait();
        if (rows) mine.run();
    };
#pragma omp parallel num_threads(static_cast<int>(teams * size)) if (teams * size > 1)
    {
        const int64_t thread = omp_get_thread_num();
        if (omp_get_num_threads() == teams * size) go(thread / size, thread % size, size);
        else if (thread == 0)  // fewer threads than asked for: none may wait for one that isn't there
            for (int64_t t = 0; t < teams; t++) go(t, 0, 1);
    }
}

#include "decoding.h"

extern "C" {

// Scores of the wanted rows of a batch, which are in order, and states of all; the caches are extended. Activations are
// fp32 (`is_wide`) or bf16.
void engine_step(int64_t is_wide, const Model* model, const StepBatch* batch, int64_t threads) {
    const auto go = [&](auto number) { step(*model, *batch, kept_activations<decltype(number)>(), threads); };
    is_wide ? go(0.0f) : go(bf16{});
}

// The next token of some slots, by a row of scores each
void engine_take(const Slots* slots, const Course* course, const int64_t* asked, int64_t count, const float* scores,
                 int64_t threads) {
    const Sequences all(*slots, *course);
    PARALLEL(threads)
    for (int64_t i = 0; i < count; i++) all.take(asked[i], scores + i * course->width);
}

// Tokens of every active slot
void engine_decode(int64_t is_wide, const Model* model, const Slots* slots, const Course* course, int64_t threads) {
    (is_wide ? decode<float> : decode<bf16>)(*model, *slots, *course, threads);
}

// … with a multi-token module that guesses
void engine_guess(int64_t is_wide, const Model* model, int64_t is_module_wide, const Model* module, const Slots* slots,
                  const Course* course, const Guessing* guessing, int64_t threads) {
    const auto go = [&](auto act, auto further) {
        Guesses<decltype(act), decltype(further)>(*model, *module, *slots, *course, *guessing, threads).run();
    };
    if (is_wide) is_module_wide ? go(0.0f, 0.0f) : go(0.0f, bf16{});
    else is_module_wide ? go(bf16{}, 0.0f) : go(bf16{}, bf16{});
}
}
