/* The neural memory of Titans on a CPU, chunk by chunk: what `chunk.py` computes, from cache to cache.

   R rows (streams times heads), n chunks of C tokens, L layers of N_l -> N_(l+1) channels, D = N_0, E = N_L. Arrays
   are dense, rows first; weights W and momentum S (N_l, N_(l+1)) of a row's layers lie one after the other, W_0, S_0,
   W_1, ...: its stack. While a row's chunks pass its stack stays in the cache, and so does all that a chunk computes.

   Within a chunk tokens lie along the rows of an array: x^T (N_l, P), P tokens to fill whole vectors. So weights are
   left factors as they lie, whichever way they are turned, and whatever a token has of its own is a vector's lane. */

#include "native.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <tgmath.h>

#define ADD ((factors){&one, 0}) /* to what is there */
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

static const REAL one = 1;
enum { SILU, GELU };

/* A layer in a chunk; names as in `chunk.py`, tokens along the rows. */
typedef struct {
    int64_t n, m;
    int64_t place;                    /* of its W in a stack of weights alone; twice that in a stack of W and S */
    REAL *a, *back, *slope, *bend;    /* (n), (m), (m), (m): in the last layer a alone */
    REAL *e, *learned;                /* (m): one array where nothing is bounded */
    REAL *shrink, *a_square, *e_square; /* (1) */
    REAL *x, *z_slope;                /* (n), (m) */
    REAL *left, *written;             /* (2 n) */
    REAL *seen, *weighted;            /* (C): of token j, row, seen by t */
    REAL *g_a, *g_e, *g_back;         /* gradients */
} layer;

/* What does not change from chunk to chunk, and room for what does. */
typedef struct {
    int64_t L, C, P, act, weights; /* weights: in all layers */
    int64_t Q;         /* C + 1 in whole vectors */
    bool reads, before; /* whether tokens read; whether before they are learned */
    REAL scale, limit; /* of the error; of a gradient, 0: none */
    layer *layers;
    REAL *v, *z;                           /* (E), (most) */
    REAL *read, *write, *share;            /* (2), (2), (C): of token j, row, in t */
    REAL *g_z, *g_x, *g_learned, *g_both;  /* (most), (most), (most), (2 most) */
    REAL *g_read, *g_write, *g_share;      /* as the above */
    REAL mix[4], g_mix[4];                 /* what W and S after the chunk hold of both before */
    REAL *kept, *eta, *theta, *valid;      /* (1): of each token; 1 or 0 */
    REAL *keep, *moved, *inertia;          /* (C + 1), (C + 1, Q), (C + 1, Q), see `unroll` */
    REAL *g_moved, *g_inertia, *g_theta;   /* (Q), (Q), (1) */
    REAL *g_weighted, *square;             /* (C) */
    REAL *rows;                            /* (C, most): tokens as rows */
} chunk;

/* x^T (channels, P) of x (C, channels), and back. */
static void in(const chunk *c, int64_t channels, const REAL *x, REAL *xt) {
    transpose(c->C, channels, dense(x, channels), dense(xt, c->P));
}
static const REAL *out(const chunk *c, int64_t channels, const REAL *xt, REAL *x) {
    transpose(channels, c->C, dense(xt, c->P), dense(x, channels));
    return x;
}

/* c^T (M, P) = a b^T, added to what is there if `keep`; K channels. */
static void times(const chunk *w, int64_t M, int64_t K, matrix a, const REAL *b, REAL *c, factors keep) {
    product(ALL, M, K, w->P, a, dense(b, w->P), dense(c, w->P), keep, NULL);
}

/* The same over tokens, where b (C, P) is zero below its diagonal, or above it. */
static void over_past(const chunk *w, int64_t M, const REAL *a, const REAL *b, REAL *c) {
    for (int64_t t = 0; t < w->C; t += VECTORS * LANES) {
        int64_t width = least(VECTORS * LANES, w->P - t), seen = least(w->C, t + width);
        product(ALL, M, seen, width, dense(a, w->P), dense(b + t, w->P), dense(c + t, w->P), ADD, NULL);
    }
}
static void over_future(const chunk *w, int64_t M, const REAL *a, const REAL *b, REAL *c, factors keep) {
    for (int64_t t = 0; t < w->C; t += VECTORS * LANES) {
        int64_t width = least(VECTORS * LANES, w->P - t);
        product(ALL, M, w->C - t, width, dense(a + t, w->P), dense(b + t * w->P + t, w->P), dense(c + t, w->P), keep,
                NULL);
    }
}

