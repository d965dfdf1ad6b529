// Decoding: tokens of many sequences, one step after another without a way back to Python. Part of step.cpp.
#pragma once

extern "C" void draw(const float* scores, int64_t width, const float* uniforms, float inverse, int64_t top_k, float top_p,
                     int64_t* tokens, float* log_probs, float* entropies, float* kept, float* scratch, int64_t rows,
                     int64_t size, int64_t threads);

// What `engine/slots.py` keeps of the sequences that are being decoded, in this order: all pointers, a row per slot
struct Slots {
    int64_t *last_token, *position, *num_sampled;
    const int64_t* budget;
    uint8_t* active;
    const int32_t* tables;
    const float *inverse, *uniforms;  // 1 / temperature, 0: the likeliest; [slots, room]
    int64_t* tokens;                  // [slots, room], as are the next two
    float *log_probs, *entropies;
    const int64_t* top_k;  // 0: all
    const float* top_p;
    const uint8_t* minds_ends;
};

// How far decoding goes: until `enough` slots have ended or one has `most` new tokens or `turns` are over, or after a turn
// where another thread has made `bell` not 0, if it listens by then. A slot ends at one of the `ends` if it minds them, with its budget, or
// where scores are no numbers, and is active no more.
struct Course {
    int64_t slots, room, table_width;
    const int64_t* ends;
    int64_t num_ends, most, enough, turns, vocabulary, width;
    const int64_t* bell;  // and the turn from which on it listens

    bool is_rung(int64_t turn) const { return bell && turn >= bell[1] && __atomic_load_n(bell, __ATOMIC_RELAXED); }
};

class Sequences {
    const Slots& s;
    const Course& c;
    std::vector<int64_t> before;

public:
    std::vector<int64_t> active;  // now
    const int64_t begun;

    Sequences(const Slots& s, const Course& c)
        : s(s), c(c), before(s.num_sampled, s.num_sampled + c.slots),
          begun(std::count_if(s.active, s.active + c.slots, [](uint8_t is_active) { return is_active; })) {}

    // Who is active, and whether to go on
    bool go_on(int64_t turn) {
        active.clear();
        for (int64_t n = 0; n < c.slots; n++)
            if (s.active[n]) active.push_back(n);
        if (turn == c.turns || (turn && c.is_rung(turn)) || active.empty() || begun - static_cast<int64_t>(active.size()) >= c.enough) return false;
        return std::all_of(active.begin(), active.end(), [&](int64_t n) { return left(n) > 0; });
    }

    // How many tokens a slot may take before this call ends
    int64_t left(int64_t n) const { return before[n] + c.most - s.num_sampled[n]; }

    // The token by a row of scores with the number for a slot's token `ahead` of the next; several slots at once
    int64_t drawn(int64_t n, const float* scores, int64_t ahead, float* log_prob, float* entropy) const {
        static thread_local std::vector<float> weights;  // stays in the nearest cache
        int64_t token;
        const int64_t place = std::min(s.num_sampled[n] + ahead, c.room - 1);
        draw(scores, c.width, s.uniforms + n * c.room + place, s.inverse[n], s.top_k[n], s.top_p[n], &token,
             log_prob, entropy, nullptr, room(weights, c.width), 1, c.vocabulary, 1);
        return token;
    }

    // A slot's next token, by a row of scores
    int64_t take(int64_t n, const float* scores) const {
        float log_prob, entropy;
        const int64_t token = drawn(n, scores, 0, &log_prob, &entropy), at = n * c.room + s.num_sampled[n];
        s.tokens[at] = s.last_token[n] = token, s.log_probs[at] = log_prob, s.entropies[at] = entropy;
        s.num_sampled[n]++, s.position[n]++;
        const bool is_end = s.minds_ends[n] && std::find(c.ends, c.ends + c.num_ends, token) != c.ends + c.num_ends;
        if (is_end || std::isnan(log_prob) || s.num_sampled[n] >= s.budget[n]) s.active[n] = 0;
        return token;
    }
};

