# Softmax losses with more per class than a logit: soft targets, transformed logits, entropy, divergences.
#
# With p = softmax(l) of the prepared logits l, c = -log p, a distribution w that the row is compared with (soft
# targets, smoothing, a teacher), and a term of its own for an index y:
#   loss = U f(c_y) + sum of w_k c_k (+ sum of w_k log w_k) + z_loss lse^2 - coefficient H,   H = sum of p_k c_k
#   dl_k = p_k (U f' + sum of w + 2 z_loss lse) - w_k - U f' [k = y] + coefficient p_k (H - c_k)
#   d2l_k = p_k (1 - p_k) (U f' + sum of w + 2 z_loss lse) + 2 z_loss p_k^2 + U f'' (p_k - [k = y])^2
#           + coefficient p_k ((1 - 2 p_k) (H - c_k) + 1 - p_k)
# p, c and w of a chunk are worked out in float64; of more classes than a chunk once for every sum that needs them.

cdef enum Kind:     # as in fastloss/_how.py, like the forms
    LOGITS, LOG_PROBS, PROBS

cdef enum Form:
    PLAIN, FOCAL, POLY, JENSEN_SHANNON


cdef enum:
    UNIT_DOMAIN = 1     # as in fastloss/registry.py


cdef double least_normal = 2.2250738585072014e-308   # a variable: log_over_mean needs it to be unknown to the compiler


cdef struct SoftJob:
    RowJob row                  # its target may be NULL; first, so that a RowJob's address may be a SoftJob's
    const void* shares          # NULL or a distribution over the classes of each row, in the input's dtype
    Kind kind                   # what shares hold
    Kind input_kind
    bint divergence             # whether the shares' own entropy is left out of the loss
    int form
    double params[MAX_PARAMS]
    int count
    const uint8_t* legal        # NULL or classes that take part
    Py_ssize_t legal_step       # classes if every row has its own, else 0
    double temperature
    double softcap              # 0: none
    double z_loss
    double entropy              # coefficient of the entropy bonus
    const void* factor          # NULL or a factor of the target's term for each row, in the input's dtype
    void* lse                   # NULL or, in the input's dtype, what a row has besides its loss
    void* entropies
    int64_t* top
    void* hess                  # NULL or the diagonal of each row's second derivatives


cdef struct Sum:
    # Of the exponentials e = unit exp(l - m) of a row: m is the maximum, s the sum without one maximum over unit.
    double m
    double base                 # of logits that relate() has changed: m is 0, and the maximum, capped, is base + base_lo
    double base_lo
    double shift                # what is to be added to m for the log-sum-exp
    double unit
    double s
    double log                  # log(1 + s)
    Py_ssize_t top
    bint infinite


cdef inline double capped(double x, double cap, double steep, double steep_lo, double* low, double* slope) noexcept nogil:
    # cap tanh(x / cap), what it has lost, and its derivative. An error of a logit is one of its exponential's digits, so
    # all is kept that is above 2^-60 of the result. With y = 2 |x| / cap, 2 / cap in two parts, and e = exp(-y) it is
    # cap (1 - e) / (1 + e).
    cdef double a = abs_f64(x), y = a * steep, y_lo, t, n, r, s, s_lo, z, h, rise, rise_lo, scale, four, part, part_lo
    cdef double one, num, den, share
    cdef uint64_t k
    y_lo = fma_f64(a, steep, -y) + a * steep_lo
    y_lo = y_lo if y < 747.0 else 0.0
    y = 747.0 if y > 747.0 else y    # from there on even 4 e is 0
    t = fma_f64(y, 1.4426950408889634, 6755399441055744.0)
    n = t - 6755399441055744.0
    r = fma_f64(n, -6.93147180369123816490e-01, y)
    s = fma_f64(n, 1.90821492927058770002e-10, -r)
    s_lo = fma_f64(n, 1.90821492927058770002e-10, -r - s) - y_lo
    # exp(s) - 1 is s + s^2 / 2 and a tail.
    z = s * s
    h = 0.5 * z
    r = s + h
    rise_lo = (h - (r - s)) + fma_f64(z, expm1_tail_f64(s), fma_f64(0.5, fma_f64(s, s, -z), fma_f64(s_lo, r, s_lo)))
    rise = r + rise_lo
    rise_lo = rise_lo - (rise - r)
    k = <uint64_t>0x43F0000000000000 - (bits_f64(t) << 52)
    scale = from_bits_f64(k) * 5.421010862427522e-20
    four = from_bits_f64(k) * 2.168404344971009e-19
    part = scale * rise
    part_lo = scale * rise_lo
    one = 1.0 - scale
    num = one - part
    h = ((one - num) - part) + (((1.0 - one) - scale) - part_lo)
    one = 1.0 + scale
    den = one + part
    part_lo = ((one - den) + part) + (((1.0 - one) + scale) + part_lo)
    share = 1.0 / den
    t = num * share
    slope[0] = fma_f64(rise, four, four) * share * share
    z = cap * t
    r = fma_f64(cap, t, -z) + cap * ((fma_f64(-t, den, num) + (h - t * part_lo)) * share)
    low[0] = r if x > 0.0 else -r
    return z if x > 0.0 else -z


