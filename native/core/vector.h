// Vectors of the compiler's own, one register wide: the same source for every instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512BF16__) || defined(JRNN_AMX)
#include <immintrin.h>  // for instructions that the compiler's vectors do not have
#endif

#define INLINE inline __attribute__((always_inline))
#define OWN_COPY __attribute__((noinline, noclone))  // one copy serves all calls: the library is built in less time

// Mutants, compiled with -DFAULT=n: the test program must find each. Fault n puts `wrong` in the
// place of `right`.
#ifdef FAULT
#define RIGHT_OR_FAULT(right, n, wrong) (FAULT == (n) ? (wrong) : (right))
#else
#define RIGHT_OR_FAULT(right, n, wrong) (right)
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#else
constexpr int VECTOR_BYTES = 32;
#endif
constexpr int LINE_BYTES = 64;  // of a cache

template <class Real>
struct Types;
template <>
struct Types<float> {
  typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Types<double> {
  typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
  typedef uint64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
};
template <class Real>
using Vector = typename Types<Real>::Vector;
template <class Real>
using Bits = typename Types<Real>::Bits;

// W: the numbers in a vector. A panel is W columns of a matrix.
template <class Real>
constexpr int W = VECTOR_BYTES / int(sizeof(Real));

template <class Real>
INLINE Vector<Real> load(const Real* p) {
  return *(const typename Types<Real>::Unaligned*)p;
}
template <class Real>
INLINE void store(Real* p, Vector<Real> v) {
  *(typename Types<Real>::Unaligned*)p = v;
}
template <class Real>
INLINE Vector<Real> broadcast(Real x) {
  return x - Vector<Real>{};  // x - 0 is x, -0 included
}

// --- numbers as they are stored -------------------------------------------------------------------
// Operands of matmuls are of a type `Stored`, outputs of a type `OutputOf` it. Everything is computed in
// a type Real. Three are possible:
//
//     Stored     OutputOf   Real
//     Real       Real       float, double
//     Bfloat16   Bfloat16   float, rounded; vdpbf16ps multiplies twice as many pairs as an FMA multiplies
//                           numbers: 230 GFLOP/s on one core instead of 115 (AMD EPYC, Zen 4, November 2026)
//     Split      float      float, whole: for tiles of AMX, see split.h

struct Bfloat16 {
  uint16_t bits;
};
struct Split {
  uint16_t bits;
};
template <class Stored>
struct Computed {
  typedef Stored Real, Output;
  static constexpr int PARTS = 1;
};
template <>
struct Computed<Bfloat16> : Computed<float> {
  typedef Bfloat16 Output;
};
template <>
struct Computed<Split> : Computed<float> {
  static constexpr int PARTS = 3;
};
template <class Stored>
using RealOf = typename Computed<Stored>::Real;
template <class Stored>
using OutputOf = typename Computed<Stored>::Output;
// The numbers of bfloat16 that one number is stored in.
template <class Stored>
constexpr int PARTS = Computed<Stored>::PARTS;
template <class Stored>
constexpr bool is_rounded = W<OutputOf<Stored>> != W<RealOf<Stored>>;
// The numbers beside each other that are one term of a sum: see gemm.h.
template <class Stored>
constexpr int NUMBERS = W<Stored> / W<RealOf<Stored>>;
// A row of a panel has W numbers, and each part of them has a line of its own.
template <class Stored>
constexpr int ROW = W<Stored> * PARTS<Stored>;

typedef uint16_t HalfBits __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t UnalignedHalfBits __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));

