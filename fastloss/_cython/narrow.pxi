# Cross-entropy of few classes: rows side by side, one class after the other, so that every loop runs over rows.

cdef extern from "transpose.h" nogil:
    void tile4_f32(const float* a, Py_ssize_t lda, float* b, Py_ssize_t ldb)
    void tile8_f32(const float* a, Py_ssize_t lda, float* b, Py_ssize_t ldb)
    void tile4_f64(const double* a, Py_ssize_t lda, double* b, Py_ssize_t ldb)


cdef inline void tile(const real* a, Py_ssize_t lda, real* b, Py_ssize_t ldb, bint wide) noexcept nogil:
    if real is double:
        tile4_f64(a, lda, b, ldb)
    elif wide:
        tile8_f32(a, lda, b, ldb)
    else:
        tile4_f32(a, lda, b, ldb)


cdef inline void unzip(const real* a, real* b, Py_ssize_t ldb, Py_ssize_t n, int few) noexcept nogil:
    # transpose() of n rows of `few` columns. As a constant that makes a fixed shuffle of every few vectors.
    cdef Py_ssize_t i, j
    for i in range(n):
        for j in range(few):
            b[j * ldb + i] = a[i * few + j]


cdef inline void zip_rows(const real* a, Py_ssize_t lda, real* b, Py_ssize_t n, int few) noexcept nogil:
    # transpose() of `few` rows of n columns.
    cdef Py_ssize_t i, j
    for j in range(n):
        for i in range(few):
            b[j * few + i] = a[i * lda + j]