cdef inline double capped_short(double x, double cap, double steep, double* slope) noexcept nogil:
    # The same for a float32, beside which it loses nothing.
    cdef double y = abs_f64(x) * steep, t, n, rise, scale, num, den, share, e
    y = 746.0 if y > 746.0 else y
    t = fma_f64(y, 1.4426950408889634, 6755399441055744.0)
    n = t - 6755399441055744.0
    rise = expm1_reduced_f64(fma_f64(n, 1.90821492927058770002e-10, -fma_f64(n, -6.93147180369123816490e-01, y)))
    scale = from_bits_f64(<uint64_t>0x43F0000000000000 - (bits_f64(t) << 52)) * 5.421010862427522e-20
    e = fma_f64(rise, scale, scale)
    num = fma_f64(-rise, scale, 1.0 - scale)
    den = 1.0 + e
    share = 1.0 / den
    t = num * share
    t = cap * fma_f64(fma_f64(-t, den, num), share, t)
    slope[0] = 4.0 * e * share * share
    return t if x > 0.0 else -t


cdef inline double lost_by(double a, double b, double difference) noexcept nogil:
    # What the difference a - b has lost (two-sum).
    cdef double part = difference - a
    return (a - (difference - part)) - (b + part)


cdef inline real exp_related(double d, double low, double inverse, double inverse_lo, real* l) noexcept nogil:
    # The product of two sums, at most 0, and its exponential with what rounding the product has lost.
    cdef double q = d * inverse, lost
    q = 0.0 if q > 0.0 else q
    l[0] = <real>q
    if real is float:
        return exp_pair_f32(l[0], <float>(q - <double>l[0]))
    else:
        lost = fma_f64(d, inverse, -q) + fma_f64(d, inverse_lo, low * inverse)
        return exp_pair_f64(q, lost if q < 0.0 else 0.0)


cdef inline real exp_plain(double base, double inverse, double inverse_lo, real* l) noexcept nogil:
    cdef double d
    cdef float m, v, low, part, high, i, j, x
    if real is float:
        # In float32, which is faster.
        x = l[0]
        m = <float>base
        i = <float>inverse
        j = <float>(inverse - <double>i)
        v = x - m
        part = v - x
        low = (x - (v - part)) - (m + part)
        high = v * i
        l[0] = high
        return exp_pair_f32(high, fma_f32(v, i, -high) + fma_f32(v, j, low * i))
    else:
        d = l[0] - base
        return exp_related(d, lost_by(l[0], base, d), inverse, inverse_lo, l)


cdef inline real exp_capped(double cap, double steep, double steep_lo, double base, double base_lo, double inverse,
                            double inverse_lo, real* l, real* slope) noexcept nogil:
    cdef double x = l[0], rise, low = 0.0, c, d, lost
    if real is float:
        d = capped_short(x, cap, steep, &rise) - base
        lost = 0.0
    else:
        c = capped(x, cap, steep, steep_lo, &low, &rise)
        d = c - base
        low = lost_by(c, base, d) + (low - base_lo)
        c = d + low
        lost = lost_by(d, -low, c)
        d = c
    slope[0] = <real>rise
    d = d if x > -INFINITY else x     # an illegal class
    return exp_related(d, lost, inverse, inverse_lo, l)


cdef inline bint caps(const SoftJob* job, bint teacher) noexcept nogil:
    return not teacher and job.softcap > 0.0


cdef inline bint scales(const SoftJob* job, bint teacher) noexcept nogil:
    # Whether the softmax takes other logits than the given ones.
    return caps(job, teacher) or (job.temperature != 1.0 and not (teacher and job.kind == LOG_PROBS))


cdef inline double inverse_rest(double temperature) noexcept nogil:
    # What 1 / temperature has lost.
    return -fma_f64(1.0 / temperature, temperature, -1.0) / temperature


cdef inline double steepness(double cap, double* low) noexcept nogil:
    # 2 / cap, and what that has lost; the cap may be too small for it.
    cdef double steep = 2.0 / cap
    low[0] = -fma_f64(steep, cap, -2.0) / cap if steep < INFINITY else 0.0
    return steep if steep < INFINITY else 1.7976931348623157e308


cdef inline double base_of(const SoftJob* job, bint teacher, real m, double* low) noexcept nogil:
    # A row's maximum, capped, and what that has lost.
    cdef double slope, steep, steep_lo
    low[0] = 0.0
    if not caps(job, teacher):
        return m
    steep = steepness(job.softcap, &steep_lo)
    if real is float:
        return capped_short(m, job.softcap, steep, &slope)
    else:
        return capped(m, job.softcap, steep, steep_lo, low, &slope)


cdef void relate(const SoftJob* job, bint teacher, const double* bases, const double* bases_lo, bint apart, real* l, real* e,
                 real* slope, Py_ssize_t n) noexcept nogil:
    # Logits become those of the softmax less their row's maximum, and e their exponentials. These are made of twice the
    # digits: by how much a logit is off, its exponential is too. Bases are one for all, or one each; slope is NULL or
    # where the derivatives of what is capped go.
    cdef Py_ssize_t k
    cdef double inverse = 1.0 / job.temperature, inverse_lo = inverse_rest(job.temperature), cap = job.softcap
    cdef double base = bases[0], base_lo = bases_lo[0], steep, steep_lo
    cdef real unwanted[CHUNK]
    if caps(job, teacher):
        steep = steepness(cap, &steep_lo)
        slope = slope if slope != NULL else unwanted
        if apart:
            for k in range(n):
                e[k] = exp_capped(cap, steep, steep_lo, bases[k], bases_lo[k], inverse, inverse_lo, l + k, slope + k)
        else:
            for k in range(n):
                e[k] = exp_capped(cap, steep, steep_lo, base, base_lo, inverse, inverse_lo, l + k, slope + k)
    elif apart:
        for k in range(n):
            e[k] = exp_plain(bases[k], inverse, inverse_lo, l + k)
    else:
        for k in range(n):
            e[k] = exp_plain(base, inverse, inverse_lo, l + k)


