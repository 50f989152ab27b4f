/* Lightning attention on a CPU: Lightning Attention-2 (arXiv 2401.04658), Algorithms 1 and 2, chunk by chunk.

   R rows (batch times H heads), T tokens, D channels of q and k, E of v, C tokens per chunk, N = ceil(T / C). All
   arrays are dense, rows first. A row's state stays in the cache while its chunks pass, and so do the products of
   a chunk, of which the half that lies in the future is never computed. The next chunk is fetched meanwhile. */

#include "native.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <tgmath.h>

/* y (M, N) = diag(by) x */
static void scale(int64_t M, int64_t N, factors by, const REAL *x, REAL *y) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) y[i * N + j] = by.at[i * by.step] * x[i * N + j];
}

/* powers[i] = lambda^i, i <= C, and within (C, C) = lambda^(i - j) for j <= i, else 0; lambda = e^(-slope). */
static void decays(int64_t C, REAL slope, REAL *powers, REAL *within) {
    for (int64_t i = 0; i <= C; i++) powers[i] = exp(-slope * i);
    for (int64_t i = 0; i < C; i++)
        for (int64_t j = 0; j < C; j++) within[i * C + j] = j <= i ? powers[i - j] : 0;
}

/* weights (m, C) = (left right^T) . within, of m tokens with D channels; right is given transposed, (D, C). */
static void weigh(int64_t m, int64_t C, int64_t D, const REAL *left, const REAL *right, const REAL *within,
                  REAL *weights, upcoming *next) {
    for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = least(ROWS, m - i), seen = least((i + ROWS + LANES - 1) / LANES * LANES, C); /* whole vectors */
        REAL *w = weights + i * C;
        product(ALL, rows, D, seen, dense(left + i * D, D), dense(right, C), dense(w, C), NOTHING, next);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < seen; j++) w[r * C + j] *= within[(i + r) * C + j];
    }
}

/* x = the r-th n numbers of `from`, or zeros where it is NULL. */
static void start(int64_t n, REAL *x, const REAL *from, int64_t r) {
    if (from) memcpy(x, from + r * n, sizeof(REAL) * n);
    else memset(x, 0, sizeof(REAL) * n);
}

/* slopes (L), that of row r at r % L; lengths (R / H): how many of a row's tokens are there (NULL: all), outputs of
   the others are 0. q, k (R, T, D), v (R, T, E), initial (R, D, E): the state before the first token (NULL: zeros).
   -> out (R, T, E), final (R, D, E): the state after the last token, and states (R, N, E, D): those before the
   chunks, transposed, as far as they are not zero (NULL: not wanted). */
void forward(int64_t first, int64_t last, int64_t H, int64_t L, int64_t T, int64_t D, int64_t E, int64_t C,
             const REAL *q, const REAL *k, const REAL *v, const REAL *slopes, const int64_t *lengths,
             const REAL *initial, REAL *out, REAL *final, REAL *states) {
    int64_t N = (T + C - 1) / C;
    REAL *state = room(D * E), *weights = room(C * C), *within = room(C * C), *powers = room(C + 1);
    REAL *kt = room(D * C), *kept = room(C * D);
    memset(kt, 0, sizeof(REAL) * D * C);
    for (int64_t r = first; r < last; r++) {
        start(D * E, state, initial, r);
        decays(C, slopes[r % L], powers, within);
        for (int64_t n = 0; n < N; n++) {
            int64_t at = r * T + n * C, size = least(T - n * C, C);
            int64_t m = least((lengths ? lengths[r / H] : T) - n * C, C); /* tokens that are there */
            const REAL *qn = q + at * D, *kn = k + at * D, *vn = v + at * E;
            REAL *o = out + at * E, *before = states ? states + (r * N + n) * D * E : NULL;
            if (m < size) memset(o, 0, sizeof(REAL) * size * E);
            if (m <= 0) continue;
            upcoming next = {.of = {{qn + size * D, C * D}, {kn + size * D, C * D}, {vn + size * E, C * E},
                              {o + size * E, C * E}, {before ? before + D * E : NULL, before ? D * E : 0}}};
            /* o_i = lambda^(i + 1) q_i S + sum_{j <= i} lambda^(i - j) (q_i k_j) v_j */
            factors decayed = NOTHING;
            if (n > 0 || initial) {
                if (before) transpose(D, E, dense(state, E), dense(before, D));
                product(ALL, m, D, E, dense(qn, D), dense(state, E), dense(o, E), NOTHING, &next);
                decayed = (factors){powers + 1, 1};
            }
            transpose(m, D, dense(kn, D), dense(kt, C));
            weigh(m, C, D, qn, kt, within, weights, &next);
            product(LOWER, m, m, E, dense(weights, C), dense(vn, E), dense(o, E), decayed, &next);
            /* S = lambda^m S + sum_j lambda^(m - 1 - j) k_j v_j^T */
            factors over = {powers + m, 0};
            scale(m, D, (factors){powers + m - 1, -1}, kn, kept);
            product(ALL, D, m, E, flip(dense(kept, D)), dense(vn, E), dense(state, E), over, &next);
        }
        memcpy(final + r * D * E, state, sizeof(REAL) * D * E);
    }
    free(state), free(weights), free(within), free(powers), free(kt), free(kept);
}

