/* Sums over the edges of a layer of B-splines and a base function b, and their gradients, on a CPU: only the k + 1
   splines of an input that are not 0 there are touched.

   N rows, I inputs, O outputs, order k, M knots of each input, K = M - k - 1 functions; all arrays are dense. The
   rows of a block are sorted, for one input after the other, by the interval of its grid that they lie in. In one
   interval the same k + 1 splines count for all rows: their weights are registers while these rows pass. */

#include "vectors.h"

#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTORS 4
#else
#define VECTORS 2
#endif
#define ROWS 128  /* of a block: their outputs, and what belongs to one input, stay in the first cache, */
#define INPUTS 64 /* and what belongs to the inputs of a block in the second. */
#define MOST 8    /* the highest order */

enum { ZERO, CLAMP, LINEAR }; /* what splines are outside the core of the grid, see `splines.py` */
enum { NONE, SILU, IDENTITY }; /* b */

typedef struct {
    int64_t I, O, K, M, k, beyond, base;
    int64_t P;      /* O in whole vectors */
    int64_t places; /* of sorted rows: those of an interval begin a vector */
} layer;

/* One input. k more splines and k more knots on each side: so every interval has k + 1 splines. */
typedef struct {
    REAL *knots;    /* M + 2 k */
    REAL *inverse;  /* (M - 1, k (k + 1) / 2): 1 / (t_c+r+1 - t_c+r+1-p), p = 1 to k, r = 0 to p - 1 */
    REAL *weights;  /* (1 + K + 2 k, P): of b, of the splines */
    REAL *gradient; /* of the weights */
} input;

/* The rows of a block by the interval of one input. */
typedef struct {
    int64_t *from, *to;    /* (M - 1) */
    int64_t *row;          /* (places) */
    REAL *x;               /* (places) */
    REAL *values, *slopes; /* (k + 2, places): of the interval's splines, and of b */
} sorted;

/* All the memory that is needed. */
typedef struct {
    layer l;
    input inputs[INPUTS];
    sorted s;
    REAL *of_inputs;
    REAL *columns;          /* (INPUTS, ROWS): x, or its gradient, by inputs */
    REAL *rows;             /* (ROWS, P): sums, or their gradient */
    REAL *partial, *halves; /* (ROWS, LANES), see `totals` */
} work;

INLINE vec load(const REAL *at) { return *(const vec *)at; }
INLINE void store(REAL *at, vec x) { *(vec *)at = x; }

/* Memory for n numbers, zeros. */
static REAL *room(int64_t n) {
    size_t bytes = (sizeof(REAL) * n + 63) / 64 * 64;
    return memset(aligned_alloc(64, bytes), 0, bytes);
}

static void begin(work *w, int64_t I, int64_t O, int64_t M, int64_t k, int64_t beyond, int64_t base) {
    int64_t P = (O + LANES - 1) / LANES * LANES, places = ROWS + (M - 1) * LANES;
    int64_t knots = (M + 2 * k + 15) / 16 * 16, inverse = ((M - 1) * k * (k + 1) / 2 + 15) / 16 * 16;
    int64_t weights = (M + k) * P, each = knots + inverse + 2 * weights, count = least(I, INPUTS);
    w->l = (layer){I, O, M - k - 1, M, k, beyond, base, P, places};
    w->of_inputs = room(count * each);
    for (int64_t f = 0; f < count; f++) {
        REAL *at = w->of_inputs + f * each;
        w->inputs[f] = (input){at, at + knots, at + knots + inverse, at + knots + inverse + weights};
    }
    w->s = (sorted){malloc(sizeof(int64_t) * (M - 1)), malloc(sizeof(int64_t) * (M - 1)),
                    malloc(sizeof(int64_t) * places), room(places), room((k + 2) * places), room((k + 2) * places)};
    w->columns = room(INPUTS * ROWS), w->rows = room(ROWS * P);
    w->partial = room(ROWS * LANES), w->halves = room(ROWS * LANES / 2);
}

static void end(work *w) {
    free(w->s.from), free(w->s.to), free(w->s.row), free(w->s.x), free(w->s.values), free(w->s.slopes);
    free(w->of_inputs), free(w->columns), free(w->rows), free(w->partial), free(w->halves);
}

/* Knot m of all M + 2 k; t: the M of the grid. */
static double knot(const layer *l, const double *t, int64_t m) {
    int64_t last = l->M - 1, at = m - l->k;
    double step = (t[last] - t[0]) / last;
    return at < 0 ? t[0] + at * step : at > last ? t[last] + (at - last) * step : t[at];
}

