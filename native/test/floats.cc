// tanh and sigmoid against the C library's in double, in units in the last place.
#include <cmath>
#include <cstdio>
#include <mutex>

#include "calls.h"
#include "programs.h"

namespace test {
namespace {

constexpr double SIGMOID_IS_0 = -87.33;  // below, e^x is smaller than any normal float

double unit_in_last_place(double x) {
  int exponent;
  frexp(x, &exponent);
  return ldexp(1, std::max(exponent - 24, -149));
}
bool flushed(float x) { return std::fabs(x) < 1.17549435e-38f; }

// The error of phi(x) = y; NaN and the sign of 0 count.
double error_of(int which, float x, float y) {
  if (std::isnan(x)) return std::isnan(y) ? 0 : INFINITY;
  if (which == JRNN_SIGMOID && x < SIGMOID_IS_0) return y >= 0 && y < 1.3e-38f ? 0 : INFINITY;
  if (which == JRNN_TANH && std::signbit(x) != std::signbit(y)) return INFINITY;
  if (which == JRNN_TANH && flushed(x)) return y == 0 ? 0 : INFINITY;
  const double exact = which == JRNN_TANH ? std::tanh(double(x)) : 1 / (1 + std::exp(-double(x)));
  const double e = std::fabs(y - exact) / unit_in_last_place(exact);
  return std::isnan(e) ? INFINITY : e;
}

float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// The largest error of the floats first, first + step, ...
double largest_error(const JrnnCore& core, int which, uint32_t first, uint32_t count, uint32_t step, float* where) {
  Array<float> x(count), y(count);
  for (uint32_t i = 0; i < count; ++i) x[i] = float_of(first + i * step);
  core.f32.phi(which, x.data(), y.data(), count);
  double most = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const double e = error_of(which, x[i], y[i]);
    if (e > most) most = e, *where = x[i];
  }
  return most;
}

const char* name_of(int which) { return which == JRNN_TANH ? "tanh" : "sigmoid"; }

void check_specials(const JrnnCore& core, const std::function<void(const std::string&)>& fail) {
  for (int which : {JRNN_TANH, JRNN_RELU, JRNN_SIGMOID, JRNN_IDENTITY}) {
    const float x[] = {NAN, -NAN, INFINITY, -INFINITY, 0.f, -0.f, 1e-39f, 3.4e38f, -3.4e38f};
    const float t[] = {NAN, NAN, 1, -1, 0.f, -0.f, 0, 1, -1}, s[] = {NAN, NAN, 1, 0, .5f, .5f, .5f, 1, 0};
    const float r[] = {NAN, NAN, INFINITY, 0, 0, 0, 0, 3.4e38f, 0};
    const float* expected[] = {t, r, s, x};
    float y[9];
    core.f32.phi(which, x, y, 9);
    for (int i = 0; i < 9; ++i) {
      const float e = expected[which][i];
      const bool good = std::isnan(e) ? std::isnan(y[i]) : y[i] == e || (flushed(e) && flushed(y[i]));
      if (!good || (which == JRNN_TANH && e == 0 && std::signbit(x[i]) != std::signbit(y[i])))
        fail("phi " + std::to_string(which) + " of " + std::to_string(x[i]) + " is " + std::to_string(y[i]));
    }
  }
}

void check_doubles(const JrnnCore& core, const std::function<void(const std::string&)>& fail) {
  Array<double> x{NAN, INFINITY, -INFINITY, -0., 0, 708, -708, -745, 1e300, -1e300};
  for (int i = -100000; i <= 100000; ++i) x.push_back(i * 3.7e-4), x.push_back(std::ldexp(i * 1e-5, i % 600));
  for (int which : {JRNN_TANH, JRNN_SIGMOID}) {
    Array<double> y(x.size());
    core.f64.phi(which, x.data(), y.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = which == JRNN_TANH ? std::tanh(x[i]) : 1 / (1 + std::exp(-x[i]));
      const double most = which == JRNN_SIGMOID && x[i] < -708 ? 1e-307 : 1e-14 * std::fabs(exact);
      if (std::isnan(exact) ? !std::isnan(y[i]) : !(std::fabs(y[i] - exact) <= most))
        return fail(std::string(name_of(which)) + " of the double " + std::to_string(x[i]));
    }
  }
}

}  // namespace

void check_phi(const JrnnCore& core, const std::function<void(const std::string&)>& fail) {
  check_specials(core, fail);
  check_doubles(core, fail);
  for (int which : {JRNN_TANH, JRNN_SIGMOID}) {
    float where = 0;
    const double e = largest_error(core, which, 0, 1000003, 4295, &where);
    if (!(e <= 3))
      fail(std::string(name_of(which)) + " of " + std::to_string(where) + " is off by " + std::to_string(e));
  }
}

int all_floats(const JrnnCore& core, int threads) {
  constexpr int PARTS = 4096;
  constexpr uint32_t COUNT = uint32_t((1ull << 32) / PARTS);
  bool good = true;
  for (int which : {JRNN_TANH, JRNN_SIGMOID}) {
    std::mutex mutex;
    double most = 0;
    float where = 0;
    parallel(threads, PARTS, [&](int part) {
      float x = 0;
      const double e = largest_error(core, which, uint32_t(part) * COUNT, COUNT, 1, &x);
      std::lock_guard<std::mutex> lock(mutex);
      if (e > most) most = e, where = x;
    });
    printf("%s, %s: all floats within %.3f units in the last place, at %.9g\n", core.isa, name_of(which), most, where);
    good &= most <= 3;
  }
  return good ? 0 : 1;
}

}  // namespace test
