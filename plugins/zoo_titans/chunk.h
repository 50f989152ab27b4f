/* One chunk of the neural memory on a CPU: what `chunk.py` computes, from cache to cache.

   L layers of N_l -> N_(l+1) channels, C tokens. Weights W and momentum S (N_l, N_(l+1)) of all layers lie one after
   the other, W_0, S_0, W_1, ...: a stack.

   Tokens lie along the rows of an array: x^T (N_l, P), P tokens to fill whole vectors, zeros beyond C. So weights are
   left factors as they lie, whichever way they are turned, and what a token has of its own is a vector's lane. */

#pragma once

#include "native.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <tgmath.h>

#define ADD ((factors){&one, 0}) /* to what is there */
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

static const REAL one = 1;
enum { SILU, GELU };

/* A layer in a chunk; names as in `chunk.py`, rows in brackets. */
typedef struct {
    int64_t n, m;
    int64_t place;                      /* of its W in a stack of weights alone; twice that in one of W and S */
    REAL *a, *back, *slope, *bend;      /* (n), (m), (m), (m): the last layer has `a` alone */
    REAL *e, *learned;                  /* (m): one array where nothing is bounded */
    REAL *shrink, *a_square, *e_square; /* (1) */
    REAL *x, *z_slope;                  /* (n), (m) */
    REAL *left, *written;               /* (2 n) */
    REAL *seen, *weighted;              /* (C): token j, row, as seen by t */
    REAL *g_a, *g_e, *g_back;           /* gradients */
} layer;

/* What does not change from chunk to chunk, and room for what does; `most` is the widest layer. */
typedef struct {
    int64_t L, C, P, act, weights;        /* weights: numbers of all W */
    int64_t Q;                            /* C + 1 in whole vectors */
    bool reads, before;                   /* whether tokens read; whether what was there before they are learned */
    REAL scale, limit;                    /* of the error; of a gradient, 0: none */
    layer *layers;
    REAL *v, *z;                          /* (most) */
    REAL *read, *write, *share;           /* (2), (2), (C): token j, row, in what t reads */
    REAL *g_z, *g_x, *g_both;             /* (most), (most), (2 most) */
    REAL *g_read, *g_write, *g_share;     /* as the above */
    REAL mix[4], g_mix[4];                /* what W and S after the chunk hold of both before */
    REAL *kept, *eta, *theta, *valid;     /* (1): 1 - alpha, ...; 1 or 0 */
    REAL *keep, *moved, *inertia;         /* (C + 1) numbers, (C + 1, Q), (C + 1, Q), see `unroll` */
    REAL *g_moved, *g_inertia, *g_theta;  /* (Q) numbers, (Q), (1) */
    REAL *g_weighted, *square;            /* (C) */
    REAL *rows;                           /* (C, most) numbers: tokens as rows */
} chunk;

/* x^T (channels, P) of x (C, channels), and back. */
static void in(const chunk *c, int64_t channels, const REAL *x, REAL *xt) {
    transpose(c->C, channels, dense(x, channels), dense(xt, c->P));
}
static const REAL *out(const chunk *c, int64_t channels, const REAL *xt, REAL *x) {
    transpose(channels, c->C, dense(xt, c->P), dense(x, channels));
    return x;
}

/* c (M, P) = a (M, K) b (K, P), K channels. */
static void times(const chunk *w, int64_t M, int64_t K, matrix a, const REAL *b, REAL *c, factors keep) {
    product(ALL, M, K, w->P, a, dense(b, w->P), dense(c, w->P), keep, NULL);
}

/* c (M, P) += a (M, P) b (C, P), over tokens, where b is zero below its diagonal, or above it. */
static void over_past(const chunk *w, int64_t M, const REAL *a, const REAL *b, REAL *c) {
    for (int64_t t = 0; t < w->C; t += VECTORS * LANES) {
        int64_t width = least(VECTORS * LANES, w->P - t), seen = least(w->C, t + width);
        product(ALL, M, seen, width, dense(a, w->P), dense(b + t, w->P), dense(c + t, w->P), ADD, NULL);
    }
}
static void over_future(const chunk *w, int64_t M, const REAL *a, const REAL *b, REAL *c) {
    for (int64_t t = 0; t < w->C; t += VECTORS * LANES) {
        int64_t width = least(VECTORS * LANES, w->P - t);
        product(ALL, M, w->C - t, width, dense(a + t, w->P), dense(b + t * w->P + t, w->P), dense(c + t, w->P), ADD,
                NULL);
    }
}