/* As above; whether there was an initial state; grad (R, T, E) of the outputs, grad_final (R, D, E) of the last state
   (NULL: zeros). -> gradients of q, k (R, T, D), v (R, T, E), initial (R, D, E; NULL: not wanted). */
void backward(int64_t first, int64_t last, int64_t H, int64_t L, int64_t T, int64_t D, int64_t E, int64_t C,
              const REAL *q, const REAL *k, const REAL *v, const REAL *slopes, const int64_t *lengths,
              int64_t initial, const REAL *states, const REAL *grad, const REAL *grad_final, REAL *grad_q, REAL *grad_k,
              REAL *grad_v, REAL *grad_initial) {
    int64_t N = (T + C - 1) / C;
    REAL *dS = room(D * E), *weights = room(C * C), *grad_weights = room(C * C), *within = room(C * C);
    REAL *powers = room(C + 1), *kt = room(D * C), *vt = room(E * C), *dSt = room(E * D), *seen = room(C * E);
    memset(kt, 0, sizeof(REAL) * D * C), memset(vt, 0, sizeof(REAL) * E * C);
    for (int64_t r = last - 1; r >= first; r--) { /* backwards in memory, from chunk to chunk and from row to row */
        start(D * E, dS, grad_final, r);
        decays(C, slopes[r % L], powers, within);
        bool goes_on = grad_final; /* what comes after this chunk has a gradient */
        for (int64_t n = N - 1; n >= 0; n--) {
            int64_t at = r * T + n * C, size = least(T - n * C, C);
            int64_t m = least((lengths ? lengths[r / H] : T) - n * C, C); /* tokens that are there */
            const REAL *qn = q + at * D, *kn = k + at * D, *vn = v + at * E, *g = grad + at * E;
            const REAL *before = states + (r * N + n) * D * E;
            REAL *dq = grad_q + at * D, *dk = grad_k + at * D, *dv = grad_v + at * E;
            if (m < size) {
                memset(dq, 0, sizeof(REAL) * size * D), memset(dk, 0, sizeof(REAL) * size * D);
                memset(dv, 0, sizeof(REAL) * size * E);
            }
            if (m <= 0) continue;
            upcoming next = {.of = {{qn - C * D, C * D}, {kn - C * D, C * D}, {vn - C * E, C * E}, {g - C * E, C * E},
                              {dq - C * D, C * D}, {dk - C * D, C * D}, {dv - C * E, C * E}, {before - D * E, D * E}}};
            transpose(m, D, dense(kn, D), dense(kt, C));
            transpose(m, E, dense(vn, E), dense(vt, C));
            weigh(m, C, D, qn, kt, within, weights, &next);
            weigh(m, C, E, g, vt, within, grad_weights, &next);
            /* Through the states: dq_i = lambda^(i + 1) S g_i, dk_j = lambda^(m - 1 - j) dS v_j, dv_j alike. */
            factors since = NOTHING, until = NOTHING;
            if (n > 0 || initial) {
                product(ALL, m, E, D, dense(g, E), dense(before, D), dense(dq, D), NOTHING, &next);
                since = (factors){powers + 1, 1};
            }
            if (goes_on) {
                transpose(D, E, dense(dS, E), dense(dSt, D));
                product(ALL, m, E, D, dense(vn, E), dense(dSt, D), dense(dk, D), NOTHING, &next);
                product(ALL, m, D, E, dense(kn, D), dense(dS, E), dense(dv, E), NOTHING, &next);
                until = (factors){powers + m - 1, -1};
            }
            /* Within the chunk, and with them times their powers. */
            product(LOWER, m, m, D, dense(grad_weights, C), dense(kn, D), dense(dq, D), since, &next);
            product(UPPER, m, m, D, flip(dense(grad_weights, C)), dense(qn, D), dense(dk, D), until, &next);
            product(UPPER, m, m, E, flip(dense(weights, C)), dense(g, E), dense(dv, E), until, &next);
            /* dS = lambda^m dS + sum_i lambda^(i + 1) q_i g_i^T */
            if (n > 0 || grad_initial) {
                factors over = {powers + m, 0};
                scale(m, E, (factors){powers + 1, 1}, g, seen);
                product(ALL, D, m, E, flip(dense(qn, D)), dense(seen, E), dense(dS, E), over, &next);
                goes_on = true;
            }
        }
        if (grad_initial) memcpy(grad_initial + r * D * E, dS, sizeof(REAL) * D * E);
    }
    free(dS), free(weights), free(grad_weights), free(within), free(powers);
    free(kt), free(vt), free(dSt), free(seen);
}
