# Cross-entropy from logits. A row is m = max, e_k = exp(x_k - m), s = sum of e_k without one maximum;
# then loss = (m - x_y) + log1p(s), S = 1 + s, g_k = e_k / S and g_y = -(S - e_y) / S: nothing cancels.
#
# With class weights w and smoothing eps, U = (1 - eps) w_y and W = sum of w:
#   loss = U (lse - x_y) + eps / C sum_k w_k (lse - x_k)
#   g_k  = (U + eps / C W) p_k - eps / C w_k - U [k = y]
# Many classes: one row at a time, in chunks, here. Few classes: narrow.pxi.

cdef enum:
    SIDE = 64       # rows worked on side by side
    NEAR = 8192     # rows whose maximum is below this in magnitude take a shorter way to exp(x - m)
    LOW = 256       # and below this one that is shorter still


cdef double CONFIDENT = 0.0009765625    # 2^-10: below this, s is summed without the maximum's 1


cdef struct RowJob:
    Entries entries
    Py_ssize_t classes
    Py_ssize_t block_rows
    const void* x
    const void* target
    Code target_code
    const double* class_weight
    double weight_sum
    int64_t ignore_index
    double smoothing
    void* grad


cdef struct Row:
    # What is fixed for a row before its logits are read.
    Py_ssize_t y        # the target, or -1 if the row counts as masked
    double u            # weight of the target's term
    double v            # weight of every smoothing term, eps / C
    double w_y
    double w_sum
    double weight       # of the row
    double scale        # of its gradient, the row's weight included


cdef inline double class_weight_of(const RowJob* job, Py_ssize_t k) noexcept nogil:
    return job.class_weight[k] if job.class_weight != NULL else 1.0


cdef bint load_targets(const RowJob* job, Py_ssize_t first, int64_t* y, Py_ssize_t n) noexcept nogil:
    # Classes of rows first to first + n <= SIDE, -1 where a row counts as masked. Returns whether one is bad.
    cdef const Entries* e = &job.entries
    cdef const uint8_t* mask
    cdef uint8_t room[SIDE]
    cdef int64_t k, ignore = job.ignore_index, classes = job.classes
    cdef int64_t bad = 0
    cdef Py_ssize_t r
    load_indices(job.target_code, job.target, first, y, n)
    if e.mask != NULL:
        mask = load_mask(e, first, room, n)
        for r in range(n):
            y[r] = y[r] if mask[r] else ignore
    for r in range(n):
        k = y[r]
        bad |= ((k < 0) | (k >= classes)) & (k != ignore)
        y[r] = -1 if (k < 0) | (k >= classes) | (k == ignore) else k
    return bad != 0


cdef void open_row(const RowJob* job, Py_ssize_t i, int64_t y, Row* row) noexcept nogil:
    row.y = <Py_ssize_t>y
    row.w_y = class_weight_of(job, row.y)
    row.w_sum = job.weight_sum
    row.u = (1.0 - job.smoothing) * row.w_y
    row.v = job.smoothing / <double>job.classes
    row.weight = weight_at(&job.entries, i) if job.entries.weight != NULL else 1.0
    row.scale = job.entries.scale * row.weight


cdef inline double target_grad(const Row* row, double others, double own, double total_) noexcept nogil:
    # Gradient at the target, from S - e_y, e_y and S.
    cdef double g = -(row.u * others) / total_
    if row.v != 0.0:
        g += row.v * (row.w_sum * own / total_ - row.w_y)
    return g * row.scale


cdef double infinite_row(const RowJob* job, const Row* row, Py_ssize_t i, const real* _) noexcept nogil:
    # A row whose maximum is +inf: its limit where that class is alone, else NaN. Writes the gradient, returns the loss.
    cdef Py_ssize_t k, c = job.classes, count = 0, top = 0
    cdef double loss, g, w, p
    cdef bint nan = False
    cdef real v
    for k in range(c):
        load(job.entries.code, job.x, i * c + k, &v, 1)
        nan |= v != v
        if v == <real>INFINITY:
            count += 1
            top = k
    nan |= count != 1
    loss = 0.0 if row.y == top or row.u == 0.0 else INFINITY
    for k in range(c):
        w = class_weight_of(job, k)
        if k != top and row.v * w != 0.0:
            loss = INFINITY
        p = 1.0 if k == top else 0.0
        g = row.u * (p - (1.0 if k == row.y else 0.0)) + row.v * (row.w_sum * p - w)
        v = <real>(NAN if nan else g * row.scale)
        if job.grad != NULL:
            store(job.entries.code, &v, job.grad, i * c + k, 1)
    return NAN if nan else loss


cdef void zero_row(const RowJob* job, Py_ssize_t i) noexcept nogil:
    cdef Py_ssize_t size = 8 if job.entries.code == F64 else (4 if job.entries.code == F32 else 2)
    if job.grad != NULL:
        memset(<char*>job.grad + i * job.classes * size, 0, job.classes * size)