cdef void load_logits(const SoftJob* job, bint teacher, Py_ssize_t at, Py_ssize_t legal, Py_ssize_t n, real* l) noexcept nogil:
    # Logits of n classes from element `at` on, -inf if they are illegal.
    cdef Py_ssize_t k
    cdef real largest
    if real is float:
        largest = <float>3.4028234663852886e38
    else:
        largest = 1.7976931348623157e308
    load(job.row.entries.code, job.shares if teacher else job.row.x, at, l, n)
    if caps(job, teacher):
        # Only an illegal one is infinite then.
        for k in range(n):
            l[k] = largest if l[k] > largest else l[k]
            l[k] = -largest if l[k] < -largest else l[k]
    if not teacher and job.legal != NULL:
        for k in range(n):
            l[k] = l[k] if job.legal[legal + k] else <real>-INFINITY


cdef const real* given_logits(const SoftJob* job, bint teacher, Py_ssize_t at, Py_ssize_t legal, Py_ssize_t n, bint infinite,
                              real* room) noexcept nogil:
    # load_logits(), in place where nothing is to be done.
    cdef bint changed = infinite or caps(job, teacher) or (not teacher and job.legal != NULL)
    if is_native(job.row.entries.code, room) and not changed:
        return <const real*>(job.shares if teacher else job.row.x) + at
    load_logits(job, teacher, at, legal, n, room)
    if infinite:
        to_limit(room, n, 1)
    return room


cdef const real* exp_logits(const SoftJob* job, bint teacher, Py_ssize_t at, Py_ssize_t legal, Py_ssize_t n, const Sum* own,
                            const real* given, real* room, real* e, real* slope) noexcept nogil:
    # Logits as the softmax takes them, which are returned, and their exponentials. Logits as given_logits() has them, if
    # they are not NULL.
    cdef const real* l = given
    if l == NULL:
        l = given_logits(job, teacher, at, legal, n, own.infinite, room)
    if not scales(job, teacher):
        exp_chunk(l, <real>own.m, e, n, l)
        return l
    if l != room:
        memcpy(room, l, n * sizeof(real))
    relate(job, teacher, &own.base, &own.base_lo, False, room, e, slope, n)
    return room


