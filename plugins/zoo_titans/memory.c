/* The neural memory of Titans on a CPU, chunk after chunk, with its backward: what `scan.py` computes.

   R rows (streams times heads), n chunks of C tokens, L layers of N_l -> N_(l+1) channels, D = N_0, E = N_L; all
   arrays are dense, rows first. While a row's chunks pass its stack stays in the cache, and so does all that a chunk
   computes. */

#include "chunk.h"
#include "gates.h"

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
    PLACE(c->g_z, most), PLACE(c->g_x, most), PLACE(c->g_both, 2 * most);
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
    c->P = (c->C + LANES - 1) / LANES * LANES, c->Q = (c->C + LANES) / LANES * LANES;
    c->scale = numbers[0], c->limit = numbers[1], c->layers = layers, c->weights = 0;
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
              const REAL *anchor, const REAL *grad, REAL *g_stacks, REAL *g_q, REAL *g_k, REAL *g_v, REAL *g_alpha,
              REAL *g_eta, REAL *g_theta, REAL *g_anchor) {
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
