/* Lightning attention on a CPU: Lightning Attention-2 (arXiv 2401.04658), Algorithms 1 and 2, chunk by chunk.

   R rows (batch times H heads), T tokens, D channels of q and k, E of v, C tokens per chunk, N = ceil(T / C). All
   arrays are dense, rows first. A row's state stays in the cache while its chunks pass, and so do the products of
   a chunk, of which the half that lies in the future is never computed. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#if defined(__AVX512F__)
#define WIDTH 64
#define VECTORS 4
#elif defined(__AVX__)
#define WIDTH 32
#define VECTORS 2
#else
#define WIDTH 16
#define VECTORS 2
#endif
#define LANES (WIDTH / (int64_t)sizeof(REAL))
#define ROWS 4 /* of a tile, at most VECTORS wide: its sums are registers */
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
typedef enum { SET, ADD } mode;

static matrix dense(const REAL *at, int64_t columns) { return (matrix){(REAL *)at, columns, 1}; }
static matrix flip(matrix a) { return (matrix){a.at, a.right, a.down}; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* c (+)= a b for `rows` rows of c and `vectors` vectors of columns, over a depth of K. */
INLINE void tile(mode how, int rows, int vectors, int64_t K, matrix a, matrix b, matrix c) {
    vec sums[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sums[i][j] = how == SET ? (vec){0} : *(vec *)(c.at + i * c.down + j * LANES);
    for (int64_t k = 0; k < K; k++)
        for (int j = 0; j < vectors; j++) {
            vec right = *(vec *)(b.at + k * b.down + j * LANES);
            for (int i = 0; i < rows; i++) sums[i][j] += a.at[i * a.down + k * a.right] * right;
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) *(vec *)(c.at + i * c.down + j * LANES) = sums[i][j];
}

/* As many tiles of this width as fit into what is left of N columns. */
INLINE int64_t tiles(mode how, int rows, int vectors, int64_t K, int64_t N, matrix a, matrix *b, matrix *c) {
    int64_t width = vectors * LANES;
    for (; N >= width; N -= width, b->at += width, c->at += width) tile(how, rows, vectors, K, a, *b, *c);
    return N;
}

/* `rows` rows of c (+)= a b, N columns. Everything is inlined: sums are registers where counts are known. */
INLINE void strip(mode how, int rows, int64_t K, int64_t N, matrix a, matrix b, matrix c) {
    N = tiles(how, rows, VECTORS, K, N, a, &b, &c);
    if (VECTORS > 2) N = tiles(how, rows, 2, K, N, a, &b, &c);
    N = tiles(how, rows, 1, K, N, a, &b, &c);
    for (; N > 0; N--, b.at++, c.at++)
        for (int i = 0; i < rows; i++) {
            REAL sum = how == SET ? 0 : c.at[i * c.down];
            for (int64_t k = 0; k < K; k++) sum += a.at[i * a.down + k * a.right] * b.at[k * b.down];
            c.at[i * c.down] = sum;
        }
}

/* c (M, N) = a (M, K) b (K, N), or += a b; rows of b and c lie dense. */
static void product(mode how, part of_a, int64_t M, int64_t K, int64_t N, matrix a, matrix b, matrix c) {
    for (int64_t i = 0; i < M; i += ROWS) {
        int64_t rows = least(ROWS, M - i), from = of_a == UPPER ? i : 0, to = of_a == LOWER ? least(i + rows, K) : K;
        matrix left = {a.at + i * a.down + from * a.right, a.down, a.right};
        matrix right = {b.at + from * b.down, b.down, 1}, into = {c.at + i * c.down, c.down, 1};
        if (rows == ROWS && how == SET) {
            strip(SET, ROWS, to - from, N, left, right, into);
        } else if (rows == ROWS) {
            strip(ADD, ROWS, to - from, N, left, right, into);
        } else {
            for (; rows > 0; rows--, left.at += a.down, into.at += c.down) strip(how, 1, to - from, N, left, right, into);
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

/* Row i of x (M, N) times factors[i * step]. */
static void scale_rows(int64_t M, int64_t N, REAL *x, const REAL *factors, int64_t step) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) x[i * N + j] *= factors[i * step];
}

/* powers[i] = lambda^i, i <= C, and within (C, C) = lambda^(i - j) for j <= i, else 0; lambda = e^(-slope). */
static void decays(int64_t C, REAL slope, REAL *powers, REAL *within) {
    for (int64_t i = 0; i <= C; i++) powers[i] = exp(-slope * i);
    for (int64_t i = 0; i < C; i++)
        for (int64_t j = 0; j < C; j++) within[i * C + j] = j <= i ? powers[i - j] : 0;
}

/* weights (m, C) = (left right^T) . within, of m tokens with D channels; right is given transposed, (D, C). */
static void weigh(int64_t m, int64_t C, int64_t D, const REAL *left, const REAL *right, const REAL *within, REAL *weights) {
    for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = least(ROWS, m - i), seen = least((i + ROWS + LANES - 1) / LANES * LANES, C); /* whole vectors */
        REAL *w = weights + i * C;
        product(SET, ALL, rows, D, seen, dense(left + i * D, D), dense(right, C), dense(w, C));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < seen; j++) w[r * C + j] *= within[(i + r) * C + j];
    }
}

/* Let n numbers come closer that the next chunk reads or writes. */
static void fetch(const REAL *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / (int64_t)sizeof(REAL)) __builtin_prefetch(x + i, 0, 2);
}

