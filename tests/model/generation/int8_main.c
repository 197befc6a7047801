/* Products of int8.h, in shapes with all kinds of ends, beside the same sums in 64 bits: it ends with 1 and a line
 * at the first that differs. */
#include <stdio.h>
#include <stdlib.h>
#include "decode.c"

static uint32_t state = 1;
static uint32_t number(void) { return (state = state * 1664525u + 1013904223u) >> 8; }

/* Weights and activations at random, or all of the largest magnitude, with one sign or with both. */
static int value(int extreme) { return extreme == 0 ? (int)(number() % 255) - 127 : extreme == 1 || number() % 2 ? 127 : -127; }

static int check(int outs, int ins, int rows, int extreme) {
    const int count = groups(ins), panels = (outs + PANEL - 1) / PANEL;
    int8_t *weight = malloc(panels * PANEL * count * GROUP);
    uint16_t *scale = malloc(sizeof(uint16_t) * panels * PANEL * count);
    for (int i = 0; i < panels * PANEL * count * GROUP; i++) weight[i] = (int8_t)value(extreme);
    for (int i = 0; i < panels * PANEL * count; i++) scale[i] = (uint16_t)(0x3c00 + number() % 256); /* bfloat16 around 0.01 */
    float *x = malloc(sizeof(float) * rows * ins), *out = malloc(sizeof(float) * rows * outs);
    for (int i = 0; i < rows * ins; i++) x[i] = (float)value(extreme) / 16;
    Group *rounded = malloc(sizeof(Group) * rows * count);
    const Matrix m = {weight, scale, INT8, outs, ins};
    product(&m, x, rows, out, rounded, 2);
    int wrong = 0;
    for (int r = 0; r < rows && !wrong; r++)
        for (int o = 0; o < outs && !wrong; o++) {
            double total = 0, size = 0;
            for (int g = 0; g < count; g++) {
                const Group *group = rounded + r * count + g;
                const int8_t *w = weight + ((int64_t)(o / PANEL) * count + g) * PANEL * GROUP;
                int64_t sum = 0;
                for (int i = 0; i < GROUP; i++) sum += (int64_t)w[i / 4 * 4 * PANEL + o % PANEL * 4 + i % 4] * group->values[i];
                uint32_t bits = (uint32_t)scale[(o / PANEL * count + g) * PANEL + o % PANEL] << 16;
                float factor; memcpy(&factor, &bits, sizeof factor);
                total += (double)sum * factor * group->scale;
                size += fabs((double)sum * factor * group->scale);
            }
            wrong = !(fabs(total - out[r * outs + o]) <= 1e-6 * size);
            if (wrong)
                printf("outs %d, ins %d, row %d of %d, output %d: %.9g is not %.9g\n", outs, ins, r, rows, o, out[r * outs + o], total);
        }
    free(weight); free(scale); free(x); free(out); free(rounded);
    return wrong;
}

int main(void) {
    const int shapes[][2] = {{1, 1}, {16, 32}, {17, 33}, {40, 31}, {63, 576}, {15, 1000}, {64, 1024}};
    for (int s = 0; s < 7; s++)
        for (int extreme = 0; extreme < 3; extreme++)
            for (int rows = 1; rows <= 70; rows += rows < 27 ? 1 : 43)
                if (check(shapes[s][0], shapes[s][1], rows, extreme)) return 1;
    puts("equal");
}