/* Inputs i to i + count - 1. */
static void prepare(work *w, int64_t i, int64_t count, const REAL *coef, const REAL *base, const double *grid) {
    const layer *l = &w->l;
    for (int64_t f = 0; f < count; f++) {
        const double *t = grid + (i + f) * l->M;
        REAL *inverse = w->inputs[f].inverse;
        for (int64_t m = 0; m < l->M + 2 * l->k; m++) w->inputs[f].knots[m] = knot(l, t, m);
        for (int64_t c = l->k; c < l->M - 1 + l->k; c++)
            for (int64_t p = 1; p <= l->k; p++)
                for (int64_t r = 1; r <= p; r++) *inverse++ = 1 / (knot(l, t, c + r) - knot(l, t, c + r - p));
        memset(w->inputs[f].gradient, 0, sizeof(REAL) * (1 + l->K + 2 * l->k) * l->P);
    }
    for (int64_t o = 0; o < l->O; o++)
        for (int64_t f = 0; f < count; f++) {
            const REAL *from = coef + (o * l->I + i + f) * l->K;
            for (int64_t j = 0; j < l->K; j++) w->inputs[f].weights[(1 + l->k + j) * l->P + o] = from[j];
            if (base) w->inputs[f].weights[o] = base[o * l->I + i + f];
        }
}

/* columns (count, ROWS) = x (rows, count), rows I apart. */
static void gather(work *w, int64_t rows, int64_t count, const REAL *x) {
    for (int64_t n = 0; n < rows; n++) {
        const REAL *from = x + n * w->l.I, *later = x + least(n + 16, rows - 1) * w->l.I;
        for (int64_t f = 0; f < count; f += 64 / sizeof(REAL)) __builtin_prefetch(later + f);
        for (int64_t f = 0; f < count; f++) w->columns[f * ROWS + n] = from[f];
    }
}

/* to (rows, columns) = from, their rows `below` and `down` apart. */
static void copy(int64_t rows, int64_t columns, REAL *to, int64_t below, const REAL *from, int64_t down) {
    for (int64_t n = 0; n < rows; n++) memcpy(to + n * below, from + n * down, sizeof(REAL) * columns);
}

/* x, or the nearest place on the core of the grid. NaN stays NaN. */
INLINE vec held(const layer *l, const REAL *knots, vec x) {
    if (l->beyond == ZERO) return x;
    vec low = (vec){0} + knots[2 * l->k], high = (vec){0} + knots[l->M - 1];
    return pick(x < low, low, pick(x > high, high, x));
}

/* Beyond the ends of the grid is the first and the last interval, NaN is in the first. */
static void sort(work *w, const REAL *knots, int64_t rows, const REAL *x) {
    const layer *l = &w->l;
    sorted *s = &w->s;
    wholes interval[ROWS / LANES];
    REAL end = knots[l->beyond == ZERO ? l->M - 1 + l->k : l->M - 1]; /* belongs to the interval before it */
    for (int64_t n = 0; n < rows; n += LANES) {
        vec place = held(l, knots, load(x + n));
        wholes c = {0};
        for (int64_t m = 1; m < l->M - 1 && knots[l->k + m] < end; m++) c -= place >= knots[l->k + m];
        interval[n / LANES] = c;
    }
    memset(s->to, 0, sizeof(int64_t) * (l->M - 1));
    for (int64_t n = 0; n < rows; n++) s->to[interval[n / LANES][n % LANES]]++;
    for (int64_t c = 0, at = 0; c < l->M - 1; c++) {
        int64_t count = s->to[c];
        s->from[c] = s->to[c] = at;
        at += (count + LANES - 1) / LANES * LANES;
    }
    for (int64_t n = 0; n < rows; n++) {
        int64_t at = s->to[interval[n / LANES][n % LANES]]++;
        s->row[at] = n;
        s->x[at] = x[n];
    }
}

/* b(x) and its slope. */
INLINE void branch(const layer *l, vec x, vec *value, vec *slope) {
    vec zeros = {0}, ones = zeros + 1;
    *value = l->base == NONE ? zeros : x, *slope = l->base == NONE ? zeros : ones;
    if (l->base != SILU) return;
    vec share = pick(x < (sizeof(REAL) == 4 ? -88 : -708), zeros, 1 / (1 + power(-x)));
    *value = x * share;
    *slope = share * (1 + x * (1 - share));
}