/* Memory for n numbers. */
static REAL *room(int64_t n) { return aligned_alloc(64, (sizeof(REAL) * n + 63) / 64 * 64); }

/* slopes (R), lengths (R / H): how many of a row's tokens are there (NULL: all); outputs of the others are 0.
   q, k (R, T, D), v (R, T, E), state (R, D, E): the state before the first token, and after the last one.
   -> out (R, T, E), and the states before the chunks, transposed, (R, N, E, D). */
void forward(int64_t first, int64_t last, int64_t H, int64_t T, int64_t D, int64_t E, int64_t C, const REAL *q,
             const REAL *k, const REAL *v, const REAL *slopes, const int64_t *lengths, REAL *state, REAL *out, REAL *states) {
    int64_t N = (T + C - 1) / C;
    REAL *weights = room(C * C), *within = room(C * C), *powers = room(C + 1), *kt = room(D * C), *kept = room(C * D);
    memset(kt, 0, sizeof(REAL) * D * C);
    for (int64_t r = first; r < last; r++) {
        REAL *S = state + r * D * E;
        decays(C, slopes[r], powers, within);
        for (int64_t n = 0; n < N; n++) {
            int64_t at = r * T + n * C, size = least(T - n * C, C), m = least((lengths ? lengths[r / H] : T) - n * C, C);
            const REAL *qn = q + at * D, *kn = k + at * D, *vn = v + at * E;
            REAL *o = out + at * E;
            transpose(D, E, dense(S, E), dense(states + (r * N + n) * D * E, D));
            if (m < size) memset(o, 0, sizeof(REAL) * size * E);
            if (m <= 0) continue;
            if (n + 1 < N) {
                int64_t next = least(T - (n + 1) * C, C);
                fetch(qn + C * D, next * D), fetch(kn + C * D, next * D), fetch(vn + C * E, next * E);
                fetch(o + C * E, next * E), fetch(states + (r * N + n + 1) * D * E, D * E);
            }
            /* o_i = lambda^(i + 1) q_i S + sum_{j <= i} lambda^(i - j) (q_i k_j) v_j */
            product(SET, ALL, m, D, E, dense(qn, D), dense(S, E), dense(o, E));
            scale_rows(m, E, o, powers + 1, 1);
            transpose(m, D, dense(kn, D), dense(kt, C));
            weigh(m, C, D, qn, kt, within, weights);
            product(ADD, LOWER, m, m, E, dense(weights, C), dense(vn, E), dense(o, E));
            /* S = lambda^m S + sum_j lambda^(m - 1 - j) k_j v_j^T */
            memcpy(kept, kn, sizeof(REAL) * m * D);
            scale_rows(m, D, kept, powers + m - 1, -1);
            scale_rows(1, D * E, S, powers + m, 0);
            product(ADD, ALL, D, m, E, flip(dense(kept, D)), dense(vn, E), dense(S, E));
        }
    }
    free(weights), free(within), free(powers), free(kt), free(kept);
}

