/* A small model of random weights through decode.c, without torch: the hidden states, and products of float weights, one a line. */
#include <stdio.h>
#include <stdlib.h>
#include "decode.c"

enum { LAYERS = 2, DIM = 40, HEADS = 4, KV_HEADS = 2, SIZE = 24, FFN = 72, LEN = 48, SLOTS = 2, ROWS = 5 };

static uint32_t state = 1;
static float number(void) { /* in [-0.5, 0.5), the same everywhere */
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (1 << 24) - 0.5f;
}

static float *floats(int count, float around) {
    float *values = malloc(sizeof(float) * count);
    for (int i = 0; i < count; i++) values[i] = number() + around;
    return values;
}

static Matrix matrix(int kind, int outs, int ins) {
    float *values = floats(outs * ins, 0);
    if (kind == BF16)
        for (int i = 0; i < outs * ins; i++) {
            uint32_t bits; memcpy(&bits, &values[i], 4);
            ((uint16_t *)values)[i] = (uint16_t)(bits >> 16);
        }
    return (Matrix){values, NULL, kind, outs, ins};
}

/* An adapter of some of the projections; up is padded with numbers that no result may depend on. */
static const LowRank *adapter(int rank, int from) {
    static const int outs[] = {HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE, DIM, FFN, FFN, DIM};
    static const int ins[] = {DIM, DIM, DIM, HEADS * SIZE, DIM, DIM, FFN};
    LowRank *all = calloc(LAYERS * PROJECTIONS, sizeof(LowRank));
    for (int n = from; n < LAYERS * PROJECTIONS; n += 2) {
        const int out = outs[n % PROJECTIONS], in = ins[n % PROJECTIONS];
        all[n] = (LowRank){floats(rank * in, 0), floats(rank * (out + BLOCK), 0), n % 4 < 2 ? floats(out, 1) : NULL, rank};
    }
    return all;
}

/* A Llama's layer, or one with all that other families have. */
static Layer layer(int llama, int all_heads) {
    Layer l = {.attention_in = floats(DIM, 1), .mlp_in = floats(DIM, 1), .window = LEN,
               .cos = floats(LEN * SIZE / 2, 0), .sin = floats(LEN * SIZE / 2, 0),
               .q = matrix(F32, HEADS * SIZE, DIM), .k = matrix(BF16, KV_HEADS * SIZE, DIM), .v = matrix(F32, KV_HEADS * SIZE, DIM),
               .o = matrix(F32, DIM, HEADS * SIZE), .gate = matrix(BF16, FFN, DIM), .up = matrix(F32, FFN, DIM),
               .down = matrix(F32, DIM, FFN)};
    if (llama) return l;
    l.attention_out = floats(DIM, 1), l.mlp_out = floats(DIM, 1), l.window = 7;
    l.q_bias = floats(HEADS * SIZE, 0), l.k_bias = floats(KV_HEADS * SIZE, 0), l.v_bias = floats(KV_HEADS * SIZE, 0);
    l.q_norm = floats(all_heads ? HEADS * SIZE : SIZE, 1), l.k_norm = floats(all_heads ? KV_HEADS * SIZE : SIZE, 1);
    return l;
}

static void steps(int llama, int all_heads) {
    Layer layers[LAYERS];
    for (int l = 0; l < LAYERS; l++) layers[l] = layer(llama, all_heads);
    if (!llama) layers[1].cos = NULL;
    static float cache[2][LAYERS * SLOTS * KV_HEADS * LEN * SIZE], scratch[100000];
    const int turning = llama ? SIZE / 2 : SIZE / 2 - 4;
    Model model = {LAYERS, DIM, HEADS, KV_HEADS, SIZE, FFN, turning, all_heads, !llama, 1e-5f, llama ? 0.2041241452f : 0.3f,
                   llama ? 1 : 0.7f, layers, floats(DIM, 1)};
    Cache view = {cache[0], cache[1], SLOTS, LEN};
    const LowRank *one = adapter(5, 0), *other = adapter(18, 1), *adapters[ROWS] = {one, NULL, other, one, one};
    for (int at = 0; at < LEN - ROWS; at += ROWS) {
        int32_t slot[ROWS] = {0, 0, 0, 1, 1}, position[ROWS] = {at, at + 1, at + 2, at, at + 1};
        float *x = floats(ROWS * DIM, 0);
        step(&model, &view, ROWS, slot, position, at % 2 ? adapters : NULL, 18, x, scratch, NULL, 2);
        for (int i = 0; i < ROWS * DIM; i++) printf("%.9g\n", x[i]);
    }
}

int main(void) {
    static float out[ROWS * 300];
    steps(1, 0);
    steps(0, 0);
    steps(0, 1);
    for (int kind = F32; kind <= BF16; kind++) {
        Matrix m = matrix(kind, 300, 100);
        product(&m, floats(ROWS * 100, 0), ROWS, out, NULL, 2);
        for (int i = 0; i < ROWS * 300; i++) printf("%.9g\n", out[i]);
    }
}
