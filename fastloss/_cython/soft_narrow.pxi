# Softmax losses of few classes: what soft.pxi computes, for rows side by side and class by class as in narrow.pxi.
# A tile is as many rows as fit into a chunk; its arrays hold all rows' values of one class after the other.


cdef struct Tile:
    Py_ssize_t c
    Py_ssize_t n            # rows
    Py_ssize_t padded       # and how many are worked on
    Py_ssize_t size         # values of them all
    const int64_t* y        # -1 where a row counts as masked


cdef struct TileSum:
    # Of the exponentials of each row; as Sum in soft.pxi, but that the unit is 1.
    double m[SIDE]
    double s[SIDE]
    double log[SIDE]
    double share[SIDE]      # 1 / (1 + s)
    double lse[SIDE]
    int64_t top[SIDE]


cdef void columns(const Tile* tile, const real* flat, real* x) noexcept nogil:
    # The values of each class; nothing of a masked row may be looked at.
    cdef Py_ssize_t r, k
    transpose(flat, tile.c, x, tile.padded, tile.n, tile.c)
    for r in range(tile.padded):
        if tile.y[r] < 0:
            for k in range(tile.c):
                x[k * tile.padded + r] = <real>0.0


cdef void load_tile(const SoftJob* job, const void* source, Py_ssize_t first, const Tile* tile, real* flat, real* x) noexcept nogil:
    if is_native(job.row.entries.code, x):
        columns(tile, <const real*>source + first * tile.c, x)
    else:
        load(job.row.entries.code, source, first * tile.c, flat, tile.n * tile.c)
        columns(tile, flat, x)


cdef void load_tile_logits(const SoftJob* job, bint teacher, Py_ssize_t first, const Tile* tile, real* flat,
                           real* l) noexcept nogil:
    cdef Py_ssize_t r, c = tile.c
    if job.legal == NULL or job.legal_step > 0 or teacher:
        load_logits(job, teacher, first * c, first * c, tile.n * c, flat)
    else:
        for r in range(tile.n):
            load_logits(job, False, (first + r) * c, 0, c, flat + r * c)
    columns(tile, flat, l)


cdef void sum_tile(const SoftJob* job, bint teacher, const Tile* tile, bint places, real* l, real* e, real* beside, real* slope,
                   TileSum* out) noexcept nogil:
    # As sum_row; the maxima's places only if they are wanted: as of likeliest, but -1 if nothing is above -inf.
    cdef Py_ssize_t r, k, c = tile.c, padded = tile.padded, count
    cdef bint outside = False, scaled = scales(job, teacher), nan
    cdef real m[SIDE]
    cdef int64_t nans[SIDE]
    cdef double base[SIDE]
    cdef double base_lo[SIDE]
    for r in range(padded):
        m[r] = <real>-INFINITY
        out.s[r] = 0.0
    side_maxima(l, m, beside, c, padded)
    for r in range(padded):
        outside |= not abs_f64(m[r]) < <double>NEAR
        out.lse[r] = m[r]
    if places:
        for r in range(padded):
            out.top[r] = nans[r] = -1
        for k in range(c - 1, -1, -1):
            for r in range(padded):
                out.top[r] = k if l[k * padded + r] == m[r] and m[r] > <real>-INFINITY else out.top[r]
                nans[r] = k if l[k * padded + r] != l[k * padded + r] else nans[r]
        for r in range(padded):
            out.top[r] = nans[r] if nans[r] >= 0 else out.top[r]
    if outside:
        for r in range(tile.n):
            if m[r] == <real>INFINITY:  # one logit of +inf stands for its limit
                count = 0
                nan = False
                for k in range(c):
                    nan |= l[k * padded + r] != l[k * padded + r]
                    count += l[k * padded + r] == <real>INFINITY
                m[r] = <real>NAN if nan or count != 1 else <real>0.0
                out.lse[r] = out.lse[r] + m[r]
                to_limit(l + r, c, padded)
                for k in range(c):
                    beside[k * padded + r] = m[r]
    if scaled:
        for r in range(padded):
            base[r] = base_of(job, teacher, m[r], base_lo + r)
            out.lse[r] = base[r] / job.temperature if abs_f64(out.lse[r]) < INFINITY else out.lse[r]
            m[r] = m[r] - m[r]
        for k in range(c):
            relate(job, teacher, base, base_lo, True, l + k * padded, e + k * padded,
                   slope + k * padded if slope != NULL else NULL, padded)
    else:
        for k in range(tile.size):
            e[k] = l[k]
        side_exp(e, beside, not outside, tile.size)
    side_sums(e, out.s, c, padded)
    for r in range(padded):
        out.m[r] = m[r]
        out.s[r] = out.s[r] + (out.m[r] - out.m[r])     # NaN without a finite maximum, even of one class
        out.log[r] = log1p_f64(out.s[r])
        out.share[r] = 1.0 / (1.0 + out.s[r])
        out.lse[r] = out.lse[r] + out.log[r]


