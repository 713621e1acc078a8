# Cross-entropy of few classes: rows side by side, one class after the other, so that every loop runs over rows.

cdef void rows_to_sides(const real* source, real* x, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    # Transpose, eight rows at a time: an inner loop of fixed length is unrolled and its stores are merged.
    cdef Py_ssize_t r, k, j, whole = n - n % 8
    for r in range(0, whole, 8):
        for k in range(c):
            for j in range(8):
                x[k * SIDE + r + j] = source[(r + j) * c + k]
    for r in range(whole, n):
        for k in range(c):
            x[k * SIDE + r] = source[r * c + k]


cdef void sides_to_rows(const real* x, real* out, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r, k, j, whole = n - n % 8
    for r in range(0, whole, 8):
        for k in range(c):
            for j in range(8):
                out[(r + j) * c + k] = x[k * SIDE + r + j]
    for r in range(whole, n):
        for k in range(c):
            out[r * c + k] = x[k * SIDE + r]


cdef void side_maxima(const real* x, real* m, real* top, real k, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    cdef real v, old, t
    for r in range(n):
        v = x[r]
        old = m[r]
        t = top[r]
        top[r] = k if v > old else t
        m[r] = v if v > old else old


cdef inline real exp_beside(real x, real m, bint near) noexcept nogil:
    if real is float:
        return exp_near_f32(x, m) if near or abs_f32(m) < <float>NEAR else exp_diff_f32(x, m)
    else:
        return exp_near_f64(x, m) if near or abs_f64(m) < <double>NEAR else exp_diff_f64(x, m)


cdef inline void side_add(real e, double* s, double* lost) noexcept nogil:
    # Add e; for float64 with what the addition rounds away (two-sum), which would use up the loss's ULPs.
    cdef double old, new, part
    if real is float:
        s[0] = s[0] + <double>e
    else:
        old = s[0]
        new = old + e
        part = new - old
        lost[0] = lost[0] + ((old - (new - part)) + (e - part))
        s[0] = new


cdef void side_exp(real* x, const real* m, const real* top, real k, double* s, double* lost, bint near, Py_ssize_t n) noexcept nogil:
    # One class of all rows: x becomes e, s grows by it except where the class is the row's maximum.
    cdef Py_ssize_t r
    cdef real e
    if near:
        for r in range(n):
            e = exp_beside(x[r], m[r], True)
            x[r] = e
            side_add(<real>0.0 if top[r] == k else e, s + r, lost + r)
    else:
        for r in range(n):
            e = exp_beside(x[r], m[r], False)
            x[r] = e
            side_add(<real>0.0 if top[r] == k else e, s + r, lost + r)


cdef void side_smoothing(double* sums, const real* x, const real* m, double w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        sums[r] = sums[r] + (<double>m[r] - <double>x[r]) * w


cdef void side_scale(real* e, const double* factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = e[r] * <real>factor[r]


cdef void side_smooth_scale(real* e, const double* factor, const double* scale, double shift, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = <real>(<double>e[r] * factor[r] - scale[r] * shift)


cdef real side_limit(real* x, Py_ssize_t c) noexcept nogil:
    # Turn one row's logits, +inf among them, into those that it stands for. Returns the maximum.
    cdef Py_ssize_t k, count = 0
    cdef bint nan = False
    cdef real v
    for k in range(c):
        v = x[k * SIDE]
        nan |= v != v
        count += v == <real>INFINITY
        x[k * SIDE] = <real>0.0 if v == <real>INFINITY else <real>-INFINITY
    return <real>NAN if nan or count != 1 else <real>0.0


cdef void narrow_rows(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n, Py_ssize_t padded, const real* _) noexcept nogil:
    # Rows first to first + n, transposed so that every loop runs over rows.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = first * c, r, k, y
    cdef bint native = is_native(code, _)
    cdef int outside = 0
    cdef double v = job.smoothing / <double>c
    cdef real flat[NARROW * SIDE]
    cdef real x[NARROW * SIDE]
    cdef real m[SIDE]
    cdef real top[SIDE]
    cdef const real* source = <const real*>job.x + base
    cdef real* out
    if not native:
        load(code, job.x, base, flat, n * c)
        source = flat
    for r in range(padded):
        m[r] = <real>-INFINITY
        top[r] = <real>-1.0
    rows_to_sides(source, x, c, n)
    for k in range(c):
        for r in range(n, padded):
            x[k * SIDE + r] = <real>0.0
    for r in range(n):
        if side.y[r] < 0:   # masked: nothing of it may be looked at
            for k in range(c):
                x[k * SIDE + r] = <real>0.0
    for k in range(c):
        side_maxima(x + k * SIDE, m, top, <real>k, padded)
    for r in range(padded):
        outside |= (m[r] >= <real>NEAR) | (m[r] <= -<real>NEAR) | (m[r] != m[r])
    if outside:
        for r in range(n):
            if m[r] == <real>INFINITY:
                m[r] = side_limit(x + r, c)
    for r in range(padded):
        side.gap[r] = <double>m[r] - <double>x[max(side.y[r], 0) * SIDE + r]
    if v != 0.0:
        for k in range(c):
            if class_weight_of(job, k) != 0.0:
                side_smoothing(side.smooth, x + k * SIDE, m, class_weight_of(job, k), padded)
    for k in range(c):
        side_exp(x + k * SIDE, m, top, <real>k, side.s, side.lost, not outside, padded)
    for r in range(padded):
        side.s[r] = side.s[r] + side.lost[r]
    for r in range(padded):
        y = max(side.y[r], 0)
        side.own[r] = x[y * SIDE + r]
        side.others[r] = side.s[r] if top[r] == <real>y else (1.0 + side.s[r]) - side.own[r]
    finish_sides(job, side, padded)
    if job.grad == NULL:
        return
    for k in range(c):
        if v != 0.0:
            side_smooth_scale(x + k * SIDE, side.factor, side.scale, v * class_weight_of(job, k), padded)
        else:
            side_scale(x + k * SIDE, side.factor, padded)
    for r in range(n):
        if side.y[r] >= 0:
            x[side.y[r] * SIDE + r] = <real>side.g_y[r]
    out = <real*>job.grad + base if native else flat
    sides_to_rows(x, out, c, n)
    if not native:
        store(code, flat, job.grad, base, n * c)
