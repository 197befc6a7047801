/* One step of the transformer on the CPU for a few tokens, and a matrix product: where generation spends its time.
 *
 * For few rows a step is bound by reading the weights; torch's cost per operation would add as much again. Activations are
 * float32, weights float32, bfloat16, or int8 or int4 in panels (int8.h). Layouts are those of llama.py; the same formulas are
 * documented there, and how families differ in config.py. Each row may have an adapter (adapters.py). A row's result does not depend on
 * the other rows of the step, bit for bit, nor on their adapters. It allocates nothing.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

int omp_get_thread_num(void); /* omp.h, which clang brings in another package */

typedef float f8 __attribute__((vector_size(32)));
/* A product's sums are kept in 16 lanes: one register with AVX-512, else two. What is added to what is the same with either. */
#ifdef __AVX512F__
enum { LANES = 16, TOGETHER = 4 }; /* outputs of four rows at a time: with 32 registers each weight and activation is loaded once */
#define KEEP(v) __asm__("" : "+v"(v)) /* in a register; gcc would load it again for each product */
#else
enum { LANES = 8, TOGETHER = 1 };
#define KEEP(v)
#endif
typedef float fv __attribute__((vector_size(4 * LANES)));
typedef int32_t iv __attribute__((vector_size(4 * LANES)));
typedef uint16_t hv __attribute__((vector_size(2 * LANES)));
enum { PARTS = 16 / LANES };

enum kind { F32, BF16, INT8, INT4 };
typedef struct { const void *weight, *scale; int32_t kind; int32_t outs; int32_t ins; } Matrix;
/* Pointers are NULL where a family has no such thing. A query sees `window` keys. Of a head's channels 2 * `turning` turn. */
typedef struct {
    const float *attention_in, *attention_out, *mlp_in, *mlp_out; /* norms */
    const float *q_bias, *k_bias, *v_bias, *q_norm, *k_norm;
    const float *cos, *sin; /* [max_seq_len, turning] */
    int64_t window;
    Matrix q, k, v, o, gate, up, down;
} Layer;
typedef struct {
    int32_t layers, dim, heads, kv_heads, head_dim, ffn_dim, turning;
    int32_t norm_all_heads, gelu; /* queries and keys are normalized as a whole, not head by head; the gate's activation */
    float eps, attention_scale, residual_scale;
    const Layer *layer;
    const float *norm;
} Model;
typedef struct { float *keys, *values; int64_t slots, len; } Cache; /* [layers, slots, kv_heads, len, head_dim] */
/* An adapter of a projection: magnitude * (out + up (down x)). down: [rank, ins]; up: [outs / BLOCK, rank, BLOCK], padded with zeros;
 * magnitude: [outs] or NULL, for 1. rank is 0 where it leaves the projection as it is. */
typedef struct { const float *down, *up, *magnitude; int64_t rank; } LowRank;
enum { Q, K, V, O, GATE, UP, DOWN, PROJECTIONS }; /* an adapter is LowRank [layers, PROJECTIONS] */
/* of the rows: [rows], NULL for a row without one; NULL where no row has any. inner: down x, [rows, 3, max_rank] */
typedef struct { const LowRank *const *of; float *inner; int64_t max_rank; } Adapters;

#define AHEAD 8192 /* bytes; the processor's own prefetching stops at page borders: measured, half the speed without */
#define INLINE static inline __attribute__((always_inline))

#include "int8.h"

INLINE fv load(const float *p) { fv v; memcpy(&v, p, sizeof v); return v; }

/* LANES weights as float32. */
INLINE fv weights(const void *row, int kind, int at) {
    if (kind == F32) return load((const float *)row + at);
    hv h; memcpy(&h, (const uint16_t *)row + at, sizeof h);
    return (fv)(__builtin_convertvector(h, iv) << 16);
}

