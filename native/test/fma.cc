// What the processor can do at most: FMAs on registers, nothing else. Compiled for each instruction
// set, as the core is.
#include "vector.h"

#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

// Runs n turns; returns the floating-point operations.
extern "C" double JOIN(fma_, JRNN_ISA)(int64_t n);
extern "C" double JOIN(fma_, JRNN_ISA)(int64_t n) {
  constexpr int SUMS = 12;
  Vector<float> sums[SUMS], a = broadcast(0.999f), b = broadcast(1e-3f);
  for (int k = 0; k < SUMS; ++k) sums[k] = broadcast(float(k));  // equal sums would be computed once
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < SUMS; ++k) sums[k] = sums[k] * a + b;
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (int k = 0; k < SUMS; ++k) asm volatile("" : : "x"(sums[k]));
  return 2. * W<float> * SUMS * double(n);
}
