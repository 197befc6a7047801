/* Matrix products of int8 or int4 weights with activations that are rounded to int8: sums of integers, which are exact in any order.
 *
 * 32 inputs share a scale, of the weights of an output and of the activations of a row, so that one outlier does not coarsen a whole row
 * (llama.cpp's Q8_0 and Q4_0 do the same). Weights are kept in panels of 16 outputs, in the order in which they are multiplied, padded
 * with zeros: int8 [outs / 16, ins / 32, 8, 16, 4], scale [outs / 16, ins / 32, 16] in bfloat16. Values are in -127 to 127. int4 values are
 * in -8 to 7; 8 is added to them, and two are in a byte, [outs / 16, ins / 32, 4, 16, 4]: of the group's first 16 inputs in the lower
 * bits, of the others in the upper ones. A row's result does not depend on the other rows: the sums of 32 are exact, and are added up in
 * float32 in the order of the inputs.
 */
#ifdef __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#endif

enum { PANEL = 16, GROUP = 32 };

/* What one instruction multiplies: 4 inputs of each output of a panel. `weights_of` reads them as int8, with OFFSET added;
 * `nibbles_of` as int4, with 8 added, from the lower bits or, with a `shift` of 4, from the upper ones. `start` is the sum to begin with
 * for a group of activations whose sum is given, where `offset` was added to the weights. `dot4` adds the products of 4 inputs, `whole`
 * brings the sums into the order of the outputs. */