/* c (C, P) = a b^T of a^T, b^T (K, P), as far as tokens lie in the future of a's, zero elsewhere; and times `by`. */
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

/* x^T times both factors of each token, one below the other: (N, P), (2, P) -> (2 N, P). */
static void beside(const chunk *c, int64_t N, const REAL *x, const REAL *both, REAL *restrict y) {
    EACH(half, 2) EACH(i, N) EACH(t, c->P) y[(half * N + i) * c->P + t] = x[i * c->P + t] * both[half * c->P + t];
}
/* Gradients of x^T, and of the factors, added to what is there. */
static void beside_back(const chunk *c, int64_t N, const REAL *restrict g, const REAL *restrict x,
                        const REAL *restrict both, REAL *restrict g_x, REAL *restrict g_both) {
    int64_t P = c->P;
    EACH(i, N) EACH(t, P) {
        REAL upper = g[i * P + t], lower = g[(N + i) * P + t], value = x[i * P + t];
        g_x[i * P + t] = upper * both[t] + lower * both[P + t];
        g_both[t] += upper * value, g_both[P + t] += lower * value;
    }
}

/* sums (P) = sum over channels of x^T y^T */
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
            vec dense = density * power(-half * x * x);
            y = x * share, first = share + x * dense, second = dense * (2 - x * x);
        }
        *(vec *)(value + i) = y, *(vec *)(slope + i) = first;
        if (bend) *(vec *)(bend + i) = second;
    }
}

/* Zero in place of numbers whose products are subnormal: these take ten times as long. NaN stays NaN. */
INLINE REAL flushed(REAL x) { return fabs(x) < (sizeof(REAL) == 4 ? 0x1p-63 : 0x1p-511) ? 0 : x; }

/* What becomes of a surprise of 1 at token j in W and S after token t - 1 (eq. 13 and 14; see `gates.py`):
       inertia_t = eta_t inertia_(t-1), 1 at t;   moved_t = (1 - alpha_t) moved_(t-1) + inertia_t,
   in column C what becomes of a momentum of 1 before the chunk, and in keep of weights of 1. Nothing is divided. */
static void unroll(chunk *c) {
    int64_t C = c->C, P = c->P, Q = c->Q;
    c->keep[0] = c->inertia[C] = 1;
    EACH(t, C) {
        REAL *J = c->inertia + t * Q, *A = c->moved + t * Q, *to = J + Q, *into = A + Q;
        EACH(j, Q) to[j] = flushed(c->eta[t] * J[j]);
        to[t] = 1;
        EACH(j, Q) into[j] = flushed(c->kept[t] * A[j] + c->valid[t] * to[j]);
        c->keep[t + 1] = flushed(c->kept[t] * c->keep[t]);
    }
    const REAL *J = c->inertia + C * Q, *A = c->moved + C * Q;
    c->mix[0] = c->keep[C], c->mix[1] = A[C], c->mix[2] = 0, c->mix[3] = J[C];
    EACH(j, C) c->write[j] = c->theta[j] * A[j], c->write[P + j] = c->theta[j] * J[j];
    if (!c->reads) return;
    int64_t from = c->before ? 0 : 1;
    EACH(t, C) c->read[t] = c->keep[t + from], c->read[P + t] = c->moved[(t + from) * Q + C];
    transpose(C, C, dense(c->moved + from * Q, Q), dense(c->share, P));
    EACH(j, C) EACH(t, P) c->share[j * P + t] *= c->theta[j];
}