cdef const real* find_top(const SoftJob* job, bint teacher, Py_ssize_t i, Sum* out, real* room) noexcept nogil:
    # The maximum of a row of logits, its place and its unit; returns the logits if they are one chunk, else NULL.
    cdef Py_ssize_t c = job.row.classes, base = i * c, legal = i * job.legal_step, chunk, start, n, k, count = 0, place = 0
    cdef bint nan = False
    cdef real m = <real>-INFINITY
    cdef const real* l = room
    out.infinite = False
    out.top = 0
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        l = given_logits(job, teacher, base + start, legal + start, n, False, room)
        if raise_maximum(l, n, &m, &place):
            out.top = start + place
    if m == <real>INFINITY:
        # One logit of +inf stands for its limit.
        for chunk in range((c + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            n = min(c - start, CHUNK)
            l = given_logits(job, teacher, base + start, legal + start, n, False, room)
            for k in range(n):
                nan |= l[k] != l[k]
                count += l[k] == <real>INFINITY
        out.infinite = True
        m = <real>NAN if nan or count != 1 else <real>0.0
        if c <= CHUNK:
            l = given_logits(job, teacher, base, legal, c, True, room)
    out.m = m
    out.base = out.base_lo = out.shift = 0.0
    out.unit = unit_of(m, m)
    # Without a finite maximum its NaN are those of the sum.
    if scales(job, teacher) and m > <real>-INFINITY:
        out.base = base_of(job, teacher, m, &out.base_lo)
        out.shift = out.base / job.temperature
        out.m = 0.0
        out.unit = 1.0
    return l if c <= CHUNK else NULL


cdef void finish_sum(Sum* out, const double* sums) noexcept nogil:
    # From the sum of the exponentials without one maximum, as add_chunk keeps it.
    out.s = (sums[0] + sums[1]) / out.unit + (out.m - out.m)   # NaN without a finite maximum, even of one class
    out.log = log1p_f64(out.s)


cdef void sum_row(const SoftJob* job, bint teacher, Py_ssize_t i, Sum* out, real* l, real* e, real* slope) noexcept nogil:
    # Sums over a row of logits; l, e and slope keep its last chunk.
    cdef Py_ssize_t c = job.row.classes, base = i * c, legal = i * job.legal_step, chunk, start, n
    cdef double sums[2]
    cdef const real* given = find_top(job, teacher, i, out, l)
    if given != NULL and given != l:
        memcpy(l, given, c * sizeof(real))
        given = l
    sums[0] = sums[1] = 0.0
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        exp_logits(job, teacher, base + start, legal + start, n, out, given, l, e, slope)
        if start <= out.top < start + n:
            e[out.top - start] = <real>0.0
        add_chunk(sums, sum_exponentials(e, n))
    finish_sum(out, sums)


cdef inline Py_ssize_t first_equal(const real* x, real v, Py_ssize_t n) noexcept nogil:
    # The place of the first of at most CHUNK values that equals v; a loop without a break is vectorised.
    cdef int32_t i, at, size = <int32_t>n, found = <int32_t>n
    for i in range(size):
        at = i if x[i] == v else size
        found = at if at < found else found
    return found


cdef Py_ssize_t first_legal(const SoftJob* job, Py_ssize_t i) noexcept nogil:
    # The first class that takes part in a row, -1 if none does.
    cdef Py_ssize_t k
    for k in range(job.row.classes):
        if job.legal == NULL or job.legal[i * job.legal_step + k]:
            return k
    return -1


cdef Py_ssize_t likeliest(const SoftJob* job, Py_ssize_t i, const Sum* own, const real* _) noexcept nogil:
    # The class of a row's greatest logit, the lowest of several and, as of np.argmax, that of the first NaN if there is
    # one; own.top may be any of several. -1 if no class takes part.
    cdef Py_ssize_t c = job.row.classes, base = i * c, legal = i * job.legal_step, chunk, start, n, k
    cdef real room[CHUNK]
    cdef const real* l
    if own.s != own.s:
        for chunk in range((c + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            n = min(c - start, CHUNK)
            l = given_logits(job, False, base + start, legal + start, n, False, room)
            for k in range(n):
                if l[k] != l[k]:
                    return start + k
        if own.m == -INFINITY:
            return first_legal(job, i)
    # No chunk before has a maximum: only what is higher replaces it.
    start = own.top // CHUNK * CHUNK
    n = min(c - start, CHUNK)
    l = given_logits(job, False, base + start, legal + start, n, False, room)
    return start + first_equal(l, l[own.top - start], n)


cdef inline double log_share(real w) noexcept nogil:
    # The logarithm of a probability; that of 0 and of what is none is not used. Every float32 is a normal float64.
    if real is float:
        return log_sum_f64(<double>w, 0.0)
    else:
        return log_f64(w)


cdef bint terms(const SoftJob* job, Py_ssize_t i, Py_ssize_t start, Py_ssize_t n, const Sum* own, const Sum* other,
                double spread, real* l, real* e, real* slope, real* t, real* f, double* p, double* c, double* w,
                double* h) noexcept nogil:
    # p, c, w and log w of a chunk; l, e, slope and t, f have it already if it is the only one. Whether a value is no
    # probability.
    cdef const RowJob* row = &job.row
    cdef Py_ssize_t k, at = i * row.classes + start
    cdef bint bad = False, several = row.classes > CHUNK
    cdef double factor, keep = 1.0 - row.smoothing
    cdef const real* given
    if job.input_kind == LOGITS:
        if several:
            given = exp_logits(job, False, at, i * job.legal_step + start, n, own, <const real*>NULL, l, e, slope)
            if given != l:
                memcpy(l, given, n * sizeof(real))
        factor = 1.0 / (own.unit * (1.0 + own.s))
        for k in range(n):
            p[k] = <double>e[k] * factor
            c[k] = (own.m - <double>l[k]) + own.log
            p[k] = 0.0 if c[k] == INFINITY else p[k]    # where rounding is upward, exp(-inf) leaves a trace
        if start <= own.top < start + n:
            p[own.top - start] = 1.0 / (1.0 + own.s)    # the unit may be no float32
    else:
        load(row.entries.code, row.x, at, l, n)
        if job.input_kind == LOG_PROBS:
            for k in range(n):
                c[k] = -<double>l[k]
            if job.form == JENSEN_SHANNON or job.hess != NULL:
                for k in range(n):
                    p[k] = exp_f64(<double>l[k])
        else:
            bad = outside(UNIT_DOMAIN, l, NULL, n, False)
            for k in range(n):
                p[k] = <double>l[k]
            if job.form != JENSEN_SHANNON:
                for k in range(n):
                    c[k] = -log_f64(<double>l[k])
    if job.shares == NULL:
        for k in range(n):
            w[k] = 0.0
    elif job.kind == LOGITS:
        if several:
            given = exp_logits(job, True, at, 0, n, other, <const real*>NULL, t, f, <real*>NULL)
            if given != t:
                memcpy(t, given, n * sizeof(real))
        factor = 1.0 / (other.unit * (1.0 + other.s))
        for k in range(n):
            w[k] = <double>f[k] * factor
            h[k] = (<double>t[k] - other.m) - other.log
        if start <= other.top < start + n:
            w[other.top - start] = 1.0 / (1.0 + other.s)
    else:
        load(row.entries.code, job.shares, at, t, n)
        if job.kind == LOG_PROBS:
            for k in range(n):
                h[k] = <double>t[k]
                w[k] = exp_f64(h[k])
        else:
            bad |= outside(UNIT_DOMAIN, t, NULL, n, True)
            for k in range(n):
                w[k] = <double>t[k]
            if job.divergence:
                for k in range(n):
                    h[k] = log_share(t[k])
    if row.smoothing != 0.0 and job.legal != NULL:
        for k in range(n):
            w[k] = fma_f64(keep, w[k], spread if job.legal[i * job.legal_step + start + k] else 0.0)
    elif row.smoothing != 0.0:
        for k in range(n):
            w[k] = fma_f64(keep, w[k], spread)
    if row.class_weight != NULL:
        for k in range(n):
            w[k] = w[k] * row.class_weight[start + k]
    return bad


cdef inline double weighed_cost(double u, double c) noexcept nogil:
    # The cost of a class, which if it is of weight 0 may be infinite, but not NaN.
    return 0.0 if u == 0.0 and c == INFINITY else u * c


cdef inline double nan_of(double c) noexcept nogil:
    # What a class that the target leaves out costs: nothing, unless its prediction is NaN.
    return c if c != c else 0.0


cdef inline double pulled(double p, double factor) noexcept nogil:
    # The share of a class in a row's gradient: a factor of infinity, of an infinite lse^2, has none where p is 0.
    return p * factor if p != 0.0 else 0.0


cdef inline double power(double q, double exponent) noexcept nogil:
    # q^exponent for q in [0, 1].
    if exponent == 0.0:
        return 1.0
    if exponent == 1.0:
        return q
    if exponent == 2.0:
        return q * q
    return power_f64(q, exponent)


cdef double own_term(const SoftJob* job, double c, double p, double q, double* slope, double* bend) noexcept nogil:
    # f(c) of the index's class, and its derivatives; q = 1 - p.
    cdef double value = c, derivative = 1.0, x = 1.0, g = job.params[0], ratio = 1.0
    cdef int k
    bend[0] = 0.0
    if job.form == FOCAL:
        x = power(q, g)
        value = x * c if x != 0.0 else 0.0
        ratio = c / q if q > 0.0 else 1.0
        derivative = x * (1.0 + g * p * ratio) if p > 0.0 else x
        if g != 0.0 and p > 0.0 and q > 0.0:
            bend[0] = g * p * (x / q) * (2.0 + ratio * ((g - 1.0) * p - q))
    elif job.form == POLY:
        for k in range(job.count):
            derivative = derivative + job.params[k] * p * x
            bend[0] = bend[0] - job.params[k] * p * x
            if k > 0:
                bend[0] = bend[0] + job.params[k] * p * p * ratio * k
            ratio = x
            x = x * q
            value = value + job.params[k] * x / (k + 1.0)
    slope[0] = derivative
    return value


cdef struct Own:
    # What an index's class adds.
    double value    # to the loss
    double u        # weight of its cost's derivative
    double bend     # and second derivative
    double g_y      # the gradient there


cdef void own_class(const SoftJob* job, Py_ssize_t i, int64_t y, const Sum* own, double pull, double spread, double entropy,
                    Own* out, const real* _) noexcept nogil:
    cdef const RowJob* row = &job.row
    cdef real x_y = <real>0.0, e_y
    cdef double u = (1.0 - row.smoothing) * class_weight_of(row, y), whole = 1.0 + own.s, slope, gap, part, c_y, p_y, q_y
    if job.factor != NULL:
        load(row.entries.code, job.factor, i, &x_y, 1)
        u = u * <double>x_y
    gap = own.m - <double>exp_logits(
        job, False, i * row.classes + y, i * job.legal_step + y, 1, own, <const real*>NULL, &x_y, &e_y, <real*>NULL)[0]
    part = <double>e_y / own.unit
    p_y = part / whole
    q_y = (own.s if gap == 0.0 else whole - part) / whole
    c_y = gap + own.log
    out.value = own_term(job, c_y, p_y, q_y, &slope, &out.bend)
    out.value = weighed_cost(u, out.value)
    out.bend = u * out.bend
    out.u = u * slope
    out.g_y = pulled(p_y, pull) - (out.u * q_y + spread * class_weight_of(row, y))
    if job.entropy != 0.0:
        out.g_y = out.g_y + (job.entropy * p_y * (entropy - c_y) if p_y != 0.0 else 0.0)


cdef void put_extras(const SoftJob* job, Py_ssize_t i, double lse, double entropy, const Sum* own, const real* _) noexcept nogil:
    cdef real v
    if job.lse != NULL:
        v = <real>lse
        store(job.row.entries.code, &v, job.lse, i, 1)
    if job.entropies != NULL:
        v = <real>entropy
        store(job.row.entries.code, &v, job.entropies, i, 1)
    if job.top != NULL:
        job.top[i] = likeliest(job, i, own, _)


cdef double spread_of(const SoftJob* job, Py_ssize_t i) noexcept nogil:
    # What smoothing gives to each class that takes part.
    cdef Py_ssize_t k, count = job.row.classes
    if job.row.smoothing == 0.0:
        return 0.0
    if job.legal != NULL:
        count = 0
        for k in range(job.row.classes):
            count += job.legal[i * job.legal_step + k] != 0
    return job.row.smoothing / <double>count


cdef struct Curve:
    # What the second derivatives of a row have in common.
    double factor
    double bend         # of the target's own term, its weight included
    double entropy
    double drift
    double rest         # sum of p w / (p + w)


cdef inline double log_part(double a, double b) noexcept nogil:
    # log(a / m) for the mean m of a and b, none of them negative.
    cdef double share = half_over_mean_f64(a, b, least_normal)
    return log_over_mean_f64(a, share, (a - b) * share, least_normal)


cdef void jensen_terms(const double* p, const double* w, double* h, double* mine, double* both, Py_ssize_t n) noexcept nogil:
    # h = log(p / m) for the mean m of p and w, p h, and p h + w log(w / m). Short loops: one would wait for its quotients.
    cdef Py_ssize_t k
    cdef double least = least_normal
    for k in range(n):
        both[k] = half_over_mean_f64(p[k], w[k], least)
    for k in range(n):
        h[k] = log_over_mean_f64(p[k], both[k], (p[k] - w[k]) * both[k], least)
    for k in range(n):
        both[k] = log_over_mean_f64(w[k], both[k], (w[k] - p[k]) * both[k], least)
    for k in range(n):
        mine[k] = p[k] * h[k] if p[k] != 0.0 else 0.0
        both[k] = mine[k] + (w[k] * both[k] if w[k] != 0.0 else 0.0)


cdef void slopes_of_shares(const double* p, const double* w, const double* h, double* v, Py_ssize_t n) noexcept nogil:
    # Derivatives by p of p log(p / m) + w log(w / m), halved; h = log(p / m).
    cdef Py_ssize_t k
    for k in range(n):
        v[k] = 0.5 * h[k] if p[k] != 0.0 else (<double>-INFINITY if w[k] != 0.0 else 0.34657359027997264)


cdef void gradient_of_jensen(Kind kind, const double* p, const double* w, const double* h, double drift, double* v,
                             Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    if kind == PROBS:
        slopes_of_shares(p, w, h, v, n)
    else:
        for k in range(n):
            v[k] = 0.5 * p[k] * (h[k] - (drift if kind == LOGITS else 0.0)) if p[k] != 0.0 else 0.0


cdef void curve(const SoftJob* job, const double* p, const double* cost, const double* w, double top_rest, Py_ssize_t top,
                Py_ssize_t own, const Curve* a, double* d, Py_ssize_t n) noexcept nogil:
    # Second derivatives with respect to a chunk's prepared logits; top and own are places in it or outside.
    cdef Py_ssize_t k
    cdef double q, v, more = job.entropy
    for k in range(n):
        q = top_rest if k == top else 1.0 - p[k]
        if job.form == JENSEN_SHANNON:
            v = w[k] / (p[k] + w[k]) if w[k] != 0.0 else 0.0
            v = log_part(p[k], w[k]) - a.drift + v
            d[k] = 0.5 * p[k] * ((q - p[k]) * v + p[k] * a.rest) if p[k] != 0.0 else 0.0
            continue
        v = q if k == own else p[k]
        d[k] = pulled(p[k] * q, a.factor) + 2.0 * job.z_loss * p[k] * p[k] + (a.bend * v * v if v != 0.0 else 0.0)
        if more != 0.0 and p[k] != 0.0:
            d[k] = d[k] + more * p[k] * ((q - p[k]) * (a.entropy - cost[k]) + q)


cdef void curve_of_shares(const SoftJob* job, const double* p, const double* w, double* d, Py_ssize_t n) noexcept nogil:
    # The same where the input is no logits but log-probabilities or probabilities.
    cdef Py_ssize_t k
    cdef double share
    cdef bint logs = job.input_kind == LOG_PROBS
    for k in range(n):
        if job.form == JENSEN_SHANNON:
            share = w[k] / (p[k] + w[k]) if w[k] != 0.0 else 0.0
            if logs:
                d[k] = 0.5 * p[k] * (log_part(p[k], w[k]) + share) if p[k] != 0.0 else 0.0
            else:
                d[k] = 0.5 * share / p[k] if share != 0.0 else 0.0
        else:
            d[k] = 0.0 if logs or w[k] == 0.0 else w[k] / p[k] / p[k]


cdef void bend_curve(const SoftJob* job, const Sum* own, const real* l, const real* derivative, const double* v, double* d, Py_ssize_t n) noexcept nogil:
    # From second derivatives with respect to prepared logits to those with respect to logits, but for 1 / temperature^2.
    cdef Py_ssize_t k
    cdef double slope, second
    second = -2.0 * job.temperature / (job.softcap * job.softcap)
    for k in range(n):
        slope = derivative[k]
        if slope == 0.0:
            d[k] = 0.0
        elif second == 0.0:
            d[k] = d[k] * slope * slope
        else:
            d[k] = d[k] * slope * slope + v[k] * (second * (own.base + job.temperature * <double>l[k]) * slope)


cdef double soft_row(const SoftJob* job, Py_ssize_t i, int64_t y, double weight, bint* bad, const real* _) noexcept nogil:
    # The loss of a row, its weight included.
    cdef const RowJob* row = &job.row
    cdef Code code = row.entries.code
    cdef Py_ssize_t c = row.classes, base = i * c, chunk, start, n, k
    cdef real l[CHUNK]
    cdef real e[CHUNK]
    cdef real t[CHUNK]
    cdef real f[CHUNK]
    cdef real derivative[CHUNK]
    cdef double p[CHUNK]
    cdef double cost[CHUNK]
    cdef double w[CHUNK]
    cdef double h[CHUNK]
    cdef double v[CHUNK]
    cdef double d[CHUNK]
    cdef double lanes[5 * LANES]
    cdef double sums[5 * 2]
    cdef Sum own, other
    cdef Curve a
    cdef Own mine
    cdef double value = 0.0, lse = 0.0, pull = 0.0, scale, factor, temperature = job.temperature if job.input_kind == LOGITS else 1.0
    cdef double spread = spread_of(job, i), mass = 0.0, entropy = 0.0, drift = 0.0, more = job.entropy
    cdef bint index = row.target != NULL, soft = job.shares != NULL, smooth = index and row.smoothing != 0.0
    cdef bint jensen = job.form == JENSEN_SHANNON, entropic = more != 0.0 or job.entropies != NULL
    cdef bint logits = job.input_kind == LOGITS, summed = (soft or smooth or entropic) and (logits or jensen)
    cdef bint bent = logits and job.softcap > 0.0
    cdef const uint8_t* legal
    mine.u, mine.bend = 0.0, 0.0
    if logits:
        sum_row(job, False, i, &own, l, e, derivative)
        lse = (own.m + own.shift) + own.log
        if own.infinite and own.m == own.m:
            lse = INFINITY
    if job.z_loss != 0.0:
        pull = 2.0 * job.z_loss * lse
    if soft and job.kind == LOGITS:
        sum_row(job, True, i, &other, t, f, <real*>NULL)
    # A divergence from what is no logits needs none of these sums.
    if summed:
        for k in range(5 * LANES):
            lanes[k] = 0.0
        for k in range(5 * 2):
            sums[k] = 0.0
        for chunk in range((c + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            n = min(c - start, CHUNK)
            bad[0] |= terms(job, i, start, n, &own, &other, spread, l, e, derivative, t, f, p, cost, w, h)
            if soft or smooth:
                add_lanes(lanes, w, n)
            if entropic:
                for k in range(n):
                    v[k] = p[k] * cost[k] if p[k] != 0.0 else 0.0
                add_lanes(lanes + LANES, v, n)
            if jensen:
                jensen_terms(p, w, h, v, d, n)
                add_lanes(lanes + 2 * LANES, v, n)
                add_lanes(lanes + 4 * LANES, d, n)
                if job.hess != NULL:
                    for k in range(n):
                        v[k] = p[k] * (w[k] / (p[k] + w[k])) if p[k] != 0.0 else 0.0
                    add_lanes(lanes + 3 * LANES, v, n)
            for k in range(5 if jensen else 2):
                fold(lanes + k * LANES, sums + 2 * k)
        mass, entropy, drift = folded(sums), folded(sums + 2), folded(sums + 4)
        a.rest, value = folded(sums + 6), 0.5 * folded(sums + 8)
    if index:
        own_class(job, i, y, &own, mass + pull, spread, entropy, &mine, _)
        value = value + mine.value
    if job.z_loss != 0.0:
        value = value + job.z_loss * lse * lse
    value = value - more * entropy
    put_extras(job, i, lse, entropy, &own, _)
    if row.grad == NULL and (jensen or not (soft or smooth)):
        return value * weight
    scale = row.entries.scale * weight / temperature
    factor = mine.u + mass + pull
    a.factor, a.bend, a.entropy, a.drift = factor, mine.bend, entropy, drift
    clear_lanes(lanes)
    sums[0] = sums[1] = 0.0
    for chunk in range((c + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        n = min(c - start, CHUNK)
        if c > CHUNK or not summed:
            bad[0] |= terms(job, i, start, n, &own, &other, spread, l, e, derivative, t, f, p, cost, w, h)
        if jensen:
            if c > CHUNK:
                for k in range(n):
                    h[k] = log_part(p[k], w[k])
        elif job.divergence:
            for k in range(n):
                v[k] = w[k] * (h[k] + cost[k]) if w[k] != 0.0 else nan_of(cost[k])
        else:
            for k in range(n):
                v[k] = w[k] * cost[k] if w[k] != 0.0 else nan_of(cost[k])
        if (soft or smooth) and not jensen:
            add_lanes(lanes, v, n)
            fold(lanes, sums)
        if row.grad == NULL:
            continue
        if jensen:
            gradient_of_jensen(job.input_kind, p, w, h, drift, v, n)
        elif logits:
            if abs_f64(factor) == INFINITY:
                for k in range(n):
                    v[k] = pulled(p[k], factor)
            else:
                for k in range(n):
                    v[k] = p[k] * factor
            if soft or smooth:
                for k in range(n):
                    v[k] = v[k] - w[k]
            if more != 0.0:
                for k in range(n):
                    v[k] = v[k] + (more * p[k] * (entropy - cost[k]) if p[k] != 0.0 else 0.0)
        elif job.input_kind == LOG_PROBS:
            for k in range(n):
                v[k] = -w[k]
        else:
            for k in range(n):
                v[k] = -(w[k] / p[k]) if w[k] != 0.0 else 0.0
        if index and start <= y < start + n:
            v[y - start] = mine.g_y
        if job.hess != NULL:
            if logits:
                curve(job, p, cost, w, own.s / (1.0 + own.s), own.top - start, y - start if index else -1, &a, d, n)
            else:
                curve_of_shares(job, p, w, d, n)
        if bent:
            if job.hess != NULL:
                bend_curve(job, &own, l, derivative, v, d, n)
            for k in range(n):
                v[k] = v[k] * <double>derivative[k] if derivative[k] != <real>0.0 else 0.0
        if logits and job.legal != NULL:
            legal = job.legal + i * job.legal_step + start
            for k in range(n):
                v[k] = v[k] if legal[k] else 0.0
            if job.hess != NULL:
                for k in range(n):
                    d[k] = d[k] if legal[k] else 0.0
        for k in range(n):
            l[k] = <real>(v[k] * scale)
        store(code, l, row.grad, base + start, n)
        if job.hess != NULL:
            for k in range(n):
                l[k] = <real>(d[k] / temperature * scale)
            store(code, l, job.hess, base + start, n)
    return (value + folded(sums)) * weight


cdef void clear_row(const SoftJob* job, Py_ssize_t i, const real* _) noexcept nogil:
    # A row that counts as masked.
    cdef real zero = <real>0.0
    zero_row(&job.row, i)
    if job.hess != NULL:
        memset(<char*>job.hess + i * job.row.classes * bytes_of(job.row.entries.code), 0,
               job.row.classes * bytes_of(job.row.entries.code))
    if job.lse != NULL:
        store(job.row.entries.code, &zero, job.lse, i, 1)
    if job.entropies != NULL:
        store(job.row.entries.code, &zero, job.entropies, i, 1)
    if job.top != NULL:
        job.top[i] = -1


cdef bint soft_blocks(const SoftJob* job, Py_ssize_t first, Py_ssize_t last, const real* _) noexcept nogil:
    cdef const Entries* e = &job.row.entries
    cdef const uint8_t* mask
    cdef Py_ssize_t block, start, stop, n, r
    cdef Py_ssize_t row_bytes = job.row.classes * bytes_of(e.code), length = min(row_bytes, CHUNK * bytes_of(e.code)), next
    cdef bint bad = False, tiled = job.row.classes <= NARROW and job.hess == NULL, wide = is_wide(job)
    cdef double lanes[LANES]
    cdef int64_t y[SIDE]
    cdef uint8_t flags[SIDE]
    cdef double weights[SIDE]
    cdef double values[SIDE]
    cdef real losses[SIDE]
    for block in range(first, last):
        clear_lanes(lanes)
        start = block * job.row.block_rows
        stop = min(start + job.row.block_rows, e.n)
        while start < stop:
            n = min(stop - start, SIDE)
            if job.row.target != NULL:
                bad |= load_targets(&job.row, start, y, n)
            else:
                for r in range(n):
                    y[r] = 0
                if e.mask != NULL:
                    mask = load_mask(e, start, flags, n)
                    for r in range(n):
                        y[r] = 0 if mask[r] else -1
            for r in range(n):
                weights[r] = 1.0
            if e.weight != NULL:
                load_weights(e, start, weights, n)
            if tiled:
                bad |= soft_tiles(job, start, y, weights, values, n, _)
            for r in range(0 if tiled else n):
                values[r] = 0.0
                if y[r] < 0:
                    clear_row(job, start + r, _)
                    continue
                # The next row: the CPU looks no further ahead than a page. In a function of its own gcc drops it.
                next = (start + r + 1) * row_bytes
                fetch(<const char*>job.row.x + next, length)
                if job.shares != NULL:
                    fetch(<const char*>job.shares + next, length)
                if job.row.grad != NULL:
                    fetch(<const char*>job.row.grad + next, length)
                if wide:
                    values[r] = wide_row(job, start + r, y[r], weights[r], &bad, _)
                else:
                    values[r] = soft_row(job, start + r, y[r], weights[r], &bad, _)
            add_lanes(lanes, values, n)
            if e.losses != NULL:
                for r in range(n):
                    losses[r] = <real>values[r]
                store(e.code, losses, e.losses, start, n)
            start += n
        e.partials[block] = total(lanes)
    return bad


cdef bint soft_blocks_f32(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return soft_blocks(<const SoftJob*>job, first, last, <const float*>NULL)


cdef bint soft_blocks_f64(const void* job, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    return soft_blocks(<const SoftJob*>job, first, last, <const double*>NULL)


cdef SoftJob soft_job(cnp.ndarray x, Py_ssize_t classes, cnp.ndarray target, cnp.ndarray shares, object how,
                      cnp.ndarray class_weight, int64_t ignore_index, cnp.ndarray legal, cnp.ndarray factor, Entries entries):
    # Everything but what is written and how gradients are scaled.
    cdef SoftJob job
    job.row = row_job(target, classes, class_weight, ignore_index, entries)
    job.row.x = data_of(x)
    job.row.grad = NULL
    job.row.smoothing = how.smoothing
    job.shares = data_of(shares)
    job.kind = how.kind
    job.input_kind = how.input_kind
    job.divergence = how.divergence
    job.form = how.form
    job.count = len(how.params)
    fill(job.params, how.params)
    job.legal = <const uint8_t*>data_of(legal)
    job.legal_step = classes if legal is not None and cnp.PyArray_SIZE(legal) > classes else 0
    job.temperature = how.temperature
    job.softcap = how.softcap
    job.z_loss = how.z_loss
    job.entropy = how.entropy
    job.factor = data_of(factor)
    job.lse = job.entropies = job.hess = NULL
    job.top = NULL
    return job


cdef Kernel soft_kernel(SoftJob* job):
    # The kernel for a job that is complete but for partial sums.
    if not is_head(job):
        return soft_blocks_f64 if job.row.entries.code == F64 else soft_blocks_f32
    job.row.loss = CROSS_ENTROPY
    job.row.is_head = True
    return row_blocks_f64 if job.row.entries.code == F64 else row_blocks_f32


def softmax(cnp.ndarray x not None, cnp.ndarray target, cnp.ndarray shares, object how, cnp.ndarray class_weight,
            int64_t ignore_index, cnp.ndarray legal, cnp.ndarray factor, cnp.ndarray weight, cnp.ndarray mask, double scale,
            cnp.ndarray losses, cnp.ndarray grad, cnp.ndarray lse, cnp.ndarray entropies, cnp.ndarray top,
            cnp.ndarray hess, cnp.ndarray partials not None, int threads):
    cdef Py_ssize_t n = cnp.PyArray_DIM(x, 0), c = cnp.PyArray_DIM(x, 1)
    cdef SoftJob job = soft_job(
        x, c, target, shares, how, class_weight, ignore_index, legal, factor,
        entries_of(x, n, weight, mask, scale, losses, partials))
    job.row.grad = data_of(grad)
    job.lse = data_of(lse)
    job.entropies = data_of(entropies)
    job.top = <int64_t*>data_of(top)
    job.hess = data_of(hess)
    return launch(soft_kernel(&job), &job, sizeof(job), cnp.PyArray_SIZE(partials), job.row.block_rows * c, threads)