cdef void transpose(const real* a, Py_ssize_t lda, real* b, Py_ssize_t ldb, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    # b[j, i] = a[i, j] in square tiles; the last ones overlap those before, so that nothing beyond is touched.
    cdef bint wide = real is float and rows >= 8 and columns >= 8
    cdef Py_ssize_t i, j, p, q, size = 8 if wide else 4
    if columns == lda == 2:
        unzip(a, b, ldb, rows, 2)
    elif columns == lda == 3:
        unzip(a, b, ldb, rows, 3)
    elif rows == ldb == 2:
        zip_rows(a, lda, b, columns, 2)
    elif rows == ldb == 3:
        zip_rows(a, lda, b, columns, 3)
    elif rows < 4 or columns < 4:
        for j in range(columns):
            for i in range(rows):
                b[j * ldb + i] = a[i * lda + j]
    else:
        for i in range((rows + size - 1) // size):
            p = min(i * size, rows - size)
            for j in range((columns + size - 1) // size):
                q = min(j * size, columns - size)
                tile(a + p * lda + q, lda, b + q * ldb + p, ldb, wide)


cdef void side_maxima(const real* x, real* m, real* beside, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    # Four classes at a time, the last of them several times over: a maximum does not mind. The results are also
    # written beside each class's values.
    cdef Py_ssize_t r, k
    cdef const real* v
    cdef const real* w
    cdef const real* y
    cdef const real* z
    for k in range(0, c, 4):
        v = x + k * n
        w = x + min(k + 1, c - 1) * n
        y = x + min(k + 2, c - 1) * n
        z = x + min(k + 3, c - 1) * n
        for r in range(n):
            m[r] = larger(z[r], larger(y[r], larger(w[r], larger(v[r], m[r]))))
    for k in range(c):
        for r in range(n):
            beside[k * n + r] = m[r]


cdef inline real exp_beside(real x, real m, bint near) noexcept nogil:
    if real is float:
        return exp_near_f32(x, m) if near or abs_f32(m) < <float>NEAR else exp_diff_f32(x, m)
    else:
        return exp_near_f64(x, m) if near or abs_f64(m) < <double>NEAR else exp_diff_f64(x, m)


cdef void side_exp(real* x, const real* beside, bint near, Py_ssize_t n) noexcept nogil:
    # All classes in one long loop.
    cdef Py_ssize_t i
    if near:
        for i in range(n):
            x[i] = exp_beside(x[i], beside[i], True)
    else:
        for i in range(n):
            x[i] = exp_beside(x[i], beside[i], False)


cdef inline real below_one(real e) noexcept nogil:
    return <real>0.0 if e == <real>1.0 else e


cdef inline real is_one(real e) noexcept nogil:
    return <real>1.0 if e == <real>1.0 else <real>0.0


cdef void side_sums(const real* e, double* s, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    # Sums of e without one maximum per row, whose e is 1: values below 1 and the number of maxima apart. float32 in
    # fours, as in wide.pxi; float64 with what each addition rounds away (two-sum), which would use up the loss's ULPs.
    cdef Py_ssize_t r, k, whole = c - c % 4
    cdef const real* v
    cdef double old, new, part, term
    cdef double lost[SIDE]
    cdef real ones[SIDE]
    for r in range(n):
        ones[r] = <real>-1.0
        lost[r] = 0.0
    if real is float:
        for k in range(0, whole, 4):
            v = e + k * n
            for r in range(n):
                s[r] = s[r] + <double>((below_one(v[r]) + below_one(v[n + r])) + (below_one(v[2 * n + r]) + below_one(v[3 * n + r])))
                ones[r] = ones[r] + ((is_one(v[r]) + is_one(v[n + r])) + (is_one(v[2 * n + r]) + is_one(v[3 * n + r])))
        for k in range(whole, c):
            for r in range(n):
                s[r] = s[r] + <double>below_one(e[k * n + r])
                ones[r] = ones[r] + is_one(e[k * n + r])
    else:
        for k in range(c):
            for r in range(n):
                term = below_one(e[k * n + r])
                ones[r] = ones[r] + is_one(e[k * n + r])
                old = s[r]
                new = old + term
                part = new - old
                lost[r] = lost[r] + ((old - (new - part)) + (term - part))
                s[r] = new
    for r in range(n):
        s[r] = s[r] + (lost[r] + <double>ones[r])


cdef void side_smoothing(double* sums, const real* x, const real* m, double w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        sums[r] = sums[r] + (<double>m[r] - <double>x[r]) * w


cdef void side_scale(real* e, const real* factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = e[r] * factor[r]


cdef void side_smooth_scale(real* e, const double* factor, const double* scale, double shift, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = <real>(<double>e[r] * factor[r] - scale[r] * shift)


cdef void narrow_rows(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n, Py_ssize_t padded, const real* _) noexcept nogil:
    # Rows first to first + n. The gradient may be written over the logits.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = first * c, r, k
    cdef bint native = is_native(code, _)
    cdef int outside = 0, masked = 0, large = 0
    cdef double v = job.smoothing / <double>c
    cdef real flat[NARROW * SIDE]
    cdef real x[NARROW * SIDE]      # class by class, padded values each
    cdef real beside[NARROW * SIDE]
    cdef real m[SIDE]
    cdef Py_ssize_t at[SIDE]        # where in x the target's logit is
    cdef real factor[SIDE]
    cdef const real* source = <const real*>job.x + base
    cdef real* out
    if not native:
        load(code, job.x, base, flat, n * c)
        source = flat
    for r in range(padded):
        m[r] = <real>-INFINITY
        masked |= side.y[r] < 0
    transpose(source, c, x, padded, n, c)
    if masked:  # nothing of a masked row may be looked at, and rows beyond the last count as masked
        for r in range(padded):
            if side.y[r] < 0:
                for k in range(c):
                    x[k * padded + r] = <real>0.0
    side_maxima(x, m, beside, c, padded)
    for r in range(padded):
        outside |= not abs_f64(m[r]) < <double>NEAR
        side.m[r] = m[r]
    if outside:
        for r in range(n):
            if m[r] == <real>INFINITY:
                m[r] = limit_maximum(job, first + r, _)
                side.m[r] = side.m[r] + m[r]
                to_limit(x + r, c, padded)
                for k in range(c):
                    beside[k * padded + r] = m[r]
    for r in range(padded):
        at[r] = max(side.y[r], 0) * padded + r
    for r in range(padded):
        side.gap[r] = <double>m[r] - <double>x[at[r]]
    if v != 0.0:
        for k in range(c):
            if class_weight_of(job, k) != 0.0:
                side_smoothing(side.smooth, x + k * padded, m, class_weight_of(job, k), padded)
    side_exp(x, beside, not outside, c * padded)
    side_sums(x, side.s, c, padded)
    for r in range(padded):
        side.own[r] = x[at[r]]
    finish_sides(job, side, padded)
    if job.grad == NULL:
        return
    if outside:
        for r in range(n):
            if m[r] == <real>0.0 and abs_f64(side.factor[r]) == INFINITY:
                absorb(x + r, side.factor[r], c, padded)
                side.factor[r] = 1.0
    for r in range(padded):
        factor[r] = <real>side.factor[r]
        large |= abs_f64(side.factor[r]) > 1.0 / TINY
    if v == 0.0 and not large:
        for k in range(c):
            side_scale(x + k * padded, factor, padded)
    else:
        for k in range(c):
            side_smooth_scale(x + k * padded, side.factor, side.scale, v * class_weight_of(job, k), padded)
    for r in range(n):
        x[at[r]] = <real>side.g_y[r]
    if masked:
        for r in range(n):
            if side.y[r] < 0:
                for k in range(c):
                    x[k * padded + r] = <real>0.0
    out = <real*>job.grad + base if native else flat
    transpose(x, padded, out, c, c, n)
    if not native:
        store(code, flat, job.grad, base, n * c)
