# Cross-entropy from logits. A row is m = max, e_k = exp(x_k - m), s = sum of e_k without one maximum;
# then loss = (m - x_y) + log1p(s), S = 1 + s, g_k = e_k / S and g_y = -(S - e_y) / S: nothing cancels.
#
# With class weights w and smoothing eps, U = (1 - eps) w_y and W = sum of w:
#   loss = U (lse - x_y) + eps / C sum_k w_k (lse - x_k)
#   g_k  = (U + eps / C W) p_k - eps / C w_k - U [k = y]
# Maxima and exponentials of many classes are in wide.pxi, of few classes in narrow.pxi. What is one value
# per row is computed here, for rows side by side.
#
# A row with one logit of +inf stands for its limit: 0 there, -inf elsewhere. With several it is NaN.

cdef enum RowLoss:  # the registry's indices
    CROSS_ENTROPY, MULTI_MARGIN, CRAMMER_SINGER, NLL

cdef enum:
    SIDE = 64       # rows worked on side by side
    NEAR = 8192     # rows whose maximum is below this in magnitude take a shorter way to exp(x - m)


cdef struct SoftJob


cdef struct RowJob:
    Entries entries
    Py_ssize_t classes
    Py_ssize_t block_rows
    const void* x
    const void* target
    Code target_code
    int loss
    double params[MAX_PARAMS]
    const double* class_weight
    double weight_sum
    int64_t ignore_index
    double smoothing        # of cross-entropy
    void* grad
    bint is_head            # whether this is the row of a SoftJob, which says what an index costs


cdef struct Side:
    # Rows side by side: one value per row.
    int64_t y[SIDE]         # the target, or -1 if the row counts as masked
    double u[SIDE]          # weight of the target's term
    double w_y[SIDE]
    double weight[SIDE]     # of the row
    double scale[SIDE]      # of its gradient, the row's weight included
    double s[SIDE]
    double smooth[SIDE]     # sum of w_k (m - x_k)
    double gap[SIDE]        # m - x_y
    double m[SIDE]          # for a head: the maximum, +inf of a row that stands for its limit
    double own[SIDE]        # e_y
    double others[SIDE]     # S - e_y
    double factor[SIDE]     # of e_k in g_k
    double g_y[SIDE]
    double losses[SIDE]


cdef inline double class_weight_of(const RowJob* job, Py_ssize_t k) noexcept nogil:
    return job.class_weight[k] if job.class_weight != NULL else 1.0


cdef bint load_targets(const RowJob* job, Py_ssize_t first, int64_t* y, Py_ssize_t n) noexcept nogil:
    # Classes of rows first to first + n <= SIDE, -1 where a row counts as masked. Returns whether one is bad.
    cdef const Entries* e = &job.entries
    cdef const uint8_t* mask
    cdef uint8_t room[SIDE]
    cdef int64_t k, ignore = job.ignore_index, classes = job.classes
    cdef int64_t bad = 0
    cdef uint64_t last = <uint64_t>classes - 1, beyond = 0
    cdef Py_ssize_t r
    load_indices(job.target_code, job.target, first, y, n)
    if e.mask != NULL:
        mask = load_mask(e, first, room, n)
        for r in range(n):
            y[r] = y[r] if mask[r] else ignore
    # Mostly all are classes and none is ignored; to see that takes a third of the operations of what follows.
    for r in range(n):
        beyond |= <uint64_t>y[r] | (last - <uint64_t>y[r])
    if beyond >> 63 == 0 and not 0 <= ignore < classes:
        return False
    for r in range(n):
        k = y[r]
        bad |= ((k < 0) | (k >= classes)) & (k != ignore)
        y[r] = -1 if (k < 0) | (k >= classes) | (k == ignore) else k
    return bad != 0


