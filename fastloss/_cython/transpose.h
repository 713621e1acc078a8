/* Square tiles of a matrix, transposed in registers: compilers do not find these shuffles by themselves.
   tile(a, lda, b, ldb) makes rows of a, lda elements apart, columns of b. */
#ifndef FASTLOSS_TRANSPOSE_H
#define FASTLOSS_TRANSPOSE_H

#include <stddef.h>

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define FASTLOSS_SHUFFLES
#endif
#endif

#ifdef FASTLOSS_SHUFFLES

#define MIX __builtin_shufflevector

#define TILE4(name, type, bytes)                                                                  \
    typedef type name##_row __attribute__((vector_size(bytes), aligned(sizeof(type)), may_alias)); \
    static inline void name(const type *a, ptrdiff_t lda, type *b, ptrdiff_t ldb) {               \
        name##_row v0 = *(const name##_row *)a, v1 = *(const name##_row *)(a + lda);              \
        name##_row v2 = *(const name##_row *)(a + 2 * lda), v3 = *(const name##_row *)(a + 3 * lda); \
        name##_row t0 = MIX(v0, v1, 0, 4, 2, 6), t1 = MIX(v0, v1, 1, 5, 3, 7);                    \
        name##_row t2 = MIX(v2, v3, 0, 4, 2, 6), t3 = MIX(v2, v3, 1, 5, 3, 7);                    \
        *(name##_row *)b = MIX(t0, t2, 0, 1, 4, 5);                                               \
        *(name##_row *)(b + ldb) = MIX(t1, t3, 0, 1, 4, 5);                                       \
        *(name##_row *)(b + 2 * ldb) = MIX(t0, t2, 2, 3, 6, 7);                                   \
        *(name##_row *)(b + 3 * ldb) = MIX(t1, t3, 2, 3, 6, 7);                                   \
    }

TILE4(tile4_f32, float, 16)
TILE4(tile4_f64, double, 32)

typedef float f32x8 __attribute__((vector_size(32), aligned(4), may_alias));

#define ROW(i) (*(const f32x8 *)(a + (i) * lda))
#define COLUMN(i) (*(f32x8 *)(b + (i) * ldb))
/* Pairs of rows interleaved, low and high; then pairs of pairs; then halves. */
#define LOW2(v, w) MIX(v, w, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH2(v, w) MIX(v, w, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW4(v, w) MIX(v, w, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH4(v, w) MIX(v, w, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW8(v, w) MIX(v, w, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH8(v, w) MIX(v, w, 4, 5, 6, 7, 12, 13, 14, 15)

static inline void tile8_f32(const float *a, ptrdiff_t lda, float *b, ptrdiff_t ldb) {
    f32x8 v0 = ROW(0), v1 = ROW(1), v2 = ROW(2), v3 = ROW(3), v4 = ROW(4), v5 = ROW(5), v6 = ROW(6), v7 = ROW(7);
    f32x8 l01 = LOW2(v0, v1), h01 = HIGH2(v0, v1), l23 = LOW2(v2, v3), h23 = HIGH2(v2, v3);
    f32x8 l45 = LOW2(v4, v5), h45 = HIGH2(v4, v5), l67 = LOW2(v6, v7), h67 = HIGH2(v6, v7);
    f32x8 p0 = LOW4(l01, l23), p1 = HIGH4(l01, l23), p2 = LOW4(h01, h23), p3 = HIGH4(h01, h23);
    f32x8 q0 = LOW4(l45, l67), q1 = HIGH4(l45, l67), q2 = LOW4(h45, h67), q3 = HIGH4(h45, h67);
    COLUMN(0) = LOW8(p0, q0);
    COLUMN(1) = LOW8(p1, q1);
    COLUMN(2) = LOW8(p2, q2);
    COLUMN(3) = LOW8(p3, q3);
    COLUMN(4) = HIGH8(p0, q0);
    COLUMN(5) = HIGH8(p1, q1);
    COLUMN(6) = HIGH8(p2, q2);
    COLUMN(7) = HIGH8(p3, q3);
}

#undef MIX
#undef TILE4
#undef ROW
#undef COLUMN
#undef LOW2
#undef HIGH2
#undef LOW4
#undef HIGH4
#undef LOW8
#undef HIGH8

#else

#define TILE(name, type, n)                                                         \
    static inline void name(const type *a, ptrdiff_t lda, type *b, ptrdiff_t ldb) { \
        for (int j = 0; j < n; j++)                                                 \
            for (int i = 0; i < n; i++) b[j * ldb + i] = a[i * lda + j];            \
    }

TILE(tile4_f32, float, 4)
TILE(tile8_f32, float, 8)
TILE(tile4_f64, double, 4)

#undef TILE

#endif
#endif
