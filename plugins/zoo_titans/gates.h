/* What becomes of a token's surprise by the end of each later token of a chunk: what `gates.py` computes. */

#pragma once

#include "chunk.h"

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