/* As above; grad (R, T, E) of the outputs, grad_state (R, D, E): that of the last state, and becomes that of the
   first. -> gradients of q, k (R, T, D) and v (R, T, E). */
void backward(int64_t first, int64_t last, int64_t H, int64_t T, int64_t D, int64_t E, int64_t C, const REAL *q,
              const REAL *k, const REAL *v, const REAL *slopes, const int64_t *lengths, const REAL *states, const REAL *grad,
              REAL *grad_state, REAL *grad_q, REAL *grad_k, REAL *grad_v) {
    int64_t N = (T + C - 1) / C;
    REAL *weights = room(C * C), *grad_weights = room(C * C), *within = room(C * C), *powers = room(C + 1);
    REAL *kt = room(D * C), *vt = room(E * C), *grad_state_t = room(E * D), *seen = room(C * E);
    memset(kt, 0, sizeof(REAL) * D * C), memset(vt, 0, sizeof(REAL) * E * C);
    for (int64_t r = first; r < last; r++) {
        REAL *dS = grad_state + r * D * E;
        decays(C, slopes[r], powers, within);
        for (int64_t n = N - 1; n >= 0; n--) {
            int64_t at = r * T + n * C, size = least(T - n * C, C), m = least((lengths ? lengths[r / H] : T) - n * C, C);
            const REAL *qn = q + at * D, *kn = k + at * D, *vn = v + at * E, *g = grad + at * E;
            REAL *dq = grad_q + at * D, *dk = grad_k + at * D, *dv = grad_v + at * E;
            if (m < size) {
                memset(dq, 0, sizeof(REAL) * size * D), memset(dk, 0, sizeof(REAL) * size * D);
                memset(dv, 0, sizeof(REAL) * size * E);
            }
            if (m <= 0) continue;
            if (n > 0) {
                fetch(qn - C * D, C * D), fetch(kn - C * D, C * D), fetch(vn - C * E, C * E), fetch(g - C * E, C * E);
                fetch(dq - C * D, C * D), fetch(dk - C * D, C * D), fetch(dv - C * E, C * E);
                fetch(states + (r * N + n - 1) * D * E, D * E);
            }
            transpose(m, D, dense(kn, D), dense(kt, C));
            transpose(m, E, dense(vn, E), dense(vt, C));
            transpose(D, E, dense(dS, E), dense(grad_state_t, D));
            weigh(m, C, D, qn, kt, within, weights);
            weigh(m, C, E, g, vt, within, grad_weights);
            /* Through the states: dq_i = lambda^(i + 1) S g_i, dk_j = lambda^(m - 1 - j) dS v_j, dv_j alike. */
            product(SET, ALL, m, E, D, dense(g, E), dense(states + (r * N + n) * D * E, D), dense(dq, D));
            scale_rows(m, D, dq, powers + 1, 1);
            product(SET, ALL, m, E, D, dense(vn, E), dense(grad_state_t, D), dense(dk, D));
            scale_rows(m, D, dk, powers + m - 1, -1);
            product(SET, ALL, m, D, E, dense(kn, D), dense(dS, E), dense(dv, E));
            scale_rows(m, E, dv, powers + m - 1, -1);
            /* Within the chunk. */
            product(ADD, LOWER, m, m, D, dense(grad_weights, C), dense(kn, D), dense(dq, D));
            product(ADD, UPPER, m, m, D, flip(dense(grad_weights, C)), dense(qn, D), dense(dk, D));
            product(ADD, UPPER, m, m, E, flip(dense(weights, C)), dense(g, E), dense(dv, E));
            /* dS = lambda^m dS + sum_i lambda^(i + 1) q_i g_i^T */
            memcpy(seen, g, sizeof(REAL) * m * E);
            scale_rows(m, E, seen, powers + 1, 1);
            scale_rows(1, D * E, dS, powers + m, 0);
            product(ADD, ALL, D, m, E, flip(dense(qn, D)), dense(seen, E), dense(dS, E));
        }
    }
    free(weights), free(grad_weights), free(within), free(powers);
    free(kt), free(vt), free(grad_state_t), free(seen);
}
