# Cross-entropy from logits. A row is m = max, e_k = exp(x_k - m), s = sum of e_k without one maximum;
# then loss = (m - x_y) + log1p(s), S = 1 + s, g_k = e_k / S and g_y = -(S - e_y) / S: nothing cancels.
#
# With class weights w and smoothing eps, U = (1 - eps) w_y and W = sum of w:
#   loss = U (lse - x_y) + eps / C sum_k w_k (lse - x_k)
#   g_k  = (U + eps / C W) p_k - eps / C w_k - U [k = y]
# Many classes: one row at a time, in chunks. Few classes: rows side by side, one class after the other.

cdef enum:
    SIDE = 64       # rows worked on side by side


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


cdef bint open_row(const RowJob* job, Py_ssize_t i, Row* row) noexcept nogil:
    # Returns whether the target is bad.
    cdef const Entries* e = &job.entries
    cdef int64_t y
    row.y = -1
    row.weight = 1.0
    if e.mask != NULL and not e.mask[i // e.mask_run]:
        return False
    y = load_index(job.target_code, job.target, i)
    if y == job.ignore_index:
        return False
    if y < 0 or y >= job.classes:
        return True
    row.y = <Py_ssize_t>y
    row.w_y = class_weight_of(job, row.y)
    row.w_sum = job.weight_sum
    row.u = (1.0 - job.smoothing) * row.w_y
    row.v = job.smoothing / <double>job.classes
    if e.weight != NULL:
        load(e.weight_code, e.weight, i // e.weight_run, &row.weight, 1)
    row.scale = e.scale * row.weight
    return False


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


cdef void add_maxima(real* lanes, const real* x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j, full = n - n % LANES
    cdef real v, m
    for i in range(n // LANES):
        for j in range(LANES):
            v = x[i * LANES + j]
            m = lanes[j]
            lanes[j] = v if v > m else m
    for j in range(n - full):
        v = x[full + j]
        m = lanes[j]
        lanes[j] = v if v > m else m


cdef void exp_chunk(const real* x, real m, real* e, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if real is float:
            e[i] = exp_diff_f32(x[i], m)
        else:
            e[i] = exp_diff_f64(x[i], m)


cdef Py_ssize_t add_below(double* lanes, const real* x, const real* e, real m, Py_ssize_t n) noexcept nogil:
    # Add the e of all that is not a maximum; return the number of maxima.
    cdef Py_ssize_t i, j, full = n - n % LANES
    cdef int32_t count = 0
    cdef real v
    for i in range(n // LANES):
        for j in range(LANES):
            v = e[i * LANES + j]
            lanes[j] = lanes[j] + <double>(<real>0.0 if x[i * LANES + j] == m else v)
    for j in range(n - full):
        v = e[full + j]
        lanes[j] = lanes[j] + <double>(<real>0.0 if x[full + j] == m else v)
    for i in range(n):
        count += x[i] == m
    return count


cdef void add_smoothing(double* lanes, const real* x, real m, const double* w, Py_ssize_t n) noexcept nogil:
    # Add w_k (m - x_k), classes of weight 0 left out.
    cdef Py_ssize_t i
    cdef double d
    for i in range(n):
        d = <double>m - <double>x[i]
        if w != NULL:
            d = d * w[i] if w[i] != 0.0 else 0.0
        lanes[i % LANES] += d


cdef void scale_chunk(const real* e, real* g, real factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = e[i] * factor


cdef void scale_smooth_chunk(const real* e, real* g, double factor, double shift, const double* w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        g[i] = <real>(<double>e[i] * factor - (shift * w[i] if w != NULL else shift))


cdef double wide_row(const RowJob* job, const Row* row, Py_ssize_t i, const real* _) noexcept nogil:
    # One row of any length. Returns its loss; may write its gradient over its logits.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = i * c, chunk, chunks = (c + CHUNK - 1) // CHUNK, start, n, j, count = 0
    cdef bint native = is_native(code, _)
    cdef real x_room[CHUNK]
    cdef real e_room[CHUNK]
    cdef real maxima[LANES]
    cdef double lanes[LANES]
    cdef double smooth[LANES]
    cdef const real* x
    cdef real* e
    cdef const double* w
    cdef real m = <real>-INFINITY, x_y, g_y, e_y
    cdef double s, total_, others, loss, factor
    for j in range(LANES):
        maxima[j] = <real>-INFINITY
    for chunk in range(chunks):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        x = <const real*>job.x + base + start
        if not native:
            load(code, job.x, base + start, x_room, n)
            x = x_room
        add_maxima(maxima, x, n)
    for j in range(LANES):
        m = maxima[j] if maxima[j] > m else m
    if m == <real>INFINITY:
        return infinite_row(job, row, i, _)
    load(code, job.x, base + row.y, &x_y, 1)
    clear_lanes(lanes)
    clear_lanes(smooth)
    for chunk in range(chunks):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        x = <const real*>job.x + base + start
        # The gradient's own memory holds e for the last pass, unless it is narrower than e.
        e = <real*>job.grad + base + start if native and job.grad != NULL else e_room
        if not native or job.grad == job.x:
            load(code, job.x, base + start, x_room, n)
            x = x_room
        exp_chunk(x, m, e, n)
        count += add_below(lanes, x, e, m, n)
        if row.v != 0.0:
            add_smoothing(smooth, x, m, job.class_weight + start if job.class_weight != NULL else NULL, n)
    # NaN or only -inf: no maximum was found.
    s = total(lanes) + <double>(count - 1) if count > 0 else NAN
    total_ = 1.0 + s
    loss = log1p_f64(s)
    loss = row.u * ((<double>m - <double>x_y) + loss) + (row.v * (total(smooth) + row.w_sum * loss) if row.v != 0.0 else 0.0)
    if job.grad == NULL:
        return loss
    if real is float:
        e_y = exp_diff_f32(x_y, m)
    else:
        e_y = exp_diff_f64(x_y, m)
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


# --- few classes -------------------------------------------------------------------------------------


cdef void side_exp(real* x, const real* m, const real* top, real k, double* s, Py_ssize_t n) noexcept nogil:
    # One class of all rows: x becomes e, s grows by it except where the class is the row's maximum.
    cdef Py_ssize_t r
    cdef real e
    for r in range(n):
        if real is float:
            e = exp_diff_f32(x[r], m[r])
        else:
            e = exp_diff_f64(x[r], m[r])
        x[r] = e
        s[r] = s[r] + <double>(<real>0.0 if top[r] == k else e)


cdef void side_maxima(const real* x, real* m, real* top, real k, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    cdef real v, old, t
    for r in range(n):
        v = x[r]
        old = m[r]
        t = top[r]
        top[r] = k if v > old else t
        m[r] = v if v > old else old


cdef void side_log1p(const double* s, double* l, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        l[r] = log1p_f64(s[r])


cdef void side_smoothing(double* sums, const real* x, const real* m, double w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        sums[r] = sums[r] + (<double>m[r] - <double>x[r]) * w


cdef void side_scale(real* e, const real* factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = e[r] * factor[r]


cdef void side_smooth_scale(real* e, const double* factor, const double* shift, double w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        e[r] = <real>(<double>e[r] * factor[r] - shift[r] * w)


cdef bint narrow_rows(const RowJob* job, Py_ssize_t first, Py_ssize_t n, double* losses, const real* _) noexcept nogil:
    # Rows first to first + n, n <= SIDE, transposed so that every loop runs over rows. Returns whether a target is bad.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = first * c, r, k, padded = (n + 15) // 16 * 16
    cdef bint native = is_native(code, _), bad = False, smooth = job.smoothing != 0.0
    cdef Row rows[SIDE]
    cdef real flat[NARROW * SIDE]
    cdef real x[NARROW * SIDE]
    cdef real m[SIDE]
    cdef real top[SIDE]
    cdef real x_y[SIDE]
    cdef real g_y[SIDE]
    cdef real factor[SIDE]
    cdef double s[SIDE]
    cdef double l[SIDE]
    cdef double sums[SIDE]
    cdef double wide_factor[SIDE]
    cdef double shift[SIDE]
    cdef double others, own
    cdef const real* source = <const real*>job.x + base
    cdef real* out
    if not native:
        load(code, job.x, base, flat, n * c)
        source = flat
    for r in range(n):
        bad |= open_row(job, first + r, &rows[r])
        if rows[r].y >= 0:
            for k in range(c):
                x[k * SIDE + r] = source[r * c + k]
            x_y[r] = source[r * c + rows[r].y]
        else:
            for k in range(c):
                x[k * SIDE + r] = <real>0.0
    for r in range(n, padded):
        for k in range(c):
            x[k * SIDE + r] = <real>0.0
    for r in range(padded):
        m[r] = <real>-INFINITY
        top[r] = <real>-1.0
        s[r] = 0.0
        sums[r] = 0.0
    for k in range(c):
        side_maxima(x + k * SIDE, m, top, <real>k, padded)
    if smooth:
        for k in range(c):
            if class_weight_of(job, k) != 0.0:
                side_smoothing(sums, x + k * SIDE, m, class_weight_of(job, k), padded)
    for k in range(c):
        side_exp(x + k * SIDE, m, top, <real>k, s, padded)
    side_log1p(s, l, padded)
    for r in range(n):
        if rows[r].y < 0:
            losses[r] = 0.0
            g_y[r] = <real>0.0
            factor[r] = <real>0.0
            wide_factor[r] = 0.0
            shift[r] = 0.0
            continue
        losses[r] = rows[r].u * ((<double>m[r] - <double>x_y[r]) + l[r])
        if smooth:
            losses[r] += rows[r].v * (sums[r] + rows[r].w_sum * l[r])
        own = x[rows[r].y * SIDE + r]
        others = s[r] if top[r] == <real>rows[r].y else (1.0 + s[r]) - own
        g_y[r] = <real>target_grad(&rows[r], others, own, 1.0 + s[r])
        wide_factor[r] = (rows[r].u + rows[r].v * rows[r].w_sum) / (1.0 + s[r]) * rows[r].scale
        factor[r] = <real>wide_factor[r]
        shift[r] = rows[r].v * rows[r].scale
    if job.grad != NULL:
        for k in range(c):
            if smooth:
                side_smooth_scale(x + k * SIDE, wide_factor, shift, class_weight_of(job, k), padded)
            else:
                side_scale(x + k * SIDE, factor, padded)
        out = <real*>job.grad + base if native else flat
        for r in range(n):
            for k in range(c):
                out[r * c + k] = x[k * SIDE + r]
            if rows[r].y >= 0:
                out[r * c + rows[r].y] = g_y[r]
        if not native:
            store(code, flat, job.grad, base, n * c)
    for r in range(n):
        if rows[r].y >= 0 and m[r] == <real>INFINITY:
            losses[r] = infinite_row(job, &rows[r], first + r, _)
        losses[r] *= rows[r].weight
    return bad


cdef bint row_blocks(const RowJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.entries
    cdef Py_ssize_t block, start, stop, n, i
    cdef bint bad = False
    cdef Row row
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
                for i in range(n):
                    bad |= open_row(job, start + i, &row)
                    losses[i] = 0.0
                    if row.y >= 0:
                        losses[i] = wide_row(job, &row, start + i, _) * row.weight
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
    cdef Py_ssize_t block, start, i
    cdef bint bad = False
    cdef double lanes[LANES]
    cdef double w
    cdef int64_t y
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * BLOCK
        for i in range(start, min(start + BLOCK, e.n)):
            if e.mask != NULL and not e.mask[i // e.mask_run]:
                continue
            y = load_index(job.target_code, job.target, i)
            if y == job.ignore_index:
                continue
            if y < 0 or y >= job.classes:
                bad = True
                continue
            w = class_weight_of(job, <Py_ssize_t>y)
            if e.weight != NULL:
                w *= weight_at(e, i)
            lanes[(i - start) % LANES] += w
        e.partials[block] = total(lanes)
    return bad
