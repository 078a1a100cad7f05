/* Tasks on the threads of XLA's pool and on the thread that calls.

   A pool runs what is queued when a thread is free, which may be long after the call has ended, or
   never while the call waits. So a queued helper only takes tasks that nobody took, and the caller
   takes tasks too: it ends when all are done, whatever becomes of the helpers. A helper that starts
   late finds no task and touches nothing but the block that it shares. */
#ifndef JRNN_NATIVE_POOL_H
#define JRNN_NATIVE_POOL_H

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace jrnn {

constexpr std::chrono::microseconds kSpin{50};  // then the caller sleeps, and frees its core

/* The tasks of one phase, which the caller and its helpers share. */
class Tasks {
 public:
  Tasks(int32_t count, void (*run)(const void*, int32_t), const void* args)
      : count_(count), run_(run), args_(args) {}

  /* Runs tasks until all are taken. `args` lives as long as a task is not done. */
  void take() {
    for (int32_t n; (n = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
      run_(args_, n);
      if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_one();
      }
    }
  }

  void wait() {
    auto end = std::chrono::steady_clock::now() + kSpin;
    while (!finished()) {
      if (std::chrono::steady_clock::now() > end) {
        std::unique_lock<std::mutex> lock(mutex_);
        all_done_.wait(lock, [this] { return finished(); });
        return;
      }
    }
  }

 private:
  bool finished() const { return done_.load(std::memory_order_acquire) == count_; }

  std::atomic<int32_t> next_{0}, done_{0};
  const int32_t count_;
  void (*const run_)(const void*, int32_t);
  const void* const args_;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

inline void run_tasks(xla::ffi::ThreadPool& pool, int32_t count,
                      void (*run)(const void*, int32_t), const void* args) {
  if (count == 1) return run(args, 0);
  if (count < 1) return;
  auto tasks = std::make_shared<Tasks>(count, run, args);
  int64_t helpers = std::min<int64_t>(count - 1, std::max<int64_t>(pool.num_threads(), 0));
  for (int64_t n = 0; n < helpers; ++n) pool.Schedule([tasks] { tasks->take(); });
  tasks->take();
  tasks->wait();
}

}  // namespace jrnn

#endif