INLINE float one_weight(const void *row, int kind, int at) {
    if (kind == F32) return ((const float *)row)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)row)[at] << 16;
    float f; memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE float sum(f8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

INLINE float sum16(const fv *parts) {
    f8 half[2]; memcpy(half, parts, sizeof half);
    return sum(half[0] + half[1]);
}

/* out[r * stride + o] = <weight[first + o], x[r]>; `outs` and `rows` are constants of at most 4, so that all sums are registers.
 * Of the weights to come those of every `every`-th output are fetched, from `turn` on: what several tiles read is fetched once. */
INLINE void tile(const Matrix *m, int kind, int first, int outs, const float *x, int rows, float *out, int stride, int turn, int every) {
    const int ins = m->ins, even = ins / 16 * 16, width = kind == F32 ? 4 : 2;
    const char *w = (const char *)m->weight + (int64_t)first * ins * width;
    fv sums[4 * 4][PARTS];
    for (int i = 0; i < rows * outs; i++)
        for (int p = 0; p < PARTS; p++) sums[i][p] = (fv){0};
    for (int at = 0; at < even; at += 16) {
        for (int o = turn; o < outs; o += every) __builtin_prefetch(w + ((int64_t)o * ins + at) * width + AHEAD);
        #pragma GCC unroll 2
        for (int p = 0; p < PARTS; p++) {
            fv activations[4];
            #pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                activations[r] = load(x + (int64_t)r * ins + at + p * LANES);
                KEEP(activations[r]);
            }
            #pragma GCC unroll 4
            for (int o = 0; o < outs; o++) {
                const fv weight = weights(w + (int64_t)o * ins * width, kind, at + p * LANES);
                #pragma GCC unroll 4
                for (int r = 0; r < rows; r++) sums[r * outs + o][p] += weight * activations[r];
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < outs; o++) {
            float s = sum16(sums[r * outs + o]);
            for (int at = even; at < ins; at++) s += one_weight(w + (int64_t)o * ins * width, kind, at) * x[(int64_t)r * ins + at];
            out[r * stride + o] = s;
        }
}

INLINE void strip(const Matrix *m, int kind, int first, int outs, const float *x, int rows, float *out, int stride, int turn, int every) {
    if (outs == 4 && (TOGETHER == 4 || rows == 1)) tile(m, kind, first, 4, x, rows, out, stride, turn, every);
    else for (int o = 0; o < outs; o++) tile(m, kind, first + o, 1, x, rows, out + o, stride, turn, every);
}

INLINE void tiles(const Matrix *m, int kind, int first, int outs, const float *x, int rows, float *out, int stride) {
    const int strips = (rows + 3) / 4;
    for (int n = 0; n < strips; n++) {
        const float *block = x + (int64_t)4 * n * m->ins;
        float *to = out + (int64_t)4 * n * stride;
        switch (rows - 4 * n) {
            case 1: strip(m, kind, first, outs, block, 1, to, stride, n, strips); break;
            case 2: strip(m, kind, first, outs, block, 2, to, stride, n, strips); break;
            case 3: strip(m, kind, first, outs, block, 3, to, stride, n, strips); break;
            default: strip(m, kind, first, outs, block, 4, to, stride, n, strips);
        }
    }
}

/* What a product reads: rows of activations, and the same rounded (int8.h), for int8 and int4 weights. */
typedef struct { const float *x; const Group *rounded; } Input;

/* out[r * stride + o] = <weight[first + o], x[r]> for up to BLOCK outputs, the unit of work of a thread. */
#define BLOCK PANEL
static void dots(const Matrix *m, int first, Input in, int rows, float *out, int stride) {
    if (m->kind == INT8) { panel(m, INT8, first, in.rounded, rows, out, stride); return; }
    if (m->kind == INT4) { panel(m, INT4, first, in.rounded, rows, out, stride); return; }
    for (int o = first; o < first + BLOCK && o < m->outs; o += 4, out += 4) {
        const int outs = m->outs - o < 4 ? m->outs - o : 4;
        if (m->kind == F32) tiles(m, F32, o, outs, in.x, rows, out, stride);
        else tiles(m, BF16, o, outs, in.x, rows, out, stride);
    }
}

/* The rows rounded, if a matrix takes them so; every thread calls it, and waits for the others. */
static void round_rows(const Matrix *one, const Matrix *other, const Matrix *third, const float *x, int rows, Group *rounded) {
    if (one->kind < INT8 && other->kind < INT8 && third->kind < INT8) return;
    #pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) quantize(x + (int64_t)r * one->ins, one->ins, rounded + (int64_t)r * groups(one->ins));
}

/* Two sums of 16 lanes, so that a product need not wait for the one before. */
INLINE float dot(const float *x, const float *y, int n) {
    fv sums[2][PARTS];
    memset(sums, 0, sizeof sums);
    int i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 2; k++)
            for (int p = 0; p < PARTS; p++) sums[k][p] += load(x + i + 16 * k + p * LANES) * load(y + i + 16 * k + p * LANES);
    for (int p = 0; p < PARTS; p++) sums[0][p] += sums[1][p];
    float s = sum16(sums[0]);
    for (; i < n; i++) s += x[i] * y[i];
    return s;
}

/* down x of `count` projections from `first` on, for the rows with an adapter; every thread calls it, and waits for the others. */
static void reduce(const Adapters *adapters, int layer, int first, int count, const float *x, int ins, int rows) {
    if (!adapters->of) return;
    const int64_t rank = adapters->max_rank, all = count * rank * rows;
    #pragma omp for schedule(static)
    for (int64_t n = 0; n < all; n++) { /* rows are next to each other: they mostly share an adapter */
        const int r = n % rows, i = n / rows % rank, p = n / rows / rank;
        if (!adapters->of[r]) continue;
        const LowRank *low = adapters->of[r] + layer * PROJECTIONS + first + p;
        if (i < low->rank) adapters->inner[(r * 3 + p) * rank + i] = dot(low->down + i * ins, x + (int64_t)r * ins, ins);
    }
}

/* What the adapters make of up to BLOCK outputs of a projection; p counts from the `first` of reduce. */
static void adapt(const Adapters *adapters, int layer, int projection, int p, int first, int outs, int rows, float *out, int stride) {
    if (!adapters->of) return;
    const int count = outs - first < BLOCK ? outs - first : BLOCK;
    for (int r = 0; r < rows; r++) {
        const LowRank *low = adapters->of[r] ? adapters->of[r] + layer * PROJECTIONS + projection : 0;
        if (!low || !low->rank) continue;
        const float *inner = adapters->inner + (r * 3 + p) * adapters->max_rank, *up = low->up + first * low->rank;
        fv sums[PARTS] = {0};
        for (int64_t i = 0; i < low->rank; i++)
            for (int part = 0; part < PARTS; part++) sums[part] += inner[i] * load(up + i * BLOCK + part * LANES);
        float lanes[BLOCK]; memcpy(lanes, sums, sizeof lanes);
        for (int o = 0; o < count; o++) {
            float *to = out + (int64_t)r * stride + o;
            *to += lanes[o];
            if (low->magnitude) *to *= low->magnitude[first + o];
        }
    }
}

/* dots with what adapters make of them, times `scale` added to x. */
static void add(const Matrix *m, int first, Input inner, int rows, float *x, int stride, float scale, const Adapters *adapters, int layer,
                int projection) {
    float part[rows * BLOCK];
    dots(m, first, inner, rows, part, BLOCK);
    adapt(adapters, layer, projection, 0, first, m->outs, rows, part, BLOCK);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < BLOCK && first + o < m->outs; o++) x[(int64_t)r * stride + o] += scale * part[r * BLOCK + o];
}

