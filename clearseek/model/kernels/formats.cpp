// Weights laid out and quantised for the engine: see formats.h.
#include "formats.h"

// Of the scale that reaches the largest number, what is tried besides: 0.92 and 0.84 take 5 to 13 % off the squared error
static constexpr float INT4_PARTS[] = {0.92f, 0.84f};

// 16 numbers in int4, from 0 on
static inline __m512i round_int4(__m512 x, float factor) {
    const __m512i q = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(factor)), _mm512_set1_ps(8.5f)));
    return _mm512_min_epi32(_mm512_max_epi32(q, _mm512_setzero_si512()), _mm512_set1_epi32(15));
}

// The squared error of `group` numbers in int4. Summed in fp64, so that its order decides nothing
template <typename In>
static double error_int4(const In* row, int64_t group, float scale) {
    const float kept = _cvtsh_ss(_cvtss_sh(scale, _MM_FROUND_TO_NEAREST_INT)), factor = scale ? 1.0f / scale : 0.0f;
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

// The scale of a group in int4: GGUF's, with which the number of largest magnitude is −8, or a smaller one with which
// that number is cut off and the others lie closer
template <typename In>
static float scale_int4(const In* row, int64_t group, float largest) {
    float best = largest / -8.0f;
    double least = error_int4(row, group, best);
    for (const float part : INT4_PARTS) {
        const float scale = largest / -8.0f * part;
        const double error = least > 0 ? error_int4(row, group, scale) : least;
        if (error < least) best = scale, least = error;
    }
    return best;
}

// Some rows of `group` numbers from `w`, `stride` apart → their whole numbers [rows, group], and their scales: in int8
// the largest magnitude is 127, as in GGUF's Q8_0
template <typename In>
static void quantise_lanes(const In* w, int64_t stride, int64_t rows, int64_t group, int64_t format, uint8_t* whole,
                           uint16_t* scales) {
    for (int64_t i = 0; i < rows; i++) {
        const In* row = w + i * stride;
        float largest = 0, magnitude = 0;
        for (int64_t c = 0; c < group; c++) {
            float value;
            if constexpr (sizeof(In) == 4) value = row[c];
            else {
                const uint32_t bits = static_cast<uint32_t>(row[c]) << 16;
                std::memcpy(&value, &bits, 4);
            }
            if (std::fabs(value) > magnitude) magnitude = std::fabs(value), largest = value;
        }
        const float scale = format == INT8 ? magnitude / 127.0f : scale_int4(row, group, largest);
        const float factor = scale ? 1.0f / scale : 0.0f;
        scales[i] = static_cast<uint16_t>(_cvtss_sh(scale, _MM_FROUND_TO_NEAREST_INT));
        for (int64_t c = 0; c < group; c += 16) {
            const __m512 x = load(row + c);
            __m512i q;
            if (format == INT8) {  // half away from zero, as the reference rounds
                const __m512 scaled = _mm512_mul_ps(x, _mm512_set1_ps(factor));
                const __m512 half = _mm512_or_ps(_mm512_and_ps(scaled, _mm512_set1_ps(-0.0f)), _mm512_set1_ps(0.5f));
                q = _mm512_add_epi32(_mm512_cvttps_epi32(_mm512_add_ps(scaled, half)), _mm512_set1_epi32(128));
            } else q = round_int4(x, factor);
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
            for (int64_t g = 0; g < inputs / group; g++) {
                uint8_t* at = panel + g * size;
                uint16_t* scales = reinterpret_cast<uint16_t*>(at + size - PANEL * sizeof(uint16_t));
                quantise_lanes(from + g * group, inputs, rows, group, format, whole.data(), scales);
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

// The same of whole numbers [outputs, inputs], with 128 or 8 added, and fp16 scales [outputs, inputs / group]
void lay_out_quantised(const uint8_t* whole, const uint16_t* scales, int64_t outputs, int64_t inputs, int64_t format,
                       int64_t group, uint8_t* to, int64_t threads) {
    const int64_t bytes = panel_bytes(format, inputs, group), groups = inputs / group, size = group_bytes(format, group);
    PARALLEL(threads)
    for (int64_t p = 0; p < num_panels(outputs); p++) {
        const int64_t rows = std::min(PANEL, outputs - p * PANEL);
        if (rows < PANEL) std::memset(to + p * bytes, 0, bytes);
        for (int64_t g = 0; g < groups; g++) {
            uint8_t* at = to + p * bytes + g * size;
            uint16_t* kept = reinterpret_cast<uint16_t*>(at + size - PANEL * sizeof(uint16_t));
            for (int64_t i = 0; i < rows; i++) {
                const int64_t row = p * PANEL + i;
                kept[i] = scales[row * groups + g];
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
