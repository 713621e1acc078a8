# Row-wise losses without a softmax: the target's score against its rivals', and the target's score alone.
#
# With t = x_y, a rival's violation v_k = max(0, (x_k - t) + margin) and the class weight w = w_y:
#   multi-margin    loss = w / C sum of v_k^p, g_k = w / C p v_k^(p-1) where v_k > 0, g_y = -sum of g_k
#   Crammer-Singer  loss = w v of the best rival (the first of equals), whose g is w, and g_y = -w, where v > 0
#   nll             loss = -w t, g_y = -w
# A rival of -inf costs nothing, NaN comes through (as the best rival too), equal infinities give NaN. A row of class
# weight 0 costs nothing, whatever its infinities.


cdef inline double violation(real x, real t, double margin) noexcept nogil:
    # float64's differences take along what they round away, float32's are computed in float64: near the kink, where
    # everything else cancels, the digits stay.
    cdef double a = x, b = t, s = a - b, d = s + margin, back, lost
    if real is double:
        back = s - a
        lost = (a - (s - back)) - (b + back)
        d = d + (lost if lost == lost else 0.0)
    return 0.0 if (d <= 0.0) | (a == -INFINITY) else d


cdef inline real still(real v, double w) noexcept nogil:
    # 0 in place of an infinity in a row of weight 0.
    return <real>0.0 if w == 0.0 and (v == <real>INFINITY or v == -<real>INFINITY) else v


cdef inline void add_violations(double* costs, double* slopes, const real* x, const real* t, Py_ssize_t step, real* g,
                                const double* factor, double margin, bint squared, Py_ssize_t n) noexcept nogil:
    # Costs, slopes and gradients of n rivals: of rows side by side (step 1) or of one row (step 0).
    cdef Py_ssize_t j
    cdef double v, slope
    for j in range(n):
        v = violation(x[j], t[j * step], margin)
        slope = v + v if squared else (1.0 if v > 0.0 else v)
        costs[j] = costs[j] + (v * v if squared else v)
        slopes[j] = slopes[j] + slope
        g[j] = <real>(slope * factor[j * step])


cdef void violations_beside(double* costs, double* slopes, const real* x, const real* t, real* g, const double* factor,
                            double margin, bint squared, Py_ssize_t n) noexcept nogil:
    if squared:
        add_violations(costs, slopes, x, t, 1, g, factor, margin, True, n)
    else:
        add_violations(costs, slopes, x, t, 1, g, factor, margin, False, n)