/* The k + 1 splines of interval c and their slopes, by the recursion of Cox and de Boor. */
INLINE void functions(int k, const layer *l, const input *in, int64_t c, vec x, vec *values, vec *slopes) {
    const REAL *t = in->knots + k + c, *inverse = in->inverse + c * (k * (k + 1) / 2);
    vec place = held(l, in->knots, x), before = {0}, zeros = {0};
    values[0] = 1 + 0 * place; /* NaN stays NaN */
    for (int p = 1; p <= k; p++) {
        vec carried = {0};
        for (int r = 0; r < p; r++) {
            vec share = values[r] * *inverse++;
            values[r] = carried + (t[r + 1] - place) * share;
            carried = (place - t[r + 1 - p]) * share;
            if (p == k) slopes[r] = (REAL)k * (before - share), before = share;
        }
        values[p] = carried;
    }
    slopes[k] = (REAL)k * before;
    wholes none = (place < in->knots[k]) | (place > in->knots[l->M - 1 + k]);
    wholes held_still = (x < in->knots[2 * k]) | (x > in->knots[l->M - 1]);
    for (int j = 0; j <= k; j++) {
        values[j] = pick(none, zeros, values[j]);
        slopes[j] = pick(l->beyond == CLAMP ? none | held_still : none, zeros, slopes[j]);
        if (l->beyond == LINEAR) values[j] += slopes[j] * (x - place);
    }
}

INLINE void evaluate(int k, work *w, const input *in) {
    const sorted *s = &w->s;
    for (int64_t c = 0; c < w->l.M - 1; c++)
        for (int64_t m = s->from[c]; m < s->to[c]; m += LANES) {
            vec values[MOST + 2], slopes[MOST + 2], x = load(s->x + m);
            functions(k, &w->l, in, c, x, values, slopes);
            branch(&w->l, x, values + k + 1, slopes + k + 1);
            for (int j = 0; j < k + 2; j++) {
                store(s->values + j * w->l.places + m, values[j]);
                store(s->slopes + j * w->l.places + m, slopes[j]);
            }
        }
}

/* What is computed of y = sum_j values_j weights_j, with g the gradient of y: y itself, the gradient of the weights, or
   that of x, sum_j slopes_j (weights_j g), but for the last sum over LANES numbers. j = k + 1 is b. */
typedef enum { SUM, OF_WEIGHTS, OF_X } wanted;

/* For the n rows of interval c, from place `at` on, and a strip of `vectors` vectors of outputs, from p on. */
INLINE void strip(wanted what, int k, int vectors, work *w, const input *in, int64_t c, int64_t at, int64_t n, int64_t p) {
    int64_t P = w->l.P, places = w->l.places, *row = w->s.row + at;
    REAL *base = (what == OF_WEIGHTS ? in->gradient : in->weights) + p, *weights = base + (1 + c) * P;
    const REAL *factors = (what == OF_X ? w->s.slopes : w->s.values) + at;
    vec kept[MOST + 2][VECTORS];
    for (int j = 0; j < k + 2; j++)
        for (int v = 0; v < vectors; v++) kept[j][v] = load((j <= k ? weights + j * P : base) + v * LANES);
    for (int64_t m = 0; m < n; m++) {
        REAL *y = w->rows + row[m] * P + p, *partial = w->partial + m * LANES;
        vec sum[VECTORS];
        for (int v = 0; v < vectors; v++) sum[v] = what == OF_X ? (vec){0} : load(y + v * LANES);
        for (int j = 0; j < k + 2; j++)
            for (int v = 0; v < vectors; v++)
                if (what == OF_WEIGHTS) kept[j][v] += factors[j * places + m] * sum[v];
                else sum[v] += factors[j * places + m] * kept[j][v];
        if (what == SUM)
            for (int v = 0; v < vectors; v++) store(y + v * LANES, sum[v]);
        if (what == OF_X)
            for (int v = 0; v < vectors; v++) store(partial, load(partial) + sum[v] * load(y + v * LANES));
    }
    if (what == OF_WEIGHTS)
        for (int j = 0; j < k + 2; j++)
            for (int v = 0; v < vectors; v++) store((j <= k ? weights + j * P : base) + v * LANES, kept[j][v]);
}

/* The same for all outputs. */
INLINE void strips(wanted what, int k, work *w, const input *in, int64_t c, int64_t at, int64_t n) {
    int64_t p = 0, P = w->l.P;
    for (; p + VECTORS * LANES <= P; p += VECTORS * LANES) strip(what, k, VECTORS, w, in, c, at, n, p);
    for (; VECTORS > 2 && p + 2 * LANES <= P; p += 2 * LANES) strip(what, k, 2, w, in, c, at, n, p);
    for (; p < P; p += LANES) strip(what, k, 1, w, in, c, at, n, p);
}

/* The sums of every LANES numbers of a, (n, LANES); b is room for half as many. */
static const REAL *totals(int64_t n, REAL *a, REAL *b) {
    for (int64_t width = LANES; width > 1; width /= 2) {
        REAL *from = a;
        #pragma omp simd
        for (int64_t i = 0; i < n * width / 2; i++) b[i] = from[2 * i] + from[2 * i + 1];
        a = b, b = from;
    }
    return a;
}

