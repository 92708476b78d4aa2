#ifndef WARPJAX_PIECES_H_
#define WARPJAX_PIECES_H_

// Work over the threads of XLA.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "products.h"
#include "xla/ffi/api/ffi.h"

namespace warpjax {

// The threads of a program, of which a call uses at most so many: with many devices, each has its own share of the
// cores.
struct Threads {
  xla::ffi::ThreadPool& pool;
  const Index most;
};

// Work in pieces, whose number does not depend on the threads, so that sums have one order. The caller takes pieces
// itself, and waits only for those that others have begun.
class Pieces {
 public:
  template <typename F>
  static void Run(Threads& threads, Index count, const F& work) {
    const Index helpers = std::min({count, threads.most, threads.pool.num_threads()}) - 1;
    if (helpers <= 0) {
      for (Index piece = 0; piece < count; ++piece) work(piece);
      return;
    }
    auto state = std::make_shared<Pieces>(count);
    const F* shared = &work;
    for (Index helper = 0; helper < helpers; ++helper) threads.pool.Schedule([state, shared] { state->Take(*shared); });
    state->Take(work);
    std::unique_lock<std::mutex> lock(state->mutex_);
    state->done_.wait(lock, [&] { return state->finished_ == count; });
  }

  explicit Pieces(Index count) : count_(count) {}

 private:
  template <typename F>
  void Take(const F& work) {
    for (Index piece; (piece = next_.fetch_add(1)) < count_;) {
      work(piece);
      std::lock_guard<std::mutex> lock(mutex_);
      if (++finished_ == count_) done_.notify_all();
    }
  }

  const Index count_;
  std::atomic<Index> next_{0};
  Index finished_ = 0;
  std::mutex mutex_;
  std::condition_variable done_;
};

}  // namespace warpjax

#endif  // WARPJAX_PIECES_H_
