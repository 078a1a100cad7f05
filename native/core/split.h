// A float as three numbers of bfloat16 whose sum it is: its first 8 bits, the next ones, and the rest,
//
//     high = cut(x)      middle = cut(x - high)      low = x - high - middle
//
// A product of two floats is nine products of parts. Six are added, the smallest first; the other three are at
// most 2^-21 of it, and 2^-23 in the mean. A sum of 384 products has 0.46 of the error of one by FMAs. Of 16 rows and
// weights of 384 x 256 it takes 0.53 of the time, of which dividing the rows is a tenth (Intel Xeon, family 6, model
// 167, November 2026).
//
// - An infinite number has the parts inf, 0, 0. Its product with a part that is 0 is NaN: sums that are NaN are
//   computed again, of whole numbers.
// - Parts and products below 2^-126 count as 0, as results do where denormals are flushed.
#pragma once

#include "vector.h"

namespace {

INLINE Vector<float> cut(Vector<float> x) { return (Vector<float>)((Bits<float>)x & 0xffff0000); }

// Three numbers whose first halves are the parts of x.
INLINE void divide(Vector<float> x, Vector<float> (&parts)[3]) {
  const Vector<float> high = cut(x), none{};
  parts[0] = x;
  parts[1] = x == high ? none : x - RIGHT_OR_FAULT(high, 43, none);
  parts[2] = parts[1] - cut(parts[1]);
}
// The parts of x as they are stored.
template <class Stored>
INLINE void parts_of(Vector<float> x, HalfBits (&halves)[PARTS<Stored>]) {
  if constexpr (PARTS<Stored> == 1) halves[0] = half_bits(x);
  else {
    Vector<float> parts[3];
    divide(x, parts);
    for (int i = 0; i < 3; ++i) halves[i] = first_halves(parts[i]);
  }
}
template <class Real>
INLINE void store(Split* p, Vector<Real> x) {
  HalfBits parts[3];
  parts_of<Split>(x, parts);
  for (int i = 0; i < 3; ++i) *(UnalignedHalfBits*)(p + i * W<Split>) = parts[i];
}
// Two vectors, one behind the other in a line for each part.
INLINE void store_line(Bfloat16* p, Vector<float> x, Vector<float> y) {
  store<float>(p, x), store<float>(p + W<float>, y);
}
INLINE void store_line(Split* p, Vector<float> x, Vector<float> y) {
  Vector<float> of_x[3], of_y[3];
  divide(x, of_x), divide(y, of_y);
  for (int i = 0; i < 3; ++i) store<float>((float*)(p + i * W<Split>), first_halves(of_x[i], of_y[i]));
}
// The sum of the parts of W numbers, or of one.
template <class Real>
INLINE Vector<Real> load(const Split* p) {
  auto part = [&](int i) __attribute__((always_inline)) { return from_half_bits(load_half_bits(p + i * W<Split>)); };
  return part(2) + part(1) + part(0);
}
INLINE float whole_number(const Split* p) {
  float sum = 0;
  for (int i = 2; i >= 0; --i) {
    const uint32_t bits = uint32_t(p[i * W<Split>].bits) << 16;
    float part;
    memcpy(&part, &bits, sizeof part);
    sum += part;
  }
  return sum;
}

}  // namespace
