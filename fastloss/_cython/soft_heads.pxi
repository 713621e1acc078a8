# Losses of an index and plain logits that are cross-entropy but for what is one value per row: focal, poly, a factor
# of each row, z_loss. Their gradients are a factor times e_k but at the target, so that they share its kernels.


cdef bint is_head(const SoftJob* job) noexcept nogil:
    # Whether a job is one of these.
    cdef bint plain = job.softcap == 0.0 and job.temperature == 1.0 and job.legal == NULL
    cdef bint bare = job.entropy == 0.0 and job.lse == NULL and job.top == NULL and job.hess == NULL
    return plain and bare and job.row.target != NULL and job.shares == NULL and job.input_kind == LOGITS


cdef inline const SoftJob* head_of(const RowJob* job) noexcept nogil:
    # The job that a row with is_head belongs to.
    return <const SoftJob*>job


cdef void open_heads(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n) noexcept nogil:
    # The factors of rows.
    cdef Py_ssize_t r
    cdef double factor[SIDE]
    if head_of(job).factor != NULL:
        load(job.entries.code, head_of(job).factor, first, factor, n)
        for r in range(n):
            side.u[r] = side.u[r] * factor[r]


cdef void side_focal(double* c, const double* p, const double* q, double* slope, double gamma, Py_ssize_t n) noexcept nogil:
    # f(c) = q^gamma c in c's place, and its derivative; slope is 1 before, as in side_poly.
    cdef Py_ssize_t r
    cdef double x
    if gamma == 1.0:
        for r in range(n):
            slope[r] = q[r]
    elif gamma == 2.0:
        for r in range(n):
            slope[r] = q[r] * q[r]
    elif gamma != 0.0:
        for r in range(n):
            slope[r] = power_f64(q[r], gamma)
    for r in range(n):
        x = slope[r]
        slope[r] = x * (1.0 + gamma * p[r] * (c[r] / q[r] if q[r] > 0.0 else 1.0)) if p[r] > 0.0 else x
        c[r] = x * c[r] if x != 0.0 else 0.0


cdef void side_poly(double* c, const double* p, const double* q, double* slope, const double* params, int count,
                    Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r, k
    cdef double x[SIDE]
    for r in range(n):
        x[r] = 1.0
    for k in range(count):
        for r in range(n):
            slope[r] = slope[r] + params[k] * p[r] * x[r]
            x[r] = x[r] * q[r]
            c[r] = c[r] + params[k] * x[r] / (k + 1.0)


cdef void finish_heads(const RowJob* job, Side* side, Py_ssize_t n) noexcept nogil:
    # As finish_sides, with another f(c_y) and lse^2; nothing is done twice, of what it has done before.
    cdef Py_ssize_t r
    cdef double v = job.smoothing / <double>job.classes, w_sum = job.weight_sum, z_loss = head_of(job).z_loss
    cdef double mass = v * w_sum
    cdef double sums, lse, value, smooth, pull
    cdef double slope[SIDE]
    cdef double c[SIDE]
    cdef double p[SIDE]
    cdef double q[SIDE]
    for r in range(n):
        sums = 1.0 + side.s[r]
        c[r] = side.gap[r] + side.losses[r]
        p[r] = side.own[r] / sums
        q[r] = side.others[r] / sums
    for r in range(n):
        slope[r] = 1.0
    if head_of(job).form == FOCAL:
        side_focal(c, p, q, slope, head_of(job).params[0], n)
    elif head_of(job).form == POLY:
        side_poly(c, p, q, slope, head_of(job).params, head_of(job).count, n)
    for r in range(n):
        value = weighed_cost(side.u[r], c[r])
        side.u[r] = side.u[r] * slope[r]
        lse = side.m[r] + side.losses[r]
        smooth = v * (side.smooth[r] + w_sum * side.losses[r]) if v != 0.0 else 0.0
        pull = 2.0 * z_loss * lse if z_loss != 0.0 else 0.0
        value = (value + smooth) + (z_loss * lse * lse if z_loss != 0.0 else 0.0)
        side.losses[r] = value * side.weight[r]
        side.factor[r] = ((side.u[r] + mass) + pull) / (1.0 + side.s[r]) * side.scale[r]
        side.g_y[r] = (pulled(p[r], mass + pull) - (side.u[r] * q[r] + v * side.w_y[r])) * side.scale[r]
