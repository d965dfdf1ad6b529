// Decoding a batch on, token after token, until a sample ends: model, head, draw and notes without a way back.
#include <algorithm>
#include <vector>

#include "simd.h"

// What `engine/slots.py` keeps of a batch, in this order: all pointers, a row per slot
struct Batch {
    int64_t *last_token, *position, *num_sampled;
    const int64_t* budget;
    const uint8_t* active;
    int64_t* tokens;
    float *log_probs, *entropies;
    const float* uniforms;
};

extern "C" {
struct Model;
struct Layer;
void decode_step(const Model* model, const Layer* layers, const float* constants, const int64_t* tokens,
                 const int64_t* where, bf16* states, int64_t widest, int64_t rows, int64_t threads);
void packed_head(const bf16* states, const uint32_t* weight, float* scores, int64_t rows, int64_t width, int64_t size,
                 int64_t threads);
void draw(const float* scores, int64_t width, const float* uniforms, float inverse, int64_t* tokens, float* log_probs,
          float* entropies, float* scratch, int64_t rows, int64_t size, int64_t threads);

// As many tokens for every one of `rows` slots until an active one draws one of `ends` or uses up its budget, at most `most`.
// Slots have room for `room` tokens; the head is packed, `vocabulary` of its `width` columns real.
void decode_on(const Model* model, const Layer* layers, const float* constants, const Batch* batch, int64_t rows,
               int64_t room, const uint32_t* head, int64_t vocabulary, int64_t width, int64_t hidden, float inverse,
               const int64_t* ends, int64_t num_ends, int64_t most, int64_t widest, int64_t threads) {
    const Batch& b = *batch;
    std::vector<bf16> states(rows * hidden);
    std::vector<float> scores(rows * width), scratch(rows * vocabulary), numbers(rows), log_probs(rows), entropies(rows);
    std::vector<int64_t> drawn(rows);
    bool has_ended = false;
    for (int64_t step = 0; step < most && !has_ended; step++) {
        decode_step(model, layers, constants, b.last_token, b.position, states.data(), widest, rows, threads);
        packed_head(states.data(), head, scores.data(), rows, width, hidden, threads);
        for (int64_t n = 0; n < rows; n++) numbers[n] = b.uniforms[n * room + b.num_sampled[n]];
        draw(scores.data(), width, numbers.data(), inverse, drawn.data(), log_probs.data(), entropies.data(),
             scratch.data(), rows, vocabulary, threads);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t at = n * room + b.num_sampled[n];
            b.tokens[at] = b.last_token[n] = drawn[n];
            b.log_probs[at] = log_probs[n], b.entropies[at] = entropies[n];
            if (!b.active[n]) continue;
            b.num_sampled[n]++, b.position[n]++;
            const bool is_end = std::find(ends, ends + num_ends, drawn[n]) != ends + num_ends;
            has_ended |= is_end || b.num_sampled[n] >= b.budget[n];
        }
    }
}
}
