# Softmax losses of many classes whose terms are sums over the classes of what a row's maximum is enough for. Instead of
# p and c = -log p one by one, as in soft.pxi, their sums: with e = exp(l - m) and S = sum of e,
#   sum of w_k c_k = sum of w_k (m - l_k) + log S sum of w_k,   H = log S + sum of e_k (m - l_k) / S
# so that a row is read once for its sums and once for its gradient.


cdef struct Sums:
    double turn[LANES]      # e_k (m - l_k)
    double mass[LANES]      # shares
    double cost[LANES]      # w_k (m - l_k + log w_k); of a teacher with its exponentials in place of w
    double turns[2]         # the same, of all chunks before
    double masses[2]
    double costs[2]


cdef bint is_wide(const SoftJob* job) noexcept nogil:
    # Whether a job of many classes is of this kind.
    cdef bint logits = job.input_kind == LOGITS and job.softcap == 0.0
    cdef bint shares = job.kind != LOG_PROBS and job.legal == NULL and job.row.class_weight == NULL and job.entropy == 0.0
    return logits and job.form != JENSEN_SHANNON and job.row.smoothing == 0.0 and job.hess == NULL and (job.shares == NULL or shares)


cdef inline double turn_of(double d, double e) noexcept nogil:
    # Guarded by the infinite factor: where rounding is upward, exp(-inf) leaves a trace.
    return 0.0 if d == INFINITY else e * d


