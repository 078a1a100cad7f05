/* The core behind XLA's foreign function interface: four handlers, and what Python asks the library.

   Every array of `core.h` is an argument or a result, in the order of its struct; one without
   elements stands for null. Python gives the sizes and the scratch, and everything is checked again
   here, so that a wrong call is an error and never a crash. */
#include <cstdint>
#include <cstring>
#include <string>

#include "../core/blocks.h"
#include "pages.h"
#include "pool.h"
#include "tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace jrnn {
namespace {

constexpr int64_t kBf16 = 16; /* of the attribute `bits`: 16, 32 or 64 */
constexpr int64_t kTiles = 1024, kAvx512 = 512, kAvx2 = 2; /* of the attribute `isa` */

#if defined(__x86_64__)
bool supports(int64_t isa) {
  if (isa == kTiles)
    return supports(kAvx512) && __builtin_cpu_supports("avx512bf16") && may_use_tiles();
  if (isa == kAvx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  return isa == kAvx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_bfloat16(int64_t isa) {
  return isa != kAvx2 && supports(isa) && __builtin_cpu_supports("avx512bf16");
}

template <typename Sizes>
const JrnnReal* real_of(int64_t isa, int64_t bits, const Sizes& s) {
  if (!supports(isa)) return nullptr;
  if (bits == kBf16) {
    if (!has_bfloat16(isa)) return nullptr;
    return isa == kTiles ? &jrnn_core_avx512amx.bf16 : &jrnn_core_avx512bf16.bf16;
  }
  if (bits == 32 && isa == kTiles && suits_tiles(s)) return &jrnn_core_avx512amx.f32;
  const JrnnCore& core = isa == kAvx2 ? jrnn_core_avx2 : jrnn_core_avx512;
  return bits == 64 ? &core.f64 : &core.f32;
}
#else
bool supports(int64_t) { return false; }
bool has_bfloat16(int64_t) { return false; }
template <typename Sizes>
const JrnnReal* real_of(int64_t, int64_t, const Sizes&) { return nullptr; }
#endif

/* The types of the arrays of a pass, and of hs and dhs. */
struct ArrayTypes {
  ffi::DataType real, stored;
};
ArrayTypes types_of(int64_t bits) {
  if (bits == 64) return {ffi::DataType::F64, ffi::DataType::F64};
  return {ffi::DataType::F32, bits == kBf16 ? ffi::DataType::BF16 : ffi::DataType::F32};
}

/* The buffers of a call, one after the other; remembers the first that does not fit. */
class Buffers {
 public:
  Buffers(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::DataType real)
      : args_(args), rets_(rets), real_(real) {}

  const void* argument(const char* name, int64_t count, bool needed = false) {
    return argument(name, count, needed, real_);
  }

  const void* argument(const char* name, int64_t count, bool needed, ffi::DataType type) {
    auto buffer = args_.get<ffi::AnyBuffer>(argument_++);
    if (!buffer.has_value()) return fail(name, "is missing");
    return checked(name, *buffer, count, needed, type);
  }

  void* result(const char* name, int64_t count, bool needed = false) {
    return result(name, count, needed, real_);
  }

  void* result(const char* name, int64_t count, bool needed, ffi::DataType type) {
    auto buffer = rets_.get<ffi::AnyBuffer>(result_++);
    if (!buffer.has_value()) return fail(name, "is missing");
    return checked(name, **buffer, count, needed, type);
  }

  const std::string& error() const { return error_; }
  ffi::RemainingRets results() const { return rets_; }

 private:
  void* checked(const char* name, const ffi::AnyBuffer& buffer, int64_t count, bool needed,
                ffi::DataType type) {
    int64_t elements = static_cast<int64_t>(buffer.element_count());
    if (elements == 0 && !needed) return nullptr;
    if (elements != count)
      return fail(name, "has " + std::to_string(elements) + " elements and not " +
                            std::to_string(count));
    if (buffer.element_type() != type) return fail(name, "has another type of elements");
    return buffer.untyped_data();
  }

  void* fail(const char* name, const std::string& what) {
    if (error_.empty()) error_ = std::string("jrnn native kernel: ") + name + " " + what;
    return nullptr;
  }

  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  ffi::DataType real_;
  size_t argument_ = 0, result_ = 0;
  std::string error_;
};

ffi::Error invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, message);
}

bool within(const JrnnSizes& s) {
  return s.T >= 1 && s.B >= 1 && s.H >= 1 && s.slices >= 1 && (s.I >= 1 || s.input == JRNN_ADDED) &&
         s.cell >= 0 && s.cell < JRNN_CELLS && s.phi >= 0 && s.phi <= JRNN_IDENTITY &&
         s.input >= 0 && s.input <= JRNN_ADDED;
}

/* One array for each state; a cell of one state has no other. */
template <typename Pointer, typename Take>
void states(const JrnnSizes& s, Pointer (&to)[JRNN_STATES], Take take) {
  to[0] = take(s.B * s.H);
  to[1] = take(s.cell == JRNN_LSTM ? s.B * s.H : 0);
}

JrnnInputs inputs(const JrnnSizes& s, Buffers& given) {
  bool ids = s.input == JRNN_IDS, added = s.input == JRNN_ADDED;
  CellBlocks blocks = blocks_of(s.cell);
  int64_t fed = blocks.each * s.H, width = ids ? 1 : added ? fed : s.I;
  JrnnInputs in = {};
  if (ids)
    in.xs = given.argument("xs", s.T * s.B, true, ffi::DataType::S32);
  else
    in.xs = given.argument("xs", s.T * s.B * width, true);
  in.w_ih = given.argument("w_ih", s.I * fed, !added);
  in.w_hh = given.argument("w_hh", s.H * fed, true);
  in.b = given.argument("b", blocks.all * s.H);
  states(s, in.start, [&](int64_t n) { return given.argument("start", n); });
  states(s, in.reset_state, [&](int64_t n) { return given.argument("reset_state", n); });
  in.recurrent_mask = given.argument("recurrent_mask", s.B * s.H);
  in.alpha = given.argument("alpha", s.B * s.H, leaks(s.cell));
  in.lengths = static_cast<const int32_t*>(
      given.argument("lengths", s.B, false, ffi::DataType::S32));
  in.resets = static_cast<const uint8_t*>(
      given.argument("resets", s.T * s.B, false, ffi::DataType::PRED));
  return in;
}

JrnnSizes sizes(int64_t T, int64_t B, int64_t I, int64_t H, int64_t slices, int64_t cell,
                int64_t phi, int64_t input, int64_t wanted) {
  JrnnSizes s = {};
  s.T = T, s.B = B, s.I = I, s.H = H;
  s.slices = static_cast<int32_t>(slices), s.cell = static_cast<int32_t>(cell);
  s.phi = static_cast<int32_t>(phi), s.input = static_cast<int32_t>(input);
  s.wanted = static_cast<int32_t>(wanted);
  return s;
}

constexpr const char* kNoCore = "jrnn native kernel: this processor lacks its instructions";

/* The end of a call: the scratch, the last result; all phases, if every buffer fits. */
template <typename Pass, typename Args>
ffi::Error ended(ffi::ThreadPool& pool, const Pass& pass, Args& args, Buffers& given) {
  int64_t bytes = static_cast<int64_t>(pass.scratch_bytes(&args.sizes));
  args.scratch = given.result("scratch", bytes, bytes > 0, ffi::DataType::U8);
  if (!given.error().empty()) return invalid(given.error());
  ask_for_huge_pages(given.results());
  run_pass(pool, pass, args);
  return ffi::Error::Success();
}

ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                   int64_t isa, int64_t bits, int64_t T, int64_t B, int64_t I, int64_t H,
                   int64_t slices, int64_t cell, int64_t phi, int64_t input, int64_t keep_gates) {
  JrnnForward args = {};
  args.sizes = sizes(T, B, I, H, slices, cell, phi, input, 0);
  if (!within(args.sizes)) return invalid("jrnn native kernel: sizes or options out of range");
  const JrnnReal* real = real_of(isa, bits, args.sizes);
  if (real == nullptr) return invalid(kNoCore);
  ArrayTypes types = types_of(bits);
  Buffers given(arguments, results, types.real);
  args.in = inputs(args.sizes, given);
  bool kept = keeps(args.sizes.cell, bits == kBf16);
  args.hs = given.result("hs", T * B * H, true, types.stored);
  args.kept = given.result("kept", kept ? T * B * H : 0, kept);
  for (int n = 0; n < gates_of(args.sizes.cell) && keep_gates; ++n)
    args.gates[n] = given.result("gates", T * B * H, true);
  states(args.sizes, args.last, [&](int64_t n) { return given.result("last", n, n > 0); });
  return ended(pool, real->forward, args, given);
}

ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                    int64_t isa, int64_t bits, int64_t T, int64_t B, int64_t I, int64_t H,
                    int64_t slices, int64_t cell, int64_t phi, int64_t input, int64_t wanted,
                    double clip_delta) {
  JrnnBackward args = {};
  args.sizes = sizes(T, B, I, H, slices, cell, phi, input, wanted);
  if (!within(args.sizes)) return invalid("jrnn native kernel: sizes or options out of range");
  const JrnnReal* real = real_of(isa, bits, args.sizes);
  if (real == nullptr) return invalid(kNoCore);
  ArrayTypes types = types_of(bits);
  Buffers given(arguments, results, types.real);
  args.in = inputs(args.sizes, given);
  bool kept = keeps(args.sizes.cell, bits == kBf16);
  args.hs = given.argument("hs", T * B * H, true, types.stored);
  CellBlocks blocks = blocks_of(args.sizes.cell);
  int64_t fed = blocks.each * H;
  args.kept = given.argument("kept", kept ? T * B * H : 0, kept);
  for (int n = 0; n < gates_of(args.sizes.cell); ++n) args.gates[n] = given.argument("gates", T * B * H, true);
  args.dhs = given.argument("dhs", T * B * H, false, types.stored);
  states(args.sizes, args.d_last, [&](int64_t n) { return given.argument("d_last", n); });
  args.clip_delta = clip_delta;
  args.dw_ih = given.result("dw_ih", I * fed);
  args.dw_hh = given.result("dw_hh", H * fed);
  args.db = given.result("db", blocks.all * H);
  args.dx = given.result("dx", T * B * (input == JRNN_ADDED ? fed : I), wanted & JRNN_WANT_DX);
  states(args.sizes, args.d_start, [&](int64_t n) { return given.result("d_start", n); });
  states(args.sizes, args.d_reset_state, [&](int64_t n) { return given.result("d_reset_state", n); });
  args.d_mask = given.result("d_mask", B * H);
  args.d_alpha = given.result("d_alpha", B * H, wanted & JRNN_WANT_DALPHA);
  return ended(pool, real->backward, args, given);
}

