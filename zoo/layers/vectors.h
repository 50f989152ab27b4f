/* For the loops in C beside the plugins (`native.py`): the vectors of this machine, and e^x.

   REAL is float or double. Everything is static: a source holds what it uses. */

#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define LANES (WIDTH / (int64_t)sizeof(REAL))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vec __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));
typedef __typeof__(__builtin_choose_expr(sizeof(REAL) == 4, (int32_t)0, (int64_t)0)) whole;
typedef whole wholes __attribute__((vector_size(WIDTH)));

INLINE vec pick(wholes which, vec a, vec b) { return (vec)((which & (wholes)a) | (~which & (wholes)b)); }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* e^x, cut to what has a finite inverse: 2^n e^r with |r| <= ln 2 / 2, and a Taylor series. */
INLINE vec power(vec x) {
    int single = sizeof(REAL) == 4;
    REAL most = single ? 88 : 708, rounding = single ? 0x1.8p23 : 0x1.8p52;
    x = pick(x > most, (vec){0} + most, pick(x < -most, (vec){0} - most, x));
    vec shifted = x * (REAL)0x1.71547652b82fep0 + rounding, n = shifted - rounding, sum = {0};
    vec r = x - n * (REAL)(single ? 0x1.62e4p-1 : 0x1.62e42fefa38p-1);
    r -= n * (REAL)(single ? 0x1.7f7d1cf79abcap-20 : 0x1.ef35793c7673p-45);
    REAL factorials[] = {1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800};
    for (int j = single ? 7 : 13; j >= 0; j--) sum = sum * r + 1 / factorials[j];
    wholes exponent = (wholes)shifted - (wholes)((vec){0} + rounding) + (single ? 127 : 1023);
    return sum * (vec)(exponent << (single ? 23 : 52));
}
