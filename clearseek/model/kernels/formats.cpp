// Weights laid out and quantised for the engine: see formats.h.
#include "formats.h"

// Of the scale that reaches the largest number, what is tried besides: 0.92 and 0.84 take 5 to 13 % off the squared error
static constexpr float INT4_PARTS[] = {0.92f, 0.84f};

// 16 numbers in int4, from 0 on
static inline __m512i round_int4(__m512 x, float factor) {
    const __m512i q = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(factor)), _mm512_set1_ps(8.5f)));
    return _mm512_min_epi32(_mm512_max_epi32(q, _mm512_setzero_si512()), _mm512_set1_epi32(15));
}

// The squared error of `group` numbers in four bits with a scale that is `kept`. Summed in fp64, so that its order decides
// nothing
template <typename In>
static double error_int4(const In* row, int64_t group, float factor, float kept) {
    __m512d total = _mm512_setzero_pd();
    for (int64_t c = 0; c < group; c += 16) {
        const __m512 x = load(row + c);
        const __m512 q = _mm512_cvtepi32_ps(_mm512_sub_epi32(round_int4(x, factor), _mm512_set1_epi32(8)));
        const __m512 off = _mm512_sub_ps(x, _mm512_mul_ps(q, _mm512_set1_ps(kept)));
        for (const __m256 half : {_mm512_castps512_ps256(off), _mm512_extractf32x8_ps(off, 1)}) {
            const __m512d wide = _mm512_cvtps_pd(half);
            total = _mm512_fmadd_pd(wide, wide, total);
        }
    }
    return _mm512_reduce_add_pd(total);
}

static inline float inverse(float x) { return x ? 1.0f / x : 0.0f; }
static inline uint16_t to_half(float x) { return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)); }
// A scale in units of its output's factor; none that there is becomes 0
static inline int8_t to_byte(float scale, float units) {
    const int32_t whole = std::max(-127, std::min(127, _mm_cvtss_si32(_mm_set_ss(scale * units))));
    return static_cast<int8_t>(whole || !scale ? whole : std::signbit(scale) ? -1 : 1);
}

// The scale of a group in four bits: GGUF's, with which the number of largest magnitude is −8, or a smaller one with which
// that number is cut off and the others lie closer. `kept` says what becomes of a scale, and `by` what numbers are
// divided by.
template <typename In, typename Kept, typename By>
static float scale_int4(const In* row, int64_t group, float largest, const Kept& kept, const By& by) {
    float best = largest / -8.0f;
    double least = error_int4(row, group, inverse(by(best)), kept(best));
    for (const float part : INT4_PARTS) {
        const float scale = largest / -8.0f * part;
        const double error = least > 0 ? error_int4(row, group, inverse(by(scale)), kept(scale)) : least;
        if (error < least) best = scale, least = error;
    }
    return best;
}

template <typename In>
static float number_at(const In* row, int64_t c) {
    if constexpr (sizeof(In) == 4) return row[c];
    const uint32_t bits = static_cast<uint32_t>(row[c]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// The number of largest magnitude of some
template <typename In>
static float largest_of(const In* row, int64_t count) {
    float largest = 0;
    for (int64_t c = 0; c < count; c++)
        if (const float value = number_at(row, c); std::fabs(value) > std::fabs(largest)) largest = value;
    return largest;
}

// Some rows of `group` numbers from `w`, `stride` apart → their whole numbers [rows, group], and their scales as they are
// kept: in int8 the largest magnitude is 127, as in GGUF's Q8_0. `factors` are int4's.
template <typename In>
static void quantise_lanes(const In* w, int64_t stride, int64_t rows, int64_t group, int64_t format, const float* factors,
                           uint8_t* whole, uint8_t* scales) {
    for (int64_t i = 0; i < rows; i++) {
        const In* row = w + i * stride;
        const float largest = largest_of(row, group), factor = factors[i], units = inverse(factor);
        const auto itself = [](float scale) { return scale; };
        const auto halved = [](float scale) { return _cvtsh_ss(to_half(scale)); };
        const auto in_units = [=](float scale) { return static_cast<float>(to_byte(scale, units)) * factor; };
        float scale = std::fabs(largest) / 127.0f;
        if (format == Q4_0) scale = scale_int4(row, group, largest, halved, itself);
        if (format == INT4) {
            const float best = scale_int4(row, group, largest, in_units, in_units);
            reinterpret_cast<int8_t*>(scales)[i] = to_byte(best, units), scale = in_units(best);
        } else reinterpret_cast<uint16_t*>(scales)[i] = to_half(scale);
        for (int64_t c = 0; c < group; c += 16) {
            const __m512 x = load(row + c);
            __m512i q;
            if (format == INT8) {  // half away from zero, as the reference rounds
                const __m512 scaled = _mm512_mul_ps(x, _mm512_set1_ps(inverse(scale)));
                const __m512 half = _mm512_or_ps(_mm512_and_ps(scaled, _mm512_set1_ps(-0.0f)), _mm512_set1_ps(0.5f));
                q = _mm512_add_epi32(_mm512_cvttps_epi32(_mm512_add_ps(scaled, half)), _mm512_set1_epi32(128));
            } else q = round_int4(x, inverse(scale));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(whole + i * group + c), _mm512_cvtepi32_epi8(q));
        }
    }
}

// Whole numbers [rows, group] of one group → its words in a panel, from column `first` on
static void place_group(const uint8_t* whole, int64_t rows, int64_t group, int64_t format, uint32_t* words, int64_t first) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < group / (format == INT8 ? 4 : 8); k++) {
            uint32_t word;
            if (format == INT8) std::memcpy(&word, whole + i * group + 4 * k, 4);
            else {
                uint32_t low, high;
                std::memcpy(&low, whole + i * group + 8 * k, 4), std::memcpy(&high, whole + i * group + 8 * k + 4, 4);
                word = low | high << 4;
            }
            words[k * PANEL + first + i] = word;
        }
}

