// The table of one instruction set. -DJRNN_ISA names it; -march and the macros of objects.cmake say what
// it is. With -DJRNN_BF16 it has the passes for bfloat16 alone, with -DJRNN_AMX as well by tiles.
//
// Everything but the table is in an anonymous namespace: a function that two objects share by a
// weak symbol would be linked once, and perhaps with instructions that the processor does not have.
#include "core.h"

#include "backward.h"
#include "loss.h"

namespace {

template <class Real>
void phi_run(int32_t which, const void* x, void* y, int64_t n) {
  for (int64_t i = 0; i < n; i += W<Real>) {
    const int m = int(smaller<int64_t>(W<Real>, n - i));
    store<Real>((Real*)y + i, phi_of<Real>(which, load<Real>((const Real*)x + i, m)), m);
  }
}

template <class Scratch, class Sizes>
size_t bytes(const Sizes* s) {
  return bytes_of<Scratch>(*s);
}

// A task, which may change the shapes of tiles.
template <class Args, void (*run)(const Args*, int32_t, int32_t)>
void run_task(const Args* args, int32_t phase, int32_t task) {
#if defined(JRNN_AMX)
  const KeptTiles kept;
#endif
  run(args, phase, task);
}

template <class Stored>
constexpr JrnnReal real() {
  JrnnReal all{};
  all.forward = {bytes<ForwardScratch<Stored>>, forward_tasks, run_task<JrnnForward, forward_run<Stored>>};
  all.backward = {bytes<BackwardScratch<Stored>>, backward_tasks, run_task<JrnnBackward, backward_run<Stored>>};
  if constexpr (!is_rounded<Stored>) {
    all.loss = {bytes<LossScratch<Stored>>, loss_tasks, run_task<JrnnLoss, loss_run<Stored>>};
    all.loss_gradient = {bytes<LossGradientScratch<Stored>>, loss_gradient_tasks,
                         run_task<JrnnLossGradient, loss_gradient_run<Stored>>};
  }
  all.phi = phi_run<RealOf<Stored>>;
  return all;
}

}  // namespace

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

#if defined(JRNN_AMX)
extern "C" const JrnnCore JOIN(jrnn_core_, JRNN_ISA) = {TEXT(JRNN_ISA), real<Split>(), {}, real<Bfloat16>()};
#elif defined(JRNN_BF16)
extern "C" const JrnnCore JOIN(jrnn_core_, JRNN_ISA) = {TEXT(JRNN_ISA), {}, {}, real<Bfloat16>()};
#else
extern "C" const JrnnCore JOIN(jrnn_core_, JRNN_ISA) = {TEXT(JRNN_ISA), real<float>(), real<double>(), {}};
#endif