#if defined __AVX512VNNI__ && defined __AVX512F__
typedef int8_t act;
typedef __m512i weights4;
typedef __m512i sums4;
enum { TILE_ROWS = 12, OFFSET = 128 }; /* the instruction takes one factor without sign */
INLINE sums4 start(int32_t sum, int offset) { return _mm512_set1_epi32(-offset * sum); }
INLINE weights4 weights_of(const int8_t *p) { return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128)); }
INLINE weights4 nibbles_of(const int8_t *p, int shift) {
    return _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), shift), _mm512_set1_epi8(15));
}
INLINE void dot4(sums4 *s, const weights4 *w, const act *x) {
    int32_t four; memcpy(&four, x, sizeof four);
    *s = _mm512_dpbusd_epi32(*s, *w, _mm512_set1_epi32(four));
}
INLINE void whole(const sums4 *s, fv *out) { out[0] = (fv)_mm512_cvtepi32_ps(*s); }
#elif defined __AVX2__
/* In 16 bits: as fast as in 8, where each product needs the signs moved from one factor to the other. The sums are of pairs of inputs. */
typedef int16_t act;
typedef struct { __m256i of[4]; } weights4;
typedef struct { __m256i of[4]; } sums4;
enum { TILE_ROWS = 2, OFFSET = 0 };
INLINE sums4 start(int32_t sum, int offset) {
    const __m256i first = _mm256_set1_epi64x((uint32_t)(-offset * sum));
    return (sums4){{first, first, first, first}};
}
INLINE weights4 weights_of(const int8_t *p) {
    weights4 w;
    for (int i = 0; i < 4; i++) w.of[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p + i));
    return w;
}
INLINE weights4 nibbles_of(const int8_t *p, int shift) {
    weights4 w;
    for (int i = 0; i < 4; i++) {
        const __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p + i));
        w.of[i] = shift ? _mm256_srli_epi16(both, 4) : _mm256_and_si256(both, _mm256_set1_epi16(15));
    }
    return w;
}
INLINE void dot4(sums4 *s, const weights4 *w, const act *x) {
    long long four; memcpy(&four, x, sizeof four);
    const __m256i values = _mm256_set1_epi64x(four);
    for (int i = 0; i < 4; i++) s->of[i] = _mm256_add_epi32(s->of[i], _mm256_madd_epi16(w->of[i], values));
}
INLINE void whole(const sums4 *s, fv *out) {
    for (int half = 0; half < 2; half++) {
        const __m256i mixed = _mm256_hadd_epi32(s->of[2 * half], s->of[2 * half + 1]);
        const __m256 ordered = _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(mixed, 0xd8));
        memcpy((float *)out + 8 * half, &ordered, sizeof ordered);
    }
}
#elif defined __ARM_FEATURE_DOTPROD
typedef int8_t act;
typedef struct { int8x16_t of[4]; } weights4;
typedef struct { int32x4_t of[4]; } sums4;
enum { TILE_ROWS = 4, OFFSET = 0 };
INLINE sums4 start(int32_t sum, int offset) {
    const int32x4_t first = vdupq_n_s32(-offset * sum);
    return (sums4){{first, first, first, first}};
}
INLINE weights4 weights_of(const int8_t *p) {
    weights4 w;
    for (int i = 0; i < 4; i++) w.of[i] = vld1q_s8(p + 16 * i);
    return w;
}
INLINE weights4 nibbles_of(const int8_t *p, int shift) {
    weights4 w;
    for (int i = 0; i < 4; i++) {
        const uint8x16_t both = vld1q_u8((const uint8_t *)p + 16 * i);
        w.of[i] = vreinterpretq_s8_u8(shift ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
    }
    return w;
}
INLINE void dot4(sums4 *s, const weights4 *w, const act *x) {
    int32_t four; memcpy(&four, x, sizeof four);
    const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(four));
    for (int i = 0; i < 4; i++) s->of[i] = vdotq_s32(s->of[i], w->of[i], values);
}
INLINE void whole(const sums4 *s, fv *out) {
    for (int i = 0; i < 4; i++) vst1q_f32((float *)out + 4 * i, vcvtq_f32_s32(s->of[i]));
}
#else
typedef int32_t act;
typedef int32_t i4 __attribute__((vector_size(16)));
typedef struct { i4 of[4]; } weights4; /* of an output each 32 bits, its 4 inputs */
typedef struct { i4 of[4]; } sums4;
enum { TILE_ROWS = 2, OFFSET = 0 };
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "the weights of an output are read as a little-endian number"
#endif
INLINE sums4 start(int32_t sum, int offset) {
    const i4 first = (i4){0} - offset * sum;
    return (sums4){{first, first, first, first}};
}
INLINE weights4 weights_of(const int8_t *p) { weights4 w; memcpy(&w, p, sizeof w); return w; }
INLINE weights4 nibbles_of(const int8_t *p, int shift) {
    weights4 w = weights_of(p);
    for (int i = 0; i < 4; i++) w.of[i] = (w.of[i] >> shift) & 0x0f0f0f0f;
    return w;
}
INLINE void dot4(sums4 *s, const weights4 *w, const act *x) {
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++) s->of[i] += ((w->of[i] << (24 - 8 * k)) >> 24) * x[k];
}
INLINE void whole(const sums4 *s, fv *out) {
    for (int i = 0; i < 16; i++) ((float *)out)[i] = (float)s->of[i / 4][i % 4];
}
#endif

/* 32 activations: what is multiplied, its scale and its sum. */
typedef struct { float scale; int32_t sum; act values[GROUP]; } Group;
const int32_t group_floats = sizeof(Group) / sizeof(float);

INLINE int groups(int ins) { return (ins + GROUP - 1) / GROUP; }

/* x[0 to ins) as `groups` of 32, the last filled up with zeros. What is not finite makes the scale so, and with it the results. */
static void quantize(const float *x, int ins, Group *out) {
    for (int g = 0; g < groups(ins); g++, out++) {
        float values[GROUP] = {0};
        memcpy(values, x + g * GROUP, sizeof(float) * (ins - g * GROUP < GROUP ? ins - g * GROUP : GROUP));
        int32_t most = 0; /* of the magnitudes, by their bits: those of what is not finite are larger than all others */
        for (int i = 0; i < GROUP; i++) {
            int32_t bits; memcpy(&bits, &values[i], sizeof bits);
            bits &= 0x7fffffff;
            most = bits > most ? bits : most;
        }
        float magnitude; memcpy(&magnitude, &most, sizeof most);
        const float factor = magnitude > 1e-30f ? 127 / magnitude : 0;
        int32_t sum = 0;
        for (int i = 0; i < GROUP; i++) {
            const float rounding = 12582912; /* 1.5 * 2^23: what is added to it is rounded to a whole number, half to even */
            const float shifted = values[i] * factor + rounding;
            int32_t bits; memcpy(&bits, &shifted, sizeof bits);
            const int32_t value = (int8_t)(bits - 0x4b400000);
            out->values[i] = (act)value;
            sum += value;
        }
        out->scale = magnitude / 127;
        out->sum = sum;
    }
}