template <typename In>
static void lay_out(const In* weight, int64_t outputs, int64_t inputs, int64_t format, int64_t group, uint8_t* to,
                    int64_t threads) {
    const int64_t bytes = panel_bytes(format, inputs, group);
    PARALLEL(threads)
    for (int64_t p = 0; p < num_panels(outputs); p++) {
        uint8_t* panel = to + p * bytes;
        const int64_t rows = std::min(PANEL, outputs - p * PANEL);
        const In* from = weight + p * PANEL * inputs;
        if (rows < PANEL) std::memset(panel, 0, bytes);
        if (format == FLOAT32) {
            float* words = reinterpret_cast<float*>(panel);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t c = 0; c < inputs; c++) {
                    if constexpr (sizeof(In) == 4) words[c * PANEL + i] = from[i * inputs + c];
                    else {
                        const uint32_t bits = static_cast<uint32_t>(from[i * inputs + c]) << 16;
                        std::memcpy(words + c * PANEL + i, &bits, 4);
                    }
                }
        } else if (format == BFLOAT16) {
            pack_transposed(from, inputs, rows, inputs / 2, reinterpret_cast<uint32_t*>(panel), PANEL);
        } else {
            const Unset<uint8_t> whole(PANEL * group);
            const int64_t size = group_bytes(format, group);
            float factors[PANEL] = {};
            if (format == INT4) {
                for (int64_t i = 0; i < rows; i++)
                    factors[i] = std::fabs(largest_of(from + i * inputs, inputs)) / 8.0f / 127.0f;
                std::memcpy(panel, factors, sizeof(factors));
            }
            for (int64_t g = 0; g < inputs / group; g++) {
                uint8_t *at = panel + head_bytes(format) + g * size, *scales = at + size - scales_bytes(format);
                quantise_lanes(from + g * group, inputs, rows, group, format, factors, whole.data(), scales);
                place_group(whole.data(), rows, group, format, reinterpret_cast<uint32_t*>(at), 0);
            }
        }
    }
}

extern "C" {

// weight [outputs, inputs] (`is_wide`: in fp32, else bf16) → its panels in `format`
void lay_out_weight(int64_t is_wide, const void* weight, int64_t outputs, int64_t inputs, int64_t format, int64_t group,
                    uint8_t* to, int64_t threads) {
    is_wide ? lay_out(static_cast<const float*>(weight), outputs, inputs, format, group, to, threads)
            : lay_out(static_cast<const bf16*>(weight), outputs, inputs, format, group, to, threads);
}

// The same of whole numbers [outputs, inputs], with 128 or 8 added, and scales [outputs, inputs / group] as the format
// keeps them: in fp16, or in bytes with `factors` [outputs] in fp32
void lay_out_quantised(const uint8_t* whole, const uint8_t* scales, const float* factors, int64_t outputs, int64_t inputs,
                       int64_t format, int64_t group, uint8_t* to, int64_t threads) {
    const int64_t in_scale = scales_bytes(format) / PANEL;
    const int64_t bytes = panel_bytes(format, inputs, group), groups = inputs / group, size = group_bytes(format, group);
    PARALLEL(threads)
    for (int64_t p = 0; p < num_panels(outputs); p++) {
        const int64_t rows = std::min(PANEL, outputs - p * PANEL);
        if (rows < PANEL) std::memset(to + p * bytes, 0, bytes);
        if (format == INT4) std::memcpy(to + p * bytes, factors + p * PANEL, rows * sizeof(float));
        for (int64_t g = 0; g < groups; g++) {
            uint8_t *at = to + p * bytes + head_bytes(format) + g * size, *kept = at + size - scales_bytes(format);
            for (int64_t i = 0; i < rows; i++) {
                const int64_t row = p * PANEL + i;
                std::memcpy(kept + i * in_scale, scales + (row * groups + g) * in_scale, in_scale);
                place_group(whole + row * inputs + g * group, 1, group, format, reinterpret_cast<uint32_t*>(at), i);
            }
        }
    }
}

// y [rows, outputs] in fp32 = x [rows, inputs] in fp32 (`is_wide`) or bf16 · a laid out weight; for tests and measuring
void weight_product(int64_t is_wide, const void* x, const uint8_t* weight, int64_t rows, int64_t inputs, int64_t outputs,
                    int64_t format, int64_t group, float* y, int64_t threads) {
    const Weight w{weight, inputs, outputs, format};
    const int64_t groups = w.is_quantised() ? inputs / group : 0;
    const Unset<int8_t> bytes((rows + SLACK) * inputs);
    const Unset<float> scales(rows * groups + 1);
    const Unset<int32_t> sums(rows * groups + 1);
    const Quantised q{bytes.data(), scales.data(), sums.data(), inputs, group};
    const auto run = [&](auto* typed) {
        PARALLEL(threads)
        for (int64_t i = 0; i < rows * groups; i++)
            quantise_group(typed + i * group, group, q.bytes + i * group, q.scales + i, q.sums + i);
        using Act = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
        const Unset<Act> slack((rows + SLACK) * inputs);
        std::copy(typed, typed + rows * inputs, slack.data());
        const Left<Act> left{slack.data(), inputs, q};
        PARALLEL(threads)
        for (int64_t p = 0; p < num_panels(outputs); p++) {
            const Tiles tiles;
            panel_product(w, p, left, rows, y, outputs, group);
        }
    };
    is_wide ? run(static_cast<const float*>(x)) : run(static_cast<const bf16*>(x));
}
}