# --- many classes ------------------------------------------------------------------------------------


cdef inline real larger(real v, real m) noexcept nogil:
    return v if v > m else m


cdef void add_maxima(real* lanes, const real* x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef const real* v
    if n < 4 * LANES:
        for j in range(n):
            lanes[j % LANES] = larger(x[j], lanes[j % LANES])
        return
    for i in range((n + 4 * LANES - 1) // (4 * LANES)):
        # The last four rows of lanes may overlap the ones before: a maximum does not mind.
        v = x + min(i * 4 * LANES, n - 4 * LANES)
        for j in range(LANES):
            lanes[j] = larger(v[3 * LANES + j], larger(v[2 * LANES + j], larger(v[LANES + j], larger(v[j], lanes[j]))))


cdef real greatest(real* v) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(32):
        v[j] = larger(v[j + 32], v[j])
    for j in range(16):
        v[j] = larger(v[j + 16], v[j])
    for j in range(8):
        v[j] = larger(v[j + 8], v[j])
    return larger(larger(larger(v[0], v[4]), larger(v[2], v[6])), larger(larger(v[1], v[5]), larger(v[3], v[7])))


cdef inline bint is_low(real m) noexcept nogil:
    # Whether e is exp(x - m) times a factor in [sqrt(1/2), sqrt(2)], which float32 saves operations by.
    return real is float and abs_f32(<float>m) < <float>LOW


cdef inline real exp_below(real x, real m) noexcept nogil:
    # e of one value, as the loops below compute it.
    if real is float:
        return exp_scaled_f32(x, m) if is_low(m) else exp_diff_f32(x, m)
    else:
        return exp_near_f64(x, m) if abs_f64(m) < <double>NEAR else exp_diff_f64(x, m)


cdef void exp_chunk(const real* x, real m, real* e, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if real is float:
        if is_low(m):
            for i in range(n):
                e[i] = exp_scaled_f32(x[i], m)
        else:
            for i in range(n):
                e[i] = exp_diff_f32(x[i], m)
    else:
        if abs_f64(m) < <double>NEAR:
            for i in range(n):
                e[i] = exp_near_f64(x[i], m)
        else:
            for i in range(n):
                e[i] = exp_diff_f64(x[i], m)


cdef Py_ssize_t add_rest(double* lanes, const real* e, real one, Py_ssize_t n) noexcept nogil:
    # Add all e but those that equal the maximum's; return how many those are.
    cdef Py_ssize_t i, j, rows = n // LANES
    cdef int32_t count = 0
    cdef real v
    for i in range(rows):
        for j in range(LANES):
            v = e[i * LANES + j]
            lanes[j] = lanes[j] + <double>(<real>0.0 if v == one else v)
    for j in range(n - rows * LANES):
        v = e[rows * LANES + j]
        lanes[j] = lanes[j] + <double>(<real>0.0 if v == one else v)
    for i in range(n):
        count += e[i] == one
    return count


cdef inline double smoothing_term(double m, double x, double w) noexcept nogil:
    return (m - x) * w if w != 0.0 else 0.0


cdef void add_smoothing(double* lanes, const real* x, real m, const double* w, Py_ssize_t n) noexcept nogil:
    # Add w_k (m - x_k), classes of weight 0 left out.
    cdef Py_ssize_t i, j, at, rows = n // LANES
    for i in range(rows):
        at = i * LANES
        if w != NULL:
            for j in range(LANES):
                lanes[j] = lanes[j] + smoothing_term(m, x[at + j], w[at + j])
        else:
            for j in range(LANES):
                lanes[j] = lanes[j] + (<double>m - <double>x[at + j])
    for i in range(rows * LANES, n):
        lanes[i % LANES] += smoothing_term(m, x[i], w[i] if w != NULL else 1.0)


cdef void scale_chunk(const real* e, real* g, real factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = e[i] * factor


cdef void scale_smooth_chunk(const real* e, real* g, double factor, double shift, const double* w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = <real>(<double>e[i] * factor - (shift * w[i] if w != NULL else shift))


cdef real row_maximum(const RowJob* job, Py_ssize_t i, const real* _) noexcept nogil:
    # -inf where a row holds nothing but NaN and -inf.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = i * c, chunk, start, n, j
    cdef real x_room[CHUNK]
    cdef real maxima[LANES]
    for j in range(LANES):
        maxima[j] = <real>-INFINITY
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        if is_native(code, _):
            add_maxima(maxima, <const real*>job.x + base + start, n)
        else:
            load(code, job.x, base + start, x_room, n)
            add_maxima(maxima, x_room, n)
    return greatest(maxima)


cdef double wide_row(const RowJob* job, const Row* row, Py_ssize_t i, real m) noexcept nogil:
    # One row of any length with maximum m. Returns its loss; may write its gradient over its logits.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = i * c, chunk, chunks = (c + CHUNK - 1) // CHUNK, start, n, count = 0
    cdef bint native = is_native(code, &m), kept = native and job.grad != NULL
    cdef real x_room[CHUNK]
    cdef real e_room[CHUNK]
    cdef double lanes[LANES]
    cdef double smooth[LANES]
    cdef const real* x
    cdef real* e
    cdef const double* w
    cdef real x_y, g_y, e_y, one
    cdef double s, total_, others, gap, loss, factor
    if m == <real>INFINITY:
        return infinite_row(job, row, i, &m)
    load(code, job.x, base + row.y, &x_y, 1)
    one = exp_below(m, m)
    clear_lanes(lanes)
    if row.v != 0.0:
        clear_lanes(smooth)
    for chunk in range(chunks):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        x = <const real*>job.x + base + start
        # The gradient's own memory holds e for the last pass, unless it is narrower than e.
        e = <real*>job.grad + base + start if kept else e_room
        if not native or job.grad == job.x:
            load(code, job.x, base + start, x_room, n)
            x = x_room
        exp_chunk(x, m, e, n)
        if real is float:
            add_lanes(lanes, e, n)
        else:
            count += add_rest(lanes, e, one, n)
        if row.v != 0.0:
            add_smoothing(smooth, x, m, job.class_weight + start if job.class_weight != NULL else NULL, n)
    if real is float:
        s = total(lanes) - <double>one
        if not s >= CONFIDENT:
            # Leave the maximum out before it swallows the digits of the rest. (Ties would have made s at least 1.)
            clear_lanes(lanes)
            for chunk in range(chunks):
                start = chunk * CHUNK
                n = min(c - start, CHUNK)
                e = <real*>job.grad + base + start if kept else e_room
                if not kept:
                    load(code, job.x, base + start, x_room, n)
                    exp_chunk(x_room, m, e, n)
                count += add_rest(lanes, e, one, n)
            s = total(lanes) + <double>(count - 1) * <double>one
    else:
        s = total(lanes) + <double>(count - 1) * <double>one
    total_ = <double>one + s
    # s relative to the maximum's e; where that was rounded to float32, the loss wants it in double.
    loss = log1p_f64(s / exp_top_f64(m, halvings_f32(<float>m)) if is_low(m) else s)
    gap = <double>m - <double>x_y
    if row.u == 0.0 and gap == INFINITY:
        gap = 0.0   # a class of weight 0 costs nothing, whatever its logit
    loss = row.u * (gap + loss) + (row.v * (total(smooth) + row.w_sum * loss) if row.v != 0.0 else 0.0)
    if job.grad == NULL:
        return loss
    e_y = exp_below(x_y, m)
    others = s if x_y == m else total_ - <double>e_y
    g_y = <real>target_grad(row, others, e_y, total_)
    factor = (row.u + row.v * row.w_sum) / total_ * row.scale
    for chunk in range(chunks):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        e = <real*>job.grad + base + start
        if not native:
            load(code, job.x, base + start, x_room, n)
            e = e_room
            exp_chunk(x_room, m, e, n)
        if row.v == 0.0:
            scale_chunk(e, e, <real>factor, n)
        else:
            w = job.class_weight + start if job.class_weight != NULL else NULL
            scale_smooth_chunk(e, e, factor, row.v * row.scale, w, n)
        if start <= row.y < start + n:
            e[row.y - start] = g_y
        if not native:
            store(code, e, job.grad, base + start, n)
    return loss


cdef bint row_blocks(const RowJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, i
    cdef bint bad = False
    cdef Row row
    cdef int64_t y[SIDE]
    cdef double losses[SIDE]
    cdef real narrow[SIDE]
    cdef double lanes[LANES]
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * job.block_rows
        stop = min(start + job.block_rows, e.n)
        while start < stop:
            n = min(stop - start, SIDE)
            if job.classes <= NARROW:
                bad |= narrow_rows(job, start, n, losses, _)
            else:
                bad |= load_targets(job, start, y, n)
                # All maxima first (a block stays in L1): each row's phases wait for one another.
                for i in range(n):
                    narrow[i] = row_maximum(job, start + i, _) if y[i] >= 0 else <real>0.0
                for i in range(n):
                    losses[i] = 0.0
                    if y[i] >= 0:
                        open_row(job, start + i, y[i], &row)
                        losses[i] = wide_row(job, &row, start + i, narrow[i]) * row.weight
                    else:
                        zero_row(job, start + i)
            add_lanes(lanes, losses, n)
            if e.losses != NULL:
                for i in range(n):
                    narrow[i] = <real>losses[i]
                store(e.code, narrow, e.losses, start, n)
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
