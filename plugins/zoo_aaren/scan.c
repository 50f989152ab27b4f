/* Attention of one query over every prefix, and its gradient: the recurrence of Feng et al. 2024, section 3.1.

   R rows (batch times heads), N tokens, D channels; all arrays are dense, rows first. Per row three numbers
   are carried from token to token: the largest score m, u = sum e^(s - m), w = sum e^(s - m) v (D). No exponent
   is ever positive. A score of -inf is a token that is not there. */

#include <math.h>
#include <stdint.h>
#include <tgmath.h>

/* e^(from - to), from <= to; 1 where both are -inf, and NaN where both are +inf. */
static inline REAL decay(REAL from, REAL to) { return from == to && from != INFINITY ? 1 : exp(from - to); }

/* scores (R, N), values (R, N, D) -> out (R, N, D), and m and u after every token (R, N).
   m, u (R) and w (R, D): the state before the first token, and after the last one. */
void forward(int64_t first, int64_t last, int64_t N, int64_t D, const REAL *scores, const REAL *values,
             REAL *m, REAL *u, REAL *w, REAL *out, REAL *levels, REAL *sums) {
    for (int64_t r = first; r < last; r++) {
        REAL level = m[r], *carried = w + r * D;
        double sum = u[r];
        for (int64_t t = r * N; t < (r + 1) * N; t++) {
            const REAL *v = values + t * D;
            REAL *o = out + t * D, s = scores[t];
            if (s != -INFINITY) {
                REAL higher = s > level || isnan(s) ? s : level;
                REAL keep = decay(level, higher), weight = decay(s, higher);
                level = higher;
                sum = sum * keep + weight;
                #pragma omp simd
                for (int64_t d = 0; d < D; d++) carried[d] = carried[d] * keep + weight * v[d];
            }
            REAL share = sum == 0 ? 0 : 1 / sum;
            #pragma omp simd
            for (int64_t d = 0; d < D; d++) o[d] = carried[d] * share;
            levels[t] = level;
            sums[t] = sum;
        }
        m[r] = level;
        u[r] = sum;
    }
}

/* With p_ij = e^(s_j - m_i) / u_i the weight of token j at position i, g the gradient of the outputs o,
       dv_j = sum_{i >= j} p_ij g_i,    ds_j = sum_{i >= j} p_ij (g_i v_j - g_i o_i):
   one scan backwards of G = sum g_i / u_i (D) and H = sum g_i o_i / u_i, both in units of e^(-m_i).

   m: (R), the level before the first token. grad_m, grad_u (R), grad_w (R, D): u and w hold the gradients of
   the last state, and become, with m, those of the first one; its u and w are first_u and first_w. */
void backward(int64_t first, int64_t last, int64_t N, int64_t D, const REAL *scores, const REAL *values,
              const REAL *m, const REAL *first_u, const REAL *first_w, const REAL *out, const REAL *levels,
              const REAL *sums, const REAL *grad_out, REAL *grad_scores, REAL *grad_values, REAL *grad_m,
              REAL *grad_u, REAL *grad_w) {
    for (int64_t r = first; r < last; r++) {
        REAL *G = grad_w + r * D, level = levels[(r + 1) * N - 1];
        double H = -grad_u[r];
        for (int64_t t = (r + 1) * N - 1; t >= r * N; t--) {
            const REAL *g = grad_out + t * D, *o = out + t * D, *v = values + t * D;
            REAL *dv = grad_values + t * D;
            REAL keep = decay(levels[t], level), share = sums[t] == 0 ? 0 : 1 / sums[t];
            REAL weight = scores[t] == -INFINITY ? 0 : decay(scores[t], levels[t]), along = 0, seen = 0;
            level = levels[t];
            #pragma omp simd reduction(+ : along, seen)
            for (int64_t d = 0; d < D; d++) {
                G[d] = G[d] * keep + share * g[d];
                dv[d] = weight * G[d];
                along += G[d] * v[d];
                seen += g[d] * o[d];
            }
            H = H * keep + share * seen;
            grad_scores[t] = weight == 0 ? 0 : weight * (along - H);
        }
        REAL keep = decay(m[r], level), along = 0;
        #pragma omp simd reduction(+ : along)
        for (int64_t d = 0; d < D; d++) {
            G[d] *= keep;
            along += G[d] * first_w[r * D + d];
        }
        grad_u[r] = -H * keep;
        grad_m[r] = along + grad_u[r] * first_u[r];
    }
}
