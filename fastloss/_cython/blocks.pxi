# What all kernels share: conversion of dtypes chunk by chunk, weights, masks, sums.

ctypedef fused number:
    float
    double
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t


cdef inline void _cast(const number* source, real* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = <real>source[i]


cdef inline void _from_half(const uint16_t* source, real* target, Py_ssize_t n) noexcept nogil:
    # Moving exponent and fraction into place and multiplying by 2^112 is exact, subnormals included.
    cdef Py_ssize_t i, done = 0
    cdef uint32_t h, magnitude, k
    cdef float v
    if real is float:
        done = halves_to_f32(source, target, n)
    for i in range(done, n):
        h = source[i]
        magnitude = (h & <uint32_t>0x7FFF) << 13
        v = from_bits_f32(magnitude) * <float>5.192296858534828e33
        k = bits_f32(v)
        k = (k | <uint32_t>0x7F800000) if magnitude >= <uint32_t>0x0F800000 else k
        target[i] = <real>from_bits_f32(k | ((h & <uint32_t>0x8000) << 16))


cdef inline void _to_half(const real* source, uint16_t* target, Py_ssize_t n) noexcept nogil:
    # Round to nearest even: by integer arithmetic where the result is normal, by adding 0.5 where it is not.
    # NaN keeps what fits of its payload, as the CPU's own conversion does.
    cdef Py_ssize_t i, done = 0
    cdef uint32_t k, sign, magnitude, normal, subnormal, h
    if real is float:
        done = f32_to_halves(source, target, n)
    for i in range(done, n):
        k = bits_f32(<float>source[i])
        sign = (k >> 16) & <uint32_t>0x8000
        magnitude = k & <uint32_t>0x7FFFFFFF
        normal = (magnitude + <uint32_t>0xC8000FFF + ((magnitude >> 13) & <uint32_t>1)) >> 13
        subnormal = bits_f32(from_bits_f32(magnitude) + <float>0.5) - <uint32_t>0x3F000000
        h = subnormal if magnitude < <uint32_t>0x38800000 else normal
        h = <uint32_t>0x7C00 if magnitude >= <uint32_t>0x477FF000 else h
        h = (<uint32_t>0x7E00 | (magnitude >> 13) & <uint32_t>0x3FF) if magnitude > <uint32_t>0x7F800000 else h
        target[i] = <uint16_t>(h | sign)


cdef inline void _from_bfloat(const uint16_t* source, real* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = <real>from_bits_f32(<uint32_t>source[i] << 16)


cdef inline void _to_bfloat(const real* source, uint16_t* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t k, rounded
    for i in range(n):
        k = bits_f32(<float>source[i])
        rounded = (k + <uint32_t>0x7FFF + ((k >> 16) & <uint32_t>1)) >> 16
        rounded = ((k >> 16) | <uint32_t>0x40) if (k & <uint32_t>0x7FFFFFFF) > <uint32_t>0x7F800000 else rounded
        target[i] = <uint16_t>rounded


cdef void load(Code code, const void* source, Py_ssize_t start, real* target, Py_ssize_t n) noexcept nogil:
    # Elements start to start + n of an array of any dtype, in the type that kernels compute in.
    if code == F32:
        _cast(<const float*>source + start, target, n)
    elif code == F64:
        _cast(<const double*>source + start, target, n)
    elif code == F16:
        _from_half(<const uint16_t*>source + start, target, n)
    elif code == BF16:
        _from_bfloat(<const uint16_t*>source + start, target, n)
    elif code == I8:
        _cast(<const int8_t*>source + start, target, n)
    elif code == I16:
        _cast(<const int16_t*>source + start, target, n)
    elif code == I32:
        _cast(<const int32_t*>source + start, target, n)
    elif code == I64:
        _cast(<const int64_t*>source + start, target, n)
    elif code == U8:
        _cast(<const uint8_t*>source + start, target, n)
    elif code == U16:
        _cast(<const uint16_t*>source + start, target, n)
    elif code == U32:
        _cast(<const uint32_t*>source + start, target, n)
    else:
        _cast(<const uint64_t*>source + start, target, n)


cdef void store(Code code, const real* source, void* target, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    # The way back; integers are never written.
    if code == F32:
        _cast(source, <float*>target + start, n)
    elif code == F64:
        _cast(source, <double*>target + start, n)
    elif code == F16:
        _to_half(source, <uint16_t*>target + start, n)
    else:
        _to_bfloat(source, <uint16_t*>target + start, n)


ctypedef fused integer:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t


cdef inline void _cast_index(const integer* source, int64_t* target, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = source[i]


cdef void load_indices(Code code, const void* source, Py_ssize_t start, int64_t* target, Py_ssize_t n) noexcept nogil:
    # Classes or actions start to start + n; an unsigned value beyond int64 stays out of range.
    cdef Py_ssize_t i
    cdef uint64_t u
    if code == I64:
        _cast_index(<const int64_t*>source + start, target, n)
    elif code == I32:
        _cast_index(<const int32_t*>source + start, target, n)
    elif code == U8:
        _cast_index(<const uint8_t*>source + start, target, n)
    elif code == I8:
        _cast_index(<const int8_t*>source + start, target, n)
    elif code == I16:
        _cast_index(<const int16_t*>source + start, target, n)
    elif code == U16:
        _cast_index(<const uint16_t*>source + start, target, n)
    elif code == U32:
        _cast_index(<const uint32_t*>source + start, target, n)
    else:
        for i in range(n):
            u = (<const uint64_t*>source)[start + i]
            target[i] = INT64_MAX if u > <uint64_t>INT64_MAX else <int64_t>u


cdef inline bint is_native(Code code, const real* _) noexcept nogil:
    # Whether arrays of this dtype can be used where they are.
    if real is float:
        return code == F32
    else:
        return code == F64


cdef inline Py_ssize_t bytes_of(Code code) noexcept nogil:
    # Size of an element of predictions and gradients.
    return 8 if code == F64 else (4 if code == F32 else 2)


cdef inline void fetch(const void* p, Py_ssize_t size) noexcept nogil:
    # Bring memory into the cache while the core is busy with other things.
    cdef Py_ssize_t k
    for k in range(size // 64):
        prefetch(<const char*>p + 64 * k)


cdef inline void fetch_entries(const Entries* e, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    # Weights and flags that each entry has its own of.
    cdef Py_ssize_t size = bytes_of(e.weight_code)
    if e.weight != NULL and e.weight_run == 1:
        fetch(<const char*>e.weight + start * size, n * size)
    if e.mask != NULL and e.mask_run == 1:
        fetch(e.mask + start, n)


cdef void load_weights(const Entries* e, Py_ssize_t start, real* target, Py_ssize_t n) noexcept nogil:
    # Weights of entries start to start + n; one value may stand for a run of entries.
    cdef Py_ssize_t i = 0, j, end, k = start // e.weight_run
    cdef real value
    if e.weight_run == 1:
        load(e.weight_code, e.weight, start, target, n)
        return
    while i < n:
        load(e.weight_code, e.weight, k, &value, 1)
        k += 1
        end = min(n, k * e.weight_run - start)
        for j in range(i, end):
            target[j] = value
        i = end


cdef const uint8_t* load_mask(const Entries* e, Py_ssize_t start, uint8_t* room, Py_ssize_t n) noexcept nogil:
    # Flags of entries start to start + n, in place where there is one per entry.
    cdef Py_ssize_t i = 0, end, k = start // e.mask_run
    if e.mask_run == 1:
        return e.mask + start
    while i < n:
        end = min(n, (k + 1) * e.mask_run - start)
        memset(room + i, e.mask[k], end - i)
        k += 1
        i = end
    return room


cdef inline bint is_moderate(double scale) noexcept nogil:
    # Whether float32 gradients can be scaled by it as the sum of two float32: neither it nor its rest is subnormal.
    return 8.27180612553028e-25 <= abs_f64(scale) <= 1.2089258196146292e24  # 2^-80, 2^80


ctypedef fused weight_real:
    float
    double


cdef void weigh(real* values, const weight_real* weights, double scale, Py_ssize_t n) noexcept nogil:
    # Multiply results by weights and a common factor, in double, rounding once.
    cdef Py_ssize_t i
    for i in range(n):
        values[i] = <real>(<double>values[i] * (<double>weights[i] * scale))


cdef inline bint is_narrow(const Entries* e) noexcept nogil:
    # Whether weigh_f32() is used: by type and scale, not by values. A product that is larger than the result does not
    # vanish before it.
    return e.weight != NULL and e.weight_code == F32 and e.code == F32 and 8.27180612553028e-25 <= e.scale <= 1.0


cdef void weigh_f32(const float* values, const float* weights, double scale, float* target, Py_ssize_t n) noexcept nogil:
    # weigh() in float32, at half its price: product and scale are two float32 each, and their product is rounded once.
    # No part of the scale is negative, so that a zero keeps its sign.
    cdef Py_ssize_t i
    cdef float high = toward_zero(scale), low = <float>(scale - high), product, excess
    cdef uint32_t most = 0
    for i in range(n):
        product = values[i] * weights[i]
        excess = fma_f32(-values[i], weights[i], product)
        most = max(most, bits_f32(product) & <uint32_t>0x7FFFFFFF)
        target[i] = fma_f32(product, high, fma_f32(product, low, -(excess * high)))
    if most >= bits_f32(<float>INFINITY):
        # What is infinite or NaN, and products that only the scale brings back into float32's range.
        for i in range(n):
            if not abs_f32(values[i] * weights[i]) < <float>INFINITY:
                target[i] = <float>(<double>values[i] * (<double>weights[i] * scale))


cdef inline real if_kept(real v, uint8_t kept) noexcept nogil:
    # v or 0, by bits: v may be NaN.
    if real is float:
        return from_bits_f32(bits_f32(v) & (<uint32_t>0 - <uint32_t>(kept != 0)))
    else:
        return from_bits_f64(bits_f64(v) & (<uint64_t>0 - <uint64_t>(kept != 0)))


cdef void select(real* values, real* more, const uint8_t* mask, Py_ssize_t n) noexcept nogil:
    # Clear what a mask leaves out, in one array of results or in two.
    cdef Py_ssize_t i
    cdef real a, b
    if more == NULL:
        for i in range(n):
            values[i] = if_kept(values[i], mask[i])
    else:
        for i in range(n):
            a = if_kept(values[i], mask[i])
            b = if_kept(more[i], mask[i])
            values[i] = a
            more[i] = b


cdef void add_lanes(double* lanes, const real* values, Py_ssize_t n) noexcept nogil:
    # lanes[i % LANES] += values[i]: independent sums in a fixed order, which the compiler vectorises.
    cdef Py_ssize_t i, j, quads = n // (4 * LANES), rows = n // LANES
    cdef const real* v
    for i in range(quads):
        # Four rows of lanes at a time halve the traffic; the order of the additions stays.
        v = values + i * 4 * LANES
        for j in range(LANES):
            lanes[j] = (((lanes[j] + <double>v[j]) + <double>v[LANES + j]) + <double>v[2 * LANES + j]) + <double>v[3 * LANES + j]
    for i in range(4 * quads, rows):
        for j in range(LANES):
            lanes[j] = lanes[j] + <double>values[i * LANES + j]
    for j in range(n - rows * LANES):
        lanes[j] = lanes[j] + <double>values[rows * LANES + j]


cdef const weight_real* kept_weights(const Entries* e, Py_ssize_t start, const uint8_t* mask, weight_real* room, Py_ssize_t n) noexcept nogil:
    # Weights of entries start to start + n, where they are if that will do; 1 where there are none, 0 where masked.
    cdef Py_ssize_t i
    cdef const weight_real* w = room
    if e.weight == NULL:
        for i in range(n):
            room[i] = <weight_real>1.0
    elif e.weight_run == 1 and is_native(e.weight_code, room):
        w = <const weight_real*>e.weight + start
    else:
        load_weights(e, start, room, n)
    if mask == NULL:
        return w
    for i in range(n):
        room[i] = if_kept(w[i], mask[i])
    return room


cdef inline double plus_product(double sum, real v, weight_real w) noexcept nogil:
    # In double; of two float32 the product is exact there, so that fma changes nothing but the time.
    if real is float and weight_real is float:
        return fma_f64(v, w, sum)
    else:
        return sum + <double>v * <double>w


cdef void add_weighed(double* lanes, const real* values, const weight_real* weights, Py_ssize_t n) noexcept nogil:
    # add_lanes() of products, which are not rounded to the values' type.
    cdef Py_ssize_t i, j, quads = n // (4 * LANES), rows = n // LANES
    cdef const real* v
    cdef const weight_real* w
    for i in range(quads):
        v = values + i * 4 * LANES
        w = weights + i * 4 * LANES
        for j in range(LANES):
            lanes[j] = plus_product(plus_product(plus_product(plus_product(
                lanes[j], v[j], w[j]), v[LANES + j], w[LANES + j]), v[2 * LANES + j], w[2 * LANES + j]),
                v[3 * LANES + j], w[3 * LANES + j])
    for i in range(4 * quads, rows):
        for j in range(LANES):
            lanes[j] = plus_product(lanes[j], values[i * LANES + j], weights[i * LANES + j])
    for j in range(n - rows * LANES):
        lanes[j] = plus_product(lanes[j], values[rows * LANES + j], weights[rows * LANES + j])


cdef inline void add_and_weigh(double* lanes, const real* values, real* grads, const double* weights,
                               const uint8_t* mask, double scale, Py_ssize_t n) noexcept nogil:
    # add_weighed() and weigh() in one pass; a mask applies to the weights.
    cdef Py_ssize_t i, j, k
    cdef double w
    for i in range(n // LANES):
        for j in range(LANES):
            k = i * LANES + j
            w = weights[k] if mask == NULL else if_kept(weights[k], mask[k])
            lanes[j] = plus_product(lanes[j], values[k], w)
            grads[k] = <real>(<double>grads[k] * (w * scale))
    i = n // LANES * LANES
    for j in range(n - i):
        w = weights[i + j] if mask == NULL else if_kept(weights[i + j], mask[i + j])
        lanes[j] = plus_product(lanes[j], values[i + j], w)
        grads[i + j] = <real>(<double>grads[i + j] * (w * scale))


cdef void add_squares(double* lanes, const real* values, const double* weights, Py_ssize_t n) noexcept nogil:
    # add_weighed() of squares; weights may be NULL. Taken in this order, a product is in range wherever the whole is.
    cdef Py_ssize_t i, j
    cdef double v
    for i in range((n + LANES - 1) // LANES):
        for j in range(min(n - i * LANES, LANES)):
            v = values[i * LANES + j]
            lanes[j] = lanes[j] + (v if weights == NULL else v * weights[i * LANES + j]) * v


cdef void clear_lanes(double* lanes) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(LANES):
        lanes[j] = 0.0


cdef double total(double* v) noexcept nogil:
    # Sum of the lanes by halving, in loops of known length: one loop over all levels takes ten times as long.
    cdef Py_ssize_t j
    for j in range(32):
        v[j] = v[j] + v[j + 32]
    for j in range(16):
        v[j] = v[j] + v[j + 16]
    for j in range(8):
        v[j] = v[j] + v[j + 8]
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))


cdef inline void add_chunk(double* sums, double v) noexcept nogil:
    # A sum and what its roundings lost: of 100 chunks they would be felt in float64.
    cdef double s = sums[0] + v, part = s - sums[0]
    sums[1] += (sums[0] - (s - part)) + (v - part)
    sums[0] = s


cdef double exact_total(const double* v, Py_ssize_t n) noexcept nogil:
    # Correctly rounded sum of the blocks' sums, as of _blocks.exact_sum in a tenth of its time; NaN where that is not
    # certain: infinite, or so close to the middle of two floats that what the sum of the lost parts lost may decide.
    cdef Py_ssize_t i
    cdef double[2] sums = [0.0, 0.0]
    cdef double size = 0.0, lost, off
    for i in range(n):
        add_chunk(sums, v[i])
        size += abs_f64(v[i])
    lost = sums[1]
    sums[1] = 0.0
    add_chunk(sums, lost)
    # Four times n^2 u^2 of the terms' size, u = 2^-53; and more than what adding it to the rest is rounded by.
    off = <double>n * <double>n * size * 4.9303806576313238e-32 + abs_f64(sums[1]) * 8.8817841970012523e-16
    return sums[0] if sums[0] + (sums[1] + off) == sums[0] and sums[0] + (sums[1] - off) == sums[0] else <double>NAN


cdef inline Py_ssize_t before_line(const real* p) noexcept nogil:
    # Elements before the next cache line begins, if vectors are as long as a line: one on two lines is loaded as two.
    return (-<Py_ssize_t>p & (FASTLOSS_VECTOR - 1)) // <Py_ssize_t>sizeof(real) if FASTLOSS_VECTOR == 64 else 0


cdef void rotate(double* lanes, Py_ssize_t k) noexcept nogil:
    # Make lanes that were counted from the k-th on count from the first.
    cdef double last[LANES]
    if k > 0:
        memcpy(last, lanes + LANES - k, k * sizeof(double))
        memmove(lanes + k, lanes, (LANES - k) * sizeof(double))
        memcpy(lanes, last, k * sizeof(double))


cdef inline double weight_at(const Entries* e, Py_ssize_t i) noexcept nogil:
    cdef double w
    load(e.weight_code, e.weight, i // e.weight_run, &w, 1)
    return w