cdef Py_ssize_t count_targets(const RowJob* job, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    # Number of rows that do not count as masked, or -1 if a target is bad.
    cdef Py_ssize_t r, n, kept = 0
    cdef int64_t y[SIDE]
    while start < stop:
        n = min(stop - start, SIDE)
        if load_targets(job, start, y, n):
            return -1
        for r in range(n):
            kept += y[r] >= 0
        start += n
    return kept


cdef bint open_sides(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n, Py_ssize_t padded) noexcept nogil:
    # What is known of rows before their logits are read; rows n to padded count as masked. Returns whether a target is bad.
    cdef Py_ssize_t r
    cdef bint bad = load_targets(job, first, side.y, n)
    for r in range(n, padded):
        side.y[r] = -1
    if job.entries.weight != NULL:
        load_weights(&job.entries, first, side.weight, n)
    else:
        for r in range(n):
            side.weight[r] = 1.0
    for r in range(padded):
        side.weight[r] = side.weight[r] if side.y[r] >= 0 else 0.0
    if job.class_weight != NULL:
        for r in range(padded):
            side.w_y[r] = job.class_weight[max(side.y[r], 0)]
    else:
        for r in range(padded):
            side.w_y[r] = 1.0
    for r in range(padded):
        side.s[r] = 0.0
        side.smooth[r] = 0.0
        side.u[r] = (1.0 - job.smoothing) * side.w_y[r]
        side.scale[r] = job.entries.scale * side.weight[r]
    return bad


cdef inline real larger(real v, real m) noexcept nogil:
    return v if v > m else m


cdef real limit_maximum(const RowJob* job, Py_ssize_t i, const real* _) noexcept nogil:
    # Maximum of the row that stands for one with +inf in it: 0, or NaN if there is no limit.
    cdef Py_ssize_t k, c = job.classes, count = 0
    cdef bint nan = False
    cdef real v
    for k in range(c):
        load(job.entries.code, job.x, i * c + k, &v, 1)
        nan |= v != v
        count += v == <real>INFINITY
    return <real>NAN if nan or count != 1 else <real>0.0


cdef void to_limit(real* x, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    # Turn n logits of such a row, step elements apart, into those that it stands for.
    cdef Py_ssize_t i
    for i in range(n):
        x[i * step] = <real>0.0 if x[i * step] == <real>INFINITY else <real>-INFINITY


cdef inline double smoothing_term(double m, double x, double w) noexcept nogil:
    return (m - x) * w if w != 0.0 else 0.0


cdef void finish_sides(const RowJob* job, Side* side, Py_ssize_t n) noexcept nogil:
    # Losses, factors and gradients at the target.
    cdef Py_ssize_t r
    cdef double total_, log, smooth, v = job.smoothing / <double>job.classes, w_sum = job.weight_sum
    if job.class_weight != NULL or job.smoothing == 1.0:
        for r in range(n):  # a class of weight 0 costs nothing, whatever its logit
            side.gap[r] = 0.0 if side.u[r] == 0.0 and side.gap[r] == INFINITY else side.gap[r]
    for r in range(n):
        side.losses[r] = log1p_f64(side.s[r])
        # S - e_y; with the target at the maximum s itself.
        side.others[r] = side.s[r] if side.gap[r] == 0.0 else (1.0 + side.s[r]) - side.own[r]
    if job.is_head:
        finish_heads(job, side, n)
        return
    for r in range(n):
        total_ = 1.0 + side.s[r]
        log = side.losses[r]
        side.factor[r] = (side.u[r] + v * w_sum) / total_ * side.scale[r]
        smooth = v * (side.smooth[r] + w_sum * log) if v != 0.0 else 0.0
        side.losses[r] = (side.u[r] * (side.gap[r] + log) + smooth) * side.weight[r]
        smooth = v * (w_sum * side.own[r] / total_ - side.w_y[r]) if v != 0.0 else 0.0
        side.g_y[r] = (-(side.u[r] * side.others[r]) / total_ + smooth) * side.scale[r]


include "wide.pxi"
include "narrow.pxi"
include "margins.pxi"


cdef bint row_blocks(const RowJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, padded, r
    cdef bint bad = False
    cdef Side side
    cdef real losses[SIDE]
    cdef double lanes[LANES]
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * job.block_rows
        stop = min(start + job.block_rows, e.n)
        while start < stop:
            n = min(stop - start, SIDE)
            padded = (n + 15) // 16 * 16 if job.classes <= NARROW else (n + 3) // 4 * 4
            bad |= open_sides(job, start, &side, n, padded)
            if job.is_head:
                open_heads(job, start, &side, n)
            if job.loss != CROSS_ENTROPY:
                margin_rows(job, start, &side, n, padded, _)
            elif job.classes <= NARROW:
                narrow_rows(job, start, &side, n, padded, _)
            else:
                wide_rows(job, start, &side, n, padded, _)
            for r in range(n):
                side.losses[r] = side.losses[r] if side.y[r] >= 0 else 0.0
            add_lanes(lanes, side.losses, n)
            if e.losses != NULL:
                for r in range(n):
                    losses[r] = <real>side.losses[r]
                store(e.code, losses, e.losses, start, n)
            start += n
        e.partials[block] = total(lanes)
    return bad


cdef bint row_blocks_f32(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return row_blocks(<const RowJob*>job, first, last, <const float*>NULL)


cdef bint row_blocks_f64(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return row_blocks(<const RowJob*>job, first, last, <const double*>NULL)


cdef bint target_weight_blocks(const void* argument, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    # Sums of the kept rows' weights: the divisors of means.
    cdef const RowJob* job = <const RowJob*>argument
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, r
    cdef bint bad = False
    cdef double lanes[LANES]
    cdef double weights[SIDE]
    cdef int64_t y[SIDE]
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * BLOCK
        stop = min(start + BLOCK, e.n)
        while start < stop:
            n = min(stop - start, SIDE)
            bad |= load_targets(job, start, y, n)
            if e.weight != NULL:
                load_weights(e, start, weights, n)
            else:
                for r in range(n):
                    weights[r] = 1.0
            if job.class_weight != NULL:
                for r in range(n):
                    weights[r] = job.class_weight[max(y[r], 0)] * weights[r]
            for r in range(n):
                weights[r] = weights[r] if y[r] >= 0 else 0.0
            add_lanes(lanes, weights, n)
            start += n
        e.partials[block] = total(lanes)
    return bad
