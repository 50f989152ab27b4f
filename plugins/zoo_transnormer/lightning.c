/* Lightning attention on a CPU: Lightning Attention-2 (arXiv 2401.04658), Algorithms 1 and 2, chunk by chunk.

   R rows (batch times H heads), T tokens, D channels of q and k, E of v, C tokens per chunk, N = ceil(T / C). All
   arrays are dense, rows first. A row's state stays in the cache while its chunks pass, and so do the products of
   a chunk, of which the half that lies in the future is never computed. The next chunk is fetched meanwhile. */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#if defined(__AVX512F__)
#define WIDTH 64
#define ROWS 8
#elif defined(__AVX__)
#define WIDTH 32
#define ROWS 4
#else
#define WIDTH 16
#define ROWS 4
#endif
#define LANES (WIDTH / (int64_t)sizeof(REAL))
#define VECTORS 2 /* a tile is ROWS by VECTORS at most: its sums are registers */
#define INLINE static inline __attribute__((always_inline))

typedef REAL vec __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));
typedef REAL quad __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

#ifndef __has_builtin
#define __has_builtin(x) 0
#endif
#if __has_builtin(__builtin_shufflevector)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else /* gcc before 12 */
typedef __typeof__((quad){0} < (quad){0}) places;
#define PICK(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* Element (i, j) is at[i * down + j * right]. */
typedef struct {
    REAL *at;
    int64_t down, right;
} matrix;

/* Which part of a left factor is not zero: all of it, up to its diagonal, or from its diagonal on. */
typedef enum { ALL, LOWER, UPPER } part;

/* The factor of row i is at[i * step]. */
typedef struct {
    const REAL *at;
    int64_t step;
} factors;
#define NOTHING ((factors){0}) /* as if all were 0: what was there is not even read */

/* Up to 8 arrays, and how many of their numbers are wanted next; the first `done` of each are on their way. */
typedef struct {
    struct {
        const REAL *from;
        int64_t size;
    } of[8];
    int64_t done;
} upcoming;

static matrix dense(const REAL *at, int64_t columns) { return (matrix){(REAL *)at, columns, 1}; }
static matrix flip(matrix a) { return (matrix){a.at, a.right, a.down}; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Let a tile's share of what is upcoming come closer: a chunk's tiles are four times its size, or more. All at once,
   it would keep the products waiting. Past the end of an array it does no harm. */
INLINE void fetch(upcoming *next) {
    int64_t line = 64 / (int64_t)sizeof(REAL), until = next->done + ROWS * VECTORS * LANES / 4;
    for (; next->done < until; next->done += line)
        for (int i = 0; i < 8; i++)
            if (next->done < next->of[i].size) __builtin_prefetch(next->of[i].from + next->done, 0, 2);
}

/* c = diag(keep) c + a b for `rows` rows of c and `vectors` vectors of columns, over a depth of K. */
INLINE void tile(int rows, int vectors, int64_t K, matrix a, matrix b, matrix c, factors keep) {
    vec sums[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) {
            sums[i][j] = (vec){0};
            if (keep.at) sums[i][j] = keep.at[i * keep.step] * *(vec *)(c.at + i * c.down + j * LANES);
        }
    for (int64_t k = 0; k < K; k++)
        for (int j = 0; j < vectors; j++) {
            vec right = *(vec *)(b.at + k * b.down + j * LANES);
            for (int i = 0; i < rows; i++) sums[i][j] += a.at[i * a.down + k * a.right] * right;
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) *(vec *)(c.at + i * c.down + j * LANES) = sums[i][j];
}

/* As many tiles of this width as fit into what is left of N columns. */
INLINE int64_t tiles(int rows, int vectors, int64_t K, int64_t N, matrix a, matrix *b, matrix *c, factors keep,
                     upcoming *next) {
    int64_t width = vectors * LANES;
    for (; N >= width; N -= width, b->at += width, c->at += width) {
        fetch(next);
        tile(rows, vectors, K, a, *b, *c, keep);
    }
    return N;
}

/* `rows` rows of c = diag(keep) c + a b, N columns. All is inlined: sums are registers where counts are known. */
INLINE void strip(int rows, int64_t K, int64_t N, matrix a, matrix b, matrix c, factors keep, upcoming *next) {
    N = tiles(rows, VECTORS, K, N, a, &b, &c, keep, next);
    N = tiles(rows, 1, K, N, a, &b, &c, keep, next);
    for (; N > 0; N--, b.at++, c.at++)
        for (int i = 0; i < rows; i++) {
            REAL sum = keep.at ? keep.at[i * keep.step] * c.at[i * c.down] : 0;
            for (int64_t k = 0; k < K; k++) sum += a.at[i * a.down + k * a.right] * b.at[k * b.down];
            c.at[i * c.down] = sum;
        }
}

/* c (M, N) = diag(keep) c + a (M, K) b (K, N); rows of b and c lie dense. */
static void product(part of_a, int64_t M, int64_t K, int64_t N, matrix a, matrix b, matrix c, factors keep,
                    upcoming *next) {
    for (int64_t i = 0; i < M; i += ROWS) {
        int64_t rows = least(ROWS, M - i), from = of_a == UPPER ? i : 0, to = of_a == LOWER ? least(i + rows, K) : K;
        matrix left = {a.at + i * a.down + from * a.right, a.down, a.right};
        matrix right = {b.at + from * b.down, b.down, 1}, into = {c.at + i * c.down, c.down, 1};
        factors kept = keep.at ? (factors){keep.at + i * keep.step, keep.step} : NOTHING;
        if (rows == ROWS) {
            strip(ROWS, to - from, N, left, right, into, kept, next);
        } else {
            for (; rows > 0; rows--, left.at += a.down, into.at += c.down, kept.at += kept.at ? kept.step : 0)
                strip(1, to - from, N, left, right, into, kept, next);
        }
    }
}

/* b (N, M) = a (M, N) transposed; rows of both lie dense. */
static void transpose(int64_t M, int64_t N, matrix a, matrix b) {
    int64_t i = 0;
    for (; i + 4 <= M; i += 4) {
        int64_t j = 0;
        for (; j + 4 <= N; j += 4) {
            const REAL *from = a.at + i * a.down + j;
            REAL *to = b.at + j * b.down + i;
            quad r[4];
            for (int k = 0; k < 4; k++) r[k] = *(quad *)(from + k * a.down);
            quad upper[2] = {PICK(r[0], r[1], 0, 4, 1, 5), PICK(r[0], r[1], 2, 6, 3, 7)};
            quad lower[2] = {PICK(r[2], r[3], 0, 4, 1, 5), PICK(r[2], r[3], 2, 6, 3, 7)};
            for (int k = 0; k < 2; k++) {
                *(quad *)(to + 2 * k * b.down) = PICK(upper[k], lower[k], 0, 1, 4, 5);
                *(quad *)(to + (2 * k + 1) * b.down) = PICK(upper[k], lower[k], 2, 3, 6, 7);
            }
        }
        for (; j < N; j++)
            for (int k = 0; k < 4; k++) b.at[j * b.down + i + k] = a.at[(i + k) * a.down + j];
    }
    for (; i < M; i++)
        for (int64_t j = 0; j < N; j++) b.at[j * b.down + i] = a.at[i * a.down + j];
}

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

/* Memory for n numbers. */
static REAL *room(int64_t n) { return aligned_alloc(64, (sizeof(REAL) * n + 63) / 64 * 64); }

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