// Rows of a batch as it is put together; the scores of some are wanted
struct Rows {
    std::vector<int64_t> tokens, positions, sequences, wanted;

    void clear() { tokens.clear(), positions.clear(), sequences.clear(), wanted.clear(); }
    int64_t count() const { return static_cast<int64_t>(tokens.size()); }
    void add(int64_t token, int64_t position, int64_t sequence) {
        tokens.push_back(token), positions.push_back(position), sequences.push_back(sequence);
    }
    void want() { wanted.push_back(count() - 1); }  // those of the newest
    StepBatch batch(const Slots& s, const Course& c, float* scores, float* states, const float* inputs) const {
        return {tokens.data(), positions.data(), sequences.data(), s.tables, c.table_width, count(),
                wanted.data(), static_cast<int64_t>(wanted.size()), scores, states, c.width, inputs};
    }
};

template <typename Act>
static void decode(const Model& model, const Slots& s, const Course& c, int64_t threads) {
    Sequences all(s, c);
    std::vector<Activations<Act>>& activations = kept_activations<Act>();
    const Unset<float> scores(all.begun * c.width);
    Rows rows;
    for (int64_t turn = 0; all.go_on(turn); turn++) {
        rows.clear();
        for (const int64_t n : all.active) rows.add(s.last_token[n], s.position[n], n), rows.want();
        step<Act>(model, rows.batch(s, c, scores.data(), nullptr, nullptr), activations, threads);
        PARALLEL(threads)
        for (int64_t i = 0; i < rows.count(); i++) all.take(all.active[i], scores.data() + i * c.width);
    }
}

// What a multi-token module guesses, in the order of `MtpDrafter.for_kernel`; a row per slot
struct Guessing {
    int64_t most;                // at a time
    int64_t *first, *where;      // the guess that is there, and the position of the token that it follows; -1: none
    float* states;               // [slots, hidden] that it came with
    int64_t *guessed, *accepted; // [most], counted by place
    const int64_t* instead;      // [slots, room] put in the place of guesses, to measure with; null: nothing
};

// As `decode`, with tokens that a multi-token module guesses scored beside the newest one. Which come out is the same:
// a guess is kept where it is what is drawn at its place.
template <typename Act, typename Further>
class Guesses {
    const Model &model, &module;
    const Slots& s;
    const Course& c;
    const Guessing& g;
    const int64_t threads, hidden;
    Sequences all;
    std::vector<Activations<Act>> activations;
    std::vector<Activations<Further>> further;
    Rows rows;
    std::vector<std::vector<int64_t>> guesses;     // of each active slot
    std::vector<int64_t> begins, taken;            // its first row, and how many tokens it took
    const Unset<float> scores, states, before, after;  // of the batch's rows; the module's inputs and states

public:
    Guesses(const Model& model, const Model& module, const Slots& s, const Course& c, const Guessing& g, int64_t threads)
        : model(model), module(module), s(s), c(c), g(g), threads(threads), hidden(model.model->hidden), all(s, c),
          scores(most_rows() * c.width), states(most_rows() * hidden), before(most_rows() * hidden),
          after(most_rows() * hidden) {}

    void run() {
        for (int64_t turn = 0; all.go_on(turn); turn++) {
            guess();
            take();
            follow();
        }
    }

private:
    int64_t most_rows() const { return all.begun * (1 + g.most); }
    int64_t num_active() const { return static_cast<int64_t>(all.active.size()); }

    // The first are there; each further one comes from the state of the one before it
    void guess() {
        guesses.assign(num_active(), {});
        for (int64_t i = 0; i < num_active(); i++) {
            const int64_t n = all.active[i];
            if (g.where[n] != s.position[n] || !may_guess(i)) continue;
            guesses[i] = {g.first[n]};
            std::memcpy(after.data() + i * hidden, g.states + n * hidden, hidden * sizeof(float));
        }
        for (int64_t depth = 1; depth < g.most && guess_further(depth);) depth++;
        for (int64_t i = 0; g.instead && i < num_active(); i++)
            for (int64_t p = 0; p < static_cast<int64_t>(guesses[i].size()); p++)
                guesses[i][p] = g.instead[all.active[i] * c.room + s.num_sampled[all.active[i]] + p];
    }