/* c (C, P), of token j, row, and t: the sum over channels of a_j b_t where t is not before j, else 0; a, b (K, P).
   And the same times `by`. */
static void pairs(const chunk *w, int64_t K, const REAL *a, const REAL *b, const REAL *by, REAL *c, REAL *c_by) {
    int64_t P = w->P;
    for (int64_t j = 0; j < w->C; j += ROWS) {
        int64_t rows = least(ROWS, w->C - j), t = j / LANES * LANES;
        product(ALL, rows, K, P - t, flip(dense(a + j, P)), dense(b + t, P), dense(c + j * P + t, P), NOTHING, NULL);
        for (int64_t i = j * P; i < (j + rows) * P; i += P) {
            EACH(k, t) c[i + k] = c_by[i + k] = 0;
            for (int64_t k = t; k < P; k++) c_by[i + k] = c[i + k] * by[i + k];
        }
    }
}

/* x times both factors of each token, one below the other: (N, P), (2, P) -> (2 N, P). */
static void beside(const chunk *c, int64_t N, const REAL *x, const REAL *both, REAL *restrict y) {
    EACH(half, 2) EACH(i, N) EACH(t, c->P) y[(half * N + i) * c->P + t] = x[i * c->P + t] * both[half * c->P + t];
}
/* Gradients of x, and of the factors, added to what is there. */
static void beside_back(const chunk *c, int64_t N, const REAL *restrict g, const REAL *restrict x,
                        const REAL *restrict both, REAL *restrict g_x, REAL *restrict g_both) {
    int64_t P = c->P;
    EACH(i, N) EACH(t, P) {
        REAL upper = g[i * P + t], lower = g[(N + i) * P + t], value = x[i * P + t];
        g_x[i * P + t] = upper * both[t] + lower * both[P + t];
        g_both[t] += upper * value, g_both[P + t] += lower * value;
    }
}

/* sums (P): over channels, of x y (N, P). */
static void along(const chunk *c, int64_t N, const REAL *x, const REAL *y, REAL *restrict sums) {
    memset(sums, 0, sizeof(REAL) * c->P);
    EACH(i, N) EACH(t, c->P) sums[t] += x[i * c->P + t] * y[i * c->P + t];
}

/* The activation of h, its slope, which may take the place of h, and the slope's slope if wanted: n numbers each. */
static void activate(const chunk *c, int64_t n, const REAL *h, REAL *value, REAL *slope, REAL *bend) {
    REAL half = 0.5, root = 0.70710678118654752440, density = 0.39894228040143267794;
    for (int64_t i = 0; i < n; i += LANES) {
        vec x = *(vec *)(h + i), y, first, second, share = {0};
        if (c->act == SILU) {
            share = 1 / (1 + power(-x));
            y = x * share, first = share + y * (1 - share);
            second = share * (1 - share) * (2 + x - 2 * y);
        } else {
            EACH(k, LANES) share[k] = half * erfc(-root * x[k]);
            vec bell = density * power(-half * x * x);
            y = x * share, first = share + x * bell, second = bell * (2 - x * x);
        }
        *(vec *)(value + i) = y, *(vec *)(slope + i) = first;
        if (bend) *(vec *)(bend + i) = second;
    }
}

