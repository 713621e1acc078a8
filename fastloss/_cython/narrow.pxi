# Cross-entropy of few classes: rows side by side, one class after the other, so that every loop runs over rows.
# The formulas are those of rows.pxi.

cdef struct Side:
    # Rows side by side: one value per row.
    int64_t y[SIDE]         # as in Row
    double u[SIDE]
    double w_y[SIDE]
    double weight[SIDE]
    double scale[SIDE]
    double s[SIDE]
    double lost[SIDE]       # what rounding took from s
    double log[SIDE]
    double smooth[SIDE]
    double gap[SIDE]        # m - x_y
    double own[SIDE]        # e_y
    double others[SIDE]     # S - e_y
    double factor[SIDE]
    double g_y[SIDE]
    double losses[SIDE]


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


cdef void side_finish(Side* side, double v, double w_sum, Py_ssize_t n) noexcept nogil:
    # Losses, factors and gradients at the target of all rows.
    cdef Py_ssize_t r
    cdef double total_, log, smooth
    for r in range(n):
        side.log[r] = log1p_f64(side.s[r])
    for r in range(n):
        total_ = 1.0 + side.s[r]
        log = side.log[r]
        side.factor[r] = (side.u[r] + v * w_sum) / total_ * side.scale[r]
        smooth = v * (side.smooth[r] + w_sum * log) if v != 0.0 else 0.0
        side.losses[r] = (side.u[r] * (side.gap[r] + log) + smooth) * side.weight[r]
        smooth = v * (w_sum * side.own[r] / total_ - side.w_y[r]) if v != 0.0 else 0.0
        side.g_y[r] = (-(side.u[r] * side.others[r]) / total_ + smooth) * side.scale[r]


cdef void side_scale(real* e, const double* factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = e[r] * <real>factor[r]


cdef void side_smooth_scale(real* e, const double* factor, const double* scale, double shift, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = <real>(<double>e[r] * factor[r] - scale[r] * shift)


cdef bint narrow_rows(const RowJob* job, Py_ssize_t first, Py_ssize_t n, double* losses, const real* _) noexcept nogil:
    # Rows first to first + n, n <= SIDE, transposed so that every loop runs over rows. Returns whether a target is bad.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = first * c, r, k, y, padded = (n + 15) // 16 * 16
    cdef bint native = is_native(code, _), bad = False, infinite = False
    cdef bint plain = job.class_weight == NULL and job.smoothing != 1.0
    cdef int outside = 0
    cdef double v = job.smoothing / <double>c
    cdef Row row
    cdef Side side
    cdef real flat[NARROW * SIDE]
    cdef real x[NARROW * SIDE]
    cdef real m[SIDE]
    cdef real top[SIDE]
    cdef const real* source = <const real*>job.x + base
    cdef real* out
    if not native:
        load(code, job.x, base, flat, n * c)
        source = flat
    bad = load_targets(job, first, side.y, n)
    for r in range(n, padded):
        side.y[r] = -1
    if job.entries.weight != NULL:
        load_weights(&job.entries, first, side.weight, n)
        for r in range(n, padded):
            side.weight[r] = 0.0
    else:
        for r in range(padded):
            side.weight[r] = 1.0
    if job.class_weight != NULL:
        for r in range(padded):
            side.w_y[r] = job.class_weight[max(side.y[r], 0)]
    else:
        for r in range(padded):
            side.w_y[r] = 1.0
    for r in range(padded):
        m[r] = <real>-INFINITY
        top[r] = <real>-1.0
        side.s[r] = 0.0
        side.lost[r] = 0.0
        side.smooth[r] = 0.0
        side.u[r] = (1.0 - job.smoothing) * side.w_y[r]
        side.scale[r] = job.entries.scale * side.weight[r]
    rows_to_sides(source, x, c, n)
    for k in range(c):
        for r in range(n, padded):
            x[k * SIDE + r] = <real>0.0
    for r in range(n):
        if side.y[r] < 0:   # masked: nothing of it may be looked at
            side.u[r] = side.w_y[r] = side.weight[r] = side.scale[r] = 0.0
            for k in range(c):
                x[k * SIDE + r] = <real>0.0
    for k in range(c):
        side_maxima(x + k * SIDE, m, top, <real>k, padded)
    for r in range(padded):
        outside |= (m[r] >= <real>NEAR) | (m[r] <= -<real>NEAR) | (m[r] != m[r])
        side.gap[r] = <double>m[r] - <double>x[max(side.y[r], 0) * SIDE + r]
    if outside or not plain:
        for r in range(n):
            infinite |= m[r] == <real>INFINITY
            if side.u[r] == 0.0 and side.gap[r] == INFINITY:
                side.gap[r] = 0.0   # a class of weight 0 costs nothing, whatever its logit
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
    side_finish(&side, v, job.weight_sum, padded)
    if job.grad != NULL:
        for k in range(c):
            if v != 0.0:
                side_smooth_scale(x + k * SIDE, side.factor, side.scale, v * class_weight_of(job, k), padded)
            else:
                side_scale(x + k * SIDE, side.factor, padded)
        out = <real*>job.grad + base if native else flat
        sides_to_rows(x, out, c, n)
        for r in range(n):
            if side.y[r] >= 0:
                out[r * c + side.y[r]] = <real>side.g_y[r]
        if not native:
            store(code, flat, job.grad, base, n * c)
    for r in range(n):
        losses[r] = side.losses[r] if side.y[r] >= 0 else 0.0
    if infinite:
        for r in range(n):
            if side.y[r] >= 0 and m[r] == <real>INFINITY:
                open_row(job, first + r, side.y[r], &row)
                losses[r] = infinite_row(job, &row, first + r, _) * row.weight
    return bad
