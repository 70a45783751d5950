// Fibers, made with ucontext and switched with setjmp, which does without system calls.
#include "emulated_device.h"

#include <setjmp.h>
#include <ucontext.h>

#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ciss {
namespace cuda {
namespace emulation {

Place place;

namespace {

constexpr size_t STACK_BYTES = 256 * 1024;
enum class State { ready, at_warp, at_block, finished };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t context;
  jmp_buf point;
  bool started = false;
  State state = State::ready;
  const char* instruction = "";
};

std::vector<Fiber> fibers;
std::vector<uint64_t> exchanged;  // [warps][2][32]
std::vector<uint8_t> turn;        // [threads]: which of the two
std::vector<unsigned char> shared;
ucontext_t main_context;
jmp_buf main_point;
int current = 0;
const std::function<void()>* body = nullptr;

void start() {
  (*body)();
  fibers[size_t(current)].state = State::finished;
  _longjmp(main_point, 1);
}

void resume(int thread) {
  Fiber& fiber = fibers[size_t(thread)];
  current = thread;
  place.thread.x = unsigned(thread);
  if (_setjmp(main_point)) return;
  if (fiber.started) _longjmp(fiber.point, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}

[[noreturn]] void fail(const char* name, const std::string& what) {
  throw std::runtime_error(std::string(name) + ", block " + std::to_string(place.block.x) + ", " +
                           std::to_string(place.block.y) + ": " + what);
}

// Lets go those of threads [first, end) that wait, if all of them do, at the same instruction.
bool release(const char* name, int first, int end, State waiting) {
  for (int i = first; i < end; i++)
    if (fibers[size_t(i)].state != waiting) return false;
  for (int i = first; i < end; i++) {
    if (std::strcmp(fibers[size_t(i)].instruction, fibers[size_t(first)].instruction) != 0)
      fail(name, std::string("threads wait at ") + fibers[size_t(first)].instruction + " and at " +
                     fibers[size_t(i)].instruction);
    fibers[size_t(i)].state = State::ready;
  }
  return true;
}

void run_block(const char* name, int threads, bool descending) {
  for (int i = 0; i < threads; i++) {
    Fiber& fiber = fibers[size_t(i)];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = &main_context;
    makecontext(&fiber.context, start, 0);
    fiber.started = false;
    fiber.state = State::ready;
    turn[size_t(i)] = 0;
  }
  int unfinished = threads;
  while (unfinished > 0) {
    bool progress = false;
    for (int k = 0; k < threads; k++) {
      const int i = descending ? threads - 1 - k : k;
      if (fibers[size_t(i)].state != State::ready) continue;
      resume(i);
      progress = true;
      unfinished -= fibers[size_t(i)].state == State::finished;
    }
    for (int first = 0; first < threads; first += 32) progress |= release(name, first, first + 32, State::at_warp);
    progress |= release(name, 0, threads, State::at_block);
    if (!progress) fail(name, "some threads wait for others that do not come");
  }
}

}  // namespace

unsigned char* shared_memory() { return shared.data(); }

void wait(bool warp, const char* instruction) {
  Fiber& fiber = fibers[size_t(current)];
  fiber.state = warp ? State::at_warp : State::at_block;
  fiber.instruction = instruction;
  if (!_setjmp(fiber.point)) _longjmp(main_point, 1);
}

const uint64_t* exchange(uint64_t value, const char* instruction) {
  // Two buffers in turn: a lane can write one again only after all have passed the other's barrier.
  const int thread = current;
  uint64_t* const values = exchanged.data() + (thread / 32 * 2 + (turn[size_t(thread)] ^= 1)) * 32;
  values[thread % 32] = value;
  wait(true, instruction);
  return values;
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  if (exponent == 31) return from_bits<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) return (sign ? -1.f : 1.f) * float(mantissa) * 5.9604644775390625e-8f;
  return from_bits<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

void run(const char* name, int64_t grid_x, int64_t grid_y, int threads, size_t shared_bytes,
         const std::function<void()>& kernel) {
  if (threads % 32) throw std::runtime_error(std::string(name) + ": expected whole warps");
  int limit = 0;
  cudaDeviceGetAttribute(&limit, 0, 0);
  if (shared_bytes > size_t(limit))
    throw std::runtime_error(std::string(name) + ": too much shared memory, " + std::to_string(shared_bytes));
  if (const char* const log = std::getenv("CISS_FAST_EMULATION_LOG"))
    std::ofstream(log, std::ios::app) << name << ' ' << grid_x << ' ' << grid_y << ' ' << threads << ' ' << shared_bytes
                                      << '\n';
  const char* const order = std::getenv("CISS_FAST_EMULATION_ORDER");
  const bool descending = order && std::string(order) == "descending";
  while (fibers.size() < size_t(threads)) {
    fibers.emplace_back();
    fibers.back().stack.reset(new char[STACK_BYTES]);
  }
  turn.resize(fibers.size());
  exchanged.resize(fibers.size() * 2);
  body = &kernel;
  place.block_size = {unsigned(threads), 1, 1};
  place.grid_size = {unsigned(grid_x), unsigned(grid_y), 1};
  for (int64_t y = 0; y < grid_y; y++)
    for (int64_t x = 0; x < grid_x; x++) {
      place.block = {unsigned(x), unsigned(y), 0};
      shared.assign(shared_bytes + 16, 0xff);
      run_block(name, threads, descending);
    }
}

}  // namespace emulation
}  // namespace cuda
}  // namespace ciss