// To the nearest, ties to even; NaN stays.
INLINE HalfBits half_bits(Vector<float> x) {
#if defined(__AVX512BF16__)
  return (HalfBits)_mm512_cvtneps_pbh((__m512)x);
#else
  const Bits<float> bits = (Bits<float>)x;
  const Bits<float> rounded = (bits + RIGHT_OR_FAULT(0x7fff, 36, 0) + (bits >> 16 & 1)) >> 16;
  return __builtin_convertvector((Bits<float>)(x == x ? rounded : (bits >> 16 | 0x40)), HalfBits);
#endif
}
INLINE Vector<float> from_half_bits(HalfBits x) {
  return (Vector<float>)(__builtin_convertvector(x, Bits<float>) << 16);
}
// The first half of each number. With the instruction that moves halves as they are named, where the compiler
// takes three for this and four for the next function.
INLINE HalfBits first_halves(Vector<float> x) {
#if defined(__AVX512BF16__)
  const Halves odd = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const Halves moved = (Halves)_mm512_permutexvar_epi16((__m512i)odd, (__m512i)x);
  HalfBits first;
  memcpy(&first, &moved, sizeof first);
  return first;
#else
  return __builtin_convertvector((Bits<float>)x >> 16, HalfBits);
#endif
}
// The same of x, and of y behind them.
INLINE Vector<float> first_halves(Vector<float> x, Vector<float> y) {
#if defined(__AVX512BF16__)
  const Halves odd = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return (Vector<float>)_mm512_permutex2var_epi16((__m512i)x, (__m512i)odd, (__m512i)y);
#else
  const HalfBits both[2] = {first_halves(x), first_halves(y)};
  return load<float>((const float*)both);
#endif
}
template <class Stored>
INLINE HalfBits load_half_bits(const Stored* p) { return *(const UnalignedHalfBits*)p; }
// Numbers a, and b behind each of them.
template <class Stored>
INLINE void store_pairs(Stored* p, HalfBits a, HalfBits b) {
#if defined(__AVX512BF16__)
  const Halves order = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                        8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i one = _mm512_castsi256_si512((__m256i)a), other = _mm512_castsi256_si512((__m256i)b);
  const __m512i pairs = _mm512_permutex2var_epi16(one, (__m512i)order, other);
#else
  const Bits<float> pairs = __builtin_convertvector(a, Bits<float>) | __builtin_convertvector(b, Bits<float>) << 16;
#endif
  store<float>((float*)p, (Vector<float>)pairs);
}
template <class Real>
INLINE Vector<Real> load(const Bfloat16* p) {
  return from_half_bits(load_half_bits(p));
}
template <class Real>
INLINE void store(Bfloat16* p, Vector<Real> v) {
  *(UnalignedHalfBits*)p = half_bits(v);
}
template <class Stored>
INLINE Vector<RealOf<Stored>> rounded(Vector<RealOf<Stored>> x) {
  if constexpr (is_rounded<Stored>) return from_half_bits(half_bits(x));
  else return x;
}

// The first n of HALF * 2 numbers, by halves: a loop of n turns costs several times as much.
template <class Real, int HALF>
struct Some {
  static INLINE void copy(Real* to, const Real* from, int n) {
    if (n & HALF) {
      memcpy(to, from, HALF * sizeof(Real));
      to += HALF, from += HALF;
    }
    Some<Real, HALF / 2>::copy(to, from, n);
  }
};
template <class Real>
struct Some<Real, 0> {
  static INLINE void copy(Real*, const Real*, int) {}
};

// n <= W numbers; the others of the vector are 0, or are not stored.
template <class Real>
INLINE Vector<Real> load(const Real* p, int n) {
  if (n == W<Real>) return load(p);
  Vector<Real> v{};
  Some<Real, W<Real> / 2>::copy((Real*)&v, p, n);
  return v;
}
template <class Real>
INLINE void store(Real* p, Vector<Real> v, int n) {
  if (n == W<Real>) return store(p, v);
  Some<Real, W<Real> / 2>::copy(p, (const Real*)&v, n);
}
// The first n numbers of a vector, and zeros.
template <class Real>
INLINE Vector<Real> first_of(Vector<Real> v, int n) {
  return load<Real>((const Real*)&v, n);
}
template <class Real>
INLINE Vector<Real> load(const Bfloat16* p, int n) {
  if (n == W<Real>) return load<Real>(p);
  HalfBits bits{};
  Some<Bfloat16, W<Real> / 2>::copy((Bfloat16*)&bits, p, n);
  return from_half_bits(bits);
}
template <class Real>
INLINE void store(Bfloat16* p, Vector<Real> v, int n) {
  if (n == W<Real>) return store<Real>(p, v);
  const HalfBits bits = half_bits(v);
  Some<Bfloat16, W<Real> / 2>::copy(p, (const Bfloat16*)&bits, n);
}

template <class Integer>
constexpr Integer smaller(Integer a, Integer b) {
  return a < b ? a : b;
}
template <class Integer>
constexpr Integer larger(Integer a, Integer b) {
  return a > b ? a : b;
}
template <class Real>
constexpr int64_t panels(int64_t columns) {
  return (columns + W<Real> - 1) / W<Real>;
}
// The columns of panel p that there are.
template <class Real>
INLINE int width(int64_t columns, int64_t p) {
  return int(smaller<int64_t>(W<Real>, columns - p * W<Real>));
}

}  // namespace
