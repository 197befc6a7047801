/* Products of int8.h, of int8 and int4 weights in shapes with all kinds of ends, beside the same sums in 64 bits: it ends with 1 and a
 * line at the first that differs. */
#include <stdio.h>
#include <stdlib.h>
#include "decode.c"

static uint32_t state = 1;
static uint32_t number(void) { return (state = state * 1664525u + 1013904223u) >> 8; }

/* Weights and activations at random, or all at the ends of their range, at one or at both. */
static int value(int extreme, int low, int high) {
    return extreme == 0 ? low + (int)(number() % (high - low + 1)) : extreme == 1 || number() % 2 ? high : low;
}

static int8_t byte_of(int kind, int extreme) {
    if (kind == INT8) return (int8_t)value(extreme, -127, 127);
    return (int8_t)((value(extreme, -8, 7) + 8) << 4 | (value(extreme, -8, 7) + 8));
}

/* Input i, 0 to 31, of an output, 0 to 15, of a panel's group. */
static int weight_at(int kind, const int8_t *group, int output, int i) {
    if (kind == INT8) return group[i / 4 * 4 * PANEL + output * 4 + i % 4];
    const int both = (uint8_t)group[i % 16 / 4 * 4 * PANEL + output * 4 + i % 4];
    return (i < 16 ? both & 15 : both >> 4) - 8;
}

static int check(int kind, int outs, int ins, int rows, int extreme) {
    const int count = groups(ins), panels = (outs + PANEL - 1) / PANEL, bytes = panels * count * group_bytes(kind);
    int8_t *weight = malloc(bytes);
    uint16_t *scale = malloc(sizeof(uint16_t) * panels * PANEL * count);
    for (int i = 0; i < bytes; i++) weight[i] = byte_of(kind, extreme);
    for (int i = 0; i < panels * PANEL * count; i++) /* bfloat16 around 0.01 and, for int4, around -0.01 */
        scale[i] = (uint16_t)(0x3c00 + number() % 256 + (kind == INT4 && number() % 2 ? 0x8000 : 0));
    float *x = malloc(sizeof(float) * rows * ins), *out = malloc(sizeof(float) * rows * outs);
    for (int i = 0; i < rows * ins; i++) x[i] = (float)value(extreme, -127, 127) / 16;
    Group *rounded = malloc(sizeof(Group) * rows * count);
    const Matrix m = {weight, scale, kind, outs, ins};
    product(&m, x, rows, out, rounded, 2);
    int wrong = 0;
    for (int r = 0; r < rows && !wrong; r++)
        for (int o = 0; o < outs && !wrong; o++) {
            double total = 0, size = 0;
            for (int g = 0; g < count; g++) {
                const Group *group = rounded + r * count + g;
                const int8_t *w = weight + ((int64_t)(o / PANEL) * count + g) * group_bytes(kind);
                int64_t sum = 0;
                for (int i = 0; i < GROUP; i++) sum += (int64_t)weight_at(kind, w, o % PANEL, i) * group->values[i];
                uint32_t bits = (uint32_t)scale[(o / PANEL * count + g) * PANEL + o % PANEL] << 16;
                float factor; memcpy(&factor, &bits, sizeof factor);
                total += (double)sum * factor * group->scale;
                size += fabs((double)sum * factor * group->scale);
            }
            wrong = !(fabs(total - out[r * outs + o]) <= 1e-6 * size);
            if (wrong)
                printf("int%d, outs %d, ins %d, row %d of %d, output %d: %.9g is not %.9g\n", kind == INT8 ? 8 : 4, outs, ins, r, rows, o,
                       out[r * outs + o], total);
        }
    free(weight); free(scale); free(x); free(out); free(rounded);
    return wrong;
}

int main(void) {
    const int shapes[][2] = {{1, 1}, {16, 32}, {17, 33}, {40, 31}, {63, 576}, {15, 1000}, {64, 1024}};
    for (int kind = INT8; kind <= INT4; kind++)
        for (int s = 0; s < 7; s++)
            for (int extreme = 0; extreme < 3; extreme++)
                for (int rows = 1; rows <= 70; rows += rows < 27 ? 1 : 43)
                    if (check(kind, shapes[s][0], shapes[s][1], rows, extreme)) return 1;
    puts("equal");
}