/* `bits` is 32 or 64: of bfloat16 there are no losses. */
bool within(const JrnnLossSizes& s, int64_t bits) {
  return s.N >= 1 && s.H >= 1 && s.O >= 1 && s.slices >= 1 && bits != kBf16;
}

ffi::Error loss(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                int64_t isa, int64_t bits, int64_t N, int64_t H, int64_t O, int64_t slices) {
  JrnnLoss args = {};
  args.sizes = {N, H, O, static_cast<int32_t>(slices)};
  if (!within(args.sizes, bits)) return invalid("jrnn native kernel: sizes or options out of range");
  const JrnnReal* real = real_of(isa, bits, args.sizes);
  if (real == nullptr) return invalid(kNoCore);
  Buffers given(arguments, results, types_of(bits).real);
  args.hs = given.argument("hs", N * H, true);
  args.w_ho = given.argument("w_ho", H * O, true);
  args.b_o = given.argument("b_o", O);
  args.labels = static_cast<const int32_t*>(given.argument("labels", N, true, ffi::DataType::S32));
  args.losses = given.result("losses", N, true);
  args.deltas = given.result("deltas", N * O);
  return ended(pool, real->loss, args, given);
}

ffi::Error loss_gradient(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                         int64_t isa, int64_t bits, int64_t N, int64_t H, int64_t O, int64_t slices) {
  JrnnLossGradient args = {};
  args.sizes = {N, H, O, static_cast<int32_t>(slices)};
  if (!within(args.sizes, bits)) return invalid("jrnn native kernel: sizes or options out of range");
  const JrnnReal* real = real_of(isa, bits, args.sizes);
  if (real == nullptr) return invalid(kNoCore);
  Buffers given(arguments, results, types_of(bits).real);
  args.hs = given.argument("hs", N * H, true);
  args.w_ho = given.argument("w_ho", H * O, true);
  args.deltas = given.argument("deltas", N * O, true);
  args.dlosses = given.argument("dlosses", N, true);
  args.dhs = given.result("dhs", N * H);
  args.dw_ho = given.result("dw_ho", H * O, true);
  args.db_o = given.result("db_o", O);
  return ended(pool, real->loss_gradient, args, given);
}

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .RemainingRets()
      .Attr<int64_t>("isa")
      .Attr<int64_t>("bits");
}