INLINE int group_bytes(int kind) { return kind == INT4 ? PANEL * GROUP / 2 : PANEL * GROUP; }

/* out[r * stride + o] = <weight[o], x[r]> of a panel's `outs` outputs; `kind` and `rows` are constants, rows of at most TILE_ROWS. `fetch`:
 * the weights come from memory, and those ahead are asked for. */
INLINE void panel_tile(int kind, const int8_t *w, const uint16_t *scale, const Group *x, int count, int rows, float *out, int stride,
                       int outs, int fetch) {
    const int loads = group_bytes(kind) / (4 * PANEL);
    fv total[TILE_ROWS][PARTS];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < PARTS; p++) total[r][p] = (fv){0};
    for (int g = 0; g < count; g++, w += group_bytes(kind), scale += PANEL) {
        sums4 sums[TILE_ROWS];
        #pragma GCC unroll 12
        for (int r = 0; r < rows; r++) sums[r] = start(x[(int64_t)r * count + g].sum, kind == INT4 ? 8 : OFFSET);
        #pragma GCC unroll 8
        for (int k = 0; k < loads; k++) {
            if (fetch) __builtin_prefetch(w + 4 * PANEL * k + AHEAD);
            for (int half = 0; half < (kind == INT4 ? 2 : 1); half++) {
                const weights4 four = kind == INT4 ? nibbles_of(w + 4 * PANEL * k, 4 * half) : weights_of(w + 4 * PANEL * k);
                #pragma GCC unroll 12
                for (int r = 0; r < rows; r++) dot4(&sums[r], &four, x[(int64_t)r * count + g].values + GROUP / 2 * half + 4 * k);
            }
        }
        fv scales[PARTS];
        for (int p = 0; p < PARTS; p++) {
            hv half; memcpy(&half, scale + p * LANES, sizeof half);
            scales[p] = (fv)(__builtin_convertvector(half, iv) << 16);
        }
        #pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            fv sum[PARTS];
            whole(&sums[r], sum);
            for (int p = 0; p < PARTS; p++) total[r][p] += sum[p] * (scales[p] * x[(int64_t)r * count + g].scale);
        }
    }
    for (int r = 0; r < rows; r++) memcpy(out + (int64_t)r * stride, total[r], sizeof(float) * outs);
}

/* out[r * stride + o] for the panel that begins with output `first`. */
INLINE void panel(const Matrix *m, int kind, int first, const Group *x, int rows, float *out, int stride) {
    const int count = groups(m->ins), outs = m->outs - first < PANEL ? m->outs - first : PANEL;
    const int8_t *w = (const int8_t *)m->weight + (int64_t)(first / PANEL) * count * group_bytes(kind);
    const uint16_t *s = (const uint16_t *)m->scale + (int64_t)first * count;
    for (int r = 0; r < rows; r += TILE_ROWS) {
        const Group *from = x + (int64_t)r * count;
        float *to = out + (int64_t)r * stride;
#define TILE(n) case n: panel_tile(kind, w, s, from, count, n, to, stride, outs, r == 0); break
        switch (rows - r) {
            TILE(1);
#if defined __AVX512VNNI__ && defined __AVX512F__
            TILE(2); TILE(3); TILE(4); TILE(5); TILE(6); TILE(7); TILE(8); TILE(9); TILE(10); TILE(11);
#elif defined __ARM_FEATURE_DOTPROD
            TILE(2); TILE(3);
#endif
            default: panel_tile(kind, w, s, from, count, TILE_ROWS, to, stride, outs, r == 0);
        }
#undef TILE
    }
}