/* out[rows, outs] = x[rows, ins] @ weight.T; rounded holds rows * groups(ins) of them for int8 and int4 weights. */
void product(const Matrix *m, const float *x, int rows, float *out, Group *rounded, int threads) {
    #pragma omp parallel num_threads(threads)
    {
        round_rows(m, m, m, x, rows, rounded);
        #pragma omp for schedule(static)
        for (int o = 0; o < m->outs; o += BLOCK) dots(m, o, (Input){x, rounded}, rows, out + o, m->outs);
    }
}

static void rms_norm(const float *x, const float *weight, int dim, float eps, float *out) {
    if (!weight) { /* no norm */
        memcpy(out, x, sizeof(float) * dim);
        return;
    }
    double squares = 0;
    for (int i = 0; i < dim; i++) squares += (double)x[i] * x[i];
    const float scale = 1 / sqrtf((float)(squares / dim) + eps);
    for (int i = 0; i < dim; i++) out[i] = weight[i] * (x[i] * scale);
}

/* x += scale * inner, behind a norm if there is one; every thread calls it, and waits for the others. */
static void back_to(float *x, const Matrix *m, const float *norm, const Model *model, Input inner, int rows, float *kept,
                    const Adapters *adapters, int layer, int projection) {
    const int dim = model->dim;
    reduce(adapters, layer, projection, 1, inner.x, m->ins, rows);
    #pragma omp for schedule(static)
    for (int o = 0; o < dim; o += BLOCK) {
        if (norm) { /* of the whole row, which other threads make too */
            dots(m, o, inner, rows, kept + o, dim);
            adapt(adapters, layer, projection, 0, o, dim, rows, kept + o, dim);
        } else add(m, o, inner, rows, x + o, dim, model->residual_scale, adapters, layer, projection);
    }
    if (!norm) return;
    #pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        float *row = kept + (int64_t)r * dim;
        rms_norm(row, norm, dim, model->eps, row);
        for (int i = 0; i < dim; i++) x[(int64_t)r * dim + i] += model->residual_scale * row[i];
    }
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cos[i] - second * sin[i];
        x[i + half] = second * cos[i] + first * sin[i];
    }
}

