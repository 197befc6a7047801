/* One step of the transformer on the CPU for a few tokens, and a matrix product: what generating spends its time on.
 *
 * For few rows a step is bound by reading the weights; torch's cost per operation would add as much again. Activations are
 * float32, weights float32, bfloat16 or int8 with a scale per output channel. Layouts are those of llama.py; the same formulas
 * are documented there. A row's result does not depend on the other rows of the step, bit for bit. It allocates nothing.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef int8_t b8 __attribute__((vector_size(8)));

enum kind { F32, BF16, INT8 };
typedef struct { const void *weight; const float *scale; int32_t kind; int32_t outs; int32_t ins; } Matrix;
typedef struct { const float *attention_norm, *mlp_norm; Matrix q, k, v, o, gate, up, down; } Layer;
typedef struct {
    int32_t layers, dim, heads, kv_heads, head_dim, ffn_dim;
    float eps;
    const Layer *layer;
    const float *norm, *cos, *sin; /* cos, sin: [max_seq_len, head_dim / 2] */
} Model;
typedef struct { float *keys, *values; int64_t slots, len; } Cache; /* [layers, slots, kv_heads, len, head_dim] */

#define AHEAD 8192 /* bytes; the processor's own prefetching stops at page borders: measured, half the speed without */
#define INLINE static inline __attribute__((always_inline))

INLINE f8 load(const float *p) { f8 v; memcpy(&v, p, sizeof v); return v; }

/* Eight weights as float32. */
INLINE f8 weights(const void *row, int kind, int at) {
    if (kind == F32) return load((const float *)row + at);
    if (kind == BF16) {
        h8 h; memcpy(&h, (const uint16_t *)row + at, sizeof h);
        return (f8)(__builtin_convertvector(h, i8) << 16);
    }
    const int8_t *p = (const int8_t *)row + at;
#ifdef __AVX2__ /* gcc makes ten instructions of the general form */
    return (f8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    b8 b; memcpy(&b, p, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, i8), f8);
#endif
}

INLINE float one_weight(const void *row, int kind, int at) {
    if (kind == F32) return ((const float *)row)[at];
    if (kind == INT8) return ((const int8_t *)row)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)row)[at] << 16;
    float f; memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE float sum(f8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

/* out[r * stride + o] = <weight[first + o], x[r]>; `outs` and `rows` are constants of at most 4, so all of a and b are registers. */
INLINE void tile(const Matrix *m, int kind, int first, int outs, const float *x, int rows, float *out, int stride) {
    const int ins = m->ins, even = ins / 16 * 16, width = kind == F32 ? 4 : kind == BF16 ? 2 : 1;
    const char *w = (const char *)m->weight + (int64_t)first * ins * width;
    f8 a[4], b[4];
    for (int i = 0; i < rows * outs; i++) a[i] = b[i] = (f8){0};
    for (int at = 0; at < even; at += 16)
        for (int o = 0; o < outs; o++) {
            const char *row = w + (int64_t)o * ins * width;
            __builtin_prefetch(row + at * width + AHEAD);
            const f8 wa = weights(row, kind, at), wb = weights(row, kind, at + 8);
            for (int r = 0; r < rows; r++) {
                a[r * outs + o] += wa * load(x + (int64_t)r * ins + at);
                b[r * outs + o] += wb * load(x + (int64_t)r * ins + at + 8);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < outs; o++) {
            float s = sum(a[r * outs + o] + b[r * outs + o]);
            for (int at = even; at < ins; at++) s += one_weight(w + (int64_t)o * ins * width, kind, at) * x[(int64_t)r * ins + at];
            out[r * stride + o] = kind == INT8 ? s * m->scale[first + o] : s;
        }
}

INLINE void tiles(const Matrix *m, int kind, int first, int outs, const float *x, int rows, float *out, int stride) {
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int o = 0; o < outs; o++) tile(m, kind, first + o, 1, x + (int64_t)r * m->ins, 4, out + r * stride + o, stride);
    for (; r < rows; r++) {
        if (outs == 4) tile(m, kind, first, 4, x + (int64_t)r * m->ins, 1, out + r * stride, stride);
        else for (int o = 0; o < outs; o++) tile(m, kind, first + o, 1, x + (int64_t)r * m->ins, 1, out + r * stride + o, stride);
    }
}

/* out[r * stride + o] = <weight[first + o], x[r]> for up to BLOCK outputs, the unit of work of a thread. */
#define BLOCK 4
static void dots(const Matrix *m, int first, const float *x, int rows, float *out, int stride) {
    const int outs = m->outs - first < BLOCK ? m->outs - first : BLOCK;
    switch (m->kind) {
        case F32: tiles(m, F32, first, outs, x, rows, out, stride); break;
        case BF16: tiles(m, BF16, first, outs, x, rows, out, stride); break;
        default: tiles(m, INT8, first, outs, x, rows, out, stride);
    }
}

/* The same, added to x. */
static void add(const Matrix *m, int first, const float *inner, int rows, float *x, int stride) {
    float part[rows * BLOCK];
    dots(m, first, inner, rows, part, BLOCK);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < BLOCK && first + o < m->outs; o++) x[(int64_t)r * stride + o] += part[r * BLOCK + o];
}

/* out[rows, outs] = x[rows, ins] @ weight.T */
void product(const Matrix *m, const float *x, int rows, float *out, int threads) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int o = 0; o < m->outs; o += BLOCK) dots(m, o, x, rows, out + o, m->outs);
}

