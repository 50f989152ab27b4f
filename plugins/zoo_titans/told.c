/* What a memory is told of each token, on a CPU: convolution, SiLU and norm in one pass (section 4.4).

   B streams, N tokens, H heads of d channels, E = 3 H d channels of queries, keys and values, K tokens of a
   convolution. Arrays are dense, rows first. */

#include "native.h"

#include <math.h>
#include <string.h>
#include <tgmath.h>

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

/* What token t of a stream was before the convolution; tail (K - 1, E): before the first. */
INLINE const REAL *token(int64_t t, int64_t K, int64_t E, const REAL *tail, const REAL *x) {
    return t < 0 ? tail + (K - 1 + t) * E : x + t * E;
}

/* mixed (E) of token t; kernel (K, E), NULL: there is no convolution. */
static void convolve(int64_t t, int64_t K, int64_t E, const REAL *tail, const REAL *x, const REAL *kernel,
                     REAL *restrict mixed) {
    if (!kernel) {
        memcpy(mixed, x + t * E, sizeof(REAL) * E);
        return;
    }
    EACH(j, K) {
        const REAL *seen = token(t - K + 1 + j, K, E, tail, x), *factor = kernel + j * E;
        if (j == 0) EACH(c, E) mixed[c] = factor[c] * seen[c];
        else EACH(c, E) mixed[c] += factor[c] * seen[c];
    }
}

/* SiLU in place, and its slope if wanted: E numbers, whole vectors are there. */
static void activate(int64_t E, REAL *mixed, REAL *slope) {
    for (int64_t c = 0; c < E; c += LANES) {
        vec x = *(vec *)(mixed + c), share = 1 / (1 + power(-x)), y = x * share;
        *(vec *)(mixed + c) = y;
        if (slope) *(vec *)(slope + c) = share + y * (1 - share);
    }
}

static REAL inner(int64_t d, const REAL *a, const REAL *b) {
    REAL sum = 0;
    #pragma omp simd reduction(+ : sum)
    EACH(i, d) sum += a[i] * b[i];
    return sum;
}

/* x (B, N, E), tail (B, K - 1, E), numbers (1): what is added to a squared norm. -> q, k, v (B, H, N, d). */
void forward(int64_t first, int64_t last, int64_t N, int64_t H, int64_t d, int64_t K, const REAL *numbers,
             const REAL *x, const REAL *tail, const REAL *kernel, REAL *q, REAL *k, REAL *v) {
    int64_t E = 3 * H * d;
    REAL *mixed = room(E + LANES), *to[] = {q, k, v};
    memset(mixed, 0, sizeof(REAL) * (E + LANES));
    for (int64_t b = first; b < last; b++)
        EACH(t, N) {
            convolve(t, K, E, tail + b * (K - 1) * E, x + b * N * E, kernel, mixed);
            activate(E, mixed, NULL);
            EACH(i, 3 * H) {
                const REAL *a = mixed + i * d;
                REAL *o = to[i / H] + ((b * H + i % H) * N + t) * d;
                REAL scale = i / H < 2 ? 1 / sqrt(inner(d, a, a) + numbers[0]) : 1;
                EACH(c, d) o[c] = a[c] * scale;
            }
        }
    free(mixed);
}

/* Gradients of q, k, v -> those of x, tail, and of each stream's kernel, (B, K, E); the last two only where there
   is a kernel. */
void backward(int64_t first, int64_t last, int64_t N, int64_t H, int64_t d, int64_t K, const REAL *numbers,
              const REAL *x, const REAL *tail, const REAL *kernel, const REAL *g_q, const REAL *g_k, const REAL *g_v,
              REAL *g_x, REAL *g_tail, REAL *g_kernel) {
    int64_t E = 3 * H * d;
    REAL *mixed = room(E + LANES), *slope = room(E + LANES), *g = room(E);
    const REAL *from[] = {g_q, g_k, g_v};
    memset(mixed, 0, sizeof(REAL) * (E + LANES));
    for (int64_t b = first; b < last; b++) {
        const REAL *behind = tail + b * (K - 1) * E, *now = x + b * N * E;
        REAL *to = g_x + b * N * E, *to_tail = g_tail + b * (K - 1) * E, *to_kernel = g_kernel + b * K * E;
        memset(to_tail, 0, sizeof(REAL) * (K - 1) * E);
        if (kernel) memset(to_kernel, 0, sizeof(REAL) * K * E);
        EACH(t, N) {
            convolve(t, K, E, behind, now, kernel, mixed);
            activate(E, mixed, slope);
            EACH(i, 3 * H) { /* u = a scale: da = scale (du - u (u du)) */
                const REAL *a = mixed + i * d, *du = from[i / H] + ((b * H + i % H) * N + t) * d;
                REAL square = i / H < 2 ? 1 / (inner(d, a, a) + numbers[0]) : 1;
                REAL along = i / H < 2 ? square * inner(d, a, du) : 0, scale = sqrt(square);
                EACH(c, d) g[i * d + c] = scale * (du[c] - a[c] * along) * slope[i * d + c];
            }
            if (!kernel) {
                memcpy(to + t * E, g, sizeof(REAL) * E);
                continue;
            }
            for (int64_t j = K - 1; j >= 0; j--) {
                int64_t s = t - K + 1 + j;
                const REAL *seen = token(s, K, E, behind, now), *factor = kernel + j * E;
                REAL *restrict o = s < 0 ? to_tail + (K - 1 + s) * E : to + s * E, *restrict of = to_kernel + j * E;
                if (s == t) EACH(c, E) o[c] = 0;
                EACH(c, E) o[c] += factor[c] * g[c], of[c] += g[c] * seen[c];
            }
        }
    }
    free(mixed), free(slope), free(g);
}