auto loss_options() {
  return binding().Attr<int64_t>("N").Attr<int64_t>("H").Attr<int64_t>("O").Attr<int64_t>("slices");
}

auto options() {
  return binding()
      .Attr<int64_t>("T")
      .Attr<int64_t>("B")
      .Attr<int64_t>("I")
      .Attr<int64_t>("H")
      .Attr<int64_t>("slices")
      .Attr<int64_t>("cell")
      .Attr<int64_t>("phi")
      .Attr<int64_t>("input");
}

}  // namespace
}  // namespace jrnn

#define JRNN_PUBLIC extern "C" __attribute__((visibility("default")))

JRNN_PUBLIC XLA_FFI_Error* JrnnForwardHandler(XLA_FFI_CallFrame*);
JRNN_PUBLIC XLA_FFI_Error* JrnnBackwardHandler(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JrnnForwardHandler, jrnn::forward,
                              jrnn::options().Attr<int64_t>("keep_gates"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(JrnnBackwardHandler, jrnn::backward,
                              jrnn::options().Attr<int64_t>("wanted").Attr<double>("clip_delta"));

JRNN_PUBLIC XLA_FFI_Error* JrnnLossHandler(XLA_FFI_CallFrame*);
JRNN_PUBLIC XLA_FFI_Error* JrnnLossGradientHandler(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JrnnLossHandler, jrnn::loss, jrnn::loss_options());
XLA_FFI_DEFINE_HANDLER_SYMBOL(JrnnLossGradientHandler, jrnn::loss_gradient, jrnn::loss_options());

#define JRNN_TEXT_(x) #x
#define JRNN_TEXT(x) JRNN_TEXT_(x)

/* What the library was built from: FFI version, package version, hash of the sources. */
JRNN_PUBLIC const char* jrnn_native_build() {
  return JRNN_TEXT(XLA_FFI_API_MAJOR) "." JRNN_TEXT(XLA_FFI_API_MINOR) " " JRNN_VERSION
                                      " " JRNN_SOURCE_HASH;
}

/* 1024 for AVX-512 with tiles of AMX, 512 for AVX-512, 2 for AVX2, 0 for none. */
JRNN_PUBLIC int64_t jrnn_native_isa() {
  for (int64_t isa : {jrnn::kTiles, jrnn::kAvx512, jrnn::kAvx2})
    if (jrnn::supports(isa)) return isa;
  return 0;
}

/* Whether the processor multiplies bfloat16. */
JRNN_PUBLIC int64_t jrnn_native_has_bfloat16(int64_t isa) { return jrnn::has_bfloat16(isa); }

/* Bytes of scratch of a pass; -1 for a processor without the instructions. */
JRNN_PUBLIC int64_t jrnn_native_scratch_bytes(
    int64_t isa, int64_t bits, int64_t backward, int64_t T, int64_t B, int64_t I, int64_t H,
    int64_t slices, int64_t cell, int64_t phi, int64_t input, int64_t wanted) {
  JrnnSizes s = jrnn::sizes(T, B, I, H, slices, cell, phi, input, wanted);
  if (!jrnn::within(s)) return -1;
  const JrnnReal* real = jrnn::real_of(isa, bits, s);
  if (real == nullptr) return -1;
  size_t bytes = backward ? real->backward.scratch_bytes(&s) : real->forward.scratch_bytes(&s);
  return static_cast<int64_t>(bytes);
}

/* The same of the losses, or of their gradients. */
JRNN_PUBLIC int64_t jrnn_native_loss_scratch_bytes(int64_t isa, int64_t bits, int64_t gradient,
                                                   int64_t N, int64_t H, int64_t O,
                                                   int64_t slices) {
  JrnnLossSizes s = {N, H, O, static_cast<int32_t>(slices)};
  if (!jrnn::within(s, bits)) return -1;
  const JrnnReal* real = jrnn::real_of(isa, bits, s);
  if (real == nullptr) return -1;
  size_t bytes = gradient ? real->loss_gradient.scratch_bytes(&s) : real->loss.scratch_bytes(&s);
  return static_cast<int64_t>(bytes);
}