cdef void add_turns(double* lanes, double m, const real* l, const real* e, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j, rows = n // LANES
    for i in range(rows):
        for j in range(LANES):
            lanes[j] = lanes[j] + turn_of(m - <double>l[i * LANES + j], <double>e[i * LANES + j])
    for i in range(rows * LANES, n):
        lanes[i % LANES] += turn_of(m - <double>l[i], <double>e[i])


cdef void add_shares(double* mass, double* cost, double m, const real* l, const real* w, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j, rows = n // LANES
    for i in range(rows):
        for j in range(LANES):
            mass[j] = mass[j] + <double>w[i * LANES + j]
            cost[j] = cost[j] + smoothing_term(m, <double>l[i * LANES + j], <double>w[i * LANES + j])
    for i in range(rows * LANES, n):
        mass[i % LANES] += <double>w[i]
        cost[i % LANES] += smoothing_term(m, <double>l[i], <double>w[i])


cdef inline double surprise(double w, double log, double d) noexcept nogil:
    return w * (log + d) if w != 0.0 else 0.0


cdef void add_divergences(double* mass, double* cost, double m, const real* l, const real* w, Py_ssize_t n) noexcept nogil:
    # As add_shares, with the shares' own entropy.
    cdef Py_ssize_t i, j, rows = n // LANES
    cdef double v[LANES]
    for i in range(rows):
        for j in range(LANES):
            v[j] = log_share(w[i * LANES + j])
        for j in range(LANES):
            mass[j] = mass[j] + <double>w[i * LANES + j]
            cost[j] = cost[j] + surprise(<double>w[i * LANES + j], v[j], m - <double>l[i * LANES + j])
    for i in range(rows * LANES, n):
        mass[i % LANES] += <double>w[i]
        cost[i % LANES] += surprise(<double>w[i], log_share(w[i]), m - <double>l[i])


cdef void add_teacher(double* cost, double m, double m_t, bint divergence, const real* l, const real* t, const real* f,
                      Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i, j, rows = n // LANES
    if divergence:
        for i in range(rows):
            for j in range(LANES):
                cost[j] = cost[j] + surprise(
                    <double>f[i * LANES + j], <double>t[i * LANES + j] - m_t, m - <double>l[i * LANES + j])
        for i in range(rows * LANES, n):
            cost[i % LANES] += surprise(<double>f[i], <double>t[i] - m_t, m - <double>l[i])
    else:
        for i in range(rows):
            for j in range(LANES):
                cost[j] = cost[j] + smoothing_term(m, <double>l[i * LANES + j], <double>f[i * LANES + j])
        for i in range(rows * LANES, n):
            cost[i % LANES] += smoothing_term(m, <double>l[i], <double>f[i])


cdef void scale_wide(const real* e, double factor, real* g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        g[k] = <real>(<double>e[k] * factor)


cdef void scale_shares_short(const real* e, real factor, const real* w, real share, real* g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        g[k] = e[k] * factor - w[k] * share


cdef void scale_shares(const real* e, double factor, const real* w, double share, real* g, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(n):
        g[k] = <real>(<double>e[k] * factor - <double>w[k] * share)


cdef void scale_turns(const real* e, double factor, const real* l, double m, double bonus, real* g, Py_ssize_t n) noexcept nogil:
    # g = e (factor - bonus (m - l)).
    cdef Py_ssize_t k
    cdef double d
    for k in range(n):
        d = m - <double>l[k]
        g[k] = <real>(<double>e[k] * factor - bonus * turn_of(d, <double>e[k]))


cdef void clear_illegal(const SoftJob* job, Py_ssize_t legal, real* g, Py_ssize_t n) noexcept nogil:
    # A class that takes no part has a gradient of 0 also in a row whose factor is not finite.
    cdef Py_ssize_t k
    for k in range(n):
        g[k] = g[k] if job.legal[legal + k] else <real>0.0


cdef const real* shares_of(const SoftJob* job, Py_ssize_t at, real* room, Py_ssize_t n) noexcept nogil:
    if is_native(job.row.entries.code, room):
        return <const real*>job.shares + at
    load(job.row.entries.code, job.shares, at, room, n)
    return room


cdef double wide_row(const SoftJob* job, Py_ssize_t i, int64_t y, double weight, bint* bad, const real* _) noexcept nogil:
    # The loss of a row, its weight included.
    cdef const RowJob* row = &job.row
    cdef Code code = row.entries.code
    cdef Py_ssize_t c = row.classes, base = i * c, legal = i * job.legal_step, chunk, start, n
    cdef bint several = c > CHUNK, soft = job.shares != NULL, teacher = soft and job.kind == LOGITS, index = row.target != NULL
    cdef bint entropic = job.entropy != 0.0 or job.entropies != NULL, pulled_up
    # Exponentials of a longer row are kept in the gradient's memory, if that is of their type and no input's.
    cdef bint kept = several and is_native(code, _) and row.grad != NULL and row.grad != row.x
    cdef real room[CHUNK]
    cdef real e_room[CHUNK]
    cdef real other_room[CHUNK]
    cdef real f[CHUNK]
    cdef const real* l
    cdef const real* t = other_room
    cdef const real* given
    cdef const real* given_other = NULL
    cdef const real* w = other_room     # shares, or a teacher's exponentials
    cdef real* e = e_room
    cdef real* g
    cdef Sums sums
    cdef Sum own, other
    cdef Own mine
    cdef double own_sums[2]
    cdef double other_sums[2]
    cdef double lse, pull = 0.0, mass = 0.0, shared = 0.0, entropy = 0.0, p, scale, factor, share = 0.0, w_top = 0.0, factor_e
    cdef real e_top
    given = find_top(job, False, i, &own, room)
    if teacher:
        given_other = find_top(job, True, i, &other, other_room)
    own_sums[0] = own_sums[1] = other_sums[0] = other_sums[1] = 0.0
    clear_lanes(sums.turn)
    clear_lanes(sums.mass)
    clear_lanes(sums.cost)
    sums.turns[0] = sums.turns[1] = sums.masses[0] = sums.masses[1] = sums.costs[0] = sums.costs[1] = 0.0
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        if kept:
            e = <real*>row.grad + base + start
        l = exp_logits(job, False, base + start, legal + start, n, &own, given, room, e, <real*>NULL)
        if start <= own.top < start + n:
            e[own.top - start] = <real>0.0
        add_chunk(own_sums, sum_exponentials(e, n))
        if entropic:
            add_turns(sums.turn, own.m, l, e, n)
            fold(sums.turn, sums.turns)
        if teacher:
            t = exp_logits(job, True, base + start, 0, n, &other, given_other, other_room, f, <real*>NULL)
            if start <= other.top < start + n:
                f[other.top - start] = <real>0.0
                share = own.m - <double>l[other.top - start]    # what the maximum's own term is
            add_chunk(other_sums, sum_exponentials(f, n))
            add_teacher(sums.cost, own.m, other.m, job.divergence, l, t, f, n)
            if start <= own.top < start + n:
                w_top = f[own.top - start]
        elif soft:
            w = shares_of(job, base + start, other_room, n)
            bad[0] |= outside(UNIT_DOMAIN, w, NULL, n, True)
            if job.divergence:
                add_divergences(sums.mass, sums.cost, own.m, l, w, n)
            else:
                add_shares(sums.mass, sums.cost, own.m, l, w, n)
            fold(sums.mass, sums.masses)
            if start <= own.top < start + n:
                w_top = w[own.top - start]
        if soft:
            fold(sums.cost, sums.costs)
    finish_sum(&own, own_sums)
    lse = (own.m + own.shift) + own.log
    if own.infinite and own.m == own.m:
        lse = INFINITY
    if job.z_loss != 0.0:
        pull = 2.0 * job.z_loss * lse
    if entropic:
        entropy = own.log + folded(sums.turns) / (own.unit * (1.0 + own.s))
    if teacher:
        finish_sum(&other, other_sums)
        mass = 1.0
        shared = (folded(sums.costs) / other.unit + share) / (1.0 + other.s) + (own.log - (other.log if job.divergence else 0.0))
    elif soft:
        mass = folded(sums.masses)
        shared = folded(sums.costs) + (mass * own.log if mass != 0.0 else nan_of(own.log))
    mine.value = 0.0
    mine.u = 0.0
    if index:
        own_class(job, i, y, &own, mass + pull, 0.0, entropy, &mine, _)
    if job.z_loss != 0.0:
        shared = shared + job.z_loss * lse * lse
    put_extras(job, i, lse, entropy, &own, _)
    shared = (mine.value + shared - job.entropy * entropy) * weight
    if row.grad == NULL:
        return shared
    scale = row.entries.scale * weight / job.temperature
    p = 1.0 / (1.0 + own.s)
    factor = (mine.u + mass + pull + job.entropy * (entropy - own.log)) * scale
    pulled_up = own.infinite and abs_f64(factor) == INFINITY
    factor_e = 1.0 if pulled_up else factor * p / own.unit
    share = scale
    if teacher:
        w = f
        share = scale / (other.unit * (1.0 + other.s))
        w_top = w_top / (other.unit * (1.0 + other.s)) if own.top != other.top else 1.0 / (1.0 + other.s)
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        if kept:
            e = <real*>row.grad + base + start
        g = <real*>row.grad + base + start if is_native(code, _) else room
        if several and kept and job.entropy != 0.0 and not scales(job, False):
            l = given_logits(job, False, base + start, legal + start, n, own.infinite, room)
        elif several and (not kept or job.entropy != 0.0):
            l = exp_logits(job, False, base + start, legal + start, n, &own, given, room, e_room, <real*>NULL)
        if several and teacher:
            exp_logits(job, True, base + start, 0, n, &other, given_other, other_room, f, <real*>NULL)
        elif several and soft:
            w = shares_of(job, base + start, other_room, n)
        e_top = e[other.top - start] if teacher and start <= other.top < start + n else <real>0.0
        if pulled_up:
            absorb(e, factor, n, 1)
        if job.entropy != 0.0:
            scale_turns(e, factor_e, l, own.m, job.entropy * scale * p / own.unit, g, n)
        elif soft and is_short(factor_e, _) and is_short(share, _):
            scale_shares_short(e, <real>factor_e, w, <real>share, g, n)
        elif soft:
            scale_shares(e, factor_e, w, share, g, n)
        elif is_short(factor_e, _):
            scale_chunk(e, g, <real>factor_e, n)
        else:
            scale_wide(e, factor_e, g, n)
        # The maxima's exponentials are 1, whatever their units are rounded to.
        if start <= own.top < start + n:
            g[own.top - start] = <real>(p * factor - w_top * scale)
        if teacher and start <= other.top < start + n and own.top != other.top:
            g[other.top - start] = <real>(<double>e_top * factor_e - scale / (1.0 + other.s))
        if index and start <= y < start + n:
            g[y - start] = <real>(mine.g_y * scale) if job.legal == NULL or job.legal[legal + y] else <real>0.0
        if job.legal != NULL and not abs_f64(factor_e) < INFINITY:
            clear_illegal(job, legal + start, g, n)
        if not is_native(code, _):
            store(code, g, row.grad, base + start, n)
    return shared