/* And back, to the gates of the chunk's tokens. */
static void unroll_back(const chunk *c, REAL *g_alpha, REAL *g_eta, REAL *g_theta) {
    int64_t C = c->C, P = c->P, Q = c->Q, from = c->before ? 0 : 1;
    REAL *dA = c->g_moved, *dI = c->g_inertia, g_keep = c->g_mix[0];
    const REAL *J = c->inertia + C * Q, *A = c->moved + C * Q;
    if (c->reads) transpose(C, C, dense(c->g_share, P), dense(c->square, P)); /* of what token t, row, reads */
    EACH(j, C) {
        REAL both = c->g_write[j] * A[j] + c->g_write[P + j] * J[j];
        dA[j] = c->g_write[j] * c->theta[j], dI[j] = c->g_write[P + j] * c->theta[j], c->g_theta[j] = both;
    }
    dA[C] = c->g_mix[1], dI[C] = c->g_mix[3];
    for (int64_t t = C; t >= 0; t--) { /* after t tokens */
        int64_t reader = t - from;
        if (c->reads && reader >= 0 && reader < C) {
            const REAL *g = c->square + reader * P, *moved = c->moved + t * Q;
            EACH(j, C) dA[j] += g[j] * c->theta[j], c->g_theta[j] += g[j] * moved[j];
            dA[C] += c->g_read[P + reader], g_keep += c->g_read[reader];
        }
        if (t == 0) break;
        REAL kept = c->kept[t - 1], eta = c->eta[t - 1], valid = c->valid[t - 1], of_kept = 0, of_eta = 0;
        const REAL *earlier = c->inertia + (t - 1) * Q, *moved = c->moved + (t - 1) * Q;
        #pragma omp simd reduction(+ : of_kept, of_eta)
        EACH(j, C + 1) {
            dI[j] += valid * dA[j];
            of_kept += dA[j] * moved[j], of_eta += dI[j] * earlier[j];
            dA[j] *= kept, dI[j] *= eta;
        }
        dI[t - 1] = 0;
        g_alpha[t - 1] = -valid * (of_kept + g_keep * c->keep[t - 1]), g_eta[t - 1] = valid * of_eta;
        g_keep *= kept;
    }
    EACH(j, C) g_theta[j] = c->valid[j] * c->g_theta[j];
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

/* Each token through its own weights: z = keep x W + carry x S + sum over its past of share (x a) e. */
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

/* The stack after the chunk: W = keep W + carry S + sum of write_0 a e, S = inertia S + sum of write_1 a e. */
static void learn(const chunk *c, REAL *stack) {
    const REAL *mix = c->mix;
    for (layer *l = c->layers; l < c->layers + c->L; l++) {
        REAL *W = stack + 2 * l->place, *S = W + l->n * l->m;
        EACH(i, l->n * l->m) W[i] = mix[0] * W[i] + mix[1] * S[i], S[i] *= mix[3];
        matrix rows = dense(out(c, l->m, l->learned, c->rows), l->m);
        product(ALL, 2 * l->n, c->C, l->m, dense(l->written, c->P), rows, dense(W, l->m), ADD, NULL);
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
        times(c, l->m, 2 * l->n, flip(dense(G, l->m)), l->written, c->g_learned, NOTHING);
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
            over_future(c, l->m, c->g_z, c->square, c->g_learned, ADD);
            pairs(c, l->m, l->learned, c->g_z, c->share, c->g_weighted, c->square);
            EACH(i, c->C * P) c->g_share[i] += c->g_weighted[i] * l->seen[i];
            over_past(c, l->n, l->a, c->square, c->g_x);
            transpose(c->C, c->C, dense(c->square, P), dense(c->g_weighted, P));
            over_future(c, l->n, l->x, c->g_weighted, l->g_a, ADD);
            if (l > c->layers) EACH(i, l->n * P) c->g_z[i] = c->g_x[i] * l[-1].z_slope[i];
        }
        if (c->limit) {
            along(c, l->m, c->g_learned, l->e, c->square);
            EACH(t, P) c->square[t] *= -l->shrink[t] * l->shrink[t] * l->shrink[t] / (c->limit * c->limit);
            EACH(i, l->n) EACH(t, P) l->g_a[i * P + t] += l->a[i * P + t] * c->square[t] * l->e_square[t];
            EACH(i, l->m) EACH(t, P) {
                REAL *g = c->g_learned + i * P + t;
                *g = *g * l->shrink[t] + l->e[i * P + t] * c->square[t] * l->a_square[t];
            }
        }
        memcpy(l->g_e, c->g_learned, sizeof(REAL) * l->m * P);
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

/* Where everything is, from `at` on; returns its end. */
static REAL *lay_out(chunk *c, REAL *at) {
    int64_t most = 0;
#define ROOM(what, numbers) (what = at, at += (numbers) + LANES) /* + LANES: not all at the same place of a page */
#define PLACE(what, rows) ROOM(what, (rows) * c->P)
    for (layer *l = c->layers; l < c->layers + c->L; l++) {
        most = l->n > most ? l->n : most, most = l->m > most ? l->m : most;
        PLACE(l->a, l->n), PLACE(l->back, l->m), PLACE(l->slope, l->m), PLACE(l->bend, l->m), PLACE(l->e, l->m);
        PLACE(l->learned, c->limit ? l->m : 0), PLACE(l->shrink, 1), PLACE(l->a_square, 1), PLACE(l->e_square, 1);
        PLACE(l->x, l->n), PLACE(l->z_slope, l->m), PLACE(l->left, 2 * l->n), PLACE(l->written, 2 * l->n);
        PLACE(l->seen, c->C), PLACE(l->weighted, c->C);
        PLACE(l->g_a, l->n), PLACE(l->g_e, l->m), PLACE(l->g_back, l->m);
        if (!c->limit) l->learned = l->e;
    }
    PLACE(c->v, most), PLACE(c->z, most), PLACE(c->read, 2), PLACE(c->write, 2), PLACE(c->share, c->C);
    PLACE(c->g_z, most), PLACE(c->g_x, most), PLACE(c->g_learned, most), PLACE(c->g_both, 2 * most);
    PLACE(c->g_read, 2), PLACE(c->g_write, 2), PLACE(c->g_share, c->C), PLACE(c->g_weighted, c->C);
    PLACE(c->square, c->C), PLACE(c->rows, most);
    PLACE(c->kept, 1), PLACE(c->eta, 1), PLACE(c->theta, 1), PLACE(c->valid, 1), PLACE(c->g_theta, 1);
    ROOM(c->keep, c->Q), ROOM(c->moved, (c->C + 1) * c->Q), ROOM(c->inertia, (c->C + 1) * c->Q);
    ROOM(c->g_moved, c->Q), ROOM(c->g_inertia, c->Q);
#undef ROOM
#undef PLACE
    return at;
}

/* sizes (L + 1): N_0 to N_L. numbers (2): 2 loss_scale, and the limit or 0. Returns what is to be freed. */
static void *begin(chunk *c, layer *layers, const int64_t *sizes, const REAL *numbers) {
    c->layers = layers, c->P = (c->C + LANES - 1) / LANES * LANES, c->Q = (c->C + LANES) / LANES * LANES, c->scale = numbers[0], c->limit = numbers[1];
    c->weights = 0;
    EACH(l, c->L) {
        layers[l].n = sizes[l], layers[l].m = sizes[l + 1], layers[l].place = c->weights;
        c->weights += sizes[l] * sizes[l + 1];
    }
    int64_t all = lay_out(c, (REAL *)64) - (REAL *)64;
    REAL *memory = room(all);
    memset(memory, 0, sizeof(REAL) * all);
    lay_out(c, memory);
    return memory;
}

/* What all chunks are given, (R, n, C, ...): q, k (D), v (E), alpha, eta, theta, and valid, NULL: all tokens are. */
typedef struct {
    const REAL *q, *k, *v, *alpha, *eta, *theta;
    const bool *valid;
} given;

/* A chunk comes in: the i-th of all rows' chunks. A token that is not valid changes nothing. */
static void receive(chunk *c, given x, int64_t i) {
    const layer *l = c->layers;
    int64_t C = c->C, E = l[c->L - 1].m;
    in(c, l->n, x.k + i * C * l->n, l->a), in(c, E, x.v + i * C * E, c->v);
    if (c->reads) in(c, l->n, x.q + i * C * l->n, l->x);
    EACH(t, C) {
        bool valid = !x.valid || x.valid[i * C + t];
        c->valid[t] = valid, c->kept[t] = valid ? 1 - x.alpha[i * C + t] : 1;
        c->eta[t] = valid ? x.eta[i * C + t] : 1, c->theta[t] = valid ? x.theta[i * C + t] : 0;
    }
    unroll(c);
}

/* The layers' weights in a stack (each = 2), or in weights alone (each = 1). */
static void weights_of(const chunk *c, const REAL *from, int64_t each, const REAL **weights) {
    EACH(l, c->L) weights[l] = from + each * c->layers[l].place;
}

/* stacks (R, S): before the first chunk; anchor (R, S / 2): where the first chunk's gradients are taken, NULL: at its
   own weights, as all others. -> y (R, n, C, E), nothing if nothing reads; after (R, S), the stacks after the last
   chunk; starts (R, ceil(n / group), S): those before every group of chunks (NULL: not wanted). */
void forward(int64_t first, int64_t last, int64_t L, int64_t n, int64_t C, int64_t reads, int64_t before, int64_t act,
             int64_t group, const int64_t *sizes, const REAL *numbers, const REAL *q, const REAL *k, const REAL *v,
             const REAL *alpha, const REAL *eta, const REAL *theta, const bool *valid, const REAL *stacks,
             const REAL *anchor, REAL *y, REAL *after, REAL *starts) {
    chunk c = {.L = L, .C = C, .act = act, .reads = reads, .before = before};
    layer layers[L];
    void *memory = begin(&c, layers, sizes, numbers);
    given all = {q, k, v, alpha, eta, theta, valid};
    int64_t S = 2 * c.weights, E = sizes[L];
    for (int64_t r = first; r < last; r++) {
        REAL *stack = after + r * S;
        const REAL *at[L];
        memcpy(stack, stacks + r * S, sizeof(REAL) * S);
        EACH(i, n) {
            if (starts && i % group == 0)
                memcpy(starts + (r * ((n + group - 1) / group) + i / group) * S, stack, sizeof(REAL) * S);
            receive(&c, all, r * n + i);
            weights_of(&c, stack, 2, at);
            if (anchor && i == 0) weights_of(&c, anchor + r * c.weights, 1, at);
            look(&c, at);
            if (reads) {
                recall(&c, stack, true);
                out(&c, E, c.z, y + (r * n + i) * C * E);
            }
            learn(&c, stack);
        }
    }
    free(memory);
}

/* The stacks before each chunk from first to last, from that before the first. */
static void repeat(chunk *c, given all, int64_t row, int64_t first, int64_t last, const REAL *anchor,
                   const REAL *start, REAL *stacks) {
    int64_t S = 2 * c->weights;
    const REAL *at[c->L];
    memcpy(stacks, start, sizeof(REAL) * S);
    for (int64_t i = first; i < last; i++, stacks += S) {
        receive(c, all, row + i);
        weights_of(c, anchor && i == 0 ? anchor : stacks, anchor && i == 0 ? 1 : 2, at);
        look(c, at);
        memcpy(stacks + S, stacks, sizeof(REAL) * S);
        learn(c, stacks + S);
    }
}

/* starts: as `forward` left them; grad (R, n, C, E) of y, NULL if nothing reads; g_stacks (R, S): the gradient of the
   stacks after the last chunk, becomes that of those before the first. -> gradients of all that is given, g_anchor
   (R, S / 2; NULL without an anchor). */
void backward(int64_t first, int64_t last, int64_t L, int64_t n, int64_t C, int64_t reads, int64_t before, int64_t act,
              int64_t group, const int64_t *sizes, const REAL *numbers, const REAL *q, const REAL *k, const REAL *v,
              const REAL *alpha, const REAL *eta, const REAL *theta, const bool *valid, const REAL *starts,
              const REAL *anchor, const REAL *grad, REAL *g_stacks, REAL *g_q, REAL *g_k, REAL *g_v, REAL *g_alpha, REAL *g_eta,
              REAL *g_theta, REAL *g_anchor) {
    chunk c = {.L = L, .C = C, .act = act, .reads = reads, .before = before};
    layer layers[L];
    void *memory = begin(&c, layers, sizes, numbers);
    given all = {q, k, v, alpha, eta, theta, valid};
    int64_t S = 2 * c.weights, D = sizes[0], E = sizes[L], groups = (n + group - 1) / group;
    REAL *again = group > 1 ? room(group * S) : NULL; /* the stacks before each chunk of a group */
    for (int64_t r = first; r < last; r++) {
        const REAL *own = anchor ? anchor + r * c.weights : NULL, *at[L];
        REAL *g_stack = g_stacks + r * S, *g_at[L];
        for (int64_t i = n - 1; i >= 0; i--) {
            const REAL *stack = starts + (r * groups + i / group) * S;
            if (group > 1) {
                if (i == n - 1 || i % group == group - 1) repeat(&c, all, r * n, i - i % group, i, own, stack, again);
                stack = again + i % group * S;
            }
            bool elsewhere = own && i == 0;
            int64_t place = r * n + i, tokens = place * C;
            receive(&c, all, place);
            weights_of(&c, elsewhere ? own : stack, elsewhere ? 1 : 2, at);
            weights_of(&c, elsewhere ? g_anchor + r * c.weights : g_stack, elsewhere ? 1 : 2, (const REAL **)g_at);
            if (elsewhere) memset(g_anchor + r * c.weights, 0, sizeof(REAL) * c.weights);
            memset(c.g_read, 0, sizeof(REAL) * 2 * c.P), memset(c.g_write, 0, sizeof(REAL) * 2 * c.P);
            memset(c.g_share, 0, sizeof(REAL) * C * c.P);
            look(&c, at);
            if (reads) {
                recall(&c, stack, false);
                in(&c, E, grad + tokens * E, c.g_z);
            }
            recall_back(&c, stack, g_stack);
            look_back(&c, at, g_at);
            out(&c, D, layers[0].g_a, g_k + tokens * D), out(&c, E, c.v, g_v + tokens * E);
            if (reads) out(&c, D, c.g_x, g_q + tokens * D);
            unroll_back(&c, g_alpha + tokens, g_eta + tokens, g_theta + tokens);
        }
    }
    free(memory), free(again);
}