static void rms_norm(const float *x, const float *weight, int dim, float eps, float *out) {
    double squares = 0;
    for (int i = 0; i < dim; i++) squares += (double)x[i] * x[i];
    const float scale = 1 / sqrtf((float)(squares / dim) + eps);
    for (int i = 0; i < dim; i++) out[i] = weight[i] * (x[i] * scale);
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cos[i] - second * sin[i];
        x[i + half] = second * cos[i] + first * sin[i];
    }
}

INLINE float dot(const float *x, const float *y, int n) {
    f8 a = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8) a += load(x + i) * load(y + i);
    float s = sum(a);
    for (; i < n; i++) s += x[i] * y[i];
    return s;
}

/* One query head over the positions 0 to count - 1 of its key/value head; score holds `count` floats. */
static void attend(const float *q, const float *keys, const float *values, int count, int size, float *score, float *out) {
    float most = -INFINITY, total = 0;
    const float scale = 1 / sqrtf((float)size);
    for (int t = 0; t < count; t++) {
        score[t] = dot(q, keys + (int64_t)t * size, size) * scale;
        if (score[t] > most) most = score[t];
    }
    for (int t = 0; t < count; t++) total += score[t] = expf(score[t] - most);
    memset(out, 0, sizeof(float) * size);
    for (int t = 0; t < count; t++) {
        const float share = score[t] / total;
        for (int i = 0; i < size; i++) out[i] += share * values[(int64_t)t * size + i];
    }
}

/* All layers for `rows` tokens x [rows, dim], which becomes their normalized hidden states. Row r stands at position[r] of
 * cache slot slot[r]; rows may share a slot. scratch holds rows * (dim + heads * 2 * head_dim + 2 * kv_heads * head_dim + ffn_dim)
 * floats and then, for each thread, the cache's len. */
void step(const Model *model, const Cache *cache, int rows, const int32_t *slot, const int32_t *position, float *x, float *scratch,
          int threads) {
    const int dim = model->dim, size = model->head_dim, half = size / 2, group = model->heads / model->kv_heads;
    const int q_dim = model->heads * size, kv_dim = model->kv_heads * size, qkv = q_dim + 2 * kv_dim, ffn = model->ffn_dim;
    float *normed = scratch, *heads = normed + (int64_t)rows * dim, *mixed = heads + (int64_t)rows * qkv;
    float *inner = mixed + (int64_t)rows * q_dim, *scores = inner + (int64_t)rows * ffn;
    #pragma omp parallel num_threads(threads)
    for (int l = 0; l < model->layers; l++) {
        const Layer *layer = &model->layer[l];
        const int64_t per_layer = cache->slots * model->kv_heads * cache->len * size;
        float *keys = cache->keys + l * per_layer, *values = cache->values + l * per_layer;
        #pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, layer->attention_norm, dim, model->eps, normed + (int64_t)r * dim);
        #pragma omp for schedule(static) nowait
        for (int o = 0; o < q_dim; o += BLOCK) dots(&layer->q, o, normed, rows, heads + o, qkv);
        #pragma omp for schedule(static) nowait
        for (int o = 0; o < kv_dim; o += BLOCK) dots(&layer->k, o, normed, rows, heads + q_dim + o, qkv);
        #pragma omp for schedule(static)
        for (int o = 0; o < kv_dim; o += BLOCK) dots(&layer->v, o, normed, rows, heads + q_dim + kv_dim + o, qkv);
        #pragma omp for schedule(static) collapse(2)
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < model->kv_heads; k++) {
                float *row = heads + (int64_t)r * qkv, *key = row + q_dim + k * size;
                const float *cos = model->cos + (int64_t)position[r] * half, *sin = model->sin + (int64_t)position[r] * half;
                for (int h = k * group; h < (k + 1) * group; h++) rotate(row + h * size, cos, sin, half);
                rotate(key, cos, sin, half);
                const int64_t at = (((int64_t)slot[r] * model->kv_heads + k) * cache->len + position[r]) * size;
                memcpy(keys + at, key, sizeof(float) * size);
                memcpy(values + at, key + kv_dim, sizeof(float) * size);
            }
        #pragma omp for schedule(dynamic) collapse(2)
        for (int r = 0; r < rows; r++)
            for (int h = 0; h < model->heads; h++) {
                const int64_t at = ((int64_t)slot[r] * model->kv_heads + h / group) * cache->len * size;
                attend(heads + (int64_t)r * qkv + h * size, keys + at, values + at, position[r] + 1, size,
                       scores + omp_get_thread_num() * cache->len, mixed + (int64_t)r * q_dim + h * size);
            }
        #pragma omp for schedule(static)
        for (int o = 0; o < dim; o += BLOCK) add(&layer->o, o, mixed, rows, x + o, dim);
        #pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, layer->mlp_norm, dim, model->eps, normed + (int64_t)r * dim);
        #pragma omp for schedule(static)
        for (int o = 0; o < ffn; o += BLOCK) {
            float up[rows * BLOCK];
            dots(&layer->gate, o, normed, rows, inner + o, ffn);
            dots(&layer->up, o, normed, rows, up, BLOCK);
            for (int r = 0; r < rows; r++)
                for (int i = 0; i < BLOCK && o + i < ffn; i++) {
                    float *g = inner + (int64_t)r * ffn + o + i;
                    *g = *g / (1 + expf(-*g)) * up[r * BLOCK + i];
                }
        }
        #pragma omp for schedule(static)
        for (int o = 0; o < dim; o += BLOCK) add(&layer->down, o, inner, rows, x + o, dim);
    }
    for (int r = 0; r < rows; r++) rms_norm(x + (int64_t)r * dim, model->norm, dim, model->eps, x + (int64_t)r * dim);
}