cdef void side_add(double* sums, const double* v, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    # Sums over classes, in fours.
    cdef Py_ssize_t r, k, whole = c - c % 4
    cdef const double* a
    for r in range(n):
        sums[r] = 0.0
    for k in range(0, whole, 4):
        a = v + k * n
        for r in range(n):
            sums[r] = sums[r] + ((a[r] + a[n + r]) + (a[2 * n + r] + a[3 * n + r]))
    for k in range(whole, c):
        a = v + k * n
        for r in range(n):
            sums[r] = sums[r] + a[r]


cdef inline double side_product(double w, double c) noexcept nogil:
    return w * c if w != 0.0 else 0.0


cdef void side_dot(double* sums, const double* w, const double* v, Py_ssize_t c, Py_ssize_t n) noexcept nogil:
    # As side_add, of products.
    cdef Py_ssize_t r, k, whole = c - c % 4
    cdef const double* a
    cdef const double* b
    for r in range(n):
        sums[r] = 0.0
    for k in range(0, whole, 4):
        a = w + k * n
        b = v + k * n
        for r in range(n):
            sums[r] = sums[r] + ((side_product(a[r], b[r]) + side_product(a[n + r], b[n + r]))
                                 + (side_product(a[2 * n + r], b[2 * n + r]) + side_product(a[3 * n + r], b[3 * n + r])))
    for k in range(whole, c):
        a = w + k * n
        b = v + k * n
        for r in range(n):
            sums[r] = sums[r] + side_product(a[r], b[r])


cdef void side_scale_shares(real* g, const double* p, const double* w, bint soft, const double* factor,
                            const double* scale, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    if not soft:
        for r in range(n):
            g[r] = <real>(p[r] * factor[r] * scale[r])
    else:
        for r in range(n):
            g[r] = <real>((p[r] * factor[r] - w[r]) * scale[r])


cdef void side_shares(double* p, const real* e, const double* factor, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(n):
        p[r] = <double>e[r] * factor[r]


cdef void side_costs(double* cost, double* p, const real* l, const double* m, const double* log, Py_ssize_t n) noexcept nogil:
    # Where rounding is upward, the exponential of -inf leaves a trace that must not meet an infinite cost.
    cdef Py_ssize_t r
    for r in range(n):
        cost[r] = (m[r] - <double>l[r]) + log[r]
        p[r] = 0.0 if cost[r] == INFINITY else p[r]


cdef bint own_shares(const SoftJob* job, const Tile* tile, bint costs, const TileSum* own, const real* l, const real* e, double* p,
                     double* cost) noexcept nogil:
    # p and, if it is wanted, c = -log p. Whether a prediction is no probability.
    cdef Py_ssize_t k, n = tile.padded
    cdef bint bad = False
    if job.input_kind == LOGITS:
        for k in range(tile.c):
            side_shares(p + k * n, e + k * n, own.share, n)
            if costs:
                side_costs(cost + k * n, p + k * n, l + k * n, own.m, own.log, n)
    elif job.input_kind == LOG_PROBS:
        for k in range(tile.size):
            cost[k] = -<double>l[k]
        if job.form == JENSEN_SHANNON:
            for k in range(tile.size):
                p[k] = exp_f64(<double>l[k])
    else:
        bad = outside(UNIT_DOMAIN, l, NULL, tile.size, False)
        for k in range(tile.size):
            p[k] = <double>l[k]
        if job.form != JENSEN_SHANNON:
            for k in range(tile.size):
                cost[k] = -log_f64(<double>l[k])
    return bad


cdef bint other_shares(const SoftJob* job, Py_ssize_t first, const Tile* tile, const double* spread, real* flat, real* t,
                       real* f, real* beside, double* w, double* h) noexcept nogil:
    # w and, for a divergence, log w. Whether a share is no probability.
    cdef Py_ssize_t r, k, c = tile.c, n = tile.padded
    cdef bint bad = False
    cdef double keep = 1.0 - job.row.smoothing, weight
    cdef const uint8_t* legal
    cdef TileSum other
    if job.shares == NULL:
        for k in range(tile.size):
            w[k] = 0.0
    elif job.kind == LOGITS:
        load_tile_logits(job, True, first, tile, flat, t)
        sum_tile(job, True, tile, False, t, f, beside, <real*>NULL, &other)
        for k in range(c):
            side_shares(w + k * n, f + k * n, other.share, n)
        if job.divergence:
            for k in range(c):
                for r in range(n):
                    h[k * n + r] = (<double>t[k * n + r] - other.m[r]) - other.log[r]
    else:
        load_tile(job, job.shares, first, tile, flat, t)
        if job.kind == LOG_PROBS:
            for k in range(tile.size):
                h[k] = <double>t[k]
                w[k] = exp_f64(h[k])
        else:
            bad = outside(UNIT_DOMAIN, t, NULL, tile.size, True)
            for k in range(tile.size):
                w[k] = <double>t[k]
            if job.divergence:
                for k in range(tile.size):
                    h[k] = log_share(t[k])
    if job.row.smoothing != 0.0:
        for k in range(c):
            if job.legal != NULL:
                legal = job.legal + first * job.legal_step + k
                for r in range(tile.n):
                    w[k * n + r] = fma_f64(keep, w[k * n + r], spread[r] if legal[r * job.legal_step] else 0.0)
            else:
                for r in range(n):
                    w[k * n + r] = fma_f64(keep, w[k * n + r], spread[r])
    if job.row.class_weight != NULL:
        for k in range(c):
            weight = job.row.class_weight[k]
            for r in range(n):
                w[k * n + r] = w[k * n + r] * weight
    return bad


cdef bint soft_tile(const SoftJob* job, Py_ssize_t first, const Tile* tile, const double* weights, double* values,
                    const real* _) noexcept nogil:
    # Rows first to first + n: their losses, weights included. Returns whether a share is no probability.
    cdef const RowJob* row = &job.row
    cdef Code code = row.entries.code
    cdef Py_ssize_t c = tile.c, n = tile.padded, size = tile.size, base = first * c, r, k
    cdef real flat[CHUNK]
    cdef real slopes[CHUNK]
    cdef real beside[CHUNK]
    cdef real l[CHUNK]
    cdef real e[CHUNK]
    cdef real t[CHUNK]
    cdef real f[CHUNK]
    cdef double p[CHUNK]
    cdef double cost[CHUNK]
    cdef double w[CHUNK]
    cdef double h[CHUNK]
    cdef double v[CHUNK]
    cdef double mass[SIDE]
    cdef double entropy[SIDE]
    cdef double drift[SIDE]
    cdef double shared[SIDE]
    cdef double spread[SIDE]
    cdef double u[SIDE]
    cdef double c_y[SIDE]
    cdef double p_y[SIDE]
    cdef double q_y[SIDE]
    cdef double g_y[SIDE]
    cdef double slope[SIDE]
    cdef double factor[SIDE]
    cdef double scale[SIDE]
    cdef double pull[SIDE]
    cdef Py_ssize_t at[SIDE]
    cdef real narrowed[SIDE]
    cdef TileSum own
    cdef int32_t nan = 0
    cdef double d, gap, more = job.entropy
    cdef bint index = row.target != NULL, soft = job.shares != NULL or (index and row.smoothing != 0.0)
    cdef bint jensen = job.form == JENSEN_SHANNON, entropic = more != 0.0 or job.entropies != NULL
    cdef bint logits = job.input_kind == LOGITS, bad = False
    cdef bint bent = logits and job.softcap > 0.0, masked = logits and job.legal != NULL
    for r in range(n):
        mass[r] = 0.0
        entropy[r] = 0.0
        drift[r] = 0.0
        shared[r] = 0.0
        u[r] = 0.0
        c_y[r] = 0.0
        p_y[r] = 0.0
        q_y[r] = 0.0
        slope[r] = 1.0
        pull[r] = 0.0
        spread[r] = spread_of(job, first + r) if row.smoothing != 0.0 and r < tile.n else 0.0
    if bent or masked:
        load_tile_logits(job, False, first, tile, flat, l)
    else:
        load_tile(job, row.x, first, tile, flat, l)
    if logits:
        sum_tile(job, False, tile, job.top != NULL, l, e, beside, slopes, &own)
        if job.z_loss != 0.0:
            for r in range(n):
                pull[r] = 2.0 * job.z_loss * own.lse[r]
    bad = own_shares(job, tile, (soft and not jensen) or entropic, &own, l, e, p, cost)
    if soft:
        bad |= other_shares(job, first, tile, spread, flat, t, f, beside, w, h)
        side_add(mass, w, c, n)
    if entropic:
        side_dot(entropy, p, cost, c, n)
    if jensen:
        jensen_terms(p, w, cost, h, v, size)
        side_add(drift, h, c, n)
        side_add(shared, v, c, n)
        for r in range(n):
            shared[r] = 0.5 * shared[r]
    elif job.divergence:
        for k in range(size):
            h[k] = h[k] + cost[k]
        side_dot(shared, w, h, c, n)
    elif soft:
        side_dot(shared, w, cost, c, n)
    if soft and not jensen:
        # The NaN that side_dot has left out where the other factor is 0: of logits all costs are NaN or none.
        for k in range(0 if logits else size):
            nan |= l[k] != l[k]
        for k in range(c if nan else 1):
            for r in range(n):
                shared[r] = shared[r] + nan_of(cost[k * n + r])
    if index:
        for r in range(n):
            u[r] = (1.0 - row.smoothing) * class_weight_of(row, max(tile.y[r], 0))
            at[r] = max(tile.y[r], 0) * n + r
        if job.factor != NULL:
            load(code, job.factor, first, factor, tile.n)
            for r in range(tile.n):
                u[r] = u[r] * factor[r]
        for r in range(n):
            gap = own.m[r] - <double>l[at[r]]
            d = 1.0 + own.s[r]
            c_y[r] = gap + own.log[r]
            p_y[r] = <double>e[at[r]] / d
            q_y[r] = (own.s[r] if gap == 0.0 else d - <double>e[at[r]]) / d
            g_y[r] = more * p_y[r] * (entropy[r] - c_y[r]) if more != 0.0 and p_y[r] != 0.0 else 0.0
        if job.form == FOCAL:
            side_focal(c_y, p_y, q_y, slope, job.params[0], n)
        elif job.form == POLY:
            side_poly(c_y, p_y, q_y, slope, job.params, job.count, n)
        for r in range(n):
            shared[r] = shared[r] + weighed_cost(u[r], c_y[r])
            u[r] = u[r] * slope[r]
            g_y[r] = g_y[r] + (pulled(p_y[r], mass[r] + pull[r]) - (u[r] * q_y[r] + spread[r] * class_weight_of(row, max(tile.y[r], 0))))
    if job.z_loss != 0.0:
        for r in range(n):
            shared[r] = shared[r] + job.z_loss * own.lse[r] * own.lse[r]
    for r in range(tile.n):
        values[r] = (shared[r] - more * entropy[r]) * weights[r] if tile.y[r] >= 0 else 0.0
    if job.lse != NULL:
        for r in range(tile.n):
            narrowed[r] = <real>own.lse[r] if tile.y[r] >= 0 else <real>0.0
        store(code, narrowed, job.lse, first, tile.n)
    if job.entropies != NULL:
        for r in range(tile.n):
            narrowed[r] = <real>entropy[r] if tile.y[r] >= 0 else <real>0.0
        store(code, narrowed, job.entropies, first, tile.n)
    if job.top != NULL:
        for r in range(tile.n):
            job.top[first + r] = own.top[r] if tile.y[r] >= 0 else -1
            if tile.y[r] >= 0 and own.top[r] < 0:
                job.top[first + r] = first_legal(job, first + r)
    if row.grad == NULL:
        return bad
    for r in range(n):
        scale[r] = row.entries.scale * weights[r] / (job.temperature if logits else 1.0)
        factor[r] = u[r] + mass[r] + pull[r]
    if job.z_loss != 0.0:
        for r in range(n):
            if own.lse[r] == INFINITY and abs_f64(factor[r]) == INFINITY:
                absorb(p + r, factor[r], c, n)
                factor[r] = 1.0
    if jensen and job.input_kind == PROBS:
        slopes_of_shares(p, w, cost, v, size)
    elif jensen:
        for k in range(c):
            for r in range(n):
                d = drift[r] if logits else 0.0
                v[k * n + r] = 0.5 * (h[k * n + r] - side_product(p[k * n + r], d))
    elif logits and more != 0.0:
        for k in range(c):
            for r in range(n):
                v[k * n + r] = p[k * n + r] * factor[r]
        if soft:
            for k in range(size):
                v[k] = v[k] - w[k]
        for k in range(c):
            for r in range(n):
                v[k * n + r] = v[k * n + r] + side_product(p[k * n + r], more * (entropy[r] - cost[k * n + r]))
    elif logits:
        for k in range(c):
            side_scale_shares(l + k * n, p + k * n, w + k * n, soft, factor, scale, n)
    elif job.input_kind == LOG_PROBS:
        for k in range(size):
            v[k] = -w[k]
    else:
        for k in range(size):
            v[k] = -(w[k] / p[k]) if w[k] != 0.0 else 0.0
    if jensen or more != 0.0 or not logits:
        for k in range(c):
            for r in range(n):
                l[k * n + r] = <real>(v[k * n + r] * scale[r])
    if index:
        for r in range(n):
            l[at[r]] = <real>(g_y[r] * scale[r])
    if bent:
        for k in range(size):
            l[k] = l[k] * slopes[k] if slopes[k] != <real>0.0 else <real>0.0
    transpose(l, n, flat, c, c, tile.n)
    if masked:
        for r in range(tile.n):
            clear_illegal(job, (first + r) * job.legal_step, flat + r * c, c)
    for r in range(tile.n):
        if tile.y[r] < 0:
            for k in range(c):
                flat[r * c + k] = <real>0.0
    store(code, flat, row.grad, base, tile.n * c)
    return bad


cdef bint soft_tiles(const SoftJob* job, Py_ssize_t first, const int64_t* y, const double* weights, double* values,
                     Py_ssize_t n, const real* _) noexcept nogil:
    # Rows first to first + n <= SIDE, in tiles that fit into a chunk.
    cdef Py_ssize_t c = job.row.classes, step = min(SIDE, CHUNK // c // 16 * 16), start = 0, r
    cdef bint bad = False
    cdef Tile tile
    cdef int64_t kept[SIDE]
    cdef double row_weights[SIDE]
    while start < n:
        tile.c = c
        tile.n = min(step, n - start)
        tile.padded = (tile.n + 15) // 16 * 16
        tile.size = c * tile.padded
        tile.y = kept
        for r in range(tile.padded):
            kept[r] = y[start + r] if r < tile.n else -1
            row_weights[r] = weights[start + r] if r < tile.n else 0.0
        bad |= soft_tile(job, first + start, &tile, row_weights, values + start, _)
        start += step
    return bad
