/* For the loops in C beside the plugins (`native.py`): products of small matrices that stay in the cache.

   REAL is float or double. Everything is static: a source holds what it uses. */

#pragma once

#include "vectors.h"

#include <stdlib.h>

#if defined(__AVX512F__)
#define ROWS 8
#else
#define ROWS 4
#endif
#define VECTORS 2 /* a tile is ROWS by VECTORS at most: its sums are registers */

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

/* Let a tile's share of what is upcoming come closer: a chunk's tiles are four times its size, or more. All at once,
   it would keep the products waiting. Past the end of an array it does no harm. */
INLINE void fetch(upcoming *next) {
    if (!next) return;
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

/* Memory for n numbers. */
static REAL *room(int64_t n) { return aligned_alloc(64, (sizeof(REAL) * n + 63) / 64 * 64); }