INLINE void rows_forward(int k, work *w, int64_t first, int64_t last, const REAL *x, const REAL *coef, const REAL *base,
                         const double *grid, REAL *out) {
    const layer *l = &w->l;
    for (int64_t i = 0; i < l->I; i += INPUTS) {
        int64_t count = least(INPUTS, l->I - i);
        prepare(w, i, count, coef, base, grid);
        for (int64_t n = first; n < last; n += ROWS) {
            int64_t rows = least(ROWS, last - n);
            gather(w, rows, count, x + n * l->I + i);
            copy(rows, l->O, w->rows, l->P, out + n * l->O, l->O);
            for (int64_t f = 0; f < count; f++) {
                sort(w, w->inputs[f].knots, rows, w->columns + f * ROWS);
                evaluate(k, w, w->inputs + f);
                for (int64_t c = 0; c < l->M - 1; c++) {
                    int64_t at = w->s.from[c], m = w->s.to[c] - at;
                    if (m) strips(SUM, k, w, w->inputs + f, c, at, m);
                }
            }
            copy(rows, l->O, out + n * l->O, l->O, w->rows, l->P);
        }
    }
}

/* x (N, I), coef (O, I, K), the weights of b (O, I) or NULL, grid (I, M): out (N, O), zeros at first, of rows `first` up
   to `last`. */
void forward(int64_t first, int64_t last, int64_t I, int64_t O, int64_t M, int64_t k, int64_t beyond, int64_t b,
             const REAL *x, const REAL *coef, const REAL *base, const double *grid, REAL *out) {
    work w;
    begin(&w, I, O, M, k, beyond, b);
    if (k == 3) rows_forward(3, &w, first, last, x, coef, base, grid, out);
    else rows_forward(k, &w, first, last, x, coef, base, grid, out);
    end(&w);
}

INLINE void inputs_backward(int k, work *w, int64_t first, int64_t last, int64_t N, const REAL *grad, const REAL *x,
                            const REAL *coef, const REAL *base, const double *grid, REAL *grad_x, REAL *grad_coef,
                            REAL *grad_base) {
    const layer *l = &w->l;
    int grad_weights = grad_coef || grad_base;
    for (int64_t i = first; i < last; i += INPUTS) {
        int64_t count = least(INPUTS, last - i);
        prepare(w, i, count, coef, base, grid);
        for (int64_t n = 0; n < N; n += ROWS) {
            int64_t rows = least(ROWS, N - n);
            gather(w, rows, count, x + n * l->I + i);
            copy(rows, l->O, w->rows, l->P, grad + n * l->O, l->O);
            for (int64_t f = 0; f < count; f++) {
                REAL *column = w->columns + f * ROWS;
                sort(w, w->inputs[f].knots, rows, column);
                evaluate(k, w, w->inputs + f);
                for (int64_t c = 0; c < l->M - 1; c++) {
                    int64_t at = w->s.from[c], m = w->s.to[c] - at;
                    if (m && grad_weights) strips(OF_WEIGHTS, k, w, w->inputs + f, c, at, m);
                    if (!m || !grad_x) continue;
                    memset(w->partial, 0, sizeof(REAL) * m * LANES);
                    strips(OF_X, k, w, w->inputs + f, c, at, m);
                    const REAL *found = totals(m, w->partial, w->halves);
                    for (int64_t r = 0; r < m; r++) column[w->s.row[at + r]] = found[r];
                }
            }
            for (int64_t r = 0; grad_x && r < rows; r++)
                for (int64_t f = 0; f < count; f++) grad_x[(n + r) * l->I + i + f] = w->columns[f * ROWS + r];
        }
        for (int64_t o = 0; grad_weights && o < l->O; o++)
            for (int64_t f = 0; f < count; f++) {
                int64_t edge = o * l->I + i + f;
                const REAL *from = w->inputs[f].gradient + o;
                if (grad_base) grad_base[edge] = *from;
                for (int64_t j = 0; grad_coef && j < l->K; j++) grad_coef[edge * l->K + j] = from[(1 + k + j) * l->P];
            }
    }
}

/* grad (N, O) of what `forward` gives: the gradients of x, coef and base, each of which may be NULL, of inputs `first` up
   to `last`. */
void backward(int64_t first, int64_t last, int64_t N, int64_t I, int64_t O, int64_t M, int64_t k, int64_t beyond,
              int64_t b, const REAL *grad, const REAL *x, const REAL *coef, const REAL *base, const double *grid,
              REAL *grad_x, REAL *grad_coef, REAL *grad_base) {
    work w;
    begin(&w, I, O, M, k, beyond, b);
    if (k == 3) inputs_backward(3, &w, first, last, N, grad, x, coef, base, grid, grad_x, grad_coef, grad_base);
    else inputs_backward(k, &w, first, last, N, grad, x, coef, base, grid, grad_x, grad_coef, grad_base);
    end(&w);
}
