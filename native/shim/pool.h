/* The tasks of a pass on the threads of XLA's pool and on the thread that calls.

   A pool runs what is queued when a thread is free, which may be long after the call has ended, or
   never while the call waits. So a queued helper only takes tasks that nobody took, and the caller
   takes tasks too: a phase ends when all its tasks are done, whatever becomes of the helpers. A helper
   that starts late finds no task and touches nothing but the block that it shares.

   To wake a thread takes 10 to 50 us, as long as a phase of a small network. So a helper stays for the
   phases of a pass, and those of the next phase are woken while the caller packs the weights. */
#ifndef JRNN_NATIVE_POOL_H
#define JRNN_NATIVE_POOL_H

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

namespace jrnn {

constexpr std::chrono::microseconds kSpin{50};  // then a thread that waits frees its core

/* What the caller of a pass and its helpers share. Tasks are counted over all phases. */
class Tasks {
 public:
  using Run = void (*)(const void* args, int32_t phase, int32_t task);
  Tasks(Run run, const void* args) : run_(run), args_(args) {}

  /* The caller: all tasks of a phase, beside the helpers. */
  void run(int32_t phase, int32_t count) {
    if (count == 1) return run_(args_, phase, 0);
    phase_ = phase, first_ = begun_.load(std::memory_order_relaxed);
    begun_.store(first_ + count, std::memory_order_release);
    take();
    if (spin_until([this] { return finished(); })) return;
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return finished(); });
  }
  void end() { ended_.store(true, std::memory_order_release); }

  /* A helper: tasks of one phase after another, until the pass ends or no phase begins in time. */
  void help() {
    do take();
    while (spin_until([this] { return ended_.load(std::memory_order_acquire) || has_task(); }) && has_task());
    helpers.fetch_sub(1, std::memory_order_relaxed);
  }
  std::atomic<int64_t> helpers{0};  // that are queued or at work

 private:
  /* Runs tasks until all are taken. Phase and `args` stay as they are while a task is not done. */
  void take() {
    for (int64_t n = next_.load(std::memory_order_relaxed); n < begun_.load(std::memory_order_acquire);) {
      if (!next_.compare_exchange_weak(n, n + 1, std::memory_order_relaxed)) continue;
      int64_t all = begun_.load(std::memory_order_relaxed);
      run_(args_, phase_, static_cast<int32_t>(n - first_));
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == all) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_one();
      }
      n = next_.load(std::memory_order_relaxed);
    }
  }
  bool has_task() const {
    return next_.load(std::memory_order_relaxed) < begun_.load(std::memory_order_acquire);
  }
  bool finished() const { return done_.load(std::memory_order_acquire) == begun_.load(std::memory_order_relaxed); }
  template <typename Condition>
  static bool spin_until(Condition holds) {
    auto end = std::chrono::steady_clock::now() + kSpin;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();  // to a thread that has a task, where threads are more than cores
    }
    return true;
  }

  std::atomic<int64_t> begun_{0}, next_{0}, done_{0};
  std::atomic<bool> ended_{false};
  int64_t first_ = 0;  // task of the phase
  int32_t phase_ = 0;
  const Run run_;
  const void* const args_;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

/* All phases of a pass of the core (core.h). */
template <typename Pool, typename Pass, typename Args>
void run_pass(Pool& pool, const Pass& pass, const Args& args) {
  struct Call {
    const Pass& pass;
    const Args& args;
  } call{pass, args};
  auto run = [](const void* p, int32_t phase, int32_t task) {
    auto* call = static_cast<const Call*>(p);
    call->pass.run(&call->args, phase, task);
  };
  auto tasks = std::make_shared<Tasks>(run, &call);
  int64_t threads = pool.num_threads();
  for (int32_t phase = 0, count = pass.tasks(&args.sizes, 0), next; count >= 0; ++phase, count = next) {
    next = pass.tasks(&args.sizes, phase + 1);
    int64_t more = std::min<int64_t>(std::max(count, next) - 1, threads) - tasks->helpers;
    for (; more > 0; --more) {  // counted once: where this is slow, the first ones may have left already
      ++tasks->helpers;
      pool.Schedule([tasks] { tasks->help(); });
    }
    tasks->run(phase, count);
  }
  tasks->end();
}

}  // namespace jrnn

#endif