/* Minus the gradient of eq. (12) at the anchor: what goes into each layer, and the error on its way down. */
static void look(const chunk *c, const REAL *const *anchor) {
    layer *l = c->layers, *last = l + c->L - 1;
    for (; l < last; l++) {
        times(c, l->m, l->n, flip(dense(anchor[l - c->layers], l->m)), l->a, l->slope, NOTHING);
        activate(c, l->m * c->P, l->slope, l[1].a, l->slope, l->bend);
    }
    times(c, l->m, l->n, flip(dense(anchor[c->L - 1], l->m)), l->a, l->e, NOTHING);
    EACH(i, l->m * c->P) l->e[i] = c->scale * (c->v[i] - l->e[i]);
    for (; l > c->layers; l--) {
        REAL *back = l[-1].back, *slope = l[-1].slope, *e = l[-1].e;
        times(c, l->n, l->m, dense(anchor[l - c->layers], l->m), l->e, back, NOTHING);
        EACH(i, l->n * c->P) e[i] = back[i] * slope[i];
    }
    for (l = c->layers; l <= last; l++) beside(c, l->n, l->a, c->write, l->written);
    for (l = c->layers; l <= last && c->limit; l++) { /* each token's gradient, |a| |e|, stays below the limit */
        along(c, l->n, l->a, l->a, l->a_square), along(c, l->m, l->e, l->e, l->e_square);
        EACH(t, c->P) l->shrink[t] = 1 / sqrt(1 + l->a_square[t] * l->e_square[t] / (c->limit * c->limit));
        EACH(i, l->m) EACH(t, c->P) l->learned[i * c->P + t] = l->e[i * c->P + t] * l->shrink[t];
    }
}

/* Eq. (15), each token through its own weights: z = keep x W + carry x S + sum over its past of share (x a) e. */
static void recall(const chunk *c, const REAL *stack, bool to_the_end) {
    for (layer *l = c->layers, *last = l + c->L - 1; l <= last; l++) {
        beside(c, l->n, l->x, c->read, l->left);
        pairs(c, l->n, l->a, l->x, c->share, l->seen, l->weighted);
        if (l == last && !to_the_end) return;
        times(c, l->m, 2 * l->n, flip(dense(stack + 2 * l->place, l->m)), l->left, c->z, NOTHING);
        over_past(c, l->m, l->learned, l->weighted, c->z);
        if (l < last) activate(c, l->m * c->P, c->z, l[1].x, l->z_slope, NULL);
    }
}

/* Eq. (13) and (14), all tokens at once: W = keep W + carry S + sum of write_0 a e, S = inertia S + sum of
   write_1 a e. */
static void learn(const chunk *c, REAL *stack) {
    const REAL *mix = c->mix;
    for (layer *l = c->layers; l < c->layers + c->L; l++) {
        REAL *W = stack + 2 * l->place, *S = W + l->n * l->m;
        EACH(i, l->n * l->m) W[i] = mix[0] * W[i] + mix[1] * S[i], S[i] *= mix[3];
        matrix rows = dense(out(c, l->m, l->learned, c->rows), l->m);
        product(ALL, 2 * l->n, c->C, l->m, dense(l->written, c->P), rows, dense(W, l->m), ADD, NULL);
    }
}

/* From the gradient of what was learned to that of the error, in place, and to that of what went in. */
static void bound_back(const chunk *c, layer *l) {
    REAL *twice = c->square; /* the gradient of |a|^2 |e|^2, two times */
    along(c, l->m, l->g_e, l->e, twice);
    EACH(t, c->P) twice[t] *= -l->shrink[t] * l->shrink[t] * l->shrink[t] / (c->limit * c->limit);
    EACH(i, l->n) EACH(t, c->P) l->g_a[i * c->P + t] += l->a[i * c->P + t] * twice[t] * l->e_square[t];
    EACH(i, l->m) EACH(t, c->P) {
        REAL *g = l->g_e + i * c->P + t;
        *g = *g * l->shrink[t] + l->e[i * c->P + t] * twice[t] * l->a_square[t];
    }
}

/* From the gradient of z, and of the stack after the chunk, in place: those of a, e, read, share, write, mix and of
   the stack before it, and in g_x that of the queries. */
