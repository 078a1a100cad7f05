// What the processor can do at most: multiplications and additions on registers, nothing else. Compiled
// for each instruction set, as the core is.
#include "gemm.h"

#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

#if defined(JRNN_BF16)
using Stored = Bfloat16;
#else
using Stored = float;
#endif

// Runs n turns; returns the floating-point operations.
extern "C" double JOIN(fma_, JRNN_ISA)(int64_t n);
extern "C" double JOIN(fma_, JRNN_ISA)(int64_t n) {
  constexpr int SUMS = 12;
  const Stored numbers[2 * W<Stored>] = {};
  auto a = Terms<Stored>::each(numbers, 0), b = Terms<Stored>::each(numbers + W<Stored>, 0);
  Vector<float> sums[SUMS];
  for (int k = 0; k < SUMS; ++k) sums[k] = broadcast(float(k));  // equal sums would be computed once
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < SUMS; ++k) Terms<Stored>::add(sums[k], a, b);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (int k = 0; k < SUMS; ++k) asm volatile("" : : "x"(sums[k]));
  return 2. * W<Stored> * SUMS * double(n);
}