#if defined __clang__ || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t i8 __attribute__((vector_size(32)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (i8){__VA_ARGS__})
#endif

/* sum() of each of eight. */
INLINE f8 sums_of(const f8 *v) {
    f8 x[4], y[2];
    for (int i = 0; i < 4; i++) x[i] = SHUFFLE(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11)
                                              + SHUFFLE(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    for (int i = 0; i < 2; i++) y[i] = SHUFFLE(x[i], x[i + 2], 0, 1, 8, 9, 4, 5, 12, 13)
                                              + SHUFFLE(x[i], x[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLE(y[0], y[1], 0, 8, 2, 10, 4, 12, 6, 14) + SHUFFLE(y[0], y[1], 1, 9, 3, 11, 5, 13, 7, 15);
}

/* score[0 to 8) = <q, keys[t]> * scale; beyond the `count` keys the last one counts again. */
INLINE void score8(const float *q, const float *keys, int count, int size, float scale, float *score) {
    f8 sums[8];
    for (int t = 0; t < 8; t++) {
        const float *key = keys + (int64_t)(t < count ? t : count - 1) * size;
        fv parts[PARTS];
        for (int p = 0; p < PARTS; p++) parts[p] = (fv){0};
        for (int i = 0; i + 16 <= size; i += 16)
            for (int p = 0; p < PARTS; p++) parts[p] += load(q + i + p * LANES) * load(key + i + p * LANES);
        f8 half[2]; memcpy(half, parts, sizeof half);
        sums[t] = half[0] + half[1];
    }
    f8 all = sums_of(sums);
    for (int i = size / 16 * 16; i < size; i++)
        for (int t = 0; t < 8; t++) all[t] += q[i] * keys[(int64_t)(t < count ? t : count - 1) * size + i];
    all *= scale;
    memcpy(score, &all, sizeof all);
}

/* e^x, of x between -87 and 87, to which others are moved (the polynomial of Cephes' expf). */
INLINE fv exponential(fv x) {
    const fv limit = (fv){0} + 87.0f;
    const iv below = x < -limit, above = x > limit;
    x = (fv)(((iv)-limit & below) | ((iv)limit & above) | ((iv)x & ~(below | above)));
    const fv shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f; /* as in int8.h */
    x = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    fv y = x * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * (x * x) + x + 1.0f;
    return y * (fv)(((iv)shifted - 0x4b400000 + 127) << 23);
}

/* g[0 to count) = activation(g) * up, of at most BLOCK; SiLU is g / (1 + e^-g), GELU with tanh g / (1 + e^-2u), u as below. */
INLINE void gate(float *g, const float *up, int count, int gelu) {
    float values[BLOCK] = {0};
    memcpy(values, g, sizeof(float) * count);
    for (int p = 0; p < PARTS; p++) {
        fv v = load(values + p * LANES);
        const fv u = gelu ? 1.59576912f * (v + 0.044715f * v * v * v) : v;
        v = v / (1 + exponential(-u)) * load(up + p * LANES);
        memcpy(values + p * LANES, &v, sizeof v);
    }
    memcpy(g, values, sizeof(float) * count);
}

/* score[0 to count) to their softmax; what follows up to a multiple of 16 may be written. */
static void softmax(float *score, int count) {
    float most = -INFINITY;
    for (int t = 0; t < count; t++) most = score[t] > most ? score[t] : most;
    fv total[PARTS];
    for (int p = 0; p < PARTS; p++) total[p] = (fv){0};
    for (int t = 0; t < count; t += 16) {
        for (int p = 0; p < PARTS; p++) {
            const fv e = exponential(load(score + t + p * LANES) - most);
            memcpy(score + t + p * LANES, &e, sizeof e);
        }
        for (int i = count; i < t + 16; i++) score[i] = 0;
        for (int p = 0; p < PARTS; p++) total[p] += load(score + t + p * LANES);
    }
    const float share = 1 / sum16(total);
    for (int t = 0; t < count; t++) score[t] *= share;
}

/* out[h * size + 0 to 16 * wide) = the sum over t of share[h * len + t] * values[t * size + …] for each of the heads, in registers. */
INLINE void mix(const float *share, int64_t len, const float *values, int count, int size, int heads, int wide, float *out) {
    fv sums[16 * PARTS];
    for (int i = 0; i < heads * wide * PARTS; i++) sums[i] = (fv){0};
    for (int t = 0; t < count; t++) {
        #pragma GCC unroll 4
        for (int h = 0; h < heads; h++)
            #pragma GCC unroll 8
            for (int p = 0; p < wide * PARTS; p++)
                sums[h * wide * PARTS + p] += share[h * len + t] * load(values + (int64_t)t * size + p * LANES);
    }
    for (int h = 0; h < heads; h++) memcpy(out + h * size, sums + h * wide * PARTS, sizeof(fv) * wide * PARTS);
}

INLINE void mix_heads(const float *share, int64_t len, const float *values, int count, int size, int heads, float *out) {
    int i = 0;
    for (; i + 64 <= size; i += 64) mix(share, len, values + i, count, size, heads, 4, out + i);
    for (; i + 16 <= size; i += 16) mix(share, len, values + i, count, size, heads, 1, out + i);
    for (; i < size; i++)
        for (int h = 0; h < heads; h++) {
            float total = 0;
            for (int t = 0; t < count; t++) total += share[h * len + t] * values[(int64_t)t * size + i];
            out[h * size + i] = total;
        }
}

/* The query heads of a key/value head over its positions 0 to count - 1; score holds a row of `len` floats, a multiple of 16, for each. */
static void attend(const float *q, const float *keys, const float *values, int count, int size, int heads, float scale, float *score,
                   int64_t len, float *out) {
    for (int t = 0; t < count; t += 8)
        for (int h = 0; h < heads; h++) {
            const float *of_head = q + h * size, *from = keys + (int64_t)t * size;
            float *to = score + h * len + t;
            if (size == 64) score8(of_head, from, count - t, 64, scale, to);
            else if (size == 128) score8(of_head, from, count - t, 128, scale, to);
            else score8(of_head, from, count - t, size, scale, to);
        }
    for (int h = 0; h < heads; h++) softmax(score + h * len, count);
    for (int h = 0; h < heads; h += TOGETHER) {
        const float *share = score + h * len;
        switch (heads - h < TOGETHER ? heads - h : TOGETHER) {
            case 1: mix_heads(share, len, values, count, size, 1, out + h * size); break;
            case 2: mix_heads(share, len, values, count, size, 2, out + h * size); break;
            case 3: mix_heads(share, len, values, count, size, 3, out + h * size); break;
            default: mix_heads(share, len, values, count, size, 4, out + h * size);
        }
    }
}

/* All layers for `rows` tokens x [rows, dim], which becomes their normalized hidden states. Row r is at position[r] of
 * cache slot slot[r]; rows may share a slot. `adapter` has one or NULL for each row, or is NULL. scratch holds
 * rows * (dim + heads * 2 * head_dim + 2 * kv_heads * head_dim + ffn_dim) floats; then, for each thread and query head of a key/value
 * head, the cache's len rounded up to 16; then, with adapters, rows * 3 * max_rank. rounded holds, with int8 or int4 weights,
 * rows * groups(the largest of dim, heads * head_dim and ffn_dim) of them. */
void step(const Model *model, const Cache *cache, int rows, const int32_t *slot, const int32_t *position,
          const LowRank *const *adapter, int max_rank, float *x, float *scratch, Group *rounded, int threads) {
    const int dim = model->dim, size = model->head_dim, half = model->turning, group = model->heads / model->kv_heads;
    const int q_dim = model->heads * size, kv_dim = model->kv_heads * size, qkv = q_dim + 2 * kv_dim, ffn = model->ffn_dim;
    float *normed = scratch, *heads = normed + (int64_t)rows * dim, *mixed = heads + (int64_t)rows * qkv;
    float *inner = mixed + (int64_t)rows * q_dim, *scores = inner + (int64_t)rows * ffn;
    const int64_t score_len = (cache->len + 15) / 16 * 16;
    const Input from_normed = {normed, rounded};
    const Adapters adapters = {adapter, scores + threads * group * score_len, max_rank};
    #pragma omp parallel num_threads(threads)
    for (int l = 0; l < model->layers; l++) {
        const Layer *layer = &model->layer[l];
        const int64_t per_layer = cache->slots * model->kv_heads * cache->len * size;
        float *keys = cache->keys + l * per_layer, *values = cache->values + l * per_layer;
        #pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, layer->attention_in, dim, model->eps, normed + (int64_t)r * dim);
        round_rows(&layer->q, &layer->k, &layer->v, normed, rows, rounded);
        reduce(&adapters, l, Q, 3, normed, dim, rows);
        #pragma omp for schedule(static) nowait
        for (int o = 0; o < q_dim; o += BLOCK) {
            dots(&layer->q, o, from_normed, rows, heads + o, qkv);
            adapt(&adapters, l, Q, 0, o, q_dim, rows, heads + o, qkv);
        }
        #pragma omp for schedule(static) nowait
        for (int o = 0; o < kv_dim; o += BLOCK) {
            dots(&layer->k, o, from_normed, rows, heads + q_dim + o, qkv);
            adapt(&adapters, l, K, 1, o, kv_dim, rows, heads + q_dim + o, qkv);
        }
        #pragma omp for schedule(static)
        for (int o = 0; o < kv_dim; o += BLOCK) {
            dots(&layer->v, o, from_normed, rows, heads + q_dim + kv_dim + o, qkv);
            adapt(&adapters, l, V, 2, o, kv_dim, rows, heads + q_dim + kv_dim + o, qkv);
        }
        if (layer->q_bias || (layer->q_norm && model->norm_all_heads)) {
            #pragma omp for schedule(static)
            for (int r = 0; r < rows; r++) {
                float *row = heads + (int64_t)r * qkv;
                for (int i = 0; layer->q_bias && i < q_dim; i++) row[i] += layer->q_bias[i];
                for (int i = 0; layer->q_bias && i < kv_dim; i++) row[q_dim + i] += layer->k_bias[i], row[q_dim + kv_dim + i] += layer->v_bias[i];
                if (!model->norm_all_heads) continue;
                rms_norm(row, layer->q_norm, q_dim, model->eps, row);
                rms_norm(row + q_dim, layer->k_norm, kv_dim, model->eps, row + q_dim);
            }
        }
        #pragma omp for schedule(static) collapse(2)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < model->kv_heads; k++) {
                float *row = heads + (int64_t)r * qkv, *key = row + q_dim + k * size;
                const int64_t angles = (int64_t)position[r] * half;
                for (int h = k * group; h <= (k + 1) * group; h++) { /* the last is the key */
                    float *head = h < (k + 1) * group ? row + h * size : key;
                    const float *norm = head == key ? layer->k_norm : layer->q_norm;
                    if (norm && !model->norm_all_heads) rms_norm(head, norm, size, model->eps, head);
                    if (layer->cos) rotate(head, layer->cos + angles, layer->sin + angles, half);
                }
                const int64_t at = (((int64_t)slot[r] * model->kv_heads + k) * cache->len + position[r]) * size;
                memcpy(keys + at, key, sizeof(float) * size);
                memcpy(values + at, key + kv_dim, sizeof(float) * size);
            }
        #pragma omp for schedule(dynamic) collapse(2)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < model->kv_heads; k++) {
                const int64_t past = position[r] + 1, from = past > layer->window ? past - layer->window : 0;
                const int64_t at = (((int64_t)slot[r] * model->kv_heads + k) * cache->len + from) * size;
                attend(heads + (int64_t)r * qkv + k * group * size, keys + at, values + at, past - from, size, group,
                       model->attention_scale, scores + omp_get_thread_num() * group * score_len, score_len,
                       mixed + (int64_t)r * q_dim + k * group * size);
            }
        round_rows(&layer->o, &layer->o, &layer->o, mixed, rows, rounded);
        back_to(x, &layer->o, layer->attention_out, model, (Input){mixed, rounded}, rows, normed, &adapters, l, O);
        #pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, layer->mlp_in, dim, model->eps, normed + (int64_t)r * dim);
        round_rows(&layer->gate, &layer->up, &layer->up, normed, rows, rounded);
        reduce(&adapters, l, GATE, 2, normed, dim, rows);
        #pragma omp for schedule(static)
        for (int o = 0; o < ffn; o += BLOCK) {
            float up[rows * BLOCK];
            dots(&layer->gate, o, from_normed, rows, inner + o, ffn);
            adapt(&adapters, l, GATE, 0, o, ffn, rows, inner + o, ffn);
            dots(&layer->up, o, from_normed, rows, up, BLOCK);
            adapt(&adapters, l, UP, 1, o, ffn, rows, up, BLOCK);
            for (int r = 0; r < rows; r++) gate(inner + (int64_t)r * ffn + o, up + r * BLOCK, ffn - o < BLOCK ? ffn - o : BLOCK, model->gelu);
        }
        round_rows(&layer->down, &layer->down, &layer->down, inner, rows, rounded);
        back_to(x, &layer->down, layer->mlp_out, model, (Input){inner, rounded}, rows, normed, &adapters, l, DOWN);
    }
    for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, model->norm, dim, model->eps, x + (int64_t)r * dim);
}