cdef void violations_along(double* costs, double* slopes, const real* x, real t, real* g, double factor, double margin,
                           bint squared, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, whole = n - n % LANES
    for i in range(n // LANES):
        if squared:
            add_violations(costs, slopes, x + i * LANES, &t, 0, g + i * LANES, &factor, margin, True, LANES)
        else:
            add_violations(costs, slopes, x + i * LANES, &t, 0, g + i * LANES, &factor, margin, False, LANES)
    add_violations(costs, slopes, x + whole, &t, 0, g + whole, &factor, margin, squared, n - whole)


cdef inline bint beats(real v, real m) noexcept nogil:
    # Whether v is the new best: NaN beats numbers and is never beaten.
    return (m == m) & (not v <= m)


cdef const real* rivals(const RowJob* job, Py_ssize_t i, int64_t y, double w, Py_ssize_t start, Py_ssize_t n, real* room) noexcept nogil:
    # Classes start to start + n of a row, the target at -inf; in place if they can be read there.
    cdef Py_ssize_t k, at = i * job.classes + start
    cdef bint here = start <= y < start + n
    if is_native(job.entries.code, room) and not here and w != 0.0 and job.grad != job.x:
        return <const real*>job.x + at
    load(job.entries.code, job.x, at, room, n)
    if w == 0.0:
        for k in range(n):
            room[k] = still(room[k], w)
    if here:
        room[y - start] = <real>-INFINITY
    return room


cdef void multi_margin_wide(const RowJob* job, Py_ssize_t first, Side* side, const real* t, Py_ssize_t n, const real* _) noexcept nogil:
    cdef Py_ssize_t c = job.classes, r, chunk, start, size, base
    cdef Code code = job.entries.code
    cdef bint squared = job.params[0] == 2.0, native = is_native(code, _)
    cdef real room[CHUNK]
    cdef real g_room[CHUNK]
    cdef real g_y
    cdef double costs[LANES]
    cdef double slopes[LANES]
    cdef const real* x
    cdef real* g
    for r in range(n):
        if side.y[r] < 0:
            zero_row(job, first + r)
            continue
        base = (first + r) * c
        clear_lanes(costs)
        clear_lanes(slopes)
        for chunk in range((c + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            size = min(c - start, CHUNK)
            x = rivals(job, first + r, side.y[r], side.w_y[r], start, size, room)
            g = <real*>job.grad + base + start if native and job.grad != NULL else g_room
            violations_along(costs, slopes, x, t[r], g, side.factor[r], job.params[1], squared, size)
            if not native and job.grad != NULL:
                store(code, g, job.grad, base + start, size)
        side.s[r] = total(costs)
        if job.grad != NULL:
            g_y = <real>(0.0 - total(slopes) * side.factor[r])
            g_y = t[r] if t[r] != t[r] else g_y
            store(code, &g_y, job.grad, base + side.y[r], 1)


cdef void multi_margin_narrow(const RowJob* job, Side* side, real* x, const real* t, Py_ssize_t padded) noexcept nogil:
    # x is class by class; the gradient takes its place. Three sums that take turns round less than one.
    cdef Py_ssize_t c = job.classes, r, k
    cdef double costs[3 * SIDE]
    cdef double slopes[3 * SIDE]
    cdef real g_y
    for r in range(3 * SIDE):
        costs[r] = 0.0
        slopes[r] = 0.0
    for k in range(c):
        violations_beside(costs + k % 3 * SIDE, slopes + k % 3 * SIDE, x + k * padded, t, x + k * padded,
                          side.factor, job.params[1], job.params[0] == 2.0, padded)
    for r in range(padded):
        side.s[r] = (costs[r] + costs[SIDE + r]) + costs[2 * SIDE + r]
        g_y = <real>(0.0 - ((slopes[r] + slopes[SIDE + r]) + slopes[2 * SIDE + r]) * side.factor[r])
        x[max(side.y[r], 0) * padded + r] = t[r] if t[r] != t[r] else g_y


cdef void best_wide(const RowJob* job, Py_ssize_t row, int64_t y, double w, real* best, Py_ssize_t* top) noexcept nogil:
    # The best rival's score and place, -1 if none is above -inf.
    cdef Py_ssize_t c = job.classes, chunk, start, size, whole, i, k, j, found
    cdef real room[CHUNK]
    cdef real lanes[LANES]
    cdef const real* x
    cdef real m
    best[0] = <real>-INFINITY
    top[0] = -1
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        size = min(c - start, CHUNK)
        x = rivals(job, row, y, w, start, size, room)
        whole = size - size % LANES
        for j in range(LANES):
            lanes[j] = <real>-INFINITY
        for i in range(size // LANES):
            k = i * LANES
            for j in range(LANES):
                lanes[j] = x[k + j] if beats(x[k + j], lanes[j]) else lanes[j]
        for j in range(size - whole):
            lanes[j] = x[whole + j] if beats(x[whole + j], lanes[j]) else lanes[j]
        m = best[0]
        for j in range(LANES):
            m = lanes[j] if beats(lanes[j], m) else m
        if not beats(m, best[0]):
            continue
        best[0] = m
        found = size
        for j in range(LANES):
            if lanes[j] == m or lanes[j] != lanes[j]:
                k = j
                while k < found and not (x[k] == m or x[k] != x[k]):
                    k += LANES
                found = min(found, k)
        top[0] = start + found


cdef void best_narrow(const real* x, real* best, Py_ssize_t* top, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r, k
    cdef real place[SIDE]
    cdef bint better
    cdef real v
    for r in range(n):
        best[r] = <real>-INFINITY
        place[r] = <real>-1.0
    for k in range(c):
        for r in range(n):
            v = x[k * n + r]
            better = beats(v, best[r])
            place[r] = <real>k if better else place[r]
            best[r] = v if better else best[r]
    for r in range(n):
        top[r] = <Py_ssize_t>place[r]


cdef inline void put_value(Code code, const real* v, void* target, Py_ssize_t i) noexcept nogil:
    if is_native(code, v):
        (<real*>target)[i] = v[0]
    else:
        store(code, v, target, i, 1)


cdef void margin_rows(const RowJob* job, Py_ssize_t first, Side* side, Py_ssize_t n, Py_ssize_t padded, const real* _) noexcept nogil:
    # Rows first to first + n. The gradient may be written over the scores.
    cdef Code code = job.entries.code
    cdef Py_ssize_t c = job.classes, base = first * c, r, k
    cdef bint native = is_native(code, _), narrow = c <= NARROW and job.loss != NLL, multi = job.loss == MULTI_MARGIN
    cdef real x[NARROW * SIDE]      # class by class, padded values each
    cdef real flat[NARROW * SIDE]
    cdef real t[SIDE]
    cdef real best[SIDE]
    cdef Py_ssize_t top[SIDE]
    cdef const real* source = <const real*>job.x + base
    cdef real* out
    cdef double slope
    for r in range(padded):
        t[r] = still(value_at(_, code, job.x, (first + r) * c + side.y[r]), side.w_y[r]) if side.y[r] >= 0 else <real>0.0
    for r in range(padded):
        side.factor[r] = side.scale[r] * side.w_y[r] / <double>(c if multi else 1)
    if narrow:
        if not native:
            load(code, job.x, base, flat, n * c)
            source = flat
        transpose(source, c, x, padded, n, c)
        for r in range(padded):
            if side.y[r] < 0:  # nothing of a masked row may be looked at, and rows beyond the last count as masked
                for k in range(c):
                    x[k * padded + r] = <real>0.0
            elif side.w_y[r] == 0.0:
                for k in range(c):
                    x[k * padded + r] = still(x[k * padded + r], 0.0)
            x[max(side.y[r], 0) * padded + r] = <real>-INFINITY
    if multi:
        if narrow:
            multi_margin_narrow(job, side, x, t, padded)
        else:
            multi_margin_wide(job, first, side, t, n, _)
    elif job.loss == CRAMMER_SINGER:
        if narrow:
            best_narrow(x, best, top, c, padded)
        else:
            for r in range(padded):
                best[r] = <real>-INFINITY
                top[r] = -1
                if side.y[r] >= 0:
                    best_wide(job, first + r, side.y[r], side.w_y[r], best + r, top + r)
        for r in range(padded):
            side.s[r] = violation(best[r], t[r], job.params[0])
    else:
        for r in range(padded):
            side.s[r] = 0.0 - t[r]
            top[r] = -1
    for r in range(padded):
        side.losses[r] = side.s[r] * side.w_y[r] / <double>(c if multi else 1) * side.weight[r]
        side.losses[r] = t[r] if t[r] != t[r] else side.losses[r]
    if job.grad == NULL or (multi and not narrow):
        return
    if multi:
        out = <real*>job.grad + base if native else flat
        transpose(x, padded, out, c, c, n)
        if not native:
            store(code, flat, job.grad, base, n * c)
        return
    for r in range(padded):
        slope = 1.0 if job.loss == NLL or side.s[r] > 0.0 else side.s[r]
        best[r] = <real>(slope * side.factor[r])
        t[r] = t[r] if t[r] != t[r] else <real>(0.0 - slope * side.factor[r])
    memset(<char*>job.grad + base * bytes_of(code), 0, n * c * bytes_of(code))
    for r in range(n):
        k = base + r * c
        if side.y[r] >= 0:
            if top[r] >= 0:
                put_value(code, best + r, job.grad, k + top[r])
            put_value(code, t + r, job.grad, k + side.y[r])