static void recall_back(chunk *c, const REAL *stack, REAL *g_stack) {
    const REAL *mix = c->mix;
    REAL *g_mix = c->g_mix;
    int64_t P = c->P;
    EACH(i, 4) g_mix[i] = 0;
    for (layer *l = c->layers + c->L - 1; l >= c->layers; l--) {
        int64_t size = l->n * l->m;
        const REAL *W = stack + 2 * l->place, *S = W + size;
        REAL *G = g_stack + 2 * l->place, *H = G + size, keep = 0, carry = 0, inertia = 0;
        times(c, 2 * l->n, l->m, dense(G, l->m), l->learned, c->g_both, NOTHING);
        beside_back(c, l->n, c->g_both, l->a, c->write, l->g_a, c->g_write);
        times(c, l->m, 2 * l->n, flip(dense(G, l->m)), l->written, l->g_e, NOTHING);
        #pragma omp simd reduction(+ : keep, carry, inertia)
        EACH(i, size) {
            keep += G[i] * W[i], carry += G[i] * S[i], inertia += H[i] * S[i];
            H[i] = mix[3] * H[i] + mix[1] * G[i], G[i] *= mix[0];
        }
        g_mix[0] += keep, g_mix[1] += carry, g_mix[3] += inertia;
        if (c->reads) {
            times(c, 2 * l->n, l->m, dense(W, l->m), c->g_z, c->g_both, NOTHING);
            beside_back(c, l->n, c->g_both, l->x, c->read, c->g_x, c->g_read);
            matrix rows = dense(out(c, l->m, c->g_z, c->rows), l->m);
            product(ALL, 2 * l->n, c->C, l->m, dense(l->left, P), rows, dense(G, l->m), ADD, NULL);
            transpose(c->C, c->C, dense(l->weighted, P), dense(c->square, P));
            over_future(c, l->m, c->g_z, c->square, l->g_e);
            pairs(c, l->m, l->learned, c->g_z, c->share, c->g_weighted, c->square);
            EACH(i, c->C * P) c->g_share[i] += c->g_weighted[i] * l->seen[i];
            over_past(c, l->n, l->a, c->square, c->g_x);
            transpose(c->C, c->C, dense(c->square, P), dense(c->g_weighted, P));
            over_future(c, l->n, l->x, c->g_weighted, l->g_a);
            if (l > c->layers) EACH(i, l->n * P) c->g_z[i] = c->g_x[i] * l[-1].z_slope[i];
        }
        if (c->limit) bound_back(c, l);
    }
}

/* And on, from there to the gradients of the weights at the anchor, added to what is there, of v, and of k in g_a. */
static void look_back(const chunk *c, const REAL *const *anchor, REAL *const *g_anchor) {
    layer *layers = c->layers, *last = layers + c->L - 1, *l;
    for (l = layers; l < last; l++) { /* from the first layer, where the error ended */
        EACH(i, l->m * c->P) l->g_back[i] = l->g_e[i] * l->slope[i];
        times(c, l[1].m, l[1].n, flip(dense(anchor[l + 1 - layers], l[1].m)), l->g_back, l[1].g_e, ADD);
    }
    EACH(i, last->m * c->P) c->v[i] = c->scale * last->g_e[i], last->g_e[i] = -c->v[i];
    for (l = last; l >= layers; l--) { /* g_e is now that of what comes out of the layer */
        matrix weights = dense(anchor[l - layers], l->m), g_weights = dense(g_anchor[l - layers], l->m);
        matrix rows = dense(out(c, l->m, l->g_e, c->rows), l->m);
        product(ALL, l->n, c->C, l->m, dense(l->a, c->P), rows, g_weights, ADD, NULL);
        times(c, l->n, l->m, weights, l->g_e, l->g_a, ADD);
        if (l == layers) return;
        rows = dense(out(c, l->m, l->e, c->rows), l->m);
        product(ALL, l->n, c->C, l->m, dense(l[-1].g_back, c->P), rows, g_weights, ADD, NULL);
        REAL *g = l[-1].g_e; /* through the activation's value, and through its slope in the error */
        EACH(i, l->n * c->P) g[i] = l->g_a[i] * l[-1].slope[i] + l[-1].back[i] * g[i] * l[-1].bend[i];
    }
}