    // Whether there is room for one more guess of active slot i
    bool may_guess(int64_t i) const {
        const int64_t n = all.active[i], count = static_cast<int64_t>(guesses[i].size());
        return count < std::min({g.most, all.left(n) - 1, s.budget[n] - s.num_sampled[n] - 1});
    }

    bool guess_further(int64_t depth) {
        std::vector<int64_t> going;
        rows.clear();
        for (int64_t i = 0; i < num_active(); i++) {
            const int64_t n = all.active[i];
            if (static_cast<int64_t>(guesses[i].size()) != depth || !may_guess(i)) continue;
            std::memcpy(before.data() + rows.count() * hidden, after.data() + i * hidden, hidden * sizeof(float));
            rows.add(guesses[i].back(), s.position[n] + depth - 1, n), rows.want();
            going.push_back(i);
        }
        if (going.empty()) return false;
        step<Further>(module, rows.batch(s, c, scores.data(), states.data(), before.data()), further, threads);
        for (int64_t r = 0; r < rows.count(); r++) {
            std::memcpy(after.data() + going[r] * hidden, states.data() + r * hidden, hidden * sizeof(float));
            guesses[going[r]].push_back(guessed(all.active[going[r]], r, depth));
        }
        return true;
    }

    int64_t guessed(int64_t n, int64_t row, int64_t ahead) const {
        float log_prob, entropy;
        return all.drawn(n, scores.data() + row * c.width, ahead, &log_prob, &entropy);
    }

    // One step of the model over the newest tokens and what was guessed
    void take() {
        rows.clear(), begins.clear(), taken.assign(num_active(), 0);
        for (int64_t i = 0; i < num_active(); i++) {
            const int64_t n = all.active[i];
            int64_t position = s.position[n];
            begins.push_back(rows.count());
            rows.add(s.last_token[n], position, n), rows.want();
            for (const int64_t guess : guesses[i]) rows.add(guess, ++position, n), rows.want();
        }
        step<Act>(model, rows.batch(s, c, scores.data(), states.data(), nullptr), activations, threads);
        std::vector<int64_t> accepted(num_active());
        PARALLEL(threads)
        for (int64_t i = 0; i < num_active(); i++) {
            const int64_t n = all.active[i], count = static_cast<int64_t>(guesses[i].size());
            bool is_right = true;
            for (int64_t& t = taken[i]; is_right && s.active[n];) {
                const int64_t token = all.take(n, scores.data() + (begins[i] + t) * c.width);
                is_right = t < count && token == guesses[i][t];
                t++, accepted[i] += is_right;
            }
        }
        for (int64_t i = 0; i < num_active(); i++)
            for (int64_t p = 0; p < static_cast<int64_t>(guesses[i].size()); p++) g.guessed[p]++, g.accepted[p] += p < accepted[i];
    }

    // The module reads what became certain, and guesses the token after the newest
    void follow() {
        std::vector<int64_t> going;
        rows.clear();
        for (int64_t i = 0; i < num_active(); i++) {
            const int64_t n = all.active[i], first = s.num_sampled[n] - taken[i];
            if (!s.active[n]) continue;
            std::memcpy(before.data() + rows.count() * hidden, states.data() + begins[i] * hidden, taken[i] * hidden * sizeof(float));
            for (int64_t t = 0; t < taken[i]; t++)
                rows.add(s.tokens[n * c.room + first + t], s.position[n] - taken[i] + t, n);
            rows.want(), going.push_back(n);
        }
        if (going.empty()) return;
        step<Further>(module, rows.batch(s, c, scores.data(), after.data(), before.data()), further, threads);
        for (int64_t r = 0; r < static_cast<int64_t>(going.size()); r++) {
            const int64_t n = going[r];
            g.first[n] = guessed(n, r, 0), g.where[n] = s.position[n];
            std::memcpy(g.states + n * hidden, after.data() + rows.wanted[r] * hidden, hidden * sizeof(float));
        }
    }
};
