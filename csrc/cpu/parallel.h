// Loops over work items on torch's threads, with scratch memory per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>

namespace ciss {

// Scratch memory of the calling thread, aligned to a cache line; grows as needed and is kept for the next call.
inline void* thread_workspace(size_t bytes) {
  struct Buffer {
    void* data = nullptr;
    size_t size = 0;
    ~Buffer() { std::free(data); }
  };
  static thread_local Buffer buffer;
  if (bytes > buffer.size) {
    std::free(buffer.data);
    buffer.size = 0;
    buffer.data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!buffer.data) throw std::bad_alloc();
    buffer.size = bytes;
  }
  return buffer.data;
}

// Calls body(item) for every item. Items must be independent; which thread takes which is not fixed. libgomp is
// shared with torch, so this runs on torch's own pool of threads. An exception (want of memory) is passed on once all
// threads are through: it must not leave a thread's part of the loop.
template <class Body>
void parallel_for(int64_t items, int threads, const Body& body) {
  std::mutex mutex;
  std::exception_ptr failure;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (items > 1 && threads > 1)
#endif
  for (int64_t item = 0; item < items; item++) {
    try {
      body(item);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  }
  (void)threads;
  if (failure) std::rethrow_exception(failure);
}

}  // namespace ciss
