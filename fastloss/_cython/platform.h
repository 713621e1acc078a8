/* What Cython cannot say: fused multiply-add, bit reinterpretation, prefetching, atomic counters, float16, CPU features. */
#ifndef FASTLOSS_PLATFORM_H
#define FASTLOSS_PLATFORM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Explicit fma where it is one instruction. A libm call would be exact too, and a hundred times slower. */
#if defined(__FMA__) || defined(__aarch64__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_fma)
#define FASTLOSS_HAS_FMA 1
#define fma_f32(a, b, c) __builtin_fmaf((a), (b), (c))
#define fma_f64(a, b, c) __builtin_fma((a), (b), (c))
#elif defined(_MSC_VER) && (defined(__AVX2__) || defined(_M_ARM64))
#define FASTLOSS_HAS_FMA 1
#define fma_f32(a, b, c) fmaf((a), (b), (c))
#define fma_f64(a, b, c) fma((a), (b), (c))
#else
#define FASTLOSS_HAS_FMA 0
#define fma_f32(a, b, c) ((a) * (b) + (c))
#define fma_f64(a, b, c) ((a) * (b) + (c))
#endif

/* Bytes in the longest vectors of the CPU level. */
#ifdef __AVX512F__
#define FASTLOSS_VECTOR 64
#else
#define FASTLOSS_VECTOR 32
#endif

typedef float *__restrict out_f32;
typedef double *__restrict out_f64;

#define abs_f32(x) fabsf(x)
#define abs_f64(x) fabs(x)

static inline uint32_t bits_f32(float x) { uint32_t k; memcpy(&k, &x, sizeof k); return k; }
static inline uint64_t bits_f64(double x) { uint64_t k; memcpy(&k, &x, sizeof k); return k; }
static inline float from_bits_f32(uint32_t k) { float x; memcpy(&x, &k, sizeof x); return x; }
static inline double from_bits_f64(uint64_t k) { double x; memcpy(&x, &k, sizeof x); return x; }

#if defined(__GNUC__) || defined(__clang__)
#define prefetch(p) __builtin_prefetch(p)
#else
#define prefetch(p) ((void)(p))
#endif

#if defined(__GNUC__) || defined(__clang__)
#define atomic_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define atomic_swap(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define atomic_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#else
#include <intrin.h>
#define atomic_add(p, v) _InterlockedExchangeAdd64((p), (v))
#define atomic_swap(p, v) _InterlockedExchange64((p), (v))
#define atomic_load(p) _InterlockedExchangeAdd64((p), 0)
#endif

/* The CPU that the calling thread runs on, and a way to another one if it may use any: back to all of them thereafter. */
#ifdef __linux__
#include <sched.h>
#define this_cpu() sched_getcpu()
static inline void leave_cpu(int cpu) {
    cpu_set_t allowed, others;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
#define this_cpu() (-1)
#define leave_cpu(cpu) ((void)(cpu))
#endif

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define yield_core() ((void)SwitchToThread())
#else
#include <sched.h>
#define yield_core() ((void)sched_yield())
#endif

/* As many float16 as fit into vectors, converted by the CPU; returns how many, the caller does the rest. */
#ifdef __F16C__
#include <immintrin.h>
static inline ptrdiff_t halves_to_f32(const uint16_t *h, float *x, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(h + i))));
    return i;
}
static inline ptrdiff_t f32_to_halves(const float *x, uint16_t *h, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}
#else
#define halves_to_f32(h, x, n) ((ptrdiff_t)0)
#define f32_to_halves(x, h, n) ((ptrdiff_t)0)
#endif

/* 1: x86-64 baseline (or another architecture), 3: AVX2 and FMA, 4: AVX-512 as in x86-64-v4. */
static inline int fastloss_cpu_level(void) {
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")))
        return 1;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") ? 4 : 3;
#elif defined(_M_X64)
    __declspec(dllimport) int __stdcall IsProcessorFeaturePresent(unsigned long);
    /* PF_AVX2_INSTRUCTIONS_AVAILABLE, PF_AVX512F_INSTRUCTIONS_AVAILABLE */
    return IsProcessorFeaturePresent(40) ? (IsProcessorFeaturePresent(41) ? 4 : 3) : 1;
#else
    return 1;
#endif
}

/* Whether 512-bit vectors pay where there are any: CPUs before Ice Lake and Zen 4 lower their clock for them. */
static inline int fastloss_long_vectors_pay(void) {
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vbmi2") != 0;
#else
    return 0;
#endif
}

#endif
